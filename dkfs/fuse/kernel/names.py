"""Requests about names: lookup, forget, mknod, mkdir, symlink, link, unlink, rmdir, rename."""

import errno
import os
from typing import Final

from dkfs.fuse.kernel.entries import Validity, entry, no_entry, virtual_entry
from dkfs.fuse.kernel.messages import (
    BATCH_FORGET_IN,
    FORGET_IN,
    FORGET_ONE,
    LINK_IN,
    MKDIR_IN,
    MKNOD_IN,
    RENAME2_IN,
    RENAME_IN,
    Op,
)
from dkfs.fuse.kernel.request import (
    HEADER_SIZE,
    Answer,
    First,
    Handler,
    Request,
    Work,
    invalid,
    refuse_virtual,
)
from dkfs.overlay.listing import DOTS
from dkfs.overlay.mounted import FileSystem
from dkfs.overlay.virtual import VIRTUAL

_NAME: Final = HEADER_SIZE + 2  # bytes, the least with a name


class NameRequests:
    """See the module."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._table = fs.table
        self._names = fs.names
        self._captures = fs.captures
        self._virtual = fs.virtual
        self._settled: set[int] = (
            set()
        )  # requests that come again after everything promised is in the index
        self._valid = Validity(fs)
        self._missing = no_entry(self._valid.name_s)

    def handlers(self) -> dict[int, Handler]:
        """Return the handler of each request."""
        return {
            Op.LOOKUP: Handler(self.lookup, _NAME, "lookup"),
            Op.FORGET: Handler(self.forget, HEADER_SIZE + FORGET_IN.size, "forget"),
            Op.BATCH_FORGET: Handler(
                self.forget_many, HEADER_SIZE + BATCH_FORGET_IN.size, "forget"
            ),
            Op.MKNOD: Handler(self.mknod, _NAME + MKNOD_IN.size, "mknod", makes_changes=True),
            Op.MKDIR: Handler(self.mkdir, _NAME + MKDIR_IN.size, "mkdir", makes_changes=True),
            Op.SYMLINK: Handler(self.symlink, _NAME + 2, "symlink", makes_changes=True),
            Op.LINK: Handler(self.link, _NAME + LINK_IN.size, "link", makes_changes=True),
            Op.UNLINK: Handler(self.unlink, _NAME, "unlink", makes_changes=True),
            Op.RMDIR: Handler(self.rmdir, _NAME, "rmdir", makes_changes=True),
            Op.RENAME: Handler(
                self.rename, _NAME + 2 + RENAME_IN.size, "rename", makes_changes=True
            ),
            Op.RENAME2: Handler(
                self.rename2, _NAME + 2 + RENAME2_IN.size, "rename", makes_changes=True
            ),
        }

    def lookup(self, request: Request) -> Answer:
        name, _ = request.text(HEADER_SIZE)
        parent = request.node
        if self._virtual.owns(parent, name):
            if request.unique in self._settled:
                self._settled.discard(request.unique)
            elif self._fs.recorder.owes:
                self._settled.add(request.unique)
                return First(self._fs.recorder.settle, is_look=False)
            return virtual_entry(self._virtual.lookup(parent, name, request))
        if name in DOTS:
            return self._dot(parent, name)
        if not name or b"/" in name:
            raise invalid()
        try:
            inode, status = self._names.lookup(self._table[parent], name)
        except FileNotFoundError:
            return self._missing
        return entry(status, inode, self._valid)

    def _dot(self, number: int, name: bytes) -> bytes:
        """Answer what only who holds a file handle asks; the root's directory is the root."""
        found = self._fs.forgotten.find(number)
        try:
            if found.unlinked:
                # The kernel has let go of it, and says so with a FORGET that comes later.
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            inode = found if name == b"." else found.parent or self._table.root
            reply = entry(self._fs.attributes.get(inode), inode, self._valid)
            self._table.refer(inode)
        finally:
            self._table.forget(found, 1)
        return reply

    def forget(self, request: Request) -> None:
        (lookups,) = FORGET_IN.unpack_from(request.buffer, HEADER_SIZE)
        self._forget(request.node, lookups)

    def forget_many(self, request: Request) -> None:
        count, _ = BATCH_FORGET_IN.unpack_from(request.buffer, HEADER_SIZE)
        start = HEADER_SIZE + BATCH_FORGET_IN.size
        room = (request.size - start) // FORGET_ONE.size
        for index in range(min(count, room)):
            self._forget(*FORGET_ONE.unpack_from(request.buffer, start + index * FORGET_ONE.size))

    def _forget(self, number: int, lookups: int) -> None:
        if number < VIRTUAL:
            self._fs.forget(number, lookups)
        else:
            self._virtual.forget(number, lookups)

    def mknod(self, request: Request) -> bytes:
        mode, rdev, umask, _ = MKNOD_IN.unpack_from(request.buffer, HEADER_SIZE)
        name = request.name(HEADER_SIZE + MKNOD_IN.size)
        refuse_virtual(request.node)
        inode, status = self._names.mknod(
            self._table[request.node], name, mode, rdev, request, umask=umask
        )
        return entry(status, inode, self._valid)

    def mkdir(self, request: Request) -> bytes:
        mode, umask = MKDIR_IN.unpack_from(request.buffer, HEADER_SIZE)
        name = request.name(HEADER_SIZE + MKDIR_IN.size)
        if request.node >= VIRTUAL:
            return virtual_entry(self._virtual.mkdir(request.node, name, request))
        inode, status = self._names.mkdir(
            self._table[request.node], name, mode, request, umask=umask
        )
        return entry(status, inode, self._valid)

    def symlink(self, request: Request) -> bytes:
        name = request.name(HEADER_SIZE)
        target, _ = request.text(HEADER_SIZE + len(name) + 1)
        refuse_virtual(request.node)
        inode, status = self._names.symlink(self._table[request.node], name, target, request)
        return entry(status, inode, self._valid)

    def link(self, request: Request) -> Answer:
        (number,) = LINK_IN.unpack_from(request.buffer, HEADER_SIZE)
        name = request.name(HEADER_SIZE + LINK_IN.size)
        refuse_virtual(number, request.node)
        first = self._captures.before(self._table[number])
        if first is not None:
            return First(first)
        inode, status = self._names.link(
            self._table[number], self._table[request.node], name, request
        )
        return entry(status, inode, self._valid)

    def unlink(self, request: Request) -> Answer:
        name = request.name(HEADER_SIZE)
        refuse_virtual(request.node)
        seq = self._names.unlink(self._table[request.node], name, request)
        if seq is None:
            return b""
        recorder = self._fs.recorder

        def wait() -> bytes:
            recorder.keep(seq)
            return b""

        return Work(wait)

    def rmdir(self, request: Request) -> bytes:
        name = request.name(HEADER_SIZE)
        if request.node >= VIRTUAL:
            self._virtual.rmdir(request.node, name, request)
        else:
            self._names.rmdir(self._table[request.node], name, request)
        return b""

    def rename(self, request: Request) -> Answer:
        (new_parent,) = RENAME_IN.unpack_from(request.buffer, HEADER_SIZE)
        return self._rename(request, HEADER_SIZE + RENAME_IN.size, new_parent, 0)

    def rename2(self, request: Request) -> Answer:
        new_parent, flags, _ = RENAME2_IN.unpack_from(request.buffer, HEADER_SIZE)
        return self._rename(request, HEADER_SIZE + RENAME2_IN.size, new_parent, flags)

    def _rename(self, request: Request, at: int, new_parent: int, flags: int) -> Answer:
        old, new = request.two_names(at)
        parent = request.node
        refuse_virtual(parent, new_parent)
        if self._captures.unseen:
            found = self._names.known(self._table[parent], old)
            first = self._captures.before(found) if found is not None else None
            if first is not None:
                return First(first)
        self._names.rename(self._table[parent], old, self._table[new_parent], new, flags, request)
        return b""
