"""One entry of the log."""

from dataclasses import dataclass
from enum import IntEnum

from dkfs.model.ids import NO_NODE, NodeId, Seq
from dkfs.model.node import NodeState


class OpKind(IntEnum):
    """What was done; the values are stored, the lower-case name is what people see."""

    WRITE = 1  # a content version: close after writing, fsync, rename-over, timer, tag
    CREATE = 2  # a regular file
    MKDIR = 3
    MKNOD = 4  # fifo, socket, device
    SYMLINK = 5
    LINK = 6
    UNLINK = 7
    RMDIR = 8
    RENAME = 9
    EXCHANGE = 10  # rename(2) with RENAME_EXCHANGE
    SETATTR = 11  # chmod, chown, utimens
    TRUNCATE = 12
    SETXATTR = 13
    REMOVEXATTR = 14
    TAG = 15
    UNTAG = 16
    ROLLBACK = 17
    UNDO = 18
    REDO = 19
    FOUND = 20  # a difference found in the backing directory at a mount, or the first import
    GAP = 21  # what the directory is after a time in which nothing could be recorded


@dataclass(frozen=True, slots=True)
class Origin:
    """Who did it; pid 0 = unknown or dkfs itself."""

    pid: int
    uid: int
    comm: bytes  # at most 16 bytes


NOBODY = Origin(pid=0, uid=0, comm=b"")


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that was done, without the resulting states (see Entry)."""

    kind: OpKind
    time_ns: int  # UTC; never smaller than that of the operation before it in the log
    origin: Origin
    node: NodeId = NO_NODE  # the node it was done to
    parent: NodeId = NO_NODE  # directory and name through which it was done
    name: bytes = b""  # ... TAG, UNTAG: the tag's name
    new_parent: NodeId = NO_NODE  # RENAME, EXCHANGE, LINK: the other place
    new_name: bytes = b""
    target: Seq = Seq(0)  # ROLLBACK, UNDO, REDO: the version gone back to.  TAG: the version tagged
    undoes: Seq = Seq(0)  # UNDO, REDO: the operation that it takes back
    paths: tuple[bytes, ...] = ()  # ROLLBACK, UNDO, REDO: only these; empty = the whole tree


@dataclass(frozen=True, slots=True)
class Entry:
    """A log entry: the operation at position seq and every state that it left behind."""

    seq: Seq
    operation: Operation
    nodes: tuple[tuple[NodeId, NodeState], ...]  # new states, in effect from seq on
    names: tuple[
        tuple[NodeId, bytes, NodeId], ...
    ]  # (directory, name, node or NO_NODE) from seq on


@dataclass(frozen=True, slots=True)
class LogRecord:
    """What the log stores of an Entry: the operation and the keys of what it changed."""

    seq: Seq
    operation: Operation
    nodes: tuple[NodeId, ...]
    names: tuple[tuple[NodeId, bytes], ...]
    folded_nodes: tuple[NodeId, ...] = ()  # what versions since forgotten, just before, changed
    folded_names: tuple[tuple[NodeId, bytes], ...] = ()

    @property
    def all_nodes(self) -> tuple[NodeId, ...]:
        """The nodes that differ from the version before that is kept."""
        return self.nodes + self.folded_nodes if self.folded_nodes else self.nodes

    @property
    def all_names(self) -> tuple[tuple[NodeId, bytes], ...]:
        """The names that differ from the version before that is kept."""
        return self.names + self.folded_names if self.folded_names else self.names


@dataclass(frozen=True, slots=True)
class Tag:
    """A name for a version."""

    name: str
    seq: Seq
    time_ns: int  # when it was made
    is_hold: bool = False  # the version is kept, whatever policy says
    expires_ns: int | None = None  # from then on it counts no more; None: it always does
