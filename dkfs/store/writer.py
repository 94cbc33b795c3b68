"""One write transaction of the store: all of it becomes durable, or none.

Order of a commit: the segments are written and synced, then LMDB commits, synced. So the index never knows a blob that
is not on the disk, and what is behind the tail that the index knows belongs to nobody.
"""

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import lmdb

from dkfs.core import codec
from dkfs.core.delta import Like
from dkfs.core.location import BlobLocation, SegmentRow, encode_blob_location, encode_segment
from dkfs.errors import CorruptError, NotFoundError, StoreError
from dkfs.model.ids import BlobId, NodeId, Seq
from dkfs.model.node import NodeState
from dkfs.model.operation import Operation, OpKind, Tag
from dkfs.store.blobs import BlobSource, Encoder
from dkfs.store.index import Index, index_error
from dkfs.store.reader import Reader
from dkfs.store.rows import (
    CLEAN_KEY,
    NAME_LIMIT,
    NEXT_NODE_KEY,
    NODE_KEY,
    NOTE_PREFIX,
    SEGMENT_KEY,
    SEQ,
    TAIL,
    TAIL_KEY,
    name_key,
    seal,
    tag_key,
)
from dkfs.store.segments import RECORD, SegmentWriter, Tail

_MOVES = frozenset((OpKind.ROLLBACK, OpKind.UNDO, OpKind.REDO))
_VERIFIED_LIMIT = (
    16 * 1024
)  # ids remembered as verified, so that a common blob is not read for every use

log = logging.getLogger(__name__)


class Put(NamedTuple):
    """What became of contents that were to be stored."""

    blob: BlobId
    added: int  # bytes that the segments grew by
    encoding: int | None  # how they are stored now; None: they were there already


@dataclass(slots=True)
class WriteSide:
    """What the writers of one store hand on from transaction to transaction."""

    output: SegmentWriter
    encoder: Encoder = field(default_factory=Encoder)
    mutex: threading.Lock = field(default_factory=threading.Lock)  # held by the Writer
    verified: set[BlobId] = field(default_factory=set)
    last_time_ns: int | None = None  # time of the newest operation; None: not known yet
    touched: set[BlobId] | None = None  # what puts rely on since a collection began; None: none is
    is_uncertain: bool = False  # a commit failed, and only the index knows what the tail is


