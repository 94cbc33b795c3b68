"""Requests about ranges and flags of files, and what no file system in user space has to serve."""

import errno
import os
from typing import Final

from dkfs.fuse.kernel.entries import (
    Validity,
    extended_attributes,
    virtual_extended_attributes,
)
from dkfs.fuse.kernel.messages import (
    COPY_FILE_RANGE_IN,
    COPY_FILE_RANGE_OUT,
    FALLOCATE_IN,
    IOCTL_COMPAT,
    IOCTL_DIR,
    IOCTL_IN,
    IOCTL_OUT,
    LSEEK_IN,
    LSEEK_OUT,
    STATX_IN,
    SYNCFS_IN,
    WRITE_OUT,
    Op,
)
from dkfs.fuse.kernel.notify import Notifier
from dkfs.fuse.kernel.request import (
    HEADER_SIZE,
    Answer,
    First,
    Handler,
    Request,
    Work,
    error,
    invalid,
    refuse_virtual,
)
from dkfs.fuse.kernel.system import syncfs
from dkfs.overlay.backing import by_fd
from dkfs.overlay.flags import ioctl
from dkfs.overlay.mounted import FileSystem
from dkfs.overlay.ranges import REFUSALS
from dkfs.overlay.virtual import VIRTUAL

_MOST: Final = 0x7FFFF000  # bytes: MAX_RW_COUNT; WRITE_OUT can say no more than 32 bits


