"""Backing ids: the files that the kernel reads and writes itself (FUSE_PASSTHROUGH, Linux 6.9).

A file is registered once for as long as it is open so, whatever the number of its opens: the kernel refuses
a second id of one inode.  It is registered by its O_PATH fd; for each open the kernel opens the file
itself, with the application's flags and dkfs's rights.
"""

import errno
import fcntl
import os
import struct
import threading
from collections.abc import Callable
from typing import Final, Protocol

from dkfs.core.io_mode import OpenKind
from dkfs.fuse.kernel.messages import Fopen, Init
from dkfs.overlay.backing import by_fd
from dkfs.overlay.clones import file_system, nameless
from dkfs.overlay.inodes import Inode
from dkfs.overlay.mounted import FileSystem

_BACKING_OPEN: Final = 0x4010E501  # linux/fuse.h: _IOW(229, 1, struct fuse_backing_map)
_BACKING_CLOSE: Final = 0x4004E502  # _IOW(229, 2, uint32_t)
_BACKING_MAP: Final = struct.Struct("=iIQ")  # fd, flags (0), padding (0)
_ID: Final = struct.Struct("=I")

_STACKED: Final = frozenset((0x794C7630, 0xF15F))  # linux/magic.h: overlayfs, ecryptfs

_PASS: Final = int(Fopen.PASSTHROUGH)
_PASS_DIRECT: Final = int(Fopen.PASSTHROUGH | Fopen.DIRECT_IO)
_NOFLUSH: Final = int(Fopen.NOFLUSH)
_KEEP: Final = int(Fopen.KEEP_CACHE)

_NOT_PERMITTED: Final = "it takes CAP_SYS_ADMIN in the initial user namespace"

# For one file, now: the next one may be registered.
_PASSING: Final = frozenset((errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ESTALE))


class Backings(Protocol):
    """Registers backing files."""

    def open(self, fd: int) -> int:
        """Return the id of the file that *fd* holds; raises OSError."""
        ...

    def close(self, backing: int) -> None:
        """Let go of an id; raises OSError."""
        ...


class DeviceBackings:
    """See Backings: by the ioctls of /dev/fuse."""

    def __init__(self, device: int) -> None:
        """*device* is an fd of a connection that agreed on FUSE_PASSTHROUGH."""
        self._device = device

    def open(self, fd: int) -> int:
        """See Backings."""
        request = bytearray(_BACKING_MAP.pack(fd, 0, 0))
        return int(fcntl.ioctl(self._device, _BACKING_OPEN, request))

    def close(self, backing: int) -> None:
        """See Backings."""
        fcntl.ioctl(self._device, _BACKING_CLOSE, bytearray(_ID.pack(backing)))


