"""The index made anew from the segments alone: the newest checkpoint, and the transactions after it in their order.

What is rebuilt stands beside the old index until it is whole and on the disk; then it takes its place, and what was
there is kept under another name. A kill at any moment leaves the one or the other.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import lmdb

from dkfs.core.location import (
    DELTAS,
    LOST,
    PLAIN,
    ZSTD,
    BlobLocation,
    SegmentRow,
    decode_blob_location,
    encode_blob_location,
    encode_segment,
)
from dkfs.errors import CorruptError, StoreError
from dkfs.failpoints import failpoint
from dkfs.model.ids import BlobId
from dkfs.store.blobs import decode, hash_function, split_delta
from dkfs.store.findings import Findings, OnProgress, find
from dkfs.store.index import (
    INDEX_NAME,
    Index,
    close_index,
    create_index,
    index_error,
    lock_path,
    open_index,
)
from dkfs.store.rows import (
    CHECKPOINT_KEY,
    FORMAT,
    FORMAT_KEY,
    HASH_KEY,
    SEGMENT_KEY,
    SEQ,
    TAIL,
    TAIL_KEY,
    UUID_KEY,
    seal,
    unseal,
)
from dkfs.store.salvage import Record
from dkfs.store.segments import SEGMENTS_NAME, sync_directory

REBUILT_NAME: Final = f"{INDEX_NAME}.rebuilt"
_BATCH: Final = 20_000  # rows of one transaction
_DEPTH_LIMIT: Final = 255  # deltas; what a row has room for
NONE_LOST: Final[Mapping[BlobId, int]] = {}
_ALGORITHMS: Final = ("blake3", "sha256")


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuilding brought back."""

    versions: int
    blobs: int
    transactions: int  # that were put together
    last: int  # the newest of them
    unused: tuple[int, ...]  # transactions that are there, but not those before them
    problems: tuple[str, ...]  # damage that was passed over


class Rows:
    """Rows on their way into an index that nobody else has open, in transactions of a bounded size."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._txn = index.begin(write=True)
        self._count = 0

    def put(self, table: str, key: bytes, record: bytes) -> None:
        """Put a row; raises StoreError."""
        try:
            self._txn.put(key, seal(key, record), db=self._index.tables[table])
        except lmdb.Error as exc:
            raise index_error(exc) from exc
        self._next()

    def delete(self, table: str, key: bytes) -> None:
        """Delete a row, if it is there; raises StoreError."""
        try:
            self._txn.delete(key, db=self._index.tables[table])
        except lmdb.Error as exc:
            raise index_error(exc) from exc
        self._next()

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return the record of a row that was put, None if there is none; raises StoreError."""
        try:
            value = self._txn.get(key, db=self._index.tables[table])
        except lmdb.Error as exc:
            raise index_error(exc) from exc
        return None if value is None else unseal(table, key, value)

    def has(self, table: str, key: bytes) -> bool:
        """Return whether there is a row, sound or not; raises StoreError."""
        try:
            return self._txn.get(key, db=self._index.tables[table]) is not None
        except lmdb.Error as exc:
            raise index_error(exc) from exc

    def last_key(self, table: str) -> bytes:
        """Return the greatest key of *table*, nothing if it is empty; raises StoreError."""
        try:
            cursor = self._txn.cursor(db=self._index.tables[table])
            return cursor.key() if cursor.last() else b""
        except lmdb.Error as exc:
            raise index_error(exc) from exc

    def count(self, table: str) -> int:
        """Return how many rows *table* has."""
        return int(self._txn.stat(self._index.tables[table])["entries"])

    def finish(self) -> None:
        """Make everything durable; raises StoreError."""
        try:
            failpoint("repair.commit")
            self._txn.commit()
        except lmdb.Error as exc:
            raise index_error(exc) from exc
        self._index.cover()

    def _next(self) -> None:
        self._count += 1
        if self._count >= _BATCH:
            self.finish()
            self._txn = self._index.begin(write=True)
            self._count = 0


def rebuild(
    store: Path,
    target: Path,
    *,
    lost: Mapping[BlobId, int] = NONE_LOST,
    on_progress: OnProgress,
) -> Rebuilt:
    """Make an index at *target* of what the segments of *store* tell; raises StoreError, CorruptError.

    *lost* are blobs that were given up, with their lengths: they are so again, unless they are found.
    """
    findings = find(store / SEGMENTS_NAME)
    algorithm: str | None = None
    create_index(target, {FORMAT_KEY: FORMAT.to_bytes(4, "big")})
    index = open_index(target, writable=True)
    try:
        rows = Rows(index)
        deltas: dict[BlobId, _Delta] = {}
        for record in findings.records(on_progress):
            algorithm = algorithm or _algorithm(record)
            _put_blob(rows, deltas, record)
        adrift = _put_deltas(rows, deltas)
        for blob, length in lost.items():
            if rows.get("blobs", blob) is None:
                rows.put("blobs", blob, encode_blob_location(BlobLocation(0, 0, 0, length, LOST)))
        transactions, unused = _put_journals(rows, findings, on_progress)
        _put_meta(rows, findings, algorithm, last=max([*unused, transactions[-1]]))
        versions, blobs = rows.count("log"), rows.count("blobs")
        rows.finish()
    finally:
        close_index(index)
    problems = (*findings.problems, *adrift)
    return Rebuilt(versions, blobs, len(transactions), transactions[-1], unused, problems)