class RangeRequests:
    """See the module."""

    def __init__(self, fs: FileSystem, notifier: Notifier | None) -> None:
        """*notifier*, if there is a kernel, is told to write what maps have stored."""
        self._notifier = notifier
        self._table = fs.table
        self._files = fs.files
        self._attributes = fs.attributes
        self._captures = fs.captures
        self._virtual = fs.virtual
        self._recorder = fs.recorder
        self._valid = Validity(fs)

    def handlers(self) -> dict[int, Handler]:
        """Return the handler of each request."""
        copy_size = HEADER_SIZE + COPY_FILE_RANGE_IN.size
        return {
            Op.FALLOCATE: Handler(
                self.fallocate, HEADER_SIZE + FALLOCATE_IN.size, "fallocate", makes_changes=True
            ),
            Op.LSEEK: Handler(self.lseek, HEADER_SIZE + LSEEK_IN.size, "lseek"),
            Op.COPY_FILE_RANGE: Handler(
                self.copy_file_range, copy_size, "copy_file_range", makes_changes=True
            ),
            Op.COPY_FILE_RANGE_64: Handler(
                self.copy_file_range_64, copy_size, "copy_file_range", makes_changes=True
            ),
            Op.IOCTL: Handler(self.ioctl, HEADER_SIZE + IOCTL_IN.size, "ioctl"),
            Op.STATX: Handler(self.statx, HEADER_SIZE + STATX_IN.size, "statx"),
            Op.SYNCFS: Handler(self.syncfs, HEADER_SIZE + SYNCFS_IN.size, "syncfs"),
        }

    def fallocate(self, request: Request) -> Answer:
        number, offset, length, mode, _ = FALLOCATE_IN.unpack_from(request.buffer, HEADER_SIZE)
        refuse_virtual(number)
        offset, length = _signed(offset), _signed(length)
        ranges = self._files.ranges
        first = ranges.reallocating(self._files.handles[number], mode, offset, length)
        if first is not None:
            return First(first, is_look=False)
        try:
            self._files.fallocate(number, mode, offset, length)
        except OSError as exc:
            if exc.errno in REFUSALS or self._notifier is None:
                raise
            return self._half_done(request.node, exc, self._notifier)
        return b""

    def _half_done(self, node: int, failure: OSError, notifier: Notifier) -> Work:
        """Answer with *failure*, of which the kernel thinks that nothing was done: xfs has zeroed, and then had no space."""

        def fail() -> bytes:
            notifier.drop_pages(node)
            raise failure

        return Work(fail)

    def lseek(self, request: Request) -> Answer:
        number, offset, whence, _ = LSEEK_IN.unpack_from(request.buffer, HEADER_SIZE)
        if number >= VIRTUAL:
            size = self._virtual.getattr(request.node).size
            return LSEEK_OUT.pack(_seek(size, _signed(offset), whence))
        if offset >= 1 << 63:
            raise error(errno.ENXIO)  # before the beginning: no data and no hole
        notifier = self._notifier
        inode = self._files.handles[number].inode
        if notifier is None or not inode.handles:
            return LSEEK_OUT.pack(self._files.seek(number, offset, whence))
        length = self._length_of_hole(number, offset, whence)
        if length is None:
            return LSEEK_OUT.pack(self._files.seek(number, offset, whence))
        node = inode.id

        def seek() -> bytes:
            # What a map has stored may be in the kernel's pages only, and would be taken for a hole.
            notifier.drop_pages(node, offset, length)
            return LSEEK_OUT.pack(self._files.seek(number, offset, whence))

        return Work(seek, can_be_given_up=True)

    def _length_of_hole(self, number: int, offset: int, whence: int) -> int | None:
        """Return for how many bytes from *offset* on something may be missing in the file, 0: to its end; None if nothing is."""
        try:
            found = self._files.seek(number, offset, whence)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # nothing but a hole follows
                return 0
            raise
        if whence == os.SEEK_DATA:
            return found - offset or None
        return 0 if found < os.fstat(self._files.handles[number].fd).st_size else None

    def copy_file_range(self, request: Request) -> Answer:
        copied = self._copied(request)
        return WRITE_OUT.pack(copied, 0) if isinstance(copied, int) else copied

    def copy_file_range_64(self, request: Request) -> Answer:
        copied = self._copied(request)
        return COPY_FILE_RANGE_OUT.pack(copied) if isinstance(copied, int) else copied

    def _copied(self, request: Request) -> int | First:
        source, source_offset, _, target, target_offset, length, flags = (
            COPY_FILE_RANGE_IN.unpack_from(request.buffer, HEADER_SIZE)
        )
        if flags:
            raise invalid()
        refuse_virtual(target)
        if source >= VIRTUAL:
            raise error(errno.EXDEV)  # the kernel copies by reading and writing
        source_offset, target_offset = _signed(source_offset), _signed(target_offset)
        length = min(length, _MOST)
        files = self._files
        first = files.ranges.copying(files.handles[target], target_offset, length)
        if first is not None:
            return First(first, is_look=False)
        return files.copy_range(source, source_offset, target, target_offset, length)

    def ioctl(self, request: Request) -> bytes:
        number, flags, command, _, in_size, out_size = IOCTL_IN.unpack_from(
            request.buffer, HEADER_SIZE
        )
        at = HEADER_SIZE + IOCTL_IN.size
        if at + in_size > request.size:
            raise invalid()
        if number >= VIRTUAL or flags & IOCTL_COMPAT:
            raise error(errno.ENOTTY)
        data = bytes(request.view[at : at + in_size])
        if flags & IOCTL_DIR:
            result = self._ioctl_of_directory(request.node, command, data, out_size)
        else:
            result = self._files.ioctl(number, command, data, out_size)
        return IOCTL_OUT.pack(0, 0, 0, 0) + result

    def _ioctl_of_directory(self, number: int, command: int, data: bytes, room: int) -> bytes:
        path = by_fd(self._table.fd(self._table[number]))
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return ioctl(fd, command, data, room)
        finally:
            os.close(fd)

    def statx(self, request: Request) -> bytes:
        number = request.node
        if number >= VIRTUAL:
            # Not ENOSYS: the kernel would not ask again, of no file.
            return virtual_extended_attributes(self._virtual.getattr(number))
        inode = self._table[number]
        status = self._attributes.get(inode)
        valid_s = self._valid.attributes_s(inode)
        return extended_attributes(status, number, valid_s, self._attributes.born(inode))

    def syncfs(self, request: Request) -> Answer:
        first = self._captures.before_all()
        if first is not None:
            return First(first)
        seq = self._attributes.syncfs()
        recorder, root_fd = self._recorder, self._table.root.fd

        def sync() -> bytes:
            recorder.hurry()
            syncfs(root_fd)
            recorder.wait(seq)
            recorder.refuse_any_lost()
            return b""

        return Work(sync, can_be_given_up=True)


def _seek(size: int, offset: int, whence: int) -> int:
    """Return where data, or a hole, begins in a file of *size* bytes without holes; raises OSError."""
    if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
        raise invalid()
    if offset >= size:
        raise error(errno.ENXIO)
    return offset if whence == os.SEEK_DATA else size


def _signed(value: int) -> int:
    """Return what the kernel, whose loff_t is signed, sent as *value*; raises OSError(EINVAL)."""
    if value >= 1 << 63:
        raise invalid()
    return value
