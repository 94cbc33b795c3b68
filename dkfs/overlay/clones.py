"""Clones of backing files, where their file system shares blocks (FICLONE: xfs, btrfs), and what lies where in them.

A clone has no name (O_TMPFILE): nothing of it is left when dkfs is killed.
"""

import ctypes
import errno
import fcntl
import os
import struct
from typing import Final

from dkfs.core.extent_map import Mapped

TMPFS: Final = 0x01021994  # linux/magic.h

_FICLONE: Final = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_FIEMAP: Final = 0xC020660B  # _IOWR('f', 11, struct fiemap)
# linux/fiemap.h: start, length, flags, mapped_extents, extent_count, reserved
_HEAD: Final = struct.Struct("=QQIIII")
_EXTENT: Final = struct.Struct("=QQQ16xI12x")  # logical, physical, length, flags
_AT_ONCE: Final = 512  # extents
_LAST: Final = 0x1
_UNSURE: Final = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400
# ^ UNKNOWN, DELALLOC, ENCODED, DATA_ENCRYPTED, NOT_ALIGNED, DATA_INLINE, DATA_TAIL
_UNWRITTEN: Final = 0x800

_SYNC_FILE_RANGE_WRITE: Final = 2
_NO_ATTRIBUTE: Final = b"user.dkfs.none"
_STATFS_SIZE: Final = 256  # bytes, at least that of struct statfs, whose first word is the type
_CACHESTAT: Final = 451  # the system call, on every architecture
_RANGE: Final = struct.Struct("=QQ")
_CACHE: Final = struct.Struct("=QQQQQ")  # cached, dirty, under writeback, evicted, recently evicted

# No clones here, ever: not this file system, or not these two mounts.
NO_CLONES: Final = frozenset(
    (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EISDIR)
)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def nameless(directory: int) -> int:
    """Return an fd of a new file without a name on the file system of *directory*; raises OSError."""
    return os.open(b".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)


def clone(fd: int, directory: int) -> int:
    """Return an fd of a clone of *fd* as it is at one instant, without a name; raises OSError.

    What was written to the file and not to the disk is written first.
    """
    made = nameless(directory)
    try:
        fcntl.ioctl(made, _FICLONE, fd)
    except OSError:
        os.close(made)
        raise
    return made


def extent_map(fd: int) -> list[Mapped]:
    """Return what of a clone lies where; raises OSError."""
    found: list[Mapped] = []
    at = 0
    while True:
        buffer = bytearray(_HEAD.size + _AT_ONCE * _EXTENT.size)
        _HEAD.pack_into(buffer, 0, at, (1 << 63) - at, 0, 0, _AT_ONCE, 0)
        fcntl.ioctl(fd, _FIEMAP, buffer)
        count = _HEAD.unpack_from(buffer)[3]
        for index in range(count):
            start, physical, length, flags = _EXTENT.unpack_from(
                buffer, _HEAD.size + index * _EXTENT.size
            )
            found.append(
                Mapped(
                    start,
                    start + length,
                    physical,
                    is_zero=bool(flags & _UNWRITTEN),
                    is_sure=not flags & _UNSURE,
                )
            )
            if flags & _LAST:
                return found
            at = start + length
        if not count:
            return found


def protect(fd: int) -> None:
    """Have dirty pages written, without waiting: a store through a map after this changes the file's times.

    Without it a store into a page that is dirty already does not.
    """
    _libc.sync_file_range(fd, 0, 0, _SYNC_FILE_RANGE_WRITE)


def finish_writes(fd: int) -> None:
    """Wait for every write(2) to the file *fd* that has begun: they hold its lock, which removing an attribute takes.

    A write moves the file's time when it begins, not when it ends.
    """
    try:
        os.removexattr(fd, _NO_ATTRIBUTE)
    except OSError:
        pass  # there is no such attribute; the lock was taken all the same


def unwritten_pages(fd: int) -> int:
    """Return how many pages of *fd* are not on the disk; more than any if that cannot be known (before Linux 6.5)."""
    span = ctypes.create_string_buffer(_RANGE.pack(0, 0))
    answer = ctypes.create_string_buffer(_CACHE.size)
    if _libc.syscall(ctypes.c_long(_CACHESTAT), fd, span, answer, 0) != 0:
        return 1 << 62
    _, dirty, writeback, _, _ = _CACHE.unpack(answer.raw)
    return int(dirty + writeback)


def file_system(fd: int) -> int:
    """Return the type of the file system of *fd*, as in linux/magic.h; 0 if it cannot be known."""
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    if _libc.fstatfs(fd, buffer) != 0:
        return 0
    return int(ctypes.c_long.from_buffer(buffer).value)
