"""Open files and directories, as the kernel knows them by a number."""

import errno
import itertools
import os
from typing import Generic, TypeVar

from dkfs.core.extents import Extents
from dkfs.core.io_mode import OpenKind
from dkfs.model.operation import Origin
from dkfs.overlay.inodes import Inode
from dkfs.overlay.listing import Window

T = TypeVar("T")


class Handle:
    """An open regular file."""

    __slots__ = (
        *("append", "at_end", "direct", "dirty", "fd", "inode", "is_halfway", "origin", "readable"),
        *("kind", "sync", "writable", "wrote"),
    )

    def __init__(self, inode: Inode, fd: int, flags: int, origin: Origin) -> None:
        self.inode = inode
        self.fd = fd  # a real fd, open for reading too wherever that was possible
        self.readable = (flags & os.O_ACCMODE) != os.O_WRONLY
        self.writable = (flags & os.O_ACCMODE) != os.O_RDONLY
        self.append = bool(flags & os.O_APPEND)  # as far as is known, see direct
        self.at_end = False  # what is written goes to the end, wherever it is meant to: the file is append-only
        self.sync = bool(flags & os.O_DSYNC)  # O_SYNC contains O_DSYNC
        self.direct = bool(flags & os.O_DIRECT)  # as far as is known: nobody tells of fcntl(2)
        self.kind = OpenKind.CACHED  # how the kernel serves it
        self.origin = origin  # who opened it
        self.wrote = False  # since the last capture; a truncation alone does not count
        self.is_halfway = False  # the last write may be the first part of one that the kernel cut
        self.dirty = Extents()  # written through this handle and in no version yet


class DirHandle:
    """An open directory."""

    __slots__ = ("inode", "window")

    def __init__(self, inode: Inode) -> None:
        self.inode = inode
        self.window = Window()


class HandleTable(Generic[T]):
    """Gives open things their numbers, from *first* on."""

    def __init__(self, first: int = 1) -> None:
        self._items: dict[int, T] = {}
        self._numbers = itertools.count(first)  # atomic, for several threads

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> T:
        """Return what *number* names; raises OSError(EBADF)."""
        try:
            return self._items[number]
        except KeyError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None

    def add(self, item: T) -> int:
        """Return a new number for *item*."""
        number = next(self._numbers)
        self._items[number] = item
        return number

    def remove(self, number: int) -> T:
        """Return and forget what *number* names; raises OSError(EBADF)."""
        item = self[number]
        del self._items[number]
        return item

    def all(self) -> tuple[T, ...]:
        """Return every open thing."""
        return tuple(self._items.values())
