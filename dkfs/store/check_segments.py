"""Whether the segments are what the index says: files, headers, footers, one record after the other, and journals.

Of a record that the index knows at its place only the header is read here; whatever else lies in a segment is compared
with its checksum.
"""

from pathlib import Path
from typing import Final

from dkfs.core.location import JOURNAL, SegmentRow, decode_segment
from dkfs.errors import CorruptError, StoreError
from dkfs.store.check_journals import JournalChecker
from dkfs.store.check_rows import OnProgress
from dkfs.store.damage import DamageKind, Notes
from dkfs.store.reader import Reader
from dkfs.store.rows import OLD_FORMAT, unseal
from dkfs.store.salvage import Footer, Gap, Record, Salvage
from dkfs.store.segments import HEADER_SIZE, Tail, check_header, segment_path

_EVERY: Final = 1024  # records between two calls of OnProgress


class SegmentChecker:
    """Checks every segment that is in use; then how far each can be relied on is in `usable`."""

    def __init__(
        self,
        reader: Reader,
        directory: Path,
        uuid: bytes,
        notes: Notes,
        on_progress: OnProgress,
    ) -> None:
        self.usable: dict[int, int] = {}  # bytes of each segment, as far as the file goes
        self.known = 0  # records of blobs that are where the index says
        self._reader = reader
        self._directory = directory
        self._uuid = uuid
        self._notes = notes
        self._on_progress = on_progress
        self._journals = JournalChecker(reader, notes)
        self._unknown: set[int] = set()  # segments whose row is damaged

    def run(self) -> None:
        """Check them all."""
        rows = self._rows()
        total = sum(row.length for row in rows.values())
        done = 0
        for number, row in rows.items():
            self._on_progress("segments", done, total)
            with self._notes.noting(kind=DamageKind.SEGMENT, segment=number):
                self._check(number, row, done, total)
            done += row.length
        if self._reader.format != OLD_FORMAT:
            self._journals.finish()

    def _rows(self) -> dict[int, SegmentRow]:
        """Return what the index says of every segment in use; made up for a store of format 1, which says nothing."""
        tail = self._tail()
        if self._reader.format == OLD_FORMAT:
            last = tail.segment if tail is not None else 0
            rows = {number: SegmentRow(self._size(number)) for number in range(1, last + 1)}
            if tail is not None and last:
                rows[last] = SegmentRow(tail.length)
            return rows
        rows = {}
        for key, value in self._reader.rows("segments"):
            number = int.from_bytes(key, "big")
            try:
                row = decode_segment(unseal("segments", key, value))
            except CorruptError as exc:
                self._notes.add(str(exc), row=("segments", key))
                self._unknown.add(number)
                row = SegmentRow(self._size(number))
            if not row.is_dead:
                rows[number] = row
        if tail is not None and tail.segment:
            # Its own row is as of when it began.
            rows[tail.segment] = tail.row
        elif tail is None:
            # Where the newest ends says only the row that is damaged.
            for number, row in rows.items():
                if row.length < (size := self._size(number)):
                    rows[number] = SegmentRow(size)
                    self._unknown.add(number)
        return rows

    def _tail(self) -> Tail | None:
        try:
            return self._reader.tail()
        except CorruptError:
            return None  # a row of meta that is damaged, and noted

    def _size(self, number: int) -> int:
        try:
            return max(segment_path(self._directory, number).stat().st_size, HEADER_SIZE)
        except OSError:
            return HEADER_SIZE  # what was to be read from it says so

    def _check(self, number: int, row: SegmentRow, done: int, total: int) -> None:
        path = segment_path(self._directory, number)
        if not path.exists():
            raise StoreError(f"segment {path} is missing")
        with Salvage(path, number) as salvage:
            self.usable[number] = min(salvage.size, row.length)
            is_whole = salvage.size >= row.length
            if not is_whole:
                self._add(number, f"segment {number} has {salvage.size} bytes, need {row.length}")
            with self._notes.noting(kind=DamageKind.SEGMENT, segment=number):
                check_header(path, number, self._uuid)
            records = journal_bytes = 0
            for found in salvage.records(end=row.length, knows=self._knows):
                if isinstance(found, Gap):
                    # If anything needs what was there, it is missed: a blob by its row, a journal by its number.
                    is_whole = False
                elif isinstance(found, Footer):
                    if is_whole:
                        self._end(number, found, records, row.length)
                else:
                    records += 1
                    if found.encoding == JOURNAL:
                        journal_bytes += found.end - found.offset
                        self._journals.add(found)
                    if not records % _EVERY:
                        self._on_progress("segments", done + found.end, total)
        if is_whole and journal_bytes != row.journal_bytes and number not in self._unknown:
            self._add(
                number,
                f"segment {number} has {journal_bytes} bytes of journals, its row says"
                f" {row.journal_bytes}",
            )

    def _end(self, number: int, footer: Footer, records: int, length: int) -> None:
        if footer.end != length:
            self._add(number, f"segment {number} ends at {footer.end}, its row says {length}")
        if footer.records != records:
            self._add(
                number, f"segment {number} has {records} records, its footer says {footer.records}"
            )

    def _knows(self, record: Record) -> bool:
        """Return whether the index has the blob of *record* there."""
        try:
            at = self._reader.location(record.blob)
        except CorruptError:
            return False  # a damage of its own
        if at is None or (at.segment, at.offset) != (record.segment, record.offset):
            return False
        is_same = (at.encoding, at.stored_length, at.length) == (
            record.encoding,
            record.stored_length,
            record.length,
        )
        self.known += is_same
        return is_same

    def _add(self, number: int, message: str) -> None:
        self._notes.add(message, kind=DamageKind.SEGMENT, segment=number)
