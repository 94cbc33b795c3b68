"""Requests about open directories: opendir, readdir, readdirplus, releasedir, fsyncdir."""

import os
from typing import Final

from dkfs.errors import DkfsError
from dkfs.failpoints import failpoint
from dkfs.fuse.kernel.entries import Validity, entry, virtual_entry
from dkfs.fuse.kernel.messages import (
    DIRENT,
    ENTRY_OUT,
    FSYNC_IN,
    OPEN_IN,
    OPEN_OUT,
    READ_IN,
    RELEASE_IN,
    Fopen,
    Op,
)
from dkfs.fuse.kernel.request import HEADER_SIZE, Answer, Handler, Request, Work, invalid
from dkfs.overlay.listing import DOTS, Listed
from dkfs.overlay.mounted import FileSystem
from dkfs.overlay.virtual import VIRTUAL

_DIR: Final = 0o040000 >> 12  # DT_DIR
_NONE: Final = bytes(
    ENTRY_OUT.size
)  # of "." and "..", and what cannot be looked at: the kernel takes no reference
_REFERENCED: Final = 2  # names before those that are looked up: "." and ".."


class DirectoryRequests:
    """See the module."""

    def __init__(self, fs: FileSystem) -> None:
        self._table = fs.table
        self._names = fs.names
        self._attributes = fs.attributes
        self._virtual = fs.virtual
        self._recorder = fs.recorder
        self._valid = Validity(fs)
        # The kernel caches listings; names that it makes and removes itself it drops them for.
        self._how = int(Fopen.CACHE_DIR | Fopen.KEEP_CACHE) if fs.valid_s else 0

    def handlers(self) -> dict[int, Handler]:
        """Return the handler of each request."""
        return {
            Op.OPENDIR: Handler(self.opendir, HEADER_SIZE + OPEN_IN.size, "opendir"),
            Op.READDIR: Handler(self.readdir, HEADER_SIZE + READ_IN.size, "readdir"),
            Op.READDIRPLUS: Handler(self.readdirplus, HEADER_SIZE + READ_IN.size, "readdirplus"),
            Op.RELEASEDIR: Handler(self.releasedir, HEADER_SIZE + RELEASE_IN.size, "releasedir"),
            Op.FSYNCDIR: Handler(self.fsyncdir, HEADER_SIZE + FSYNC_IN.size, "fsyncdir"),
        }

    def opendir(self, request: Request) -> bytes:
        if request.node >= VIRTUAL:
            return OPEN_OUT.pack(self._virtual.opendir(request.node, request), 0, 0)
        return OPEN_OUT.pack(self._names.opendir(self._table[request.node]), self._how, 0)

    def readdir(self, request: Request) -> bytes:
        return self._read(request, plus=False)

    def readdirplus(self, request: Request) -> bytes:
        return self._read(request, plus=True)

    def _read(self, request: Request, *, plus: bool) -> bytes:
        number, offset, size, *_ = READ_IN.unpack_from(request.buffer, HEADER_SIZE)
        if offset < 0:
            raise invalid()
        listing = _Listing(size, plus=plus)
        try:
            if number >= VIRTUAL:
                self._read_virtual(listing, number, offset)
            else:
                self._read_real(listing, number, offset)
        except (OSError, DkfsError):
            # The kernel is to have what was referenced for it; it goes on there, and hears of this then.
            if not listing.parts:
                raise
        return b"".join(listing.parts)

    def _read_real(self, listing: "_Listing", number: int, offset: int) -> None:
        directory = self._names.inode_of(number)
        table = self._table
        owns, plus, valid = self._virtual.owns, listing.plus, self._valid
        for each in self._names.listing(number, offset):
            name, after, *_ = each
            if name in DOTS:
                if not listing.add_dot(directory.id, name, after):
                    return
                continue
            if owns(directory.id, name):
                if not self._add_virtual(listing, directory.id, name, after):
                    return
                continue
            fd = table.fd(directory)
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError:  # who asks for more of it hears of that
                if not listing.add_bare(each):
                    return
                continue
            if not listing.has_room(len(name)):
                return
            if plus:
                inode = table.referred(directory, name, status)
                listing.add(name, inode.id, status.st_mode, after, entry(status, inode, valid))
            else:
                listing.add(name, table.number(status), status.st_mode, after, b"")

    def _read_virtual(self, listing: "_Listing", number: int, offset: int) -> None:
        directory, names = self._virtual.names(number, again=offset == 0)
        if not listing.add_dots(directory, offset):
            return
        for index in range(max(0, offset - _REFERENCED), len(names)):
            if not self._add_virtual(listing, directory, names[index], index + 3):
                return

    def _add_virtual(self, listing: "_Listing", parent: int, name: bytes, position: int) -> bool:
        """Report *name*, if it is still there; return False if there was no room for it."""
        found = self._virtual.peek(parent, name)
        if found is None:
            return True
        whole = virtual_entry(found) if listing.plus else b""
        if not listing.add(name, found.number, found.mode, position, whole):
            return False
        if listing.plus:
            self._virtual.reference(found)
        return True

    def releasedir(self, request: Request) -> bytes:
        number = RELEASE_IN.unpack_from(request.buffer, HEADER_SIZE)[0]
        if number >= VIRTUAL:
            self._virtual.releasedir(number)
        else:
            self._names.releasedir(number)
        return b""

    def fsyncdir(self, request: Request) -> Answer:
        number = FSYNC_IN.unpack_from(request.buffer, HEADER_SIZE)[0]
        if number >= VIRTUAL:
            return b""
        fd, seq = self._attributes.fsyncdir(self._names.inode_of(number))
        recorder = self._recorder

        def sync() -> bytes:
            try:
                failpoint("fsync.directory")
                os.fsync(fd)
            finally:
                os.close(fd)
            recorder.keep(seq)
            return b""

        return Work(sync, can_be_given_up=True)


class _Listing:
    """The reply to one reading of a directory."""

    __slots__ = ("_room", "parts", "plus")

    def __init__(self, room: int, *, plus: bool) -> None:
        self.parts: list[bytes] = []
        self.plus = plus  # each name comes with its entry
        self._room = room  # bytes left

    def has_room(self, length: int) -> bool:
        """Return whether a name of *length* bytes fits."""
        size = DIRENT.size + length + -length % 8
        return size + (ENTRY_OUT.size if self.plus else 0) <= self._room

    def add_bare(self, each: Listed) -> bool:
        """Add a name of which nothing is known but what its directory says; the kernel takes no reference."""
        number, mode = each.number, each.kind << 12
        return self.add(each.name, number, mode, each.after, _NONE if self.plus else b"")

    def add(self, name: bytes, number: int, mode: int, position: int, whole: bytes) -> bool:
        """Add *name*, *position* being where reading goes on after it; return False if it does not fit."""
        length = len(name)
        padding = -length % 8
        size = len(whole) + DIRENT.size + length + padding
        if size > self._room:
            return False
        self._room -= size
        self.parts.append(whole)
        self.parts.append(DIRENT.pack(number, position, length, mode >> 12))
        self.parts.append(name + bytes(padding))
        return True

    def add_dot(self, number: int, name: bytes, position: int) -> bool:
        """Add "." or ".."; see add()."""
        return self.add(name, number, _DIR << 12, position, _NONE if self.plus else b"")

    def add_dots(self, number: int, offset: int) -> bool:
        """Add "." and ".." of the history, unless *offset* is behind them."""
        return all(
            self.add_dot(number, name, position)
            for position, name in enumerate(DOTS, 1)
            if position > offset
        )
