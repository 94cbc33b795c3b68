"""The reading half of a collection: what is alive, what would come back, and the copies of what has to move.

It may run in a process of its own: it opens the store for reading only, and what it takes and returns can be sent.
Views are given up as early as can be: an old one keeps pages of the index from being used again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from itertools import islice
from typing import Final, NamedTuple

from dkfs.core import codec
from dkfs.core.location import (
    JOURNAL,
    SegmentRow,
    decode_blob_location,
)
from dkfs.model.ids import NodeId, Seq
from dkfs.model.node import NodeState
from dkfs.store.blobs import Encoder
from dkfs.store.collect_copy import EMPTY_SIZE, Copied, SegmentCopy
from dkfs.store.collect_mark import Marker
from dkfs.store.collect_moves import Move, PlacedRow, rows_in, runs, swap
from dkfs.store.collect_plan import Plan, SegmentUse, plan
from dkfs.store.collect_repack import Recoder, Repacking, repacked
from dkfs.store.collect_sweep import JournalRecord, Swap
from dkfs.store.collect_table import LIVE, BlobTable
from dkfs.store.compact import Packed, packed_bytes
from dkfs.store.index import TABLES, outdated
from dkfs.store.journals import checkpoint
from dkfs.store.reader import Reader
from dkfs.store.rows import FORMAT, NODE_KEY, unseal
from dkfs.store.salvage import Record, Salvage
from dkfs.store.segments import HEADER_SIZE, RECORD, segment_path
from dkfs.store.store import Store

# Hears what is being done, how much of it is done, and of how much; 0: not known.
Progress = Callable[[str, int, int], None]
# Tells whether a state will be gone once what is going to be forgotten is forgotten.
IsDropped = Callable[[NodeId, Seq], bool]

_BATCH: Final = 64  # rows sent at once: to unpickle 1,024 keeps the interpreter for 1 ms, and nobody is answered
_COPY_MOST: Final = 200_000  # records in one copy: what is known of them is held in memory
_VIEW_ROWS: Final = 256  # encoded anew in one view
_TELL_EVERY: Final = 2048  # rows


@dataclass(frozen=True, slots=True)
class Findings:
    """What a survey found, and what it would do about it; all sizes in bytes."""

    blobs: int
    dead_blobs: int
    segment_bytes: int
    live_bytes: int  # of these: records that are needed
    journal_bytes: int  # ... and journals, needed for a rebuild of the index
    packed_index_bytes: int  # what the index would take if it were packed, see compact
    plan: Plan

    @property
    def dead_bytes(self) -> int:
        """What is of no use."""
        return self.segment_bytes - self.live_bytes - self.journal_bytes


class Survey:
    """One survey of a store, and what a collection asks it afterwards."""

    def __init__(self, store: Store, *, limit: int, say: Progress) -> None:
        """Look at *store*; segments are full at *limit* bytes. *say* may raise to end it."""
        self._store = store
        self._limit = limit
        self._say = say
        self._last = Seq(0)
        self._marker: Marker | None = None
        self._recoder: Recoder | None = None
        self._done = frozenset[int]()  # segments that need not be encoded anew
        self._moves: list[Move] = []  # of the last copy

    def look(
        self,
        *,
        max_unused: float,
        repacking: Repacking | None = None,
        is_dropped: IsDropped | None = None,
    ) -> Findings:
        """Find out what is alive, and what to do; raises CorruptError if that cannot be told, StoreFormatError.

        With *repacking*, segments that were not repacked yet are given up too, and copies of blobs are encoded anew.
        States that *is_dropped* tells of count as gone: then it is said what would come back without them.
        """
        with self._store.read() as reader:
            if reader.format != FORMAT:
                raise outdated(self._store.path, reader.format)
            self._last = reader.last
            blobs = reader.count("blobs")
            rows = {table: Packed() for table in TABLES}
            marker = self._marker = Marker(
                BlobTable(reader, lambda done: self._say("looking", done, blobs))
            )
            marker.mark(reader, self._states(reader, is_dropped, rows["nodes"]))
            share = rows["nodes"].rows / max(reader.count("nodes"), 1)
            uses = list(_uses(reader, marker.table))
            cost = None
            if any(use.journals for use in uses):
                cost = int(self._checkpoint_size(reader) * share)
            packed = _packed_index(reader, marker.table, rows, share)
            wanted = frozenset[int]()
            if repacking is not None:
                self._done = repacked(self._store.path, repacking.level)
                wanted = frozenset(use.number for use in uses if use.live) - self._done
                self._recoder = self._new_recoder(reader, marker.table, repacking)
        table = marker.table
        return Findings(
            blobs=len(table),
            dead_blobs=sum(1 for _ in table.dead()),
            segment_bytes=sum(use.size for use in uses),
            live_bytes=sum(use.live for use in uses),
            journal_bytes=sum(use.journals for use in uses),
            packed_index_bytes=packed,
            plan=plan(
                uses,
                max_unused=max_unused,
                overhead=EMPTY_SIZE,
                limit=self._limit,
                checkpoint=cost,
                wanted=wanted,
            ),
        )

    def refresh(self) -> Seq:
        """Look at the versions that were made since; return the last one that was looked at."""
        assert self._marker is not None
        with self._store.read() as reader:
            after, self._last = self._last, reader.last
            states = (
                state
                for record in reader.log(Seq(after + 1), reader.last)
                for node in record.all_nodes
                if (state := reader.node(node, record.seq)) is not None
            )
            self._marker.mark(reader, states)
        return self._last

    def dead(self) -> Iterator[list[Swap]]:
        """Yield the rows of what nothing refers to, in order of their keys."""
        assert self._marker is not None
        table = self._marker.table
        numbers = table.dead()
        while chunk := list(islice(numbers, _BATCH)):
            with self._store.read() as reader:
                swaps = [Swap(row.blob, row.value, None) for _, row in table.rows(reader, chunk)]
            yield swaps

    def copy(self, number: int, segments: Sequence[int], *, with_journals: bool) -> Copied | None:
        """Make segment *number* of what the index still has in *segments*; None if that is nothing.

        At most so many records that they fit into memory: to be called until there is nothing.  Raises StoreError.
        """
        with self._store.read() as reader:
            found = rows_in(reader, frozenset(segments), lambda: self._say("copying", 0, 0))
            rows = list(islice(found, _COPY_MOST))
            journals = [
                (source, row)
                for source in segments
                if with_journals and (row := reader.segment(source)) is not None
                if _journals(row, reader.checkpoint())
            ]
        if not rows and not journals:
            return None
        rows.sort(key=lambda row: row.place)
        with SegmentCopy(self._store.segments, self._store.uuid.bytes, number) as out:
            self._moves = sorted(self._copied(out, rows))
            for source, segment in journals:
                self._copy_journals(out, source, segment)
            return out.finish()

    def copy_end(
        self, number: int, segment: int, *, most: int, with_journals: bool
    ) -> "CopiedEnd | None":
        """Make segment *number* of about *most* bytes from the end of *segment*; None if it holds nothing any more.

        Raises StoreError.
        """
        path = segment_path(self._store.segments, segment)
        with self._store.read() as reader:
            row = reader.segment(segment)
            found = rows_in(reader, frozenset((segment,)), lambda: self._say("copying", 0, 0))
            rows = nlargest(_COPY_MOST, found, key=lambda each: each.place)
            with_journals = (
                with_journals and row is not None and _journals(row, reader.checkpoint()) > 0
            )
        if row is None or (row.length <= HEADER_SIZE and not rows):
            return None
        end, size = row.length, 0
        chosen: list[PlacedRow] = []
        for each in rows:
            if chosen and size + each.end - each.place[1] > most:
                break
            size += each.end - each.place[1]
            chosen.append(each)
        # Where nothing but what is of no use is left, that goes too.
        is_all = len(chosen) == len(rows) < _COPY_MOST
        start = HEADER_SIZE if is_all else chosen[-1].place[1]
        with SegmentCopy(self._store.segments, self._store.uuid.bytes, number) as out:
            self._moves = sorted(self._copied_as_they_are(out, chosen[::-1]))
            journal_bytes = 0
            with Salvage(path, segment) as salvage:
                for record in salvage.records(start, end):
                    if isinstance(record, Record) and record.encoding == JOURNAL:
                        journal_bytes += record.end - record.offset
                        if with_journals:
                            out.add_journal(
                                record.blob,
                                record.stored,
                                length=record.length,
                                txn=row.journal_txn,
                            )
            return CopiedEnd(out.finish(), start, journal_bytes)

    def moves(self) -> Iterator[list[Swap]]:
        """Yield the rows that lead to the last copy, in order of their keys."""
        for start in range(0, len(self._moves), _BATCH):
            yield [swap(move) for move in self._moves[start : start + _BATCH]]

    def checkpoint(self) -> Iterator[JournalRecord]:
        """Yield the parts of a checkpoint; the view that they are of is held until the last."""
        compress, name = Encoder().compress, self._store.hash
        with self._store.read() as reader:
            txn = reader.tail().txn
            parts = checkpoint(reader, txn)
            plain = next(parts, None)
            done = 0
            while plain is not None:
                self._say("writing a checkpoint", done, 0)
                following = next(parts, None)
                yield JournalRecord(
                    name(plain), compress(plain), len(plain), txn, is_last=following is None
                )
                plain, done = following, done + 1

    def _states(
        self, reader: Reader, is_dropped: IsDropped | None, rows: Packed
    ) -> Iterator[NodeState]:
        """Yield the states that are there, and stay there; add their rows to *rows*."""
        total = reader.count("nodes")
        for done, (key, value) in enumerate(reader.rows("nodes")):
            if done % _TELL_EVERY == 0:
                self._say("looking", done, total)
            if is_dropped is not None:
                node, seq = NODE_KEY.unpack(key)
                if is_dropped(node, seq):
                    continue
            rows.add(len(key), len(value))
            yield codec.decode_node(unseal("nodes", key, value))

    def _new_recoder(self, reader: Reader, table: BlobTable, wish: Repacking) -> Recoder:
        recoder = Recoder(wish, table, lambda: self._say("repacking", 0, 0))
        recoder.find_predecessors(
            (NodeId(NODE_KEY.unpack(key)[0]), codec.decode_node(unseal("nodes", key, value)))
            for key, value in reader.rows("nodes")
        )
        return recoder

    def _copied(self, out: SegmentCopy, rows: Sequence[PlacedRow]) -> Iterator[Move]:
        """Copy *rows*, which lie in this order, encoded anew if that is wanted; yield where they are."""
        if self._recoder is None:
            yield from self._copied_as_they_are(out, rows)
            return
        rest: list[PlacedRow] = []
        for start in range(0, len(rows), _VIEW_ROWS):
            with self._store.read() as reader:
                for row in rows[start : start + _VIEW_ROWS]:
                    if row.place[0] in self._done:
                        rest.append(row)
                        continue
                    location = decode_blob_location(unseal("blobs", row.blob, row.value))
                    new = self._recoder.recode(reader, row.blob, location)
                    if new is None:
                        rest.append(row)
                        continue
                    encoding, length = new.location.encoding, new.location.length
                    at = out.add(row.blob, new.stored, encoding=encoding, length=length)
                    location = replace(new.location, segment=out.number, offset=at)
                    yield Move(row.blob, row.value, location, new.is_deeper)
        yield from self._copied_as_they_are(out, rest)

    def _copied_as_they_are(self, out: SegmentCopy, rows: Sequence[PlacedRow]) -> Iterator[Move]:
        for done, run in enumerate(runs(rows)):
            if done % 64 == 0:
                self._say("copying", out.length, 0)
            segment, offset = run[0].place
            at = out.copy(segment, offset, run[-1].end - offset, records=len(run))
            for row in run:
                place = out.number, at + row.place[1] - offset
                yield Move(row.blob, row.value, place, is_deeper=False)

    def _copy_journals(self, out: SegmentCopy, source: int, row: SegmentRow) -> None:
        with Salvage(segment_path(self._store.segments, source), source) as salvage:
            for record in salvage.records(end=row.length):
                if isinstance(record, Record) and record.encoding == JOURNAL:
                    out.add_journal(
                        record.blob, record.stored, length=record.length, txn=row.journal_txn
                    )

    def _checkpoint_size(self, reader: Reader) -> int:
        """Return the bytes that a checkpoint would take."""
        encoder = Encoder()
        return sum(
            RECORD.size + len(encoder.compress(plain))
            for plain in checkpoint(reader, reader.tail().txn)
        )


class CopiedEnd(NamedTuple):
    """The end of a segment, copied."""

    copied: Copied
    start: int  # where in the segment it began
    journal_bytes: int  # of journals that were in it


def _uses(reader: Reader, table: BlobTable) -> Iterator[SegmentUse]:
    live: dict[int, int] = {}
    for segment, size, mark in zip(table.segments, table.sizes, table.marks, strict=True):
        if mark & LIVE:
            live[segment] = live.get(segment, 0) + size
    done = reader.checkpoint()
    for number, row in reader.segments():
        if not row.is_dead:
            yield SegmentUse(number, row.length, live.get(number, 0), _journals(row, done))


def _journals(row: SegmentRow, checkpoint: int) -> int:
    """Return the bytes of journals in the segment of *row* that are needed beside, or as, the last *checkpoint*."""
    # A checkpoint may have been written by the transaction that it is of.
    return row.journal_bytes if row.journal_txn >= checkpoint else 0


def _packed_index(
    reader: Reader, table: BlobTable, rows: Mapping[str, Packed], share: float
) -> int:
    """Return what the index takes when packed if *share* of what grows with the versions stays; *rows* has the nodes."""
    live = len(table) - sum(1 for _ in table.dead())
    shares = {
        "blobs": live / max(len(table), 1),
        "log": share,
        "names": share,
        "moves": share,
        "meta": 1.0,
        "tags": 1.0,
        "segments": 1.0,
    }
    for name, part in shares.items():
        for key, value in reader.rows(name):
            rows[name].add(len(key), len(value), times=part)
    return packed_bytes(rows.values())
