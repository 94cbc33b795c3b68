""".dkfs, the history inside the mount: a read-only tree of directories, made up from the store.

    versions/N/...   the tree as of N; listed are the newest 1,000, any N that is kept is found by name
    latest           a symlink to the last committed version
    tags/NAME/...    the tree at a tag; mkdir makes a tag of the present, rmdir removes it
    at/TIME/...      the tree at a time, as "10m", "yesterday" or 2026-11-22T10:14:03Z; never listed
    files/PATH/N     the versions of each file; see virtual_files

What is shown is what was recorded, without set-user-id, set-group-id and file capabilities, and
devices without any permission.  Names have no times of their own but that of the mount.  Who may
see it: see virtual_rights.  All methods raise OSError or DkfsError, which has an errno too.
"""

import errno
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from dkfs.errors import CorruptError
from dkfs.history.content import Contents, contents, xattrs
from dkfs.history.versions import check_tag_name
from dkfs.model.ids import ROOT, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.overlay.access import ACL_ACCESS, ACL_DEFAULT, READ
from dkfs.overlay.handles import HandleTable
from dkfs.overlay.origin import Caller
from dkfs.overlay.virtual_files import list_path, path_names
from dkfs.overlay.virtual_names import (
    check_kept,
    check_length,
    error,
    find_place,
    list_names,
)
from dkfs.overlay.virtual_numbers import VIRTUAL, Area, Numbers, Place
from dkfs.overlay.virtual_rights import Guard, Rights
from dkfs.store import Reader, Store

__all__ = ["VIRTUAL", "TagKeeper", "Virtual", "VirtualStatus"]

_ROOT_INODE = 1  # what the kernel calls the root of a mount
_TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIR: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
    Kind.CHAR: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
}
_DEVICES = (Kind.CHAR, Kind.BLOCK)
_ACLS = (ACL_ACCESS, ACL_DEFAULT)
_CAPABILITY = b"security.capability"
_SHOWN_BITS = 0o1777  # no set-user-id, no set-group-id


class TagKeeper(Protocol):
    """What makes and removes tags; called by mkdir() and rmdir()."""

    def tag(self, name: str) -> Seq:
        """Name the present version *name*; raises ExistsError, StoreError."""

    def untag(self, name: str) -> object:
        """Remove the tag *name*; raises NotFoundError, StoreError."""


@dataclass(frozen=True, slots=True)
class VirtualStatus:
    """What stat(2) tells of an inode in the history."""

    number: int
    mode: int  # with the type
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int  # bytes
    mtime_ns: int
    ctime_ns: int


@dataclass(slots=True)
class _OpenFile:
    place: Place
    state: NodeState
    contents: Contents | None = None  # from the first read on


@dataclass(slots=True)
class _OpenDirectory:
    number: int
    place: Place
    names: list[bytes]


