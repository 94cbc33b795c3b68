"""What a worker of the crash machine does, one call at a time, and a model of what each call leaves behind."""

import random
from dataclasses import dataclass, field

SHARED = "s"  # a directory in which every worker has names of its own
CURRENT = "s/current"  # a name that every worker renames over
LOG = "s/log"  # a file to which every worker appends
RECORD = 512  # bytes of a record in it: a part of a page, so that one write is one request
MOST = 40_000  # bytes of a file

Args = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Op:
    """One call; its index is its place among those of its worker."""

    name: str
    args: Args = ()

    def path(self, at: int = 0) -> str:
        found = self.args[at]
        assert isinstance(found, str)
        return found

    def number(self, at: int) -> int:
        found = self.args[at]
        assert isinstance(found, int)
        return found


def contents(key: int, length: int) -> bytes:
    """Return what the call *key* writes: never the same as another's."""
    head = b"%d " % key + random.Random(key).randbytes(40)
    return (head * (length // len(head) + 1))[:length]


def record(worker: int, count: int) -> bytes:
    """Return record *count* of *worker* in the log that all append to."""
    return (b"%d %d " % (worker, count)).ljust(RECORD - 1, b".") + b"\n"


@dataclass(slots=True, eq=False)
class Node:
    """What names lead to."""

    id: int
    kind: str  # "file", "dir", "link"
    mode: int
    target: str = ""
    xattrs: dict[str, bytes] = field(default_factory=dict)
    versions: list[bytes] = field(default_factory=lambda: [b""])  # of the contents, in order
    floor: int = 0  # the version that was last captured: no older one is with what was done since
    touched: int = -1  # the last call that changed it, its names, or what it holds
    opened: str = ""  # the name that it was last opened by
    synced: str = ""  # that name when it was last synced

    @property
    def data(self) -> bytes:
        return self.versions[-1]


class Model:
    """The files of one worker."""

    def __init__(self, key: int, *, passes: bool = False) -> None:
        """*key* tells its contents from others'; *passes*: the kernel passes files through, past dkfs."""
        self.key = key
        self.names: dict[str, Node] = {}
        self.slots: dict[int, Node] = {}
        self.wrote: set[int] = set()  # slots written through since they were opened
        self.ids = 0  # given to nodes so far
        self.published: list[
            tuple[int, bytes]
        ] = []  # what was renamed over CURRENT: call, contents
        self.appended = 0  # records in LOG
        self.appended_at: list[int] = []  # calls that appended them
        self.passes = passes

    def node(self, kind: str, mode: int, target: str = "") -> Node:
        """Return a new node, without a name as yet."""
        self.ids += 1
        return Node(self.ids, kind, mode, target)

    def parent(self, path: str) -> Node | None:
        return self.names.get(path.rpartition("/")[0])

    def apply(self, index: int, op: Op) -> None:
        """Do what call *index* did."""
        getattr(self, f"_{op.name}")(index, op)

    # contents

    def _change(self, index: int, node: Node, data: bytes) -> None:
        node.versions.append(data)
        node.touched = index

    def _put(self, index: int, node: Node, offset: int, data: bytes) -> None:
        old = node.data.ljust(offset, b"\0")
        self._change(index, node, old[:offset] + data + old[offset + len(data) :])

    def _pwrite(self, index: int, op: Op) -> None:
        slot, offset, length = op.number(0), op.number(1), op.number(2)
        self.wrote.add(slot)
        self._put(index, self.slots[slot], offset, contents(self.key + index, length))

    def _append(self, index: int, op: Op) -> None:
        node = self.slots[op.number(0)]
        self.wrote.add(op.number(0))
        self._put(index, node, len(node.data), contents(self.key + index, op.number(1)))

    def _ftruncate(self, index: int, op: Op) -> None:
        self._resize(index, self.slots[op.number(0)], op.number(1))

    def _truncate(self, index: int, op: Op) -> None:
        self._resize(index, self.names[op.path()], op.number(1))

    def _resize(self, index: int, node: Node, size: int) -> None:
        self._change(index, node, node.data[:size].ljust(size, b"\0"))

    def _mstore(self, index: int, op: Op) -> None:
        node = self.slots[op.number(0)]
        self._put(index, node, op.number(1), contents(self.key + index, op.number(2)))
        self._sync(node)

    def _mstore_close(self, index: int, op: Op) -> None:
        node = self.slots.pop(op.number(0))
        self.wrote.discard(op.number(0))
        self._put(index, node, op.number(1), contents(self.key + index, op.number(2)))

    def _create(self, index: int, op: Op) -> None:
        node = self._name(index, op.path(1), self.node("file", 0o644))
        node.opened = op.path(1)
        self.slots[op.number(0)] = node

    def _open(self, index: int, op: Op) -> None:
        node = self.slots[op.number(0)] = self.names[op.path(1)]
        node.opened = op.path(1)
        if op.number(2):
            self._change(index, node, b"")

    def _close(self, index: int, op: Op) -> None:
        node = self.slots.pop(op.number(0))
        if op.number(0) in self.wrote and not self.passes:
            self._capture(node)
        self.wrote.discard(op.number(0))

    def _capture(self, node: Node) -> None:
        node.floor = len(node.versions) - 1

    def _sync(self, node: Node) -> None:
        self._capture(node)
        node.synced = node.opened

    def _fsync(self, index: int, op: Op) -> None:
        self._sync(self.slots[op.number(0)])

    _fdatasync = _fsync

    # names

    def _name(self, index: int, path: str, node: Node) -> Node:
        self.names[path] = node
        node.touched = index
        self._touch_parent(index, path)
        return node

    def _touch_parent(self, index: int, path: str) -> None:
        if (parent := self.parent(path)) is not None:
            parent.touched = index

    def _mkdir(self, index: int, op: Op) -> None:
        self._name(index, op.path(), self.node("dir", 0o755))

    def _symlink(self, index: int, op: Op) -> None:
        self._name(index, op.path(1), self.node("link", 0o777, op.path()))

    def _link(self, index: int, op: Op) -> None:
        node = self.names[op.path()]
        self._capture(node)
        self._name(index, op.path(1), node)

    def _unlink(self, index: int, op: Op) -> None:
        self.names.pop(op.path()).touched = index
        self._touch_parent(index, op.path())

    _rmdir = _unlink

    def _rename(self, index: int, op: Op) -> None:
        old, new = op.path(), op.path(1)
        node = self.names.pop(old)
        self._capture(node)
        for path in [each for each in self.names if each.startswith(f"{old}/")]:
            self.names[new + path[len(old) :]] = self.names.pop(path)
        self._touch_parent(index, old)
        self._name(index, new, node)

    def _publish(self, index: int, op: Op) -> None:
        node = self.names.pop(op.path())
        node.touched = index
        self._touch_parent(index, op.path())
        self.published.append((index, node.data))

    def _record(self, index: int, op: Op) -> None:
        self.appended += 1
        self.appended_at.append(index)

    # attributes

    def _chmod(self, index: int, op: Op) -> None:
        node = self.names[op.path()]
        node.mode = op.number(1)
        node.touched = index
        self._capture(node)

    def _setxattr(self, index: int, op: Op) -> None:
        node = self.names[op.path()]
        node.xattrs[op.path(1)] = contents(self.key + index, op.number(2))
        node.touched = index

    def _removexattr(self, index: int, op: Op) -> None:
        node = self.names[op.path()]
        del node.xattrs[op.path(1)]
        node.touched = index

    def _fsyncdir(self, index: int, op: Op) -> None:
        """Change nothing."""

    def _syncfs(self, index: int, op: Op) -> None:
        """Change nothing, and promise nothing: FUSE daemons do not hear of it."""
