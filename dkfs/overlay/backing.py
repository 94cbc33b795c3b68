"""System calls on the backing directory that the standard library does not offer."""

import ctypes
import errno
import fcntl
import os
import struct
import subprocess
from enum import Enum
from pathlib import Path

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4  # leaves a character device 0/0 behind
O_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

_MNT_DETACH = 2  # sys/mount.h
_AT_EMPTY_PATH = 0x1000
_AT_FDCWD = -100
_UTIME_NOW, _UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2  # linux/stat.h
_STATX_BTIME = 0x800
_HANDLE_MOST = 128  # bytes: MAX_HANDLE_SZ in linux/fs.h
_STATX_SIZE = 256  # bytes, of struct statx: linux/stat.h
_STATX_BTIME_AT = 80  # offset of stx_btime: struct statx_timestamp {s64 sec; u32 nsec; s32 pad}

# Every architecture has these numbers for system calls that are newer than 2019.
_SYS_OPEN_TREE = 428
_SYS_MOUNT_SETATTR = 442
_OPEN_TREE_CLONE = 1
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOATIME, _MOUNT_ATTR_ATIMES = 1, 0x10, 0x70  # linux/mount.h
_MOUNT_ATTR = struct.Struct("=QQQQ")  # struct mount_attr: to set, to clear, propagation, userns_fd

_HANDLE = struct.Struct("=Ii")  # struct file_handle, without the handle: its length and type
_FICLONERANGE = 0x4020940D  # linux/fs.h
_TIMESTAMP = struct.Struct("=qI")
_CLONE_RANGE = struct.Struct("=qQQQ")  # struct file_clone_range: fd, offset, length, offset there

