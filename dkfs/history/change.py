"""What the file system tells the recorder: raw, cheap to make, resolved later in the recorder's thread."""

import os
import stat
from collections.abc import Mapping
from typing import NamedTuple

from dkfs.history.frozen import Frozen
from dkfs.model.ids import NodeId, Seq
from dkfs.model.node import Attr, Kind
from dkfs.model.operation import Operation

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIR,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
}


class Link(NamedTuple):
    """A directory and a name in it."""

    parent: NodeId
    name: bytes


class NodeChange(NamedTuple):
    """The new state of one node; None means: as it was before."""

    node: NodeId
    status: os.stat_result  # size counts only together with contents, or for a new node
    link: Link | None = None
    contents: Frozen | None = None
    xattrs: Mapping[bytes, bytes] | None = None
    target: bytes | None = None  # of a symbolic link


class NameChange(NamedTuple):
    """A name now means *node*, or nothing if NO_NODE."""

    parent: NodeId
    name: bytes
    node: NodeId


class Pending(NamedTuple):
    """An operation that was answered and is not yet committed."""

    seq: Seq
    operation: Operation
    nodes: tuple[NodeChange, ...]
    names: tuple[NameChange, ...]


def attr_of(status: os.stat_result) -> Attr:
    """Return what the history keeps of *status*."""
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    return Attr(
        kind=kind,
        mode=status.st_mode & 0o7777,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        size=status.st_size if kind in (Kind.FILE, Kind.SYMLINK) else 0,
        rdev=status.st_rdev if kind in (Kind.CHAR, Kind.BLOCK) else 0,
    )