class Passthrough:
    """Turns the decisions of overlay.modes into what the kernel is told."""

    def __init__(self, fs: FileSystem, backings: Backings) -> None:
        self._modes = fs.modes
        self._handles = fs.files.handles
        self._captures = fs.captures
        self._backings = backings
        self._ids: dict[Inode, int] = {}
        # Several threads open files while the loop is held up.  By device: under it that is asked what its files are.
        self._mutexes: dict[int, threading.Lock] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def _mutex_of(self, inode: Inode) -> threading.Lock:
        return self._mutexes.setdefault(inode.dev, threading.Lock())

    def waiting(self, inode: Inode, flags: int) -> Callable[[], None] | None:
        """Return what to wait for, in any thread, before *inode* is opened with *flags*; None if that need not wait.

        A map of the file itself would store over what is still to be read for a version.  Raises OSError.
        """
        if not inode.frozen or flags & os.O_ACCMODE != os.O_RDWR:
            return None
        with self._mutex_of(inode):
            if not self._modes.decide(inode, flags).is_passthrough:
                return None
        return self._captures.waiting_for_all(inode)

    def opened(self, number: int, flags: int) -> tuple[int, int]:
        """Return open_flags and backing id for the reply that tells of handle *number*, opened with *flags*."""
        handle = self._handles[number]
        inode = handle.inode
        with self._mutex_of(inode):
            kind = self._modes.decide(inode, flags)
            backing = 0
            if kind.is_passthrough:
                backing = self._id(inode, handle.fd)
                if not backing:
                    kind = OpenKind.CACHED  # nothing of it is passed through, so that is permitted
            self._modes.opened(handle, kind)
        if kind.is_passthrough:
            inode.bypassed = True
            try:
                self._captures.passed(handle)
            except BaseException:
                self.released(number)
                handle.kind = OpenKind.CACHED  # it is closed as if it had never been passed through
                raise
            if not handle.writable:
                return _PASS | _NOFLUSH, backing
            return (_PASS if kind is OpenKind.PASSTHROUGH else _PASS_DIRECT), backing
        # Pages from before the kernel wrote to the file itself are not to be kept.
        keep = 0 if inode.bypassed else _KEEP
        inode.bypassed = False
        return keep if handle.writable else keep | _NOFLUSH, 0

    def kept(self, number: int) -> None:
        """Hear of handle *number* of a file without a name, that is not passed through: all of it is recorded if it gets one."""
        handle = self._handles[number]
        with self._mutex_of(handle.inode):
            self._modes.opened(handle, OpenKind.CACHED)

    def _id(self, inode: Inode, fd: int) -> int:
        """Return the id of *inode*, open as *fd*, registered now if it is not; 0 if it cannot be."""
        known = self._ids.get(inode)
        if known is not None:
            return known
        try:
            # Registered as it is, it would seem open for writing for as long as anybody has it open.
            path_fd = os.open(by_fd(fd), os.O_PATH | os.O_CLOEXEC)
            try:
                found = self._backings.open(path_fd)
            finally:
                os.close(path_fd)
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                self._modes.refuse_device(inode, "too many file systems are stacked below it")
            elif exc.errno not in _PASSING:
                self._modes.refuse(_why(exc))
            return 0
        self._ids[inode] = found
        return found

    def released(self, number: int) -> None:
        """Hear, before it is closed, that the kernel has let go of handle *number*."""
        handle = self._handles[number]
        with self._mutex_of(handle.inode):
            if not self._modes.released(handle):
                return
            backing = self._ids.pop(handle.inode, 0)
            if backing:
                self._backings.close(backing)


def agreed(fs: FileSystem, backings: Backings, *, is_root: bool, taken: Init) -> Passthrough | None:
    """Return what passes files of *fs* through, None if nothing does.

    The kernel has been told that the flags *taken* are; until then it registers nothing.
    """
    modes = fs.modes
    if not modes.wants_passthrough:
        return None
    if not taken & Init.PASSTHROUGH:
        modes.refuse(
            "the kernel has no FUSE_PASSTHROUGH (Linux 6.9)" if is_root else _NOT_PERMITTED
        )
        return None
    why = _tried(fs.table.root.fd, backings)
    if why:
        modes.refuse(why)
        return None
    modes.grant()
    return Passthrough(fs, backings)


def _tried(directory: int, backings: Backings) -> str:
    """Return why the kernel refuses a file in *directory*; empty if it does not, or there is none to be tried."""
    try:
        fd = nameless(directory)
    except OSError:
        return ""  # the first file that is opened will show it
    try:
        backings.close(backings.open(fd))
    except OSError as exc:
        return _why(exc)
    finally:
        os.close(fd)
    return ""


def _why(exc: OSError) -> str:
    if exc.errno == errno.EPERM:
        return _NOT_PERMITTED
    if exc.errno == errno.ELOOP:
        return "too many file systems are stacked below the state directory"
    return f"the kernel refuses to pass files through: {exc.strerror}"


def stack_depth(fd: int) -> int:
    """Return the max_stack_depth that passing through the files of *fd*, a directory, takes: 1 or 2.

    With 2 no overlayfs can be mounted over the mount, so that it is asked for only where it is needed.
    """
    return 2 if file_system(fd) in _STACKED else 1
