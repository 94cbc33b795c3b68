"""What the history knows of one node at one version."""

from dataclasses import dataclass
from enum import IntEnum

from dkfs.model.ids import BlobId, NodeId


class Kind(IntEnum):
    """The type of a node; the values are stored."""

    FILE = 1
    DIR = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5
    CHAR = 6
    BLOCK = 7


@dataclass(frozen=True, slots=True)
class Attr:
    """The metadata that stat(2) tells of a node, less what the history does not keep (atime, blocks)."""

    kind: Kind
    mode: int  # permission bits, 0 .. 0o7777
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int  # as the backing directory had it; no system call could restore it
    size: int  # bytes; 0 for anything but files and symlinks
    rdev: int  # device number of a CHAR or BLOCK, else 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of a file's bytes: stored in a blob, or a hole."""

    length: int  # bytes, never 0
    blob: BlobId | None  # None: a hole, reads as zeros


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node as of one version."""

    attr: Attr
    parent: NodeId  # directory of the link last seen; the root is its own parent
    name: bytes  # name of that link; empty for the root
    content: BlobId | None  # FILE: blob, or manifest if is_manifest; None = empty or all hole
    is_manifest: bool  # content names a manifest (core.manifest), not the bytes themselves
    target: bytes  # SYMLINK: what it points to, else empty
    xattrs: BlobId | None  # blob holding codec.encode_xattrs; None = no extended attributes
    is_forgotten: bool = False  # FILE: what its contents were is not kept any more; content is None
