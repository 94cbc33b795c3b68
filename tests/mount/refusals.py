"""Calls that a FUSE mount may have to refuse; each is done to a fresh file, and tells its errno or what it gave."""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path

SIZE = 100_000  # bytes, of the file: data all through
_RENAME_WHITEOUT = 4
_AT_FDCWD = -100
_STATX_BTIME = 0x800
_KEEP_SIZE = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate64.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def fallocate(fd: int, mode: int, offset: int = 0, length: int = 4096) -> int:
    """Call fallocate(2), the system call, which falls back on nothing; raises OSError."""
    return _checked(_libc.fallocate64(fd, mode, offset, length))


def _posix_fallocate(fd: int) -> int:
    os.posix_fallocate(fd, 0, 2 * SIZE)
    return os.fstat(fd).st_size


def _whiteout(path: Path) -> str:
    old, new = os.fsencode(path), os.fsencode(path.with_suffix(".new"))
    _checked(_libc.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_WHITEOUT))
    return f"{path.lstat().st_mode:o} {path.lstat().st_rdev}"


def _tmpfile(path: Path) -> bytes:
    fd = os.open(path.parent, os.O_TMPFILE | os.O_RDWR)
    try:
        os.write(fd, b"nameless")
        return os.pread(fd, 100, 0)
    finally:
        os.close(fd)


def _has_birth(path: Path) -> bool:
    buffer = ctypes.create_string_buffer(256)
    _checked(_libc.statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, buffer))
    return bool(int.from_bytes(buffer.raw[:4], "little") & _STATX_BTIME)


def _ioctl(command: int, argument: bytes) -> Callable[[int, Path], object]:
    def call(fd: int, _: Path) -> object:
        return len(fcntl.ioctl(fd, command, argument))

    return call


def _to_another(attempt: Callable[[int, int], object]) -> Callable[[int, Path], object]:
    """Return *attempt* with a second file as its target."""

    def call(fd: int, path: Path) -> object:
        other = os.open(path.with_suffix(".other"), os.O_RDWR | os.O_CREAT)
        try:
            return attempt(fd, other)
        finally:
            os.close(other)

    return call


def _allocated(mode: int) -> Callable[[int, Path], object]:
    return lambda fd, _: fallocate(fd, mode)


# linux/fs.h, linux/falloc.h
CALLS: dict[str, Callable[[int, Path], object]] = {
    "fallocate": _allocated(0),
    "fallocate, keep the size": _allocated(_KEEP_SIZE),
    "fallocate, punch a hole": _allocated(0x02 | _KEEP_SIZE),
    "fallocate, zero a range": _allocated(0x10),
    "fallocate, collapse a range": _allocated(0x08),
    "fallocate, insert a range": _allocated(0x20),
    "fallocate, unshare a range": _allocated(0x40),
    "fallocate, write zeros": _allocated(0x80),
    "posix_fallocate": lambda fd, _: _posix_fallocate(fd),
    "lseek to data": lambda fd, _: os.lseek(fd, 100, os.SEEK_DATA),
    "lseek to a hole": lambda fd, _: os.lseek(fd, 100, os.SEEK_HOLE),
    "lseek behind the end": lambda fd, _: os.lseek(fd, SIZE + 1, os.SEEK_DATA),
    "copy_file_range": _to_another(lambda fd, other: os.copy_file_range(fd, other, SIZE, 0, 0)),
    "FICLONE": _to_another(lambda fd, other: fcntl.ioctl(other, 0x40049409, fd)),
    "FICLONERANGE": _to_another(
        lambda fd, other: fcntl.ioctl(other, 0x4020940D, struct.pack("=qQQQ", fd, 0, 4096, 0))
    ),
    "FIEMAP": _ioctl(0xC020660B, struct.pack("=QQIIII", 0, 1 << 40, 0, 0, 0, 0)),
    "FS_IOC_GETFLAGS": _ioctl(0x80086601, bytes(8)),
    "FS_IOC_FSGETXATTR": _ioctl(0x801C581F, bytes(28)),
    "FS_IOC_ENABLE_VERITY": _ioctl(0x40806685, bytes(128)),
    "O_TMPFILE": lambda _, path: _tmpfile(path),
    "RENAME_WHITEOUT": lambda _, path: _whiteout(path),
    "statx, time of birth": lambda _, path: _has_birth(path),
    "syncfs": lambda fd, _: _checked(_libc.syncfs(fd)),
    "swapon": lambda _, path: _checked(_libc.swapon(os.fsencode(path), 0)),
    "bmap": lambda fd, _: struct.unpack("i", fcntl.ioctl(fd, 1, bytes(4)))[0] > 0,
    "name_to_handle_at": lambda fd, _: _checked(
        _libc.name_to_handle_at(
            fd, b"", struct.pack("Ii", 128, 0) + bytes(128), ctypes.byref(ctypes.c_int()), 0x1000
        )
    ),
}


def outcomes(directory: Path) -> dict[str, object]:
    """Return what each of CALLS gives in *directory*, or the name of its errno; the files stay."""
    seen: dict[str, object] = {}
    for number, (name, call) in enumerate(CALLS.items()):
        path = directory / f"{number}"
        path.write_bytes(b"d" * SIZE)
        path.chmod(0o600)
        fd = os.open(path, os.O_RDWR)
        try:
            seen[name] = call(fd, path)
        except OSError as exc:
            seen[name] = errno.errorcode[exc.errno or 0]
        finally:
            os.close(fd)
    return seen
