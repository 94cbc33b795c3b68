"""Requests about attributes: getattr, statx, setattr, readlink, extended attributes, access, statfs."""

import errno
from typing import Final

from dkfs.fuse.kernel.entries import Validity, attributes, figures, virtual_attributes
from dkfs.fuse.kernel.messages import (
    ACCESS_IN,
    GETATTR_IN,
    GETXATTR_IN,
    GETXATTR_OUT,
    SETATTR_IN,
    SETXATTR_ACL_KILL_SGID,
    SETXATTR_EXT_IN,
    SETXATTR_IN,
    Fattr,
    Init,
    Op,
)
from dkfs.fuse.kernel.negotiate import Terms
from dkfs.fuse.kernel.request import (
    HEADER_SIZE,
    Answer,
    First,
    Handler,
    Request,
    error,
    invalid,
    refuse_virtual,
)
from dkfs.overlay.attributes import NewAttributes
from dkfs.overlay.backing import Moment, Time
from dkfs.overlay.mounted import FileSystem
from dkfs.overlay.virtual import VIRTUAL

_S: Final = 1_000_000_000  # ns
_MODE, _UID, _GID, _SIZE = (int(f) for f in (Fattr.MODE, Fattr.UID, Fattr.GID, Fattr.SIZE))
_ATIME, _ATIME_NOW = int(Fattr.ATIME), int(Fattr.ATIME_NOW)
_MTIME, _MTIME_NOW = int(Fattr.MTIME), int(Fattr.MTIME_NOW)
_FH, _KILL = int(Fattr.FH), int(Fattr.KILL_SUIDGID)


class AttributeRequests:
    """See the module."""

    def __init__(self, fs: FileSystem) -> None:
        self._table = fs.table
        self._attributes = fs.attributes
        self._virtual = fs.virtual
        self._captures = fs.captures
        self._valid = Validity(fs)
        self._set_head = SETXATTR_IN
        self._knows_kill = False

    def agree(self, terms: Terms) -> None:
        """Hear what INIT led to."""
        if terms.flags & Init.SETXATTR_EXT:
            self._set_head = SETXATTR_EXT_IN
        self._knows_kill = bool(terms.flags & Init.HANDLE_KILLPRIV_V2)

    def handlers(self) -> dict[int, Handler]:
        """Return the handler of each request."""
        named = HEADER_SIZE + 2
        return {
            Op.GETATTR: Handler(self.getattr, HEADER_SIZE + GETATTR_IN.size, "getattr"),
            Op.SETATTR: Handler(
                self.setattr, HEADER_SIZE + SETATTR_IN.size, "setattr", makes_changes=True
            ),
            Op.READLINK: Handler(self.readlink, HEADER_SIZE, "readlink"),
            Op.STATFS: Handler(self.statfs, HEADER_SIZE, "statfs"),
            Op.ACCESS: Handler(self.access, HEADER_SIZE + ACCESS_IN.size, "access"),
            Op.GETXATTR: Handler(self.getxattr, named + GETXATTR_IN.size, "getxattr"),
            Op.LISTXATTR: Handler(self.listxattr, HEADER_SIZE + GETXATTR_IN.size, "listxattr"),
            Op.SETXATTR: Handler(
                self.setxattr, named + SETXATTR_IN.size, "setxattr", makes_changes=True
            ),
            Op.REMOVEXATTR: Handler(self.removexattr, named, "removexattr", makes_changes=True),
        }

    def getattr(self, request: Request) -> bytes:
        number = request.node
        if number >= VIRTUAL:
            return virtual_attributes(self._virtual.getattr(number))
        inode = self._table[number]
        status = self._attributes.get(inode)
        return attributes(status, number, self._valid.attributes_s(inode))

    def setattr(self, request: Request) -> Answer:
        fields = SETATTR_IN.unpack_from(request.buffer, HEADER_SIZE)
        valid, _, handle, size, _, atime, mtime, _ = fields[:8]
        atime_ns, mtime_ns, _, mode, _, uid, gid, _ = fields[8:]
        number = request.node
        refuse_virtual(number)
        if size < 0 and valid & _SIZE:
            raise invalid()
        inode = self._table[number]
        if valid & _SIZE and (wait := self._captures.waiting(inode, size)) is not None:
            return First(wait, is_look=False)
        first = self._captures.before(inode)
        if first is not None:
            return First(first)
        new = NewAttributes(
            mode=mode & 0o7777 if valid & _MODE else None,
            uid=uid if valid & _UID else None,
            gid=gid if valid & _GID else None,
            size=size if valid & _SIZE else None,
            atime=_time(valid, _ATIME, _ATIME_NOW, atime * _S + atime_ns),
            mtime=_time(valid, _MTIME, _MTIME_NOW, mtime * _S + mtime_ns),
        )
        status = self._attributes.set(
            self._table[number],
            new,
            handle if valid & _FH else None,
            request,
            kill=bool(valid & _KILL) if self._knows_kill else None,
        )
        return attributes(status, number, self._valid.attributes_s(inode))

    def readlink(self, request: Request) -> bytes:
        if request.node >= VIRTUAL:
            return self._virtual.readlink(request.node, request)
        return self._attributes.readlink(self._table[request.node])

    def statfs(self, request: Request) -> bytes:
        return figures(self._attributes.statfs())

    def access(self, request: Request) -> bytes:
        return b""  # the kernel checks: default_permissions is always on

    # Extended attributes

    def getxattr(self, request: Request) -> bytes:
        size, _ = GETXATTR_IN.unpack_from(request.buffer, HEADER_SIZE)
        name, _ = request.text(HEADER_SIZE + GETXATTR_IN.size)
        if request.node >= VIRTUAL:
            value = self._virtual.getxattr(request.node, name, request)
        else:
            value = self._attributes.getxattr(self._table[request.node], name)
        return _sized(value, size)

    def listxattr(self, request: Request) -> bytes:
        size, _ = GETXATTR_IN.unpack_from(request.buffer, HEADER_SIZE)
        if request.node >= VIRTUAL:
            names = self._virtual.listxattr(request.node, request)
        else:
            names = self._attributes.listxattr(self._table[request.node], request)
        return _sized(b"".join(name + b"\0" for name in names), size)

    def setxattr(self, request: Request) -> bytes:
        if request.size < HEADER_SIZE + self._set_head.size:
            raise invalid()
        size, flags, *more = self._set_head.unpack_from(request.buffer, HEADER_SIZE)
        name, at = request.text(HEADER_SIZE + self._set_head.size)
        if at + size != request.size or not name:
            raise invalid()
        value = bytes(request.view[at : at + size])
        refuse_virtual(request.node)
        inode = self._table[request.node]
        kills = bool(more and more[0] & SETXATTR_ACL_KILL_SGID)
        self._attributes.setxattr(inode, name, value, request, flags=flags, kills_setgid=kills)
        return b""

    def removexattr(self, request: Request) -> bytes:
        name, _ = request.text(HEADER_SIZE)
        refuse_virtual(request.node)
        self._attributes.removexattr(self._table[request.node], name, request)
        return b""


def _time(valid: int, given: int, now: int, given_ns: int) -> Time | None:
    if valid & now:
        return Moment.NOW
    return given_ns if valid & given else None


def _sized(value: bytes, room: int) -> bytes:
    """Return the answer to who has *room* bytes for *value*; 0 asks for how many it takes."""
    if not room:
        return GETXATTR_OUT.pack(len(value), 0)
    if len(value) > room:
        raise error(errno.ERANGE)
    return value
