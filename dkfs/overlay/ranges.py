"""What can be done to a range of an open file: give it space or a hole, shift it, copy it, look for data in it.

Each leaves behind exactly which bytes changed, and saves those that a version waits for.
"""

import errno
import os
from collections.abc import Callable

from dkfs.failpoints import failpoint
from dkfs.overlay import backing
from dkfs.overlay.captures import Captures
from dkfs.overlay.handles import Handle
from dkfs.overlay.journal import Journal
from dkfs.overlay.privileges import drop

# linux/falloc.h
KEEP_SIZE = 0x01
PUNCH_HOLE = 0x02
COLLAPSE_RANGE = 0x08
ZERO_RANGE = 0x10
INSERT_RANGE = 0x20
UNSHARE_RANGE = 0x40
_MODES = KEEP_SIZE | PUNCH_HOLE | COLLAPSE_RANGE | ZERO_RANGE | INSERT_RANGE | UNSHARE_RANGE
_SHIFTS = COLLAPSE_RANGE | INSERT_RANGE

# Nothing was changed when one of these is fallocate's answer.  A full disk may have let a part be done.
REFUSALS = frozenset(
    (
        *(errno.EBADF, errno.EFBIG, errno.EINVAL, errno.ENODEV, errno.ENOSYS, errno.EOPNOTSUPP),
        *(errno.EPERM, errno.ETXTBSY),
    )
)
# Where the backing file system copies instead of sharing, others wait meanwhile: 3 ms.
_COPY_MOST = 8 * 1024 * 1024  # bytes
_PIECE = 1024 * 1024  # bytes, of what dkfs has to copy by itself


class Ranges:
    """See the module; all raise OSError."""

    def __init__(self, journal: Journal, captures: Captures) -> None:
        self._journal = journal
        self._captures = captures
        self._copying: set[int] = set()  # devices whose files cannot share what they hold

    def fallocate(self, handle: Handle, mode: int, offset: int, length: int) -> None:
        """Change the space of [offset, offset + length) as fallocate(2) with *mode*."""
        if mode & ~_MODES:
            # What it would do to the contents is not known.
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if offset < 0 or length <= 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        inode, before = handle.inode, os.fstat(handle.fd)
        end = offset + length
        if mode & _SHIFTS:
            self._captures.before_truncate(inode, offset)
        elif mode & (PUNCH_HOLE | ZERO_RANGE):
            self._captures.before_large_change(inode, offset, end)
        try:
            failpoint("backing.fallocate")
            backing.fallocate(handle.fd, mode, offset, length)
        except OSError as exc:
            if exc.errno in REFUSALS:
                raise
            self._reallocated(handle, mode, offset, end, before)
            raise
        self._reallocated(handle, mode, offset, end, before)  # first: it is done, whatever fails
        if not inode.plain:
            drop(self._journal, inode, handle.fd, handle.origin)

    def reallocating(
        self, handle: Handle, mode: int, offset: int, length: int
    ) -> Callable[[], None] | None:
        """Return what to wait for before fallocate(), see Captures.waiting()."""
        if mode & _SHIFTS:
            return self._captures.waiting(handle.inode, offset)
        if mode & (PUNCH_HOLE | ZERO_RANGE):
            return self._captures.waiting(handle.inode, offset, offset + length)
        return None

    def _reallocated(
        self, handle: Handle, mode: int, offset: int, end: int, before: os.stat_result
    ) -> None:
        """Note what fallocate() has changed, or may have before it failed."""
        after = os.fstat(handle.fd)
        if mode & _SHIFTS:
            # What is cut off, too: the file may grow again before it is captured.
            start, end = offset, max(before.st_size, after.st_size)
        elif mode & (PUNCH_HOLE | ZERO_RANGE):
            start, end = offset, min(end, after.st_size)
        elif (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            start = end = offset  # a capture finds by itself what a file grew by
        else:
            return  # it got space and nothing else
        self._captures.written(handle, start, max(start, end))
        handle.wrote = True
        handle.is_halfway = False

    def seek(self, handle: Handle, offset: int, whence: int) -> int:
        """Return the next data or hole, as lseek(2) with SEEK_DATA or SEEK_HOLE."""
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return os.lseek(handle.fd, offset, whence)

    def copy(
        self, source: Handle, source_offset: int, target: Handle, target_offset: int, length: int
    ) -> int:
        """Copy as copy_file_range(2); return how many bytes were copied, maybe less than *length*.

        The kernel refuses a target that only appends: it alone knows whether it still does.
        """
        if not source.readable or not target.writable:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        size = os.fstat(source.fd).st_size
        length = min(length, size - source_offset)
        if source_offset < 0 or target_offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if length <= 0:
            return 0
        if source.inode is target.inode and abs(source_offset - target_offset) < length:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        inode = target.inode
        if not inode.plain:
            drop(self._journal, inode, target.fd, target.origin)
        copied = 0
        if length > _COPY_MOST and inode.dev not in self._copying:
            copied = self._clone(source, source_offset, target, target_offset, length)
        if not copied:
            length = min(length, _COPY_MOST)
            self._captures.before_large_change(inode, target_offset, target_offset + length)
            copied = _copy(source.fd, source_offset, target.fd, target_offset, length)
        self._captures.written(target, target_offset, target_offset + copied)
        target.wrote = True
        target.is_halfway = False
        return copied

    def copying(self, target: Handle, offset: int, length: int) -> Callable[[], None] | None:
        """Return what to wait for before copy(), see Captures.waiting()."""
        if length <= _COPY_MOST or target.inode.dev in self._copying:
            return None
        return self._captures.waiting(target.inode, offset, offset + length)

    def _clone(
        self, source: Handle, source_offset: int, target: Handle, target_offset: int, length: int
    ) -> int:
        """Let *target* share all *length* bytes; return 0 if that cannot be done."""
        self._captures.before_large_change(target.inode, target_offset, target_offset + length)
        try:
            failpoint("backing.clone")
            backing.clone_range(source.fd, source_offset, target.fd, target_offset, length)
        except OSError as exc:
            if exc.errno in (errno.EOPNOTSUPP, errno.ENOTTY):
                self._copying.add(target.inode.dev)
            elif exc.errno not in (
                errno.EXDEV,
                errno.EINVAL,
            ):  # another device; not in whole blocks
                raise
            return 0
        return length


def _copy(source: int, source_offset: int, target: int, target_offset: int, length: int) -> int:
    try:
        failpoint("backing.copy")
        return os.copy_file_range(source, target, length, source_offset, target_offset)
    except OSError as exc:
        if exc.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    return os.pwrite(target, os.pread(source, min(_PIECE, length), source_offset), target_offset)
