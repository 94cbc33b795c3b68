"""A consistent view of the store: one LMDB read transaction.

The state as of version N is the row with the greatest version <= N of a node or name, found by one seek.
"""

from collections.abc import Iterator
from itertools import islice

import lmdb

from dkfs.core import codec
from dkfs.core.location import (
    DELTAS,
    BlobLocation,
    SegmentRow,
    decode_blob_location,
    decode_segment,
)
from dkfs.errors import CorruptError
from dkfs.model.ids import NO_NODE, ROOT, BlobId, NodeId, Seq
from dkfs.model.node import NodeState
from dkfs.model.operation import LogRecord, OpKind, Tag
from dkfs.store.blobs import BlobSource
from dkfs.store.index import Index, index_error
from dkfs.store.restoring import restore
from dkfs.store.rows import (
    CHECKPOINT_KEY,
    CLEAN_KEY,
    FORGOTTEN_KEY,
    NEXT_NODE_KEY,
    NODE_KEY,
    NOTE_PREFIX,
    OLD_FORMAT,
    OLD_TAIL,
    SEGMENT_KEY,
    SEQ,
    TAIL,
    TAIL_KEY,
    is_sealed,
    name_key,
    split_name_key,
    tag_key,
    unseal,
)
from dkfs.store.segments import Tail
from dkfs.store.view import View

_GREATEST_SEQ = b"\xff" * 8
_SEARCHED = 10_000  # log records in which a row that may be missing is looked for
_MOVES = {int(kind): kind for kind in (OpKind.ROLLBACK, OpKind.UNDO, OpKind.REDO)}


