"""A file system in memory, as simple as can be, and pictures of it, of a mount and of a version to compare."""

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dkfs.history import content
from dkfs.history.tree import Tree
from dkfs.model.ids import BlobId, NodeId
from dkfs.model.node import Kind, NodeState
from dkfs.store import Reader

_FORMATS = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIR: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
    Kind.CHAR: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
}


class Picture(NamedTuple):
    """Everything of one name that has to be the same everywhere."""

    mode: int  # with the format
    uid: int
    gid: int
    mtime_ns: int
    rdev: int
    size: int
    data: bytes  # digest of a file's contents, or a symlink's target
    xattrs: tuple[tuple[bytes, bytes], ...]
    names: tuple[bytes, ...]  # all names of what is no directory


Pictures = dict[bytes, Picture]


def digest(data: bytes | bytearray) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


@dataclass(eq=False, slots=True)
class Node:
    """What a name leads to."""

    mode: int  # with the format
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    rdev: int = 0
    data: bytearray = field(default_factory=bytearray)
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    children: "dict[bytes, Node]" = field(default_factory=dict)
    fingerprint: bytes | None = None  # digest of data; None: to be computed

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)

    def write(self, offset: int, data: bytes) -> None:
        self.truncate(max(len(self.data), offset))
        self.data[offset : offset + len(data)] = data
        self.fingerprint = None

    def truncate(self, size: int) -> None:
        if size < len(self.data):
            del self.data[size:]
        else:
            self.data.extend(bytes(size - len(self.data)))
        self.fingerprint = None

    def picture(self, names: tuple[bytes, ...]) -> Picture:
        data = self.target
        if self.is_file:
            if self.fingerprint is None:
                self.fingerprint = digest(self.data)
            data = self.fingerprint
        return Picture(
            self.mode,
            self.uid,
            self.gid,
            self.mtime_ns,
            self.rdev,
            len(self.data) or len(self.target),
            data,
            tuple(sorted(self.xattrs.items())),
            () if self.is_dir else names,
        )


class Model:
    """A tree of nodes."""

    def __init__(self) -> None:
        self.root = Node(stat.S_IFDIR)

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        stack = [(b"", self.root)]
        while stack:
            path, node = stack.pop()
            yield path, node
            stack += [(join(path, name), child) for name, child in node.children.items()]

    def find(self, path: bytes) -> Node:
        node = self.root
        for name in path.split(b"/") if path else ():
            node = node.children[name]
        return node

    def pictures(self) -> Pictures:
        names: defaultdict[Node, list[bytes]] = defaultdict(list)
        for path, node in self.walk():
            names[node].append(path)
        made = {node: node.picture(tuple(sorted(paths))) for node, paths in names.items()}
        return {path: made[node] for node, paths in names.items() for path in paths}


def join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def shown(path: bytes) -> str:
    return repr(path).replace("n" * 250, "...")


def split(path: bytes) -> tuple[bytes, bytes]:
    directory, _, name = path.rpartition(b"/")
    return directory, name


# ---- what is really there


def pictures_of(top: bytes) -> Pictures:
    """Return what the real directory *top* holds."""
    found: dict[bytes, os.stat_result] = {}
    names: defaultdict[int, list[bytes]] = defaultdict(list)
    stack = [b""]
    while stack:
        path = stack.pop()
        full = join(top, path) if path else top
        found[path] = status = os.lstat(full)
        names[status.st_ino].append(path)
        if stat.S_ISDIR(status.st_mode):
            stack += [join(path, name) for name in os.listdir(full)]
    return {
        path: _real(join(top, path) if path else top, status, tuple(sorted(names[status.st_ino])))
        for path, status in found.items()
    }


def _real(full: bytes, status: os.stat_result, names: tuple[bytes, ...]) -> Picture:
    data = b""
    if stat.S_ISREG(status.st_mode):
        with open(full, "rb") as file:
            data = digest(file.read())
    elif stat.S_ISLNK(status.st_mode):
        data = os.readlink(full)
    is_sized = stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)
    return Picture(
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        status.st_rdev,
        status.st_size if is_sized else 0,
        data,
        tuple(
            sorted(
                (os.fsencode(name), os.getxattr(full, name, follow_symlinks=False))
                for name in os.listxattr(full, follow_symlinks=False)
            )
        ),
        () if stat.S_ISDIR(status.st_mode) else names,
    )


def statuses_of(top: bytes) -> dict[bytes, tuple[int, ...]]:
    """Return every number of stat(2) that a mount and its backing directory have in common."""
    found: dict[bytes, tuple[int, ...]] = {}
    for above, below, files in os.walk(top):
        for full in (above, *(join(above, name) for name in below + files)):
            s = os.lstat(full)
            found[full[len(top) + 1 :]] = (
                *(s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_rdev, s.st_size),
                *(s.st_blocks, s.st_mtime_ns, s.st_ctime_ns),
            )
    return found


# ---- what the history holds


class Versions:
    """Pictures of versions; contents are read once."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._digests: dict[tuple[BlobId | None, bool, int], bytes] = {}
        self._xattrs: dict[BlobId, tuple[tuple[bytes, bytes], ...]] = {}

    def pictures(self, tree: Tree) -> Pictures:
        found: list[tuple[bytes, NodeId, NodeState]] = list(tree.walk())
        names: defaultdict[NodeId, list[bytes]] = defaultdict(list)
        for path, node, _ in found:
            names[node].append(path)
        return {path: self._one(state, tuple(sorted(names[node]))) for path, node, state in found}

    def _one(self, state: NodeState, names: tuple[bytes, ...]) -> Picture:
        attr = state.attr
        return Picture(
            attr.mode | _FORMATS[attr.kind],
            attr.uid,
            attr.gid,
            attr.mtime_ns,
            attr.rdev,
            attr.size,
            self._data(state) if attr.kind is Kind.FILE else state.target,
            self._attributes(state),
            () if attr.kind is Kind.DIR else names,
        )

    def _data(self, state: NodeState) -> bytes:
        key = (state.content, state.is_manifest, state.attr.size)
        if key not in self._digests:
            data = content.read(self._reader, state, 0, state.attr.size)
            assert len(data) == state.attr.size
            self._digests[key] = digest(data)
        return self._digests[key]

    def _attributes(self, state: NodeState) -> tuple[tuple[bytes, bytes], ...]:
        if state.xattrs is None:
            return ()
        if state.xattrs not in self._xattrs:
            found = content.xattrs(self._reader, state)
            self._xattrs[state.xattrs] = tuple(sorted(found.items()))
        return self._xattrs[state.xattrs]


def differences(expected: Pictures, seen: Pictures) -> list[str]:
    """Return a line for each path that is not the same."""
    lines = []
    for path in sorted(expected.keys() | seen.keys()):
        one, other = expected.get(path), seen.get(path)
        if one is None or other is None:
            lines.append(
                f"{shown(path)}: {'not expected' if one is None else 'missing'}: {one or other}"
            )
        elif one != other:
            lines += [
                f"{shown(path)}: {name} is {b!r}, expected {a!r}"
                for name, a, b in zip(Picture._fields, one, other, strict=True)
                if a != b
            ]
    return lines
