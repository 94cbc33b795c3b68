"""System calls on the device and of mounting that the standard library does not offer."""

import ctypes
import os
from pathlib import Path
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
# Calls that keep the interpreter to themselves: what never waits costs less so, and above all does not have to wait for
# a recorder that took the interpreter meanwhile (docs/decisions/0009).
_held = ctypes.PyDLL(None, use_errno=True)

write = _held.write  # (fd, bytes, size) -> size or -1; see failure()
write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
write.restype = ctypes.c_ssize_t
read = _held.read  # (fd, address, size) -> size or -1
read.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
read.restype = ctypes.c_ssize_t
failure = ctypes.get_errno  # why the last of these calls in this thread failed


def address(buffer: bytearray) -> int:
    """Return where *buffer* is in memory; it can never be resized again."""
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


# sys/mount.h; the words are mount(8)'s.
_MS_FLAGS: Final = {
    "ro": 1,
    "nosuid": 2,
    "nodev": 4,
    "noexec": 8,
    "sync": 16,
    "dirsync": 128,
    "noatime": 1024,
}


def _failed() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def mount(device: int, source: str, target: bytes, options: set[str]) -> None:
    """Mount the connection *device*, an fd of /dev/fuse, on *target* by mount(2); raises OSError."""
    flags = sum(_MS_FLAGS.get(word, 0) for word in options)
    flags |= sum(_MS_FLAGS[f"no{word}"] for word in ("suid", "dev") if word not in options)
    data = (
        f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
        f",default_permissions{',allow_other' if 'allow_other' in options else ''}"
    )
    if _libc.mount(os.fsencode(source), target, b"fuse.dkfs", flags, data.encode()) != 0:
        raise _failed()


_IN_MEMORY: Final = frozenset((b"tmpfs", b"ramfs"))


def is_in_memory(device: int) -> bool:
    """Return whether the file system with the number *device* keeps files in memory only.

    From mountinfo: what is asked itself may not answer.
    """
    number = b"%d:%d" % (os.major(device), os.minor(device))
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        if fields[2] == number:
            return fields[fields.index(b"-") + 1] in _IN_MEMORY
    return False


def syncfs(fd: int) -> None:
    """Make everything on the file system of *fd*, not an O_PATH one, durable; raises OSError."""
    if _libc.syncfs(fd) != 0:
        raise _failed()
