"""Reading a directory in pieces, with positions that stay true while names come and go.

A position is the backing file system's own (d_off of getdents64(2)): whoever goes on from it, through
whichever handle, finds every name that was there all the time exactly once.  The kernel needs that
where it caches listings: it compares positions of one listing with those of a later one.
"""

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

DOTS = (b".", b"..")

_ROOM = 256 * 1024  # bytes, some 7,000 names: a few ms
_HEAD = struct.Struct("=QqHB")  # struct linux_dirent64: d_ino, d_off, d_reclen, d_type; then d_name
_NAME_AT = _HEAD.size

_libc = ctypes.CDLL(None, use_errno=True)


class Listed(NamedTuple):
    """A name in a directory, "." and ".." included."""

    name: bytes
    after: int  # the position behind it
    number: int = 0  # of the inode, and below its type, as the directory itself says
    kind: int = (
        0  # DT_REG, ...: the type bits of a mode, shifted to the right by 12; 0 if it does not say
    )


class Window:
    """A part of a directory that was read ahead for one handle."""

    __slots__ = ("_found", "_hint", "_positions")

    def __init__(self) -> None:
        self._found: list[Listed] = []
        self._positions: list[int] = []  # where each of found begins, and where the last ends
        self._hint = 0  # where in positions the next search begins

    def start(self, position: int) -> int:
        """Return the index in found() of what lies at *position*; -1 if that is not known here."""
        try:
            index = self._positions.index(position, self._hint)
        except ValueError:
            return -1
        self._hint = index
        return index if index < len(self._found) else -1

    def found(self) -> list[Listed]:
        """Return what was read."""
        return self._found

    def fill(self, fd: int, position: int) -> bool:
        """Read on from *position* of the directory *fd*; return whether there is anything; raises OSError."""
        os.lseek(fd, position, os.SEEK_SET)
        self._found = list(_read(fd))
        self._positions = [position, *(each.after for each in self._found)]
        self._hint = 0
        return bool(self._found)


def _read(fd: int) -> Iterator[Listed]:
    buffer = ctypes.create_string_buffer(
        _ROOM
    )  # not shared: others may read while a disk keeps us here
    size = _libc.getdents64(fd, buffer, _ROOM)
    if size < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    data = ctypes.string_at(buffer, size)
    at = 0
    while at < size:
        number, after, length, kind = _HEAD.unpack_from(data, at)
        end = data.index(b"\0", at + _NAME_AT)
        yield Listed(data[at + _NAME_AT : end], after, number, kind)
        at += length
