"""Whether the rows of the index agree: the log with the states, names and moves that it lists, tags with versions.

The parts are called in the order in which they stand here: later ones compare with what earlier ones counted.
"""

from collections.abc import Callable
from typing import Final

from dkfs.core import codec
from dkfs.errors import CorruptError
from dkfs.model.ids import NodeId, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.model.operation import LogRecord, OpKind
from dkfs.store.check_trees import TreeChecker
from dkfs.store.damage import Notes
from dkfs.store.reader import Reader
from dkfs.store.rows import FORMAT_KEY, NODE_KEY, SEQ, name_key, split_name_key, unseal

OnProgress = Callable[[str, int, int], None]  # what is looked at, how much of it, how much there is

_MOVES: Final = (OpKind.ROLLBACK, OpKind.UNDO, OpKind.REDO)
_EVERY: Final = 1024  # rows between two calls of OnProgress


class RowChecker:
    """Checks every row but those of blobs and segments."""

    def __init__(self, reader: Reader, notes: Notes, on_progress: OnProgress) -> None:
        self.versions = 0
        self.states = 0
        self.names_seen = 0
        self._reader = reader
        self._notes = notes
        self._on_progress = on_progress
        self._trees = TreeChecker(reader, notes)
        self._expected = {"nodes": 0, "names": 0, "moves": 0}  # rows, as the log says
        self._is_log_whole = True  # else what it lists is not known
        self._greatest_node = 0

    def log(self) -> None:
        """Every version that was not forgotten is there, in order of time, and so is every state that it left."""
        time_ns = 0
        for key, value in self._reader.rows("log"):
            seq = Seq(int.from_bytes(key[:8], "big"))
            self.versions += 1
            self._tick("versions", self.versions)
            is_read = False
            with self._notes.noting(seq, row=("log", key)):
                if len(key) != SEQ.size or not seq:
                    raise CorruptError(f"log row {key.hex()} is no version")
                record = codec.decode_log(seq, unseal("log", key, value))
                if record.operation.time_ns < time_ns:
                    self._notes.add(f"version {seq} is older than the one before it", seq)
                time_ns = record.operation.time_ns
                self._listed(record)
                is_read = True
            self._is_log_whole &= is_read
        with self._notes.noting():
            missing = self._reader.last - self.versions
            if missing != self._reader.forgotten():
                self._is_log_whole = False
                self._notes.add(
                    f"{missing} versions up to {self._reader.last} are not in the log,"
                    f" {self._reader.forgotten()} were forgotten"
                )

    def nodes(self) -> None:
        """Every state is one of the log's, and its contents are in the store."""
        for key, value in self._reader.rows("nodes"):
            self.states += 1
            self._tick("states", self.states)
            if len(key) != NODE_KEY.size:
                self._notes.add(f"nodes key {key.hex()} is not node, version", row=("nodes", key))
                continue
            node, seq = NODE_KEY.unpack(key)
            self._greatest_node = max(self._greatest_node, node)
            state: NodeState | None = None
            with self._notes.noting(seq, node, row=("nodes", key)):
                state = codec.decode_node(unseal("nodes", key, value))
                self._expect_version(seq, f"state of node {node}")
            if state is not None:
                self._state(state, seq, node)
        self._compare("nodes", self.states)

    def names(self) -> None:
        """Every name is one of the log's, and leads to a node that is there."""
        for key, value in self._reader.rows("names"):
            self.names_seen += 1
            self._tick("names", self.names_seen)
            row = ("names", key)
            with self._notes.noting(row=row):
                name, seq = split_name_key(key)
                parent = NodeId(int.from_bytes(key[:8], "big"))
                with self._notes.noting(seq, parent, name=name, row=row):
                    record = unseal("names", key, value)
                    self._expect_version(seq, f"name {name!r} in node {parent}")
                    child = NodeId(int.from_bytes(record, "big"))
                    if child and not self._has_state(child, seq):
                        self._notes.add(
                            f"name {name!r} leads to node {child} without a state", seq, child
                        )
        self._compare("names", self.names_seen)

    def moves(self) -> None:
        """Every ROLLBACK, UNDO and REDO of the log is in the table, and nothing else."""
        count = 0
        for key, value in self._reader.rows("moves"):
            count += 1
            seq = Seq(int.from_bytes(key[:8], "big"))
            with self._notes.noting(seq, row=("moves", key)):
                data = unseal("moves", key, value)
                record = self._reader.record(seq)
                if record is None or data != bytes((record.operation.kind,)):
                    raise CorruptError(f"moves row {seq} is not what the log says")
        self._compare("moves", count)

    def tags(self) -> None:
        """Every tag names a version that is there."""
        for key, value in self._reader.rows("tags"):
            with self._notes.noting(row=("tags", key)):
                tag = codec.decode_tag(unseal("tags", key, value))
                is_there = self._reader.has_row("log", SEQ.pack(tag.seq))
                if tag.name.encode() != key or not is_there:
                    self._notes.add(
                        f"tag {tag.name!r} of version {tag.seq} under {key!r}",
                        tag.seq,
                        row=("tags", key),
                    )

    def meta(self) -> None:
        """Every row matches its checksum, and no node id will be given out twice."""
        for key, value in self._reader.rows("meta"):
            if key != FORMAT_KEY:
                with self._notes.noting(row=("meta", key)):
                    unseal("meta", key, value)
        with self._notes.noting():
            following = self._reader.next_node()
            if following <= self._greatest_node:
                self._notes.add(f"next node is {following}, used is {self._greatest_node}")

    def _listed(self, record: LogRecord) -> None:
        """Everything that *record* lists is there."""
        seq = record.seq
        nodes, names = set(record.all_nodes), set(record.all_names)
        for node in nodes:
            key = NODE_KEY.pack(node, seq)
            if not self._reader.has_row("nodes", key):
                message = f"state of node {node} at version {seq} is missing"
                self._notes.add(message, seq, node, row=("nodes", key))
        for parent, name in names:
            key = name_key(parent, name, seq)
            if not self._reader.has_row("names", key):
                message = f"name {name!r} at version {seq} is missing"
                self._notes.add(message, seq, parent, name=name, row=("names", key))
        self._expected["nodes"] += len(nodes)
        self._expected["names"] += len(names)
        self._expected["moves"] += record.operation.kind in _MOVES

    def _state(self, state: NodeState, seq: Seq, node: NodeId) -> None:
        if state.target and state.attr.kind is not Kind.SYMLINK:
            self._notes.add(f"node {node} has a target and is no symbolic link", seq, node)
        self._trees.check(state, seq, node)

    def _has_state(self, node: NodeId, seq: Seq) -> bool:
        try:
            return self._reader.node_seq(node, seq) is not None
        except CorruptError:
            return True  # it is there, and a damage of its own

    def _expect_version(self, seq: Seq, what: str) -> None:
        if not self._reader.has_row("log", SEQ.pack(seq)):
            raise CorruptError(f"{what} is of version {seq}, which is not in the log")

    def _tick(self, what: str, count: int) -> None:
        if not count % _EVERY:
            self._on_progress(what, count, 0)

    def _compare(self, table: str, count: int) -> None:
        if self._is_log_whole and count != self._expected[table]:
            self._notes.add(f"{count} rows in {table}, the log names {self._expected[table]}")
