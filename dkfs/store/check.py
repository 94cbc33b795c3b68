"""Whether a store is what it says: every row, every reference, and if asked every byte. Reads only.

What is damaged is noted and passed over, so that one report names all of it. Every rule here is one that
dkfs/docs/format.md states.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from dkfs.core import codec
from dkfs.core.location import decode_blob_location
from dkfs.errors import CorruptError, StoreError
from dkfs.model.ids import BlobId, NodeId, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.model.operation import OpKind
from dkfs.store.damage import Damage
from dkfs.store.reader import Reader
from dkfs.store.rows import NODE_KEY, SEQ, name_key, split_name_key, unseal
from dkfs.store.segments import RECORD
from dkfs.store.store import Store

_MOVES = (OpKind.ROLLBACK, OpKind.UNDO, OpKind.REDO)


def check(store: Store, *, read_data: bool) -> Iterator[Damage]:
    """Yield everything that is wrong with *store*; with *read_data* every blob is read and hashed.

    What is recorded meanwhile is not looked at.
    """
    for problem in store.verify_index():
        yield Damage(problem)
    with store.read() as reader:
        checker = _Checker(store, reader, read_data=read_data)
        for part in (
            checker.log,
            checker.nodes,
            checker.names,
            checker.moves,
            checker.tags,
            checker.blobs,
            checker.counters,
        ):
            with checker.noting():
                part()
            yield from checker.damages
            checker.damages.clear()


class _Checker:
    """One check: the parts run in order, later ones compare with what earlier ones counted."""

    def __init__(self, store: Store, reader: Reader, *, read_data: bool) -> None:
        self.damages: list[Damage] = []
        self._store = store
        self._reader = reader
        self._read_data = read_data
        self._expected = {"nodes": 0, "names": 0, "moves": 0}  # rows, as the log says
        self._greatest_node = 0
        self._sound: set[tuple[BlobId, Kind | None, int]] = set()

    @contextmanager
    def noting(
        self, seq: Seq | None = None, node: NodeId | None = None, blob: BlobId | None = None
    ) -> Iterator[None]:
        """Note what the block raises as damage of the given place."""
        try:
            yield
        except (CorruptError, StoreError) as exc:
            self._note(str(exc), seq, node, blob)

    def log(self) -> None:
        """Every version is there, in order of time, and so is every state that it left behind."""
        expected, time_ns = 1, 0
        for key, value in self._reader.rows("log"):
            seq = Seq(int.from_bytes(key, "big"))
            if len(key) != SEQ.size or seq != expected:
                self._note(f"log row {key.hex()}, need version {expected}", seq)
            expected = seq + 1
            with self.noting(seq):
                record = codec.decode_log(seq, unseal("log", key, value))
                if record.operation.time_ns < time_ns:
                    self._note(f"version {seq} is older than the one before it", seq)
                time_ns = record.operation.time_ns
                nodes, names = set(record.nodes), set(record.names)
                for node in nodes:
                    if not self._reader.has_row("nodes", NODE_KEY.pack(node, seq)):
                        self._note(f"state of node {node} at version {seq} is missing", seq, node)
                for parent, name in names:
                    if not self._reader.has_row("names", name_key(parent, name, seq)):
                        self._note(f"name {name!r} at version {seq} is missing", seq, parent)
                self._expected["nodes"] += len(nodes)
                self._expected["names"] += len(names)
                self._expected["moves"] += record.operation.kind in _MOVES

    def nodes(self) -> None:
        """Every state is one of the log's, and its contents are in the store."""
        count = 0
        for key, value in self._reader.rows("nodes"):
            count += 1
            if len(key) != NODE_KEY.size:
                self._note(f"nodes key {key.hex()} is not node, version")
                continue
            node, seq = NODE_KEY.unpack(key)
            self._greatest_node = max(self._greatest_node, node)
            with self.noting(seq, node):
                self._state(codec.decode_node(unseal("nodes", key, value)), seq, node)
        self._compare("nodes", count)

    def names(self) -> None:
        """Every name is one of the log's, and leads to a node that is there."""
        count = 0
        for key, value in self._reader.rows("names"):
            count += 1
            with self.noting():
                name, seq = split_name_key(key)
                child = NodeId(int.from_bytes(unseal("names", key, value), "big"))
                if child and self._reader.node_seq(child, seq) is None:
                    self._note(f"name {name!r} leads to node {child} without a state", seq, child)
        self._compare("names", count)

    def moves(self) -> None:
        """Every ROLLBACK, UNDO and REDO of the log is in the table, and nothing else."""
        count = 0
        for seq, kind in self._reader.moves():
            count += 1
            record = self._reader.record(seq)
            if record is None or record.operation.kind is not kind:
                self._note(f"moves row {seq} is not what the log says", seq)
        self._compare("moves", count)

    def tags(self) -> None:
        """Every tag names a version that is there."""
        for key, value in self._reader.rows("tags"):
            with self.noting():
                tag = codec.decode_tag(unseal("tags", key, value))
                if tag.name.encode() != key or tag.seq > self._reader.last:
                    self._note(f"tag {tag.name!r} of version {tag.seq} under {key!r}", tag.seq)

    def blobs(self) -> None:
        """Every blob is where the index says; with read_data, it is also what its id says."""
        tail = self._reader.tail()
        sizes = self._store.segment_sizes()
        for number in sizes:
            if number <= tail.segment:
                with self.noting():
                    self._store.check_segment(number)
        newest = sizes.get(tail.segment, 0)
        if newest < tail.length:
            self._note(f"segment {tail.segment} has {newest} bytes, need {tail.length}")
        sizes[tail.segment] = min(newest, tail.length)
        for key, value in self._reader.rows("blobs"):
            blob = BlobId(key)
            with self.noting(blob=blob):
                at = decode_blob_location(unseal("blobs", key, value))
                if at.offset + RECORD.size + at.stored_length > sizes.get(at.segment, 0):
                    raise CorruptError(f"blob {blob.hex()} is behind the end of {at.segment}")
                if self._read_data:
                    self._reader.blob(blob, strict=True)

    def counters(self) -> None:
        """No node id will be given out twice."""
        if self._reader.next_node() <= self._greatest_node:
            self._note(f"next node is {self._reader.next_node()}, used is {self._greatest_node}")

    def _state(self, state: NodeState, seq: Seq, node: NodeId) -> None:
        if state.xattrs is not None and self._is_new(state.xattrs, None, 0):
            with self.noting(seq, node, state.xattrs):
                codec.decode_xattrs(self._reader.blob(state.xattrs))
        attr = state.attr
        if state.target and attr.kind is not Kind.SYMLINK:
            self._note(f"node {node} has a target and is no symbolic link", seq, node)
        if state.content is None or not self._is_new(state.content, attr.kind, attr.size):
            return
        with self.noting(seq, node, state.content):
            if attr.kind is not Kind.FILE:
                raise CorruptError(f"node {node} has contents and is no file")
            size = self._length(state.content)
            if state.is_manifest:
                chunks = codec.decode_manifest(self._reader.blob(state.content))
                for chunk in chunks:
                    if chunk.blob is not None and self._length(chunk.blob) != chunk.length:
                        raise CorruptError(f"chunk {chunk.blob.hex()} is not {chunk.length} bytes")
                size = sum(chunk.length for chunk in chunks)
            if size != attr.size:
                raise CorruptError(f"contents of {size} bytes, node {node} has {attr.size}")

    def _length(self, blob: BlobId) -> int:
        location = self._reader.location(blob)
        if location is None:
            raise CorruptError(f"blob {blob.hex()} is not in the store")
        return location.length

    def _is_new(self, blob: BlobId, kind: Kind | None, size: int) -> bool:
        """Return whether these contents were not looked at yet."""
        key = (blob, kind, size)
        if key in self._sound:
            return False
        self._sound.add(key)
        return True

    def _compare(self, table: str, count: int) -> None:
        if count != self._expected[table]:
            self._note(f"{count} rows in {table}, the log names {self._expected[table]}")

    def _note(
        self,
        message: str,
        seq: Seq | None = None,
        node: NodeId | None = None,
        blob: BlobId | None = None,
    ) -> None:
        self.damages.append(Damage(message, seq, node, blob))