class Writer(Reader):
    """One transaction: reads see its own writes; leaving the block commits, an exception aborts."""

    def __init__(self, index: Index, blobs: BlobSource, side: WriteSide) -> None:
        """Begin the transaction when no other is under way; made by Store.write()."""
        side.mutex.acquire()
        try:
            super().__init__(index, blobs, write=True)
        except BaseException:
            side.mutex.release()
            raise
        self._index = index
        self._side = side
        self._is_open = True
        self._last_time_ns = 0
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if self._is_open and exc_type is None:
            try:
                self._commit()
            except BaseException:
                self.close()
                raise
            self._is_open = False
            self._side.mutex.release()
        else:
            self.close()

    def close(self) -> None:
        """Abort the transaction, if it is still open."""
        if not self._is_open:
            return
        self._is_open = False
        side = self._side
        try:
            self._txn.abort()
            if not side.is_uncertain:
                side.output.forget()
        except StoreError as exc:
            log.warning("rest of a transaction is left for later: %s", exc)
            side.is_uncertain = True
        finally:
            self._blobs.close()  # files of the transaction may have been removed
            side.mutex.release()

    def append(
        self,
        seq: Seq,
        operation: Operation,
        nodes: Iterable[tuple[NodeId, NodeState]],
        names: Iterable[tuple[NodeId, bytes, NodeId]],
    ) -> None:
        """Add version *seq*, the one after the last, with every state that it left behind; raises StoreError.

        The iterables are consumed once, as they come.
        """
        if seq != self.last + 1:
            raise StoreError(f"version {seq} cannot follow version {self.last}")
        if operation.time_ns < self._last_time_ns:
            raise StoreError(
                f"version {seq} has time {operation.time_ns}, before that of version {self.last}"
            )
        try:
            node_ids = self._put_nodes(seq, nodes)
            name_keys = self._put_names(seq, names)
            key = SEQ.pack(seq)
            record = codec.encode_log(operation, node_ids, name_keys)
            self._txn.put(key, seal(key, record), append=True, db=self._tables["log"])
            if operation.kind in _MOVES:
                record = bytes((operation.kind,))
                self._txn.put(key, seal(key, record), append=True, db=self._tables["moves"])
        except lmdb.Error as exc:
            raise index_error(exc) from exc
        self._last = seq
        self._last_time_ns = operation.time_ns

    def put_blob(self, data: bytes, *, like: Like | None = None) -> Put:
        """Store *data* unless it is there, and sound; raises StoreError.

        *like* says what it resembles: it may be stored as a difference to that.
        """
        side = self._side
        blob = BlobId(self._blobs.hash_data(data))
        if side.touched is not None:
            side.touched.update((blob,) if like is None else (blob, *like.bases))
        if self._get("blobs", blob) is not None and self._is_sound(blob):
            return Put(blob, 0, None)
        encoding, stored = side.encoder.encode(data)
        location = side.output.append(blob, stored, encoding=encoding, length=len(data))
        self._put("blobs", blob, encode_blob_location(location))
        self._remember(blob)
        return Put(blob, RECORD.size + len(stored), encoding)

    def put_tag(self, tag: Tag) -> None:
        """Add *tag*, in place of one of the same name; raises StoreError."""
        self._put("tags", tag_key(tag.name), codec.encode_tag(tag))

    def delete_tag(self, name: str) -> None:
        """Remove the tag *name*; raises NotFoundError, StoreError."""
        try:
            was_there = self._txn.delete(tag_key(name), db=self._tables["tags"])
        except lmdb.Error as exc:
            raise index_error(exc) from exc
        if not was_there:
            raise NotFoundError(f"no tag {name!r}")

    def set_clean(self, clean: bool) -> None:  # noqa: FBT001 - the verb says what the value means
        """Note whether the writer ended cleanly."""
        self._put("meta", CLEAN_KEY, b"\1" if clean else b"\0")

    def put_meta(self, name: bytes, value: bytes) -> None:
        """Keep *value* under *name*, of at most 500 bytes, in place of what was there."""
        self._put("meta", NOTE_PREFIX + name, value)

    def next_node(self) -> NodeId:
        """See Reader."""
        return self._next_node

    def _begin(self) -> None:
        side = self._side
        if side.is_uncertain:
            side.output.restore(self.tail())
            side.last_time_ns = None
            side.is_uncertain = False
        if side.last_time_ns is None:
            newest = self.record(self.last)
            side.last_time_ns = newest.operation.time_ns if newest else 0
        self._last_time_ns = side.last_time_ns
        self._committed_next_node = self._next_node = super().next_node()

    def _commit(self) -> None:
        side = self._side
        tail = side.output.tail
        if tail != side.output.kept:
            side.output.sync()
            self._put_segments(tail)
        if self._next_node != self._committed_next_node:
            self._put("meta", NEXT_NODE_KEY, SEQ.pack(self._next_node))
        # From here on it depends on how far a failing commit came whether the transaction counts.
        side.is_uncertain = True
        try:
            self._txn.commit()
        except lmdb.Error as exc:
            raise index_error(exc) from exc
        side.is_uncertain = False
        side.output.keep()
        side.last_time_ns = self._last_time_ns
        self._index.cover()

    def _put_segments(self, tail: Tail) -> None:
        """Put the rows that make what was written to the segments part of the store."""
        record = TAIL.pack(tail.segment, tail.length, tail.records, tail.txn)
        self._put("meta", TAIL_KEY, record)
        for number, touched in self._side.output.touched.items():
            row = self.segment(number) or SegmentRow(0)
            row = replace(row, length=touched.length)
            if touched.journal_bytes:
                row = replace(
                    row,
                    journal_bytes=row.journal_bytes + touched.journal_bytes,
                    journal_txn=tail.txn,
                )
            self._put("segments", SEGMENT_KEY.pack(number), encode_segment(row))

    def _put_nodes(self, seq: Seq, nodes: Iterable[tuple[NodeId, NodeState]]) -> list[NodeId]:
        put, table = self._txn.put, self._tables["nodes"]
        ids = []
        for node, state in nodes:
            key = NODE_KEY.pack(node, seq)
            put(key, seal(key, codec.encode_node(state)), db=table)
            ids.append(node)
            if node >= self._next_node:
                self._next_node = NodeId(node + 1)
        return ids

    def _put_names(
        self, seq: Seq, names: Iterable[tuple[NodeId, bytes, NodeId]]
    ) -> list[tuple[NodeId, bytes]]:
        put, table = self._txn.put, self._tables["names"]
        keys = []
        for parent, name, child in names:
            if not 0 < len(name) <= NAME_LIMIT or b"\0" in name or b"/" in name:
                raise StoreError(
                    f"name {name!r} in a directory, need 1 to {NAME_LIMIT} bytes, no /"
                )
            key = name_key(parent, name, seq)
            put(key, seal(key, SEQ.pack(child)), db=table)
            keys.append((parent, name))
        return keys

    def _is_sound(self, blob: BlobId) -> bool:
        """Return whether *blob* can be read, so that no new version comes to rely on a damaged one."""
        if blob in self._side.verified:
            return True
        try:
            self.blob(blob)
        except (CorruptError, StoreError) as exc:
            log.warning("stored again: %s", exc)
            return False
        self._remember(blob)
        return True

    def _remember(self, blob: BlobId) -> None:
        verified = self._side.verified
        if len(verified) >= _VERIFIED_LIMIT:
            verified.clear()
        verified.add(blob)

    def _read(self, blob: BlobId, location: BlobLocation, *, strict: bool = False) -> bytes:
        self._side.output.ensure_readable(location)
        return super()._read(blob, location, strict=strict)

    def _put(self, table: str, key: bytes, record: bytes) -> None:
        try:
            self._txn.put(key, seal(key, record), db=self._tables[table])
        except lmdb.Error as exc:
            raise index_error(exc) from exc
