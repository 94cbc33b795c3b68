"""What a write transaction of the store can do: append versions, store blobs, put and delete rows."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, NamedTuple

import lmdb

from dkfs.core import codec
from dkfs.core.delta import Like
from dkfs.core.journal import TABLE_NUMBERS
from dkfs.core.location import (
    DELTAS,
    LOST,
    PLAIN,
    ZSTD,
    BlobLocation,
    encode_blob_location,
)
from dkfs.errors import CorruptError, NotFoundError, StoreError
from dkfs.failpoints import failpoint
from dkfs.model.ids import BlobId, NodeId, Seq
from dkfs.model.node import NodeState
from dkfs.model.operation import Operation, OpKind, Tag
from dkfs.store.blobs import BASES_LIMIT, BlobSource, join_delta, split_delta
from dkfs.store.encoders import choose
from dkfs.store.index import Index, index_error
from dkfs.store.restoring import (
    LEAST_WHOLE,
    Chain,
    cost_limit,
    weigh,
)
from dkfs.store.rows import (
    CLEAN_KEY,
    FORGOTTEN_KEY,
    FORMAT,
    FORMAT_KEY,
    INTENT_FORMAT,
    NAME_LIMIT,
    NEXT_NODE_KEY,
    NODE_KEY,
    NOTE_PREFIX,
    SEQ,
    UNJOURNALED,
    name_key,
    seal,
    tag_key,
)
from dkfs.store.segments import RECORD
from dkfs.store.side import WriteSide
from dkfs.store.transaction import Transaction

_LOCATED_MOST: Final = 4096  # locations kept, of 200 bytes each
_MOVES: Final = frozenset((OpKind.ROLLBACK, OpKind.UNDO, OpKind.REDO))

log = logging.getLogger(__name__)


class Put(NamedTuple):
    """What became of contents that were to be stored."""

    blob: BlobId
    added: int  # bytes that the segments grew by
    encoding: int | None  # how they are stored now; None: they were there already


class Difference(NamedTuple):
    """Contents as a difference to others."""

    encoding: int
    stored: bytes
    depth: int
    cost: int


class Writer(Transaction):
    """One transaction: reads see its own writes; leaving the block commits, an exception aborts."""

    def __init__(self, index: Index, blobs: BlobSource, side: WriteSide) -> None:
        """See Transaction."""
        self._located: dict[BlobId, BlobLocation] = {}
        super().__init__(index, blobs, side)

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
            failpoint("index.append")
            node_ids = self._put_nodes(seq, nodes)
            name_keys = self._put_names(seq, names)
            key = SEQ.pack(seq)
            record = codec.encode_log(operation, node_ids, name_keys)
            self._txn.put(key, seal(key, record), append=True, db=self._tables["log"])
            self._journal.put("log", key, record)
            if operation.kind in _MOVES:
                record = bytes((operation.kind,))
                self._txn.put(key, seal(key, record), append=True, db=self._tables["moves"])
                self._journal.put("moves", key, record)
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
        row = self._row(blob)
        if row and self._is_sound(blob):
            return Put(blob, 0, None)
        encoding, stored = side.encoder.encode(data)
        depth = cost = 0
        # What is damaged may be a base of what it is like: it is stored whole, so that no chain becomes a loop.
        if like is not None and row is None:
            difference = self._difference(data, like, len(stored))
            if difference is not None:
                encoding, stored, depth, cost = difference
        location = side.output.append(blob, stored, encoding=encoding, length=len(data))
        if depth:
            location = replace(location, depth=depth, cost=cost)
        self._put("blobs", blob, encode_blob_location(location))
        side.remember(blob)
        side.plain.put(blob, data)
        return Put(blob, RECORD.size + len(stored), encoding)

    def find_blob(self, data: bytes) -> BlobId | None:
        """Return what names *data* if it is in the store, and sound: then a version may rely on it."""
        blob = BlobId(self._blobs.hash_data(data))
        if not (self._row(blob) and self._is_sound(blob)):
            return None
        if self._side.touched is not None:
            self._side.touched.add(blob)
        return blob

    def put_record(self, blob: BlobId, encoding: int, stored: bytes, length: int) -> None:
        """Store *blob* in the form in which another store has it; raises NotFoundError, CorruptError, StoreError.

        It is not looked at whether *stored* is what *blob* names; the bases of a difference must be there.
        """
        depth = cost = 0
        if encoding in DELTAS:
            chain = self._weigh(split_delta(stored)[0])
            if chain.is_too_much:
                raise StoreError(f"blob {blob.hex()} needs too much of others to be restored")
            depth, cost = chain.depth, chain.cost + len(stored)
        elif encoding not in {PLAIN, ZSTD}:
            raise StoreError(f"blob {blob.hex()} of encoding {encoding} cannot be stored")
        if self._side.touched is not None:
            self._side.touched.add(blob)
        location = self._side.output.append(blob, stored, encoding=encoding, length=length)
        location = replace(location, depth=depth, cost=cost)
        self._put("blobs", blob, encode_blob_location(location))
        self._side.drop(blob)

    def put_row(self, table: str, key: bytes, record: bytes) -> None:
        """Put a row as it is, for whoever changes the history itself; raises StoreError.

        The counters follow: the next node, the newest version, how many versions were forgotten.
        """
        if table == "meta":
            self._set_counter(key, record)
        elif table == "log":
            self._count_version(Seq(int.from_bytes(key, "big")), record)
        elif table == "nodes":
            self._next_node = NodeId(max(self._next_node, NODE_KEY.unpack(key)[0] + 1))
        self._keep(table, key, record)

    def delete_row(self, table: str, key: bytes) -> bool:
        """Delete a row, and return whether it was there; raises StoreError. See put_row()."""
        if table == "log" and key == SEQ.pack(self.last):
            raise StoreError(f"version {self.last} is the newest and cannot be forgotten")
        try:
            was_there = self._txn.delete(key, db=self._tables[table])
        except lmdb.Error as exc:
            raise index_error(exc) from exc
        if was_there:
            if table == "log":
                self._forgotten += 1
            elif table == "blobs":
                self._side.drop(BlobId(key))
                self._located.pop(BlobId(key), None)
            if table in TABLE_NUMBERS:
                self._journal.delete(table, key)
        return was_there

    def put_tag(self, tag: Tag) -> None:
        """Add *tag*, in place of one of the same name; raises StoreError."""
        self._keep("tags", tag_key(tag.name), codec.encode_tag(tag))

    def delete_tag(self, name: str) -> None:
        """Remove the tag *name*; raises NotFoundError, StoreError."""
        if not self.delete_row("tags", tag_key(name)):
            raise NotFoundError(f"no tag {name!r}")

    def set_intent(self, *, allowed: bool) -> None:
        """Note whether there may be an intent log with versions that are not in the index."""
        number = (INTENT_FORMAT if allowed else FORMAT).to_bytes(4, "big")
        table = self._tables["meta"]
        try:
            if self._txn.get(FORMAT_KEY, db=table) != number:
                self._txn.put(FORMAT_KEY, number, db=table)
        except lmdb.Error as exc:
            raise index_error(exc) from exc

    def set_clean(self, clean: bool) -> None:  # noqa: FBT001 - the verb says what the value means
        """Note whether the writer ended cleanly."""
        self._put("meta", CLEAN_KEY, b"\1" if clean else b"\0")

    def put_meta(self, name: bytes, value: bytes) -> None:
        """Keep *value* under *name*, of at most 500 bytes, in place of what was there."""
        self._keep("meta", NOTE_PREFIX + name, value)

    def _put_nodes(self, seq: Seq, nodes: Iterable[tuple[NodeId, NodeState]]) -> list[NodeId]:
        put, table, journal = self._txn.put, self._tables["nodes"], self._journal.put
        ids = []
        for node, state in nodes:
            key = NODE_KEY.pack(node, seq)
            record = codec.encode_node(state)
            put(key, seal(key, record), db=table)
            journal("nodes", key, record)
            ids.append(node)
            if node >= self._next_node:
                self._next_node = NodeId(node + 1)
        return ids

    def _put_names(
        self, seq: Seq, names: Iterable[tuple[NodeId, bytes, NodeId]]
    ) -> list[tuple[NodeId, bytes]]:
        put, table, journal = self._txn.put, self._tables["names"], self._journal.put
        keys = []
        for parent, name, child in names:
            if not 0 < len(name) <= NAME_LIMIT or b"\0" in name or b"/" in name:
                raise StoreError(
                    f"name {name!r} in a directory, need 1 to {NAME_LIMIT} bytes, no /"
                )
            key = name_key(parent, name, seq)
            record = SEQ.pack(child)
            put(key, seal(key, record), db=table)
            journal("names", key, record)
            keys.append((parent, name))
        return keys

    def _row(self, blob: BlobId) -> bytes | None:
        """Return the row of *blob*, None if there is none, nothing if it is damaged."""
        try:
            return self._get("blobs", blob)
        except CorruptError as exc:
            log.warning("written again: %s", exc)
            return b""

    def _is_sound(self, blob: BlobId, trouble: str = "stored again") -> bool:
        """Return whether *blob* can be read, so that no new version comes to rely on a damaged one."""
        if blob in self._side.verified:
            return True
        try:
            self.blob(blob)
        except (CorruptError, StoreError) as exc:
            log.warning("%s: %s", trouble, exc)
            return False
        self._side.remember(blob)
        return True

    def _difference(self, data: bytes, like: Like, whole: int) -> Difference | None:
        """Return how *data* is stored in less than *whole* bytes with what it is like; None if it is not."""
        policy, bases = self._side.policy, like.bases
        if not policy.diff or whole < LEAST_WHOLE or not 1 <= len(bases) <= BASES_LIMIT:
            return None
        if not all(map(self._is_base, bases)):
            return None
        try:
            chain = self._weigh(bases)
            room = min(whole, cost_limit(len(data)) - chain.cost) - len(join_delta(bases, b""))
            if chain.is_too_much or chain.depth > policy.depth or room <= 0:
                return None
            found = choose(
                policy,
                data,
                room,
                lambda: b"".join(map(self.blob, bases)),
                chain.length,
                like.copies,
            )
        except (CorruptError, StoreError) as exc:
            log.warning("stored whole: %s", exc)
            return None
        if found is None:
            return None
        stored = join_delta(bases, found[1])
        return Difference(found[0], stored, chain.depth, chain.cost + len(stored))

    def _is_base(self, blob: BlobId) -> bool:
        """Return whether other contents may be stored as a difference to *blob*."""
        try:
            is_there = self.location(blob) is not None
        except CorruptError as exc:
            log.warning("not used as a base: %s", exc)
            return False
        return is_there and self._is_sound(blob, "not used as a base")

    def _weigh(self, bases: Iterable[BlobId]) -> Chain:
        """Return what a difference to *bases* relies on; raises NotFoundError, CorruptError."""
        locations = []
        for base in bases:
            location = self.location(base)
            if location is None or location.encoding == LOST:
                raise NotFoundError(f"base {base.hex()} is not in the store")
            locations.append(location)
        return weigh(locations)

    def _set_counter(self, key: bytes, record: bytes) -> None:
        if key in UNJOURNALED:
            raise StoreError(f"row {key!r} of meta is not put like this")
        if key == NEXT_NODE_KEY:
            self._next_node = NodeId(int.from_bytes(record, "big"))
        elif key == FORGOTTEN_KEY:
            self._forgotten = int.from_bytes(record, "big")

    def _count_version(self, seq: Seq, record: bytes) -> None:
        last = self.last
        if seq > last:
            self._forgotten += seq - last - 1
        elif not self.has_row("log", SEQ.pack(seq)):
            self._forgotten -= 1
        if seq >= last:
            self._last = seq
            self._last_time_ns = codec.log_time_ns(record)

    def location(self, blob: BlobId) -> BlobLocation | None:
        """See Reader: what is put as a difference is asked for its bases five times."""
        found = self._located.get(blob)
        if found is None:
            found = super().location(blob)
            if found is not None:
                if len(self._located) >= _LOCATED_MOST:
                    self._located.clear()
                self._located[blob] = found
        return found

    def _put(self, table: str, key: bytes, record: bytes) -> None:
        if table == "blobs":
            self._located.pop(BlobId(key), None)
        super()._put(table, key, record)

    def _read(self, blob: BlobId, location: BlobLocation, *, strict: bool = False) -> bytes:
        plain = self._side.plain
        data = None if strict else plain.get(blob)
        if data is None:
            if location.encoding in DELTAS:
                self._side.output.flush()  # its bases may be in the buffer too
            else:
                self._side.output.ensure_readable(location)
            data = super()._read(blob, location, strict=strict)
            plain.put(blob, data)
        return data

    def stored(self, location: BlobLocation, blob: BlobId) -> bytes:
        """See Reader."""
        self._side.output.ensure_readable(location)
        return super().stored(location, blob)

    def bases(self, blob: BlobId, location: BlobLocation) -> tuple[BlobId, ...]:
        """See Reader."""
        self._side.output.ensure_readable(location)
        return super().bases(blob, location)
