"""A store with a history in it, and beside it the plainest record of what the tree was at every version.

ModelHistory has one method for each operation, by path.  It knows nothing of how the history is read: trees[N] is the
whole tree as of version N, copied.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from dkfs.core import codec
from dkfs.core.manifest_update import build
from dkfs.history.links import remember
from dkfs.model.ids import NO_NODE, ROOT, BlobId, NodeId, Seq
from dkfs.model.node import Attr, Chunk, Kind, NodeState
from dkfs.model.operation import Operation, OpKind, Origin, Tag
from dkfs.store import Store, Writer

START_NS = 1_700_000_000_000_000_000  # 2023-11-14T22:13:20Z; version N is N seconds later
STEP_NS = 1_000_000_000
CELL = 64 * 1024  # bytes; contents are cut on this grid: readers must not care where

Place = tuple[NodeId, bytes]


def visible(state: NodeState, *, dir_times: bool) -> tuple[object, ...]:
    """Return what a difference is made of."""
    no_mtime = not dir_times and state.attr.kind is Kind.DIR
    attr = replace(state.attr, ctime_ns=0, mtime_ns=0 if no_mtime else state.attr.mtime_ns)
    return attr, state.content, state.is_manifest, state.target, state.xattrs


@dataclass(frozen=True)
class ModelTree:
    """The tree at one version."""

    states: dict[NodeId, NodeState] = field(default_factory=dict)
    names: dict[Place, NodeId] = field(default_factory=dict)

    def paths(self) -> dict[bytes, NodeId]:
        """Return every path; a directory comes before what it holds, names are in byte order."""
        below: dict[NodeId, list[tuple[bytes, NodeId]]] = {}
        for (parent, name), node in self.names.items():
            below.setdefault(parent, []).append((name, node))
        found: dict[bytes, NodeId] = {}

        def visit(path: bytes, node: NodeId) -> None:
            found[path] = node
            for name, child in sorted(below.get(node, ())):
                visit(path + b"/" + name if path else name, child)

        if ROOT in self.states:
            visit(b"", ROOT)
        return found


@dataclass(frozen=True)
class ModelLine:
    """What the log should say of one version."""

    kind: OpKind
    path: bytes | None
    new_path: bytes | None = None


class ModelHistory:
    """A new store; each operation is one version and returns its number."""

    def __init__(self, place: Path) -> None:
        Store.create(place)
        self.store = Store.open(place, writable=True)
        self.trees: list[ModelTree] = [ModelTree()]
        self.lines: list[ModelLine | None] = [None]
        self.contents: dict[tuple[BlobId | None, int], bytes] = {}
        self.origin = Origin(pid=100, uid=1000, comm=b"test")
        self._states: dict[NodeId, NodeState] = {}
        self._names: dict[Place, NodeId] = {}
        self._next_node = ROOT
        self._writer: Writer | None = None
        self.mkdir(b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    @property
    def last(self) -> Seq:
        return Seq(len(self.trees) - 1)

    @property
    def tree(self) -> ModelTree:
        return self.trees[-1]

    def time_ns(self, seq: int) -> int:
        return START_NS + seq * STEP_NS

    def state(self, path: bytes, at: int | None = None) -> NodeState:
        tree = self.trees[self.last if at is None else at]
        return tree.states[tree.paths()[path]]

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Do what follows in one transaction: many times faster."""
        with self.store.write() as self._writer:
            yield
        self._writer = None

    # ---- operations, by path

    def mkdir(self, path: bytes) -> Seq:
        kind = OpKind.MKDIR if path else OpKind.FOUND
        return self._make(kind, path, Kind.DIR, mode=0o755)

    def create(self, path: bytes, data: bytes = b"") -> Seq:
        """Make a file; it has its contents at once."""
        return self._make(OpKind.CREATE, path, Kind.FILE, data=data)

    def symlink(self, path: bytes, target: bytes) -> Seq:
        return self._make(OpKind.SYMLINK, path, Kind.SYMLINK, mode=0o777, target=target)

    def mknod(self, path: bytes, kind: Kind = Kind.FIFO, rdev: int = 0) -> Seq:
        return self._make(OpKind.MKNOD, path, kind, rdev=rdev)

    def write(self, path: bytes, data: bytes) -> Seq:
        node, place = self._at(path)
        with self._transaction() as writer:
            state = self._seen(self._with_data(writer, self._states[node], data), place)
            return self._append(writer, OpKind.WRITE, node, place, {node: self._touch(state)})

    def chmod(self, path: bytes, mode: int) -> Seq:
        node, place = self._at(path)
        attr = replace(self._states[node].attr, mode=mode)
        state = self._seen(replace(self._states[node], attr=attr), place)
        with self._transaction() as writer:
            return self._append(writer, OpKind.SETATTR, node, place, {node: state})

    def utime(self, path: bytes, mtime_ns: int) -> Seq:
        node, place = self._at(path)
        attr = replace(self._states[node].attr, mtime_ns=mtime_ns)
        state = self._seen(replace(self._states[node], attr=attr), place)
        with self._transaction() as writer:
            return self._append(writer, OpKind.SETATTR, node, place, {node: state})

    def setxattr(self, path: bytes, xattrs: dict[bytes, bytes]) -> Seq:
        node, place = self._at(path)
        with self._transaction() as writer:
            blob = writer.put_blob(codec.encode_xattrs(xattrs))[0] if xattrs else None
            state = self._seen(replace(self._states[node], xattrs=blob), place)
            return self._append(writer, OpKind.SETXATTR, node, place, {node: state})

    def link(self, old: bytes, new: bytes) -> Seq:
        node, place = self._at(old)
        there = self._place(new)
        return self._rebind(OpKind.LINK, node, place, {there: node}, there, see=((node, there),))

    def unlink(self, path: bytes) -> Seq:
        node, place = self._at(path)
        return self._rebind(OpKind.UNLINK, node, place, {place: NO_NODE})

    def rmdir(self, path: bytes) -> Seq:
        node, place = self._at(path)
        assert not any(parent == node for parent, _ in self._names)
        return self._rebind(OpKind.RMDIR, node, place, {place: NO_NODE})

    def rename(self, old: bytes, new: bytes) -> Seq:
        node, place = self._at(old)
        there = self._place(new)
        names = {place: NO_NODE, there: node}
        return self._rebind(OpKind.RENAME, node, place, names, there, see=((node, there),))

    def exchange(self, one: bytes, other: bytes) -> Seq:
        node, place = self._at(one)
        node2, there = self._at(other)
        see = ((node, there), (node2, place))
        names = {place: node2, there: node}
        return self._rebind(OpKind.EXCHANGE, node, place, names, there, see=see)

    def found(self, made: Sequence[bytes] = (), removed: Sequence[bytes] = ()) -> Seq:
        """Find in one version: *made*, "d/" a directory, "a=b" a hard link of a to b; trees *removed*."""
        names: dict[Place, NodeId] = {}
        states: dict[NodeId, NodeState] = {}
        all_paths = self.tree.paths()
        for top in removed:
            for path in all_paths:
                if path == top or path.startswith(top + b"/"):
                    names[self._place(path)] = NO_NODE
        new: dict[bytes, NodeId] = {}
        more: list[tuple[NodeId, bytes, NodeId]] = []
        for item in made:
            path, _, source = item.rstrip(b"/").partition(b"=")
            above, _, name = path.rpartition(b"/")
            place = (new.get(above) or all_paths[above], name)
            if source:
                names[place] = new[source]
                more.append((*place, new[source]))
            else:
                kind = Kind.DIR if item.endswith(b"/") else Kind.FILE
                names[place] = new[path] = self._new_node()
                states[new[path]] = self._fresh(kind, place, mode=0o755)
        with self._transaction() as writer:
            remember(writer, more)
            return self._append(writer, OpKind.FOUND, NO_NODE, None, states, names)

    def rollback(self, target: int) -> Seq:
        """Make the whole tree what it was at version *target*."""
        return self.move(OpKind.ROLLBACK, target=target)

    def move(self, kind: OpKind, *, target: int, undoes: int = 0) -> Seq:
        """Roll back, undo or redo: make the whole tree what it was at version *target*."""
        then = self.trees[target]
        # What has no name now gets a state with it, even the same.
        here = {ROOT, *self._names.values()}
        back = {ROOT, *then.names.values()} - here
        states = {n: s for n, s in then.states.items() if self._states[n] != s or n in back}
        names = {
            place: then.names.get(place, NO_NODE)
            for place in self._names.keys() | then.names.keys()
            if self._names.get(place) != then.names.get(place)
        }
        with self._transaction() as writer:
            return self._append(
                writer, kind, NO_NODE, None, states, names, target=Seq(target), undoes=Seq(undoes)
            )

    def tag(self, name: str, seq: Seq) -> Seq:
        with self._transaction() as writer:
            writer.put_tag(Tag(name, seq, self.time_ns(self.last + 1)))
            return self._append(writer, OpKind.TAG, NO_NODE, None, target=seq, tag=name.encode())

    # ---- how

    @contextmanager
    def _transaction(self) -> Iterator[Writer]:
        if self._writer is not None:
            yield self._writer
        else:
            with self.store.write() as writer:
                yield writer

    def _new_node(self) -> NodeId:
        node = self._next_node
        self._next_node = NodeId(node + 1)
        return node

    def _at(self, path: bytes) -> tuple[NodeId, Place]:
        place = self._place(path)
        return (self._names[place] if path else ROOT), place

    def _place(self, path: bytes) -> Place:
        node = ROOT
        *above, name = path.split(b"/")
        for each in above:
            node = self._names[node, each]
        return node, name

    def _fresh(
        self, kind: Kind, place: Place, *, mode: int = 0o644, rdev: int = 0, target: bytes = b""
    ) -> NodeState:
        now = self.time_ns(self.last + 1)
        attr = Attr(kind, mode, 1000, 1000, now, now, len(target), rdev)
        return NodeState(attr, *place, content=None, is_manifest=False, target=target, xattrs=None)

    def _touch(self, state: NodeState) -> NodeState:
        now = self.time_ns(self.last + 1)
        return replace(state, attr=replace(state.attr, mtime_ns=now, ctime_ns=now))

    def _seen(self, state: NodeState, place: Place) -> NodeState:
        return replace(state, parent=place[0], name=place[1])

    def _with_data(self, writer: Writer, state: NodeState, data: bytes) -> NodeState:
        cells = [data[i : i + CELL] for i in range(0, len(data), CELL)]
        chunks = [
            Chunk(len(cell), writer.put_blob(cell).blob if cell.strip(b"\0") else None)
            for cell in cells
        ]
        content, is_manifest, _ = build(chunks, lambda node, _: writer.put_blob(node).blob)
        self.contents[content, len(data)] = data
        attr = replace(state.attr, size=len(data))
        return replace(state, attr=attr, content=content, is_manifest=is_manifest)

    def _make(
        self,
        kind: OpKind,
        path: bytes,
        node_kind: Kind,
        *,
        mode: int = 0o644,
        rdev: int = 0,
        target: bytes = b"",
        data: bytes = b"",
    ) -> Seq:
        place = self._place(path)
        node = self._new_node()
        state = self._fresh(node_kind, place, mode=mode, rdev=rdev, target=target)
        with self._transaction() as writer:
            if data:
                state = self._with_data(writer, state, data)
            if not path:
                return self._append(writer, kind, node, place, {node: state})
            states = {node: state, place[0]: self._touch(self._states[place[0]])}
            return self._append(writer, kind, node, place, states, {place: node})

    def _rebind(
        self,
        kind: OpKind,
        node: NodeId,
        place: Place,
        names: dict[Place, NodeId],
        there: Place | None = None,
        see: Iterable[tuple[NodeId, Place]] = (),
    ) -> Seq:
        states = {n: self._seen(self._states[n], p) for n, p in see}
        for parent, _ in names:
            states[parent] = self._touch(states.get(parent, self._states[parent]))
        with self._transaction() as writer:
            return self._append(writer, kind, node, place, states, names, there=there)

    def _append(
        self,
        writer: Writer,
        kind: OpKind,
        node: NodeId,
        place: Place | None,
        states: dict[NodeId, NodeState] | None = None,
        names: dict[Place, NodeId] | None = None,
        *,
        there: Place | None = None,
        target: Seq = Seq(0),
        undoes: Seq = Seq(0),
        tag: bytes = b"",
    ) -> Seq:
        seq = Seq(self.last + 1)
        parent, name = place or (NO_NODE, tag)
        new_place = there or (NO_NODE, b"")
        time_ns = self.time_ns(seq)
        operation = Operation(
            kind, time_ns, self.origin, node, parent, name, *new_place, target, undoes
        )
        states, names = states or {}, names or {}
        writer.append(seq, operation, states.items(), [(*p, n) for p, n in names.items()])
        self._states.update(states)
        self._names.update(names)
        self._names = {p: n for p, n in self._names.items() if n != NO_NODE}
        self.trees.append(ModelTree(dict(self._states), dict(self._names)))
        self.lines.append(ModelLine(kind, self._line_path(place), self._line_path(there)))
        return seq

    def _line_path(self, place: Place | None) -> bytes | None:
        if place is None:
            return None
        directory, name = place
        path = next(p for p, n in self.tree.paths().items() if n == directory)
        return (path + b"/" + name).strip(b"/")
