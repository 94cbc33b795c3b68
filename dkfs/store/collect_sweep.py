"""The writing half of a collection: short transactions that remove rows, move them, and end segments.

A row is changed only if it still is what it was when the collection looked: who stored something meanwhile wins.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import lmdb

from dkfs.core.location import JOURNAL, SegmentRow, encode_segment
from dkfs.model.ids import BlobId, Seq
from dkfs.store.collect_copy import Copied
from dkfs.store.index import index_error
from dkfs.store.reader import Reader
from dkfs.store.rows import CHECKPOINT_KEY, SEGMENT_KEY, SEQ
from dkfs.store.transaction import Transaction


class Swap(NamedTuple):
    """A row of the table blobs that is to become another."""

    blob: BlobId
    old: bytes  # the value that it must still have
    new: bytes | None  # None: the row goes
    is_deeper: bool = False  # who relies on the blob would have to read more than the index says


class JournalRecord(NamedTuple):
    """A part of a checkpoint, ready to be appended."""

    blob: BlobId
    stored: bytes
    length: int  # bytes, plain
    txn: int  # the transaction that the checkpoint is of
    is_last: bool


class Kept:
    """What versions that were made during a collection rely on, with the bases of it."""

    def __init__(self) -> None:
        self._blobs: set[BlobId] = set()

    def __contains__(self, blob: object) -> bool:
        return blob in self._blobs

    def __len__(self) -> int:
        return len(self._blobs)

    def add(self, reader: Reader, blobs: set[BlobId]) -> None:
        """Add *blobs*, and whatever is needed to restore them as of now."""
        pending = blobs - self._blobs
        while pending:
            blob = pending.pop()
            self._blobs.add(blob)
            location = reader.location(blob)
            if location is not None and location.depth:
                pending.update(set(reader.bases(blob, location)) - self._blobs)


class Sweep(Transaction):
    """One transaction of a collection."""

    def last_move(self) -> Seq:
        """Return the last version that gave nodes states of earlier versions, 0 if there is none."""
        return Seq(int.from_bytes(self._last_key("moves"), "big"))

    def take_touched(self, kept: Kept) -> None:
        """Move to *kept* what puts have come to rely on since the last time."""
        touched = self._side.touched
        if touched:
            self._side.touched = set()
            kept.add(self, touched)

    def swap(self, swaps: Sequence[Swap], kept: Kept, breathe: Callable[[], None]) -> int:
        """Change the rows of *swaps*, less those that somebody relies on; return how many were changed.

        *breathe* is called before each.
        """
        txn, table, count = self._txn, self._tables["blobs"], 0
        try:
            for blob, old, new, is_deeper in swaps:
                breathe()
                if (new is None or is_deeper) and blob in kept:
                    continue
                if txn.get(blob, db=table) != old:
                    continue
                if new is None:
                    txn.delete(blob, db=table)
                    self._side.drop(blob)
                else:
                    txn.put(blob, new, db=table)
                count += 1
        except lmdb.Error as exc:
            raise index_error(exc) from exc
        return count

    def roll(self) -> None:
        """Begin a new segment, so that the newest can be given up."""
        self._side.output.roll()

    def allocate(self) -> int:
        """Return the number of a segment that is made beside the writer."""
        return self._side.output.allocate()

    def adopt(self, copied: Copied) -> None:
        """Make the finished segment *copied* part of the store."""
        copied.appear()
        row = SegmentRow(copied.length, copied.journal_bytes, copied.journal_txn)
        self._put("segments", SEGMENT_KEY.pack(copied.number), encode_segment(row))

    def add_journal(self, record: JournalRecord) -> None:
        """Append a part of a checkpoint; with the last one, the journals before it are not needed any more."""
        self._side.output.append(record.blob, record.stored, encoding=JOURNAL, length=record.length)
        if record.is_last:
            self._put("meta", CHECKPOINT_KEY, SEQ.pack(record.txn))

    def shorten(self, number: int, length: int, journal_bytes: int) -> int:
        """Note that nothing is in segment *number* from *length* on, where *journal_bytes* of journals were.

        Return this transaction: the file may be cut when nobody reads an older view.
        """
        row = self.segment(number)
        if row is not None:
            row = replace(row, length=length, journal_bytes=row.journal_bytes - journal_bytes)
            self._put("segments", SEGMENT_KEY.pack(number), encode_segment(row))
        return int(self._txn.id())

    def end_segments(self, numbers: Sequence[int]) -> None:
        """Note that nothing is in the segments *numbers* any more, as of this transaction."""
        death = self._txn.id()
        for number in numbers:
            row = self.segment(number)
            if row is not None and not row.is_dead:
                row = replace(row, is_dead=True, death=death)
                self._put("segments", SEGMENT_KEY.pack(number), encode_segment(row))

    def bury(self, oldest: int | None) -> list[int]:
        """Remove the rows of segments that died before transaction *oldest* began; return their numbers.

        Once this is committed the files can go; whatever is left of them goes when the store is opened again.
        """
        numbers = [
            number
            for number, row in self.segments()
            if row.is_dead and (oldest is None or row.death <= oldest)
        ]
        try:
            for number in numbers:
                self._txn.delete(SEGMENT_KEY.pack(number), db=self._tables["segments"])
        except lmdb.Error as exc:
            raise index_error(exc) from exc
        return numbers
