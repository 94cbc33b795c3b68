"""What applications do to a mount whose files are served past dkfs, in processes of their own.  Run as a program.

Python's mmap keeps a duplicate of the file descriptor, so that maps which outlive it are made by libc here.
"""

import ctypes
import os
import random
import sys
import time
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.msync.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_READ, _READ_WRITE, _SHARED = 1, 3, 1
_MS_SYNC = 4
_FAILED = ctypes.c_void_p(-1).value


class Map:
    """A shared map, which holds no file descriptor."""

    def __init__(self, fd: int, size: int, *, writable: bool = True) -> None:
        address = _libc.mmap(None, size, _READ_WRITE if writable else _READ, _SHARED, fd, 0)
        if address in (None, _FAILED):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._address = int(address or 0)
        self._size = size

    def store(self, offset: int, data: bytes) -> None:
        ctypes.memmove(self._address + offset, data, len(data))

    def load(self, offset: int, size: int) -> bytes:
        return ctypes.string_at(self._address + offset, size)

    def sync(self) -> None:
        if _libc.msync(self._address, self._size, _MS_SYNC) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def close(self) -> None:
        _libc.munmap(self._address, self._size)


_FLAGS = (
    *(os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_SYNC, os.O_RDWR | os.O_APPEND),
    *(os.O_RDWR | os.O_TRUNC, os.O_RDWR | os.O_DIRECT, os.O_RDONLY | os.O_DIRECT),
    os.O_RDWR | os.O_CREAT,
)
_NAMES = ("a", "b.db", "c.log", "d")


def open_in_all_ways(top: Path, seed: int, seconds: float) -> None:
    """Open, map, use, rename and close files in any order until time is up; any error is one of this program."""
    rng = random.Random(seed)
    fds: list[tuple[int, int]] = []
    maps: list[Map] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        step = rng.randrange(10)
        if step < 5 and len(fds) < 12:
            _open(top, rng, fds)
        elif step < 7 and fds:
            os.close(fds.pop(rng.randrange(len(fds)))[0])
        elif step == 7 and fds and len(maps) < 8:
            _map(rng, fds, maps)
        elif step == 8 and maps:
            maps.pop(rng.randrange(len(maps))).close()
        elif fds:
            _use(top, rng, *rng.choice(fds))


def _open(top: Path, rng: random.Random, fds: list[tuple[int, int]]) -> None:
    flags = rng.choice(_FLAGS)
    try:
        fds.append((os.open(top / rng.choice(_NAMES), flags, 0o666), flags))
    except FileNotFoundError:
        pass  # another process has renamed it


def _map(rng: random.Random, fds: list[tuple[int, int]], maps: list[Map]) -> None:
    fd, flags = rng.choice(fds)
    if flags & os.O_ACCMODE != os.O_WRONLY and os.fstat(fd).st_size >= 4096:
        maps.append(Map(fd, 4096, writable=flags & os.O_ACCMODE == os.O_RDWR))


def _use(top: Path, rng: random.Random, fd: int, flags: int) -> None:
    if rng.random() < 0.05:
        try:
            os.rename(top / rng.choice(_NAMES), top / rng.choice(_NAMES))
        except FileNotFoundError:
            pass
    elif flags & os.O_DIRECT:
        return  # takes memory that is aligned
    elif flags & os.O_ACCMODE == os.O_RDONLY:
        os.pread(fd, 4096, 0)
    else:
        os.pwrite(fd, bytes([rng.randrange(256)]) * 8192, rng.randrange(4) * 4096)
        if rng.random() < 0.1:
            os.fsync(fd)


if __name__ == "__main__":
    open_in_all_ways(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