class Virtual:
    """Serves every request about the history; see the module."""

    def __init__(
        self,
        store: Store,
        name: bytes | None,
        tags: TagKeeper,
        clock_ns: Callable[[], int],
        groups: Callable[[int], frozenset[int]],
        *,
        root_xattrs: Mapping[bytes, bytes] | None = None,
    ) -> None:
        """Show *store* in the mount's root as *name*, None: not at all.

        groups(pid) is to return the supplementary groups of a process, none if it is gone.  With *root_xattrs*
        the history is the root of the mount, the inode VIRTUAL; it has them, and does not list them.
        """
        self.name = name
        self._store = store
        self._tags = tags
        self._clock_ns = clock_ns
        self._mounted_ns = clock_ns()
        self._guard = Guard(groups)
        self._root_xattrs = root_xattrs or {}
        self._numbers = Numbers(is_root=root_xattrs is not None)
        self._files: HandleTable[_OpenFile] = HandleTable(VIRTUAL + 1)
        self._directories: HandleTable[_OpenDirectory] = HandleTable(VIRTUAL + 1)

    def owns(self, parent: int, name: bytes) -> bool:
        """Return whether *name* in *parent* belongs to the history."""
        return parent >= VIRTUAL or (parent == _ROOT_INODE and name == self.name)

    # Names

    def lookup(self, parent: int, name: bytes, caller: Caller) -> VirtualStatus:
        """Return what *name* in *parent* is, and take a reference to it."""
        with self._store.read() as reader:
            status = self._find(reader, parent, name, self._guard.rights(reader, caller))
        self._numbers.refer(status.number)
        return status

    def peek(self, parent: int, name: bytes) -> VirtualStatus | None:
        """Return what *name*, taken from names(), is, without a reference; None if it is gone."""
        try:
            with self._store.read() as reader:
                return self._find(reader, parent, name, None)
        except FileNotFoundError:
            return None

    def reference(self, status: VirtualStatus) -> None:
        """Take a reference to what peek() just returned."""
        self._numbers.refer(status.number)

    def forget(self, number: int, lookups: int) -> None:
        """Take back references; an unknown number is nobody's."""
        self._numbers.forget(number, lookups)

    def mkdir(self, parent: int, name: bytes, caller: Caller) -> VirtualStatus:
        """Tag the present version, if *parent* is tags/; take a reference to what tags/*name* is."""
        tag = self._tag_name(parent, name, caller)
        check_tag_name(tag)
        self._tags.tag(tag)
        return self.lookup(parent, name, caller)

    def rmdir(self, parent: int, name: bytes, caller: Caller) -> None:
        """Remove a tag, if *parent* is tags/."""
        self._tags.untag(self._tag_name(parent, name, caller))

    def _tag_name(self, parent: int, name: bytes, caller: Caller) -> str:
        if self._numbers.place(parent).area is not Area.TAGS:
            raise error(errno.EROFS)
        with self._store.read() as reader:
            root = reader.node(ROOT, reader.last)
        if caller.uid != 0 and (root is None or caller.uid != root.attr.uid):
            raise error(errno.EACCES)
        check_length(name)
        try:
            return name.decode()
        except UnicodeDecodeError:
            raise error(errno.EINVAL) from None

    def _find(
        self, reader: Reader, parent: int, name: bytes, rights: Rights | None
    ) -> VirtualStatus:
        """Return what *name* in *parent* is; without *rights* nothing is refused."""
        check_length(name)
        if parent == _ROOT_INODE and name == self.name:
            place = Place(Area.TOP)
        else:
            above = self._numbers.place(parent)
            place = find_place(reader, above, name, rights, now_ns=self._clock_ns)
        return self._status(reader, place)

    # Attributes

    def getattr(self, number: int) -> VirtualStatus:
        """Return what stat(2) is to tell."""
        with self._store.read() as reader:
            return self._status(reader, self._numbers.place(number))

    def readlink(self, number: int, caller: Caller) -> bytes:
        """Return where a symlink leads."""
        place = self._numbers.place(number)
        with self._store.read() as reader:
            if place.area is Area.LATEST:
                return b"versions/%d" % reader.last
            state = _state(reader, place)
            if state.attr.kind is not Kind.SYMLINK:
                raise error(errno.EINVAL)
            if not self._guard.rights(reader, caller).reaches(place.node):
                raise error(errno.EACCES)
            return state.target

    def getxattr(self, number: int, name: bytes, caller: Caller) -> bytes:
        """Return an extended attribute; the ACLs to everybody, as stat(2) does the mode."""
        place = self._numbers.place(number)
        if number == VIRTUAL and name in self._root_xattrs:
            return self._root_xattrs[name]
        if not place.node:
            raise error(errno.ENODATA)
        with self._store.read() as reader:
            value = _shown_xattrs(reader, _state(reader, place), caller).get(name)
            if value is None:
                raise error(errno.ENODATA)
            if name not in _ACLS and not self._guard.rights(reader, caller).now(place.node, READ):
                raise error(errno.EACCES)
            return value

    def listxattr(self, number: int, caller: Caller) -> list[bytes]:
        """Return the names of the extended attributes that the caller may read."""
        place = self._numbers.place(number)
        if not place.node:
            return []
        with self._store.read() as reader:
            names = list(_shown_xattrs(reader, _state(reader, place), caller))
            if names and not self._guard.rights(reader, caller).now(place.node, READ):
                names = [name for name in names if name in _ACLS]
            return names

    def _status(self, reader: Reader, place: Place) -> VirtualStatus:
        if place.node:
            return self._status_of_node(_state(reader, place), place)
        mode, uid, gid, size = stat.S_IFDIR | 0o555, 0, 0, 0
        if place.area is Area.LATEST:
            mode, size = stat.S_IFLNK | 0o777, len(b"versions/" + place.name)
        elif place.area is Area.TAGS:
            root = reader.node(ROOT, reader.last)
            if root is not None:  # whose owner may make tags
                mode, uid, gid = stat.S_IFDIR | 0o755, root.attr.uid, root.attr.gid
        number = self._numbers.number(place)
        when = self._mounted_ns
        return VirtualStatus(number, mode, 1, uid, gid, 0, size, when, when)

    def _status_of_node(self, state: NodeState, place: Place) -> VirtualStatus:
        attr = state.attr
        shown = 0 if attr.kind in _DEVICES else attr.mode & _SHOWN_BITS
        return VirtualStatus(
            number=self._numbers.number(place),
            mode=_TYPES[attr.kind] | shown,
            nlink=1,
            uid=attr.uid,
            gid=attr.gid,
            rdev=attr.rdev,
            size=attr.size,
            mtime_ns=attr.mtime_ns,
            ctime_ns=attr.ctime_ns,
        )

    # Open directories and files

    def opendir(self, number: int, caller: Caller) -> int:
        """Open a directory; what files/ lists depends on the caller, and is found out here."""
        place = self._numbers.place(number)
        names: list[bytes] = []
        with self._store.read() as reader:
            if place.node:
                if _state(reader, place).attr.kind is not Kind.DIR:
                    raise error(errno.ENOTDIR)
                if not self._guard.rights(reader, caller).now(place.node, READ):
                    raise error(errno.EACCES)
            elif place.area is Area.LATEST:
                raise error(errno.ENOTDIR)
            elif place.area is Area.FILES:
                rights = self._guard.rights(reader, caller)
                names = list_path(reader, path_names(place.name), rights)
        return self._directories.add(_OpenDirectory(number, place, names))

    def names(self, fh: int, *, again: bool) -> tuple[int, list[bytes]]:
        """Return the number of an open directory, and its names; *again*: as they are now."""
        directory = self._directories[fh]
        if again and directory.place.area is not Area.FILES:
            with self._store.read() as reader:
                directory.names = list_names(reader, directory.place)
        return directory.number, directory.names

    def releasedir(self, fh: int) -> None:
        """Close a directory."""
        self._directories.remove(fh)

    def open(self, number: int, flags: int, caller: Caller) -> int:
        """Open a file for reading."""
        place = self._numbers.place(number)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            raise error(errno.EROFS)
        with self._store.read() as reader:
            state = _state(reader, place) if place.node else None
            if state is None or state.attr.kind is Kind.DIR:
                raise error(errno.EISDIR)
            if state.attr.kind is not Kind.FILE:
                raise error(errno.EACCES)
            if not self._guard.rights(reader, caller).now(place.node, READ):
                raise error(errno.EACCES)
        if state.is_forgotten:
            raise error(errno.ENODATA)
        return self._files.add(_OpenFile(place, state))

    def read(self, fh: int, offset: int, size: int) -> bytes:
        """Return bytes of an open file, fewer at its end, none unverified; for any thread."""
        file = self._files[fh]
        with self._store.read() as reader:
            # Once the version is forgotten its contents go at some time, which is no damage.
            check_kept(reader, file.place)
            if file.contents is None:
                file.contents = contents(reader, file.state)
            return file.contents.read(reader, offset, size)

    def release(self, fh: int) -> None:
        """Close a file."""
        self._files.remove(fh)


def _shown_xattrs(reader: Reader, state: NodeState, caller: Caller) -> dict[bytes, bytes]:
    if state.xattrs is None:
        return {}
    hides_acls = state.attr.kind in _DEVICES  # which have no permissions here
    return {
        name: value
        for name, value in xattrs(reader, state).items()
        if name != _CAPABILITY
        and not (hides_acls and name in _ACLS)
        and (caller.uid == 0 or not name.startswith(b"trusted."))
    }


def _state(reader: Reader, place: Place) -> NodeState:
    check_kept(reader, place)
    state = reader.node(place.node, place.at)
    if state is None:
        raise CorruptError(f"node {place.node} is named at version {place.at} but has no state")
    return state