_libc = ctypes.CDLL(None, use_errno=True)
_libc.renameat2.argtypes = (
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
)
_libc.fallocate64.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def rename(old_dir: int, old: bytes, new_dir: int, new: bytes, flags: int) -> None:
    """Rename as renameat2(2); *flags* are RENAME_NOREPLACE, _EXCHANGE, _WHITEOUT.  Raises OSError."""
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if flags == 0:
        os.rename(old, new, src_dir_fd=old_dir, dst_dir_fd=new_dir)
    elif _libc.renameat2(old_dir, old, new_dir, new, flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Change the space of a file as fallocate(2), the system call; raises OSError."""
    if _libc.fallocate64(fd, mode, offset, length) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def clone_range(source: int, offset: int, target: int, target_offset: int, length: int) -> None:
    """Let *target* share *length* bytes of *source* as ioctl_ficlonerange(2); raises OSError."""
    fcntl.ioctl(target, _FICLONERANGE, _CLONE_RANGE.pack(source, offset, length, target_offset))


class Moment(Enum):
    """A time that the file system is to tell."""

    NOW = "now"


Time = int | Moment  # ns since the epoch, or what the file system's own clock says


def set_times(target: int | bytes, atime: Time | None, mtime: Time | None) -> None:
    """Set the times of an open file or a path from by_fd(); None leaves one as it is.  Raises OSError.

    Only the file system can tell which time is not before one that it has given already: Linux stamps
    with a coarse clock, and with a fine one what somebody has looked at.
    """
    if isinstance(atime, int) and isinstance(mtime, int):
        os.utime(target, ns=(atime, mtime))
    elif atime is Moment.NOW and mtime is Moment.NOW:
        os.utime(target)
    else:
        times = (ctypes.c_long * 4)(*_timespec(atime), *_timespec(mtime))
        if isinstance(target, int):
            result = _libc.futimens(target, times)
        else:
            result = _libc.utimensat(_AT_FDCWD, target, times, 0)
        if result != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def _timespec(time: Time | None) -> tuple[int, int]:
    if isinstance(time, int):
        return divmod(time, 1_000_000_000)
    return 0, _UTIME_OMIT if time is None else _UTIME_NOW


def mount_of(fd: int) -> int:
    """Return the number of the mount that *fd* is on; asks no file system, which may hang."""
    with open(f"/proc/self/fdinfo/{fd}", "rb", buffering=0) as info:
        for line in info.read().splitlines():
            if line.startswith(b"mnt_id:"):
                return int(line[7:])
    return -1


def by_fd(fd: int) -> bytes:
    """Return a path that names what *fd* holds, whatever its name is now; also for O_PATH fds."""
    return b"/proc/self/fd/%d" % fd


def identity(fd: int) -> bytes:
    """Return what tells one incarnation of a directory from another: inode and time of birth.

    A file system that keeps no time of birth gives the inode alone.
    """
    return b"%d:%s" % (os.fstat(fd).st_ino, _birth(fd).hex().encode())


def born(fd: int) -> int | None:
    """Return the time of birth in ns since the epoch; None if the file system keeps none."""
    stamp = _birth(fd)
    if not stamp:
        return None
    seconds, nanoseconds = _TIMESTAMP.unpack(stamp)
    return int(seconds * 1_000_000_000 + nanoseconds)


def _birth(fd: int) -> bytes:
    """Return stx_btime of *fd*, which may be O_PATH, as _TIMESTAMP; empty if there is none."""
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    if _libc.statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, buffer) != 0:
        return b""
    if not int.from_bytes(buffer.raw[:4], "little") & _STATX_BTIME:
        return b""
    return buffer.raw[_STATX_BTIME_AT : _STATX_BTIME_AT + _TIMESTAMP.size]


def file_handle(fd: int) -> bytes | None:
    """Return what open_by_handle() opens the same inode by, names or not; None if there is no such thing."""
    buffer = ctypes.create_string_buffer(_HANDLE.pack(_HANDLE_MOST, 0), _HANDLE.size + _HANDLE_MOST)
    mount_id = ctypes.c_int()
    flags = _AT_EMPTY_PATH
    if _libc.name_to_handle_at(fd, b"", buffer, ctypes.byref(mount_id), flags) != 0:
        return None
    return buffer.raw[: _HANDLE.size + _HANDLE.unpack_from(buffer.raw)[0]]


def open_by_handle(root_fd: int, handle: bytes) -> int:
    """Return an O_PATH fd of what *handle* names on the file system of *root_fd*; raises OSError."""
    fd: int = _libc.open_by_handle_at(root_fd, handle, O_PATH)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd


def open_directory(path: Path) -> int:
    """Open the backing directory *path*; raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def read_only(fd: int) -> int:
    """Return an fd of the directory *fd* through which nothing below it can be changed, whoever tries.

    Without the privilege to make it (CAP_SYS_ADMIN, Linux 5.12) it is only another fd of it.
    """
    return _mounted_again(fd, _MOUNT_ATTR_RDONLY, 0)


def not_noticing(fd: int) -> int:
    """Return an fd of the directory *fd* through which reading moves no time of access; see read_only()."""
    return _mounted_again(fd, _MOUNT_ATTR_NOATIME, _MOUNT_ATTR_ATIMES)


def _mounted_again(fd: int, wanted: int, unwanted: int) -> int:
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH
    tree: int = _libc.syscall(_SYS_OPEN_TREE, fd, b"", flags)
    if tree < 0:
        return os.dup(fd)
    try:
        attributes = _MOUNT_ATTR.pack(wanted, unwanted, 0, 0)
        size = len(attributes)
        if _libc.syscall(_SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, size) != 0:
            return os.dup(fd)
        return os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    finally:
        os.close(tree)


def xattrs_of(target: int | bytes) -> dict[bytes, bytes]:
    """Return every extended attribute of an open file or a path from by_fd(); {} if unsupported."""
    try:
        names = os.listxattr(target)
    except OSError as exc:
        if exc.errno in (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EBADF, errno.ELOOP):
            return {}
        raise
    found = {}
    for name in names:
        try:
            found[os.fsencode(name)] = os.getxattr(target, name)
        except OSError as exc:
            if exc.errno not in (errno.ENODATA, errno.EPERM, errno.EACCES):
                raise
    return found


def unmount(point: bytes, *, lazily: bool) -> None:
    """Unmount *point* as umount2(2), or through fusermount3 for who may not; raises OSError."""
    if _libc.umount2(point, _MNT_DETACH if lazily else 0) == 0:
        return
    code = ctypes.get_errno()
    if code == errno.EPERM:
        flags = ("-u", "-z") if lazily else ("-u",)
        done = subprocess.run(
            ["fusermount3", *flags, b"--", point], capture_output=True, check=False
        )
        if done.returncode == 0:
            return
        code = errno.EBUSY if b"busy" in done.stderr else errno.EPERM
    raise OSError(code, os.strerror(code))