def replace_index(store: Path) -> Path | None:
    """Let the rebuilt index of *store* take the place of what was there; return where that is kept now.

    The caller holds the store's lock.
    """
    index, rebuilt = store / INDEX_NAME, store / REBUILT_NAME
    kept = None
    try:
        if index.exists() or index.is_symlink():
            kept = _free_name(store)
            failpoint("repair.keep")
            os.link(index, kept, follow_symlinks=False)
        # The table of readers goes with the index: transactions of another one have other numbers. Who opens in
        # between sees that one of the files has become another, and opens again (see open_index).
        failpoint("repair.rename-lock")
        lock_path(rebuilt).rename(lock_path(index))
        sync_directory(store)
        failpoint("repair.rename")
        rebuilt.rename(index)
        sync_directory(store)
    except OSError as exc:
        raise StoreError(f"index {index} cannot be replaced: {exc.strerror}") from exc
    return kept


def discard(store: Path) -> None:
    """Remove what a rebuilding that did not come to its end left."""
    rebuilt = store / REBUILT_NAME
    temporary = rebuilt.with_name(f"{rebuilt.name}.new")
    for each in (rebuilt, lock_path(rebuilt), temporary, lock_path(temporary)):
        with contextlib.suppress(FileNotFoundError):
            each.unlink()


@dataclass(frozen=True, slots=True)
class _Delta:
    """A difference whose depth is not known yet."""

    location: BlobLocation
    bases: tuple[BlobId, ...]


def _put_blob(rows: Rows, deltas: dict[BlobId, _Delta], record: Record) -> None:
    """Put where a blob is. Of several places the last counts, but a whole copy before a difference."""
    at = BlobLocation(
        record.segment, record.offset, record.stored_length, record.length, record.encoding
    )
    if record.encoding not in DELTAS:
        deltas.pop(record.blob, None)
        rows.put("blobs", record.blob, encode_blob_location(at))
    elif rows.get("blobs", record.blob) is None:
        with contextlib.suppress(CorruptError):  # then it could not be read anyway
            deltas[record.blob] = _Delta(at, split_delta(record.stored)[0])


def _put_deltas(rows: Rows, deltas: dict[BlobId, _Delta]) -> list[str]:
    """Put the differences, each after its bases; return what cannot be restored, because a base is missing."""
    waiting = deltas
    while waiting:
        left: dict[BlobId, _Delta] = {}
        for blob, delta in waiting.items():
            found = [rows.get("blobs", base) for base in delta.bases]
            bases = [decode_blob_location(record) for record in found if record is not None]
            depth = max((base.depth for base in bases), default=0) + 1
            if len(bases) < len(found) or depth > _DEPTH_LIMIT:
                left[blob] = delta
                continue
            cost = delta.location.stored_length + sum(base.read_cost for base in bases)
            at = replace(delta.location, depth=depth, cost=cost)
            rows.put("blobs", blob, encode_blob_location(at))
        if len(left) == len(waiting):
            break
        waiting = left
    return [f"blob {blob.hex()} is a delta to what is not in the store" for blob in waiting]


def _put_journals(
    rows: Rows, findings: Findings, on_progress: OnProgress
) -> tuple[list[int], tuple[int, ...]]:
    """Put what the transactions did; return those, and the ones that cannot be used because others are lost."""
    start = findings.newest_checkpoint()
    complete = findings.complete()
    used = [start] if start else []
    txn = start + 1
    while txn in complete:
        used.append(txn)
        txn += 1
    if not used:
        raise StoreError("the segments hold no journal to begin with: the index cannot be rebuilt")
    for done, each in enumerate(used):
        on_progress("transactions", done, len(used))
        for part in findings.parts(each, is_checkpoint=each == start):
            for row in part.rows:
                if row.record is None:
                    rows.delete(row.table, row.key)
                else:
                    rows.put(row.table, row.key, row.record)
    return used, tuple(sorted(number for number in complete if number > used[-1]))


def _put_meta(rows: Rows, findings: Findings, algorithm: str | None, *, last: int) -> None:
    """Put the rows that no journal has. What comes next goes to a new segment."""
    rows.put("meta", UUID_KEY, findings.uuid)
    if rows.get("meta", HASH_KEY) is None:
        rows.put("meta", HASH_KEY, (algorithm or _ALGORITHMS[0]).encode())
    rows.put("meta", TAIL_KEY, TAIL.pack(0, 0, 0, last, 0))
    if findings.newest_checkpoint():
        rows.put("meta", CHECKPOINT_KEY, SEQ.pack(findings.newest_checkpoint()))
    for number, found in findings.segments.items():
        row = SegmentRow(found.length, found.journal_bytes, found.journal_txn)
        rows.put("segments", SEGMENT_KEY.pack(number), encode_segment(row))


def _algorithm(record: Record) -> str | None:
    """Return the algorithm that named the blob of *record*; None if it does not tell."""
    if record.encoding not in {PLAIN, ZSTD}:
        return None
    at = BlobLocation(
        record.segment, record.offset, record.stored_length, record.length, record.encoding
    )
    try:
        data = decode(record.stored, at)
    except CorruptError:
        return None
    return next((name for name in _ALGORITHMS if hash_function(name)(data) == record.blob), None)


def _free_name(store: Path) -> Path:
    number = 1
    while (kept := store / f"{INDEX_NAME}.damaged-{number}").exists():
        number += 1
    return kept
