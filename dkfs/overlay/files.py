"""Open files: read, write, flush, fsync, release, and what ranges and flags do."""

import errno
import fcntl
import os

from dkfs.core.io_mode import OpenKind
from dkfs.failpoints import failpoint
from dkfs.model.ids import Seq
from dkfs.overlay.backing import by_fd
from dkfs.overlay.flags import ioctl
from dkfs.overlay.handles import Handle, HandleTable
from dkfs.overlay.inodes import Inode, InodeTable
from dkfs.overlay.journal import Journal
from dkfs.overlay.origin import Caller
from dkfs.overlay.passed import PassedCaptures
from dkfs.overlay.privileges import drop
from dkfs.overlay.ranges import Ranges

# Not for the backing directory: the kernel computes the offset of an append, dkfs's buffers are not
# aligned for O_DIRECT, and O_SYNC is an fsync that the store has a part in.
_NOT_PASSED = (
    os.O_APPEND | os.O_DIRECT | os.O_SYNC | os.O_DSYNC | os.O_NOCTTY | os.O_EXCL | os.O_CREAT
) | (
    # Linux asks for neither in an open; it would be no open file, or another one.
    os.O_PATH | (os.O_TMPFILE & ~os.O_DIRECTORY)
)
# An application's write reaches dkfs in parts if it begins within a page that the kernel has not read, or is longer than a
# request may be; all parts but the last then end with a page.
_IN_PAGE = 4095
_CUT = 128 * 1024 - _IN_PAGE  # bytes, at least, of a part that is as long as may be
_ALWAYS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def backing_flags(flags: int) -> int:
    """Return the flags with which the backing file is opened for an application's *flags*."""
    if flags & os.O_ACCMODE == os.O_WRONLY:
        # What was written is read again when it is captured.
        flags = flags & ~os.O_ACCMODE | os.O_RDWR
    return flags & ~_NOT_PASSED | _ALWAYS