class Reader(View):
    """One view of the store, for one thread; everything read through it is of the same instant."""

    def __init__(self, index: Index, blobs: BlobSource, *, write: bool = False) -> None:
        """Begin the view; made by Store.read()."""
        super().__init__(index, write=write)
        self._blobs = blobs
        self._last: Seq | None = None

    @property
    def last(self) -> Seq:
        """The newest version; 0 when the store is empty."""
        if self._last is None:
            key, value = self._last_row("log")
            self._last = _version(key) if key else Seq(0)
            if key and not is_sealed(key, value) and not self.is_log_counted(self._last):
                self._last = None
                raise CorruptError(
                    f"index: log row {key.hex()}, the last, does not match its checksum"
                )
        return self._last

    def is_log_counted(self, last: Seq) -> bool:
        """Return whether as many versions up to *last* are in the log as were not forgotten."""
        return self.count("log") + self.forgotten() == last

    def version(self, at: int) -> Seq:
        """Return the newest version up to *at* that is there, 0 if there is none."""
        cursor = self._new_cursor("log")
        if at >= self.last:
            return self.last
        try:
            key = SEQ.pack(max(at, 0))
            if not cursor.set_range(key):
                return Seq(0)
            if cursor.key() != key:
                if not is_sealed(*cursor.item()):
                    self._expect_other("log", key, key, cursor.key())
                if not cursor.prev():
                    return Seq(0)
            return _version(cursor.key())
        except lmdb.Error as exc:
            raise index_error(exc) from exc

    def next_version(self, after: int) -> Seq | None:
        """Return the oldest version after *after* that is there, None if there is none."""
        cursor = self._new_cursor("log")
        try:
            if after >= self.last or not cursor.set_range(SEQ.pack(max(after, 0) + 1)):
                return None
            return _version(cursor.key())
        except lmdb.Error as exc:
            raise index_error(exc) from exc

    def record(self, seq: Seq) -> LogRecord | None:
        """Return the log record of version *seq*, None if there is none; raises CorruptError."""
        key = SEQ.pack(seq)
        data = self._get("log", key)
        return None if data is None else codec.decode_log(seq, data)

    def log(self, first: Seq, last: Seq, *, reverse: bool = False) -> Iterator[LogRecord]:
        """Yield the log records from *first* to *last*, both included; raises CorruptError."""
        for key, data in self._range("log", SEQ.pack(first), SEQ.pack(last), reverse=reverse):
            yield codec.decode_log(Seq(int.from_bytes(key, "big")), data)

    def versions(
        self, first: Seq = Seq(1), last: Seq | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[Seq, int]]:
        """Yield the versions that are there with their times, without the rest of their records."""
        start, end = SEQ.pack(first), SEQ.pack(self.last if last is None else last)
        for key, data in self._range("log", start, end, reverse=reverse):
            yield Seq(int.from_bytes(key, "big")), codec.log_time_ns(data)

    def node(self, node: NodeId, at: Seq) -> NodeState | None:
        """Return the state of *node* as of *at*, None before its first; raises CorruptError."""
        found = self.node_seq(node, at)
        return None if found is None else found[1]

    def node_seq(self, node: NodeId, at: Seq) -> tuple[Seq, NodeState] | None:
        """Return the same as node(), with the version that made it."""
        found = self._floor("nodes", NODE_KEY.pack(node, at))
        if found is None:
            return None
        key, data = found
        return Seq(int.from_bytes(key[8:], "big")), codec.decode_node(data)

    def node_versions(
        self,
        node: NodeId,
        first: Seq = Seq(1),
        last: Seq | None = None,
        *,
        reverse: bool = False,
    ) -> Iterator[tuple[Seq, NodeState]]:
        """Yield every state that *node* was given from *first* to *last*, with its version."""
        start = NODE_KEY.pack(node, first)
        end = NODE_KEY.pack(node, self.last if last is None else last)
        for key, data in self._range("nodes", start, end, reverse=reverse):
            yield Seq(int.from_bytes(key[8:], "big")), codec.decode_node(data)

    def child(self, parent: NodeId, name: bytes, at: Seq) -> NodeId:
        """Return the node that *name* in *parent* led to as of *at*, or NO_NODE."""
        found = self._floor("names", name_key(parent, name, at))
        return NO_NODE if found is None else _node_id(found[1])

    def children(self, parent: NodeId, at: Seq) -> Iterator[tuple[bytes, NodeId]]:
        """Yield the names in *parent* as of *at* with their nodes, in byte order."""
        prefix = SEQ.pack(parent)
        cursor = self._new_cursor("names")
        try:
            if cursor.prev() if cursor.set_range(prefix) else cursor.last():
                self._expect_genuine("names", *cursor.item())
            more = cursor.set_range(prefix)
            key, value = cursor.item()
            while more:
                if key[:8] != prefix:
                    self._expect_genuine("names", key, value)
                    return
                name, seq = split_name_key(key)
                stem, child = key[:-8], NO_NODE
                # Most names were made once and never changed: then the row at hand is the one, and the next is next.
                more = cursor.next()
                following = cursor.item()
                if more and following[0][:-8] == stem:
                    more = cursor.set_range(stem + _GREATEST_SEQ)
                    following = cursor.item()
                    found = self._floor("names", stem + SEQ.pack(at))
                    child = NO_NODE if found is None else _node_id(found[1])
                elif seq > at:
                    self._expect_genuine("names", key, value)
                else:
                    child = _node_id(unseal("names", key, value))
                if child:
                    yield name, child
                key, value = following
        except lmdb.Error as exc:
            raise index_error(exc) from exc

    def child_versions(
        self, parent: NodeId, name: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[Seq, NodeId]]:
        """Yield what *name* in *parent* led to over time, oldest first; NO_NODE where it was removed."""
        if b"\0" in name:  # it would take in the versions of what comes before the NUL
            return
        start = name_key(parent, name, 0)
        end = start[:-8] + _GREATEST_SEQ
        for key, data in self._range("names", start, end, reverse=reverse):
            yield Seq(int.from_bytes(key[-8:], "big")), _node_id(data)

    def names_ever(self, parent: NodeId) -> Iterator[bytes]:
        """Yield every name that was in *parent* at any version, in byte order."""
        prefix = SEQ.pack(parent)
        cursor = self._new_cursor("names")
        try:
            more = cursor.set_range(prefix)
            while more:
                key = cursor.key()
                if key[:8] != prefix:
                    return
                yield split_name_key(key)[0]
                more = cursor.set_range(key[:-8] + _GREATEST_SEQ)
        except lmdb.Error as exc:
            raise index_error(exc) from exc

    def has_blob(self, blob: BlobId) -> bool:
        """Return whether *blob* is in the store."""
        return self._get("blobs", blob) is not None

    def blob(self, blob: BlobId, *, strict: bool = False) -> bytes:
        """Return the bytes that *blob* names, verified; raises CorruptError if damaged or missing.

        If *strict*, damage of the record that does not change them counts too.
        """
        location = self.location(blob)
        if location is None:
            raise CorruptError(f"blob {blob.hex()} is not in the store")
        return self._read(blob, location, strict=strict)

    def hash(self, data: bytes) -> BlobId:
        """Return the name of the blob *data*."""
        return BlobId(self._blobs.hash_data(data))

    def stored(self, location: BlobLocation, blob: BlobId) -> bytes:
        """Return the stored bytes of *blob*, as they match their checksum; raises CorruptError, StoreError."""
        return self._blobs.stored(blob, location)

    def bases(self, blob: BlobId, location: BlobLocation) -> tuple[BlobId, ...]:
        """Return what *blob* is stored as a difference to, nothing if it is whole; raises CorruptError, StoreError."""
        return self._blobs.bases(blob, location) if location.encoding in DELTAS else ()

    def location(self, blob: BlobId) -> BlobLocation | None:
        """Return where *blob* is stored, None if it is not in the store."""
        data = self._get("blobs", blob)
        return None if data is None else decode_blob_location(data)

    def tag(self, name: str) -> Tag | None:
        """Return the tag *name*, None if there is none."""
        data = self._get("tags", tag_key(name))
        return None if data is None else codec.decode_tag(data)

    def tags(self) -> Iterator[Tag]:
        """Yield every tag, by name."""
        for _, data in self._range("tags", b"\0", None):
            yield codec.decode_tag(data)

    def moves(self) -> Iterator[tuple[Seq, OpKind]]:
        """Yield every ROLLBACK, UNDO and REDO with its version, oldest first."""
        for key, data in self._range("moves", SEQ.pack(0), None):
            kind = _MOVES.get(data[0]) if len(data) == 1 else None
            if kind is None:
                raise CorruptError(f"index: moves row {key.hex()} holds {data.hex()}")
            yield Seq(int.from_bytes(key, "big")), kind

    def next_node(self) -> NodeId:
        """Return the smallest node id that was never used."""
        data = self._get("meta", NEXT_NODE_KEY)
        return ROOT if data is None else NodeId(int.from_bytes(data, "big"))

    def greatest_node(self) -> NodeId:
        """Return the greatest node id that has a state, 0 if none has."""
        return NodeId(int.from_bytes(self._last_key("nodes")[:8], "big"))

    def clean(self) -> bool:
        """Return whether the last writer ended cleanly."""
        return self._get("meta", CLEAN_KEY) == b"\1"

    def tail(self) -> Tail:
        """Return where the next record of the segments goes."""
        data = self._get("meta", TAIL_KEY)
        if data is None:
            return Tail(0, 0, 0)
        layout = OLD_TAIL if self.format == OLD_FORMAT else TAIL
        if len(data) != layout.size:
            raise CorruptError(f"index: tail of {len(data)} bytes, need {layout.size}")
        return Tail(*layout.unpack(data))

    def segments(self) -> Iterator[tuple[int, SegmentRow]]:
        """Yield the numbers of the segments with what is known of them; none in a store of format 1."""
        if "segments" in self._tables:
            tail = self._newest()
            for key, data in self._range("segments", SEGMENT_KEY.pack(0), None):
                number = int.from_bytes(key, "big")
                # Its own row is written when it begins and when it is given up.
                yield number, tail.row if number == tail.segment else decode_segment(data)

    def segment(self, number: int) -> SegmentRow | None:
        """Return what is known of segment *number*, None if there is none; raises CorruptError."""
        data = self._get("segments", SEGMENT_KEY.pack(number))
        if data is None:
            return None
        tail = self._newest()
        return tail.row if number == tail.segment else decode_segment(data)

    def segment_numbers(self) -> frozenset[int]:
        """Return the numbers of the segments of the store, whether what is known of them is damaged or not."""
        if "segments" not in self._tables:
            return frozenset()
        return frozenset(int.from_bytes(key, "big") for key, _ in self.rows("segments"))

    def checkpoint(self) -> int:
        """Return the transaction of the newest complete checkpoint, 0 if there is none."""
        return int.from_bytes(self._get("meta", CHECKPOINT_KEY) or b"", "big")

    def forgotten(self) -> int:
        """Return how many versions up to the newest are not in the log any more."""
        return int.from_bytes(self._get("meta", FORGOTTEN_KEY) or b"", "big")

    def meta(self, name: bytes) -> bytes | None:
        """Return what Writer.put_meta() kept under *name*, None if nothing."""
        return self._get("meta", NOTE_PREFIX + name)

    def version_at(self, time_ns: int) -> Seq:
        """Return the newest version whose time is not after *time_ns*, 0 if there is none."""
        found, low, high = 0, 1, int(self.last)
        while low <= high:
            middle = (low + high) // 2
            row = self._floor("log", SEQ.pack(middle))
            seq = 0 if row is None else int.from_bytes(row[0], "big")
            if row is None or seq < low:
                low = middle + 1  # no version from low to the middle is there any more
            elif codec.log_time_ns(row[1]) <= time_ns:
                found, low = seq, middle + 1
            else:
                high = seq - 1
        return Seq(found)

    def _expect_other(self, table: str, after: bytes, until: bytes, damaged: bytes) -> None:
        """See View: the log tells, of states and names."""
        if table in {"nodes", "names"}:
            if self._is_genuine(table, damaged):
                return
            records = islice(self.log(Seq(_seq(after) + 1), _seq(until)), _SEARCHED + 1)
            found = [_lists(record, table, until) for record in records]
            if len(found) <= _SEARCHED and not any(found):
                return
        super()._expect_other(table, after, until, damaged)

    def _newest(self) -> Tail:
        try:
            return self.tail()
        except CorruptError:
            return Tail(0, 0, 0)

    def _expect_genuine(self, table: str, key: bytes, value: bytes) -> None:
        """Raise CorruptError if the key of a row is damaged: it may be that of any other."""
        if not is_sealed(key, value) and not self._is_genuine(table, key):
            unseal(table, key, value)

    def _is_genuine(self, table: str, key: bytes) -> bool:
        """Return whether the log names the row of nodes or names at *key*: then only its value is damaged."""
        return _lists(self.record(_seq(key)), table, key)

    def _read(self, blob: BlobId, location: BlobLocation, *, strict: bool = False) -> bytes:
        if location.encoding in DELTAS:
            return restore(self._blobs, blob, location, self.location, strict=strict)
        return self._blobs.read(blob, location, strict=strict)


def _version(key: bytes) -> Seq:
    """Return the version that a key of the log is; raises CorruptError."""
    if len(key) != SEQ.size:
        raise CorruptError(f"index: log row {key.hex()} is no version")
    return Seq(int.from_bytes(key, "big"))


def _seq(key: bytes) -> Seq:
    return Seq(int.from_bytes(key[-8:], "big"))


def _lists(record: LogRecord | None, table: str, key: bytes) -> bool:
    """Return whether *record* names the row of nodes or names at *key*, its version aside."""
    if record is None:
        return False
    if table == "nodes":
        return int.from_bytes(key[:8], "big") in record.all_nodes
    return (int.from_bytes(key[:8], "big"), key[8:-9]) in record.all_names


def _node_id(data: bytes) -> NodeId:
    if len(data) != 8:
        raise CorruptError(f"index: names row of {len(data)} bytes, need 8")
    return NodeId(int.from_bytes(data, "big"))