class Files:
    """The files that applications have open."""

    def __init__(self, table: InodeTable, journal: Journal, captures: PassedCaptures) -> None:
        self._table = table
        self._journal = journal
        self._captures = captures
        self.ranges = Ranges(journal, captures)
        self.handles: HandleTable[Handle] = HandleTable()

    def open(self, inode: Inode, flags: int, caller: Caller, *, kill: bool | None = None) -> int:
        """Open *inode* and return the number of the handle; raises OSError.

        *kill*, here and below: see privileges.drop().
        """
        writes = (flags & os.O_ACCMODE) != os.O_RDONLY
        size = 0
        if flags & os.O_TRUNC:
            size = os.fstat(self._table.fd(inode)).st_size
            if inode.frozen:
                self._captures.before_truncate(inode, 0)
        failpoint("backing.open")
        fd = self._open_backing(inode, flags)
        if writes and not flags & os.O_TRUNC:
            size = os.fstat(fd).st_size
        try:
            number = self.opened(inode, fd, flags, caller, size)
        except BaseException:
            os.close(fd)
            raise
        if flags & os.O_TRUNC:
            try:
                self._emptied(self.handles[number], size, kill=kill)
            except BaseException:
                self.release(number)
                raise
        return number

    def _emptied(self, handle: Handle, size: int, *, kill: bool | None) -> None:
        """Note that opening *handle* has truncated its file, of *size* bytes; first of all: it is done."""
        inode = handle.inode
        if handle.writable:
            # An empty file too: its mtime changes.
            self._captures.written(handle, 0, size)
        else:  # O_RDONLY | O_TRUNC truncates too
            self._captures.truncated(inode, handle.fd, size, handle.origin)
        if not inode.plain:
            drop(self._journal, inode, handle.fd, handle.origin, kill=kill)

    def opened(self, inode: Inode, fd: int, flags: int, caller: Caller, size: int) -> int:
        """Take over *fd*, an open file of *inode* that had *size* bytes; return its number."""
        handle = Handle(inode, fd, flags, self._journal.origin(caller))
        handle.at_end = handle.append and bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND)
        if handle.writable:
            self._captures.opened(handle, size)
        self._table.count_file(1)
        return self.handles.add(handle)

    def _open_backing(self, inode: Inode, flags: int) -> int:
        wanted = backing_flags(flags)
        self._table.make_room()
        try:
            return self._open_as(inode, wanted)
        except PermissionError as exc:
            if exc.errno == errno.EPERM:  # an append-only file, or an immutable one
                return self._open_as(inode, wanted | flags & os.O_APPEND)
            # A file that dkfs's user may write and not read.
            return self._open_as(inode, wanted & ~os.O_ACCMODE | flags & os.O_ACCMODE)
        except OSError as exc:
            if exc.errno not in (errno.EMFILE, errno.ENFILE) or not self._table.spare_fds():
                raise
            return self._open_as(inode, wanted)

    def _open_as(self, inode: Inode, flags: int) -> int:
        # A truncation must not hit another file that got the name behind the mount.
        place = None if flags & os.O_TRUNC else self._table.place(inode)
        if place is not None:
            try:
                fd = os.open(place[1], flags, dir_fd=place[0])
            except FileNotFoundError:
                fd = -1
            if fd >= 0:
                if self._table.is_it(inode, os.fstat(fd)):
                    return fd
                os.close(fd)
            # Another thread has moved it this moment; or somebody behind the mount, which fd() finds out.
        # /proc/self/fd/N is the inode that the fd holds, whatever its name.
        return os.open(by_fd(self._table.fd(inode)), flags & ~os.O_NOFOLLOW)

    def open_for_truncation(self, inode: Inode) -> int:
        """Return an fd for truncating *inode*, the caller's to close; raises OSError."""
        return self._open_backing(inode, os.O_RDWR)

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Return up to *size* bytes at *offset*; raises OSError."""
        return os.pread(self.handles[number].fd, size, offset)

    def write(
        self, number: int, offset: int, data: bytes | memoryview, *, kill: bool | None = None
    ) -> int:
        """Write *data* at *offset*; return how many bytes were written; raises OSError."""
        handle = self.handles[number]
        if not handle.inode.plain:
            drop(self._journal, handle.inode, handle.fd, handle.origin, kill=kill)
        if handle.at_end and offset < os.fstat(handle.fd).st_size:
            # A store through a map, which the kernel would have refused if it knew of the flag.
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        if handle.inode.frozen:  # last, because anything recorded may freeze the file
            self._captures.before_change(handle.inode, offset, offset + len(data))
        past = handle.kind is OpenKind.PASSTHROUGH_DIRECT
        if past:
            self._captures.before_write(handle)
        failpoint("backing.write")
        written = os.pwrite(handle.fd, data, offset)
        if past:
            self._captures.after_write(handle)
        end = offset + written
        self._captures.written(handle, offset, end)
        handle.wrote = True
        handle.is_halfway = not end & _IN_PAGE and bool(offset & _IN_PAGE or written >= _CUT)
        return written

    def flush(self, number: int) -> None:
        """Capture what was written: an fd of this handle was closed.  Raises OSError.

        A shell's `> file` opens, duplicates and closes before anything is written: a file that was
        only truncated is left to the next flush, or to release.
        """
        handle = self.handles[number]
        if handle.wrote:
            self._captures.capture(handle.inode, handle.origin)

    def release(self, number: int) -> None:
        """Close the handle; what mmap wrote since the last flush is captured first."""
        handle = self.handles[number]
        if handle.writable and handle.kind.is_passthrough:
            self.handles.remove(number)
            self._captures.passed_release(handle)
            return
        try:
            if handle.writable:
                self._captures.capture(handle.inode, handle.origin)
        finally:
            self.handles.remove(number)
            os.close(handle.fd)
            self._table.count_file(-1)
            if handle.writable:
                self._captures.closed(handle)
                self._table.forget(handle.inode, 0)

    def fsync(self, number: int) -> tuple[int, Seq]:
        """Capture; return the backing fd to sync and the version to wait for."""
        handle = self.handles[number]
        inode = handle.inode
        self._captures.capture(inode, handle.origin)
        inode.synced = True
        return handle.fd, inode.last

    # Ranges and flags

    def fallocate(self, number: int, mode: int, offset: int, length: int) -> None:
        """Change the space of a range as fallocate(2); raises OSError."""
        self.ranges.fallocate(self.handles[number], mode, offset, length)

    def seek(self, number: int, offset: int, whence: int) -> int:
        """Return the next data or hole, as lseek(2) with SEEK_DATA or SEEK_HOLE; raises OSError."""
        return self.ranges.seek(self.handles[number], offset, whence)

    def copy_range(
        self, source: int, source_offset: int, target: int, target_offset: int, length: int
    ) -> int:
        """Copy between two handles as copy_file_range(2), perhaps less than *length*; raises OSError."""
        handles = self.handles[source], self.handles[target]
        return self.ranges.copy(handles[0], source_offset, handles[1], target_offset, length)

    def ioctl(self, number: int, command: int, data: bytes, room: int) -> bytes:
        """Do *command* with *data*; return at most *room* bytes; raises OSError.  See flags."""
        return ioctl(self.handles[number].fd, command, data, room)
