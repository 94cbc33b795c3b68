"""What the segments alone tell: the uuid of the store, where every blob is, and what every transaction did.

One pass over all segment files finds the records, and where the journals are; their rows are read again when they are
put together. Damage is passed over and named.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dkfs.core.journal import JournalPart, decode_journal_head
from dkfs.core.location import JOURNAL
from dkfs.errors import CorruptError, StoreError
from dkfs.store.blobs import decompress
from dkfs.store.journals import unpack_journal
from dkfs.store.salvage import Footer, Gap, Record, Salvage
from dkfs.store.segments import FORMATS, HEADER, HEADER_SIZE, MAGIC, list_segments
from dkfs.store.verified import Place

OnProgress = Callable[[str, int, int], None]


@dataclass(slots=True)
class FoundSegment:
    """What is in one segment file."""

    path: Path
    length: int = HEADER_SIZE  # bytes, up to the end of the last record or footer
    journal_bytes: int = 0
    journal_txn: int = 0  # the newest transaction with a journal here


@dataclass(slots=True)
class Findings:
    """What was found in all segments."""

    uuid: bytes
    segments: dict[int, FoundSegment]
    problems: list[str] = field(default_factory=list)
    # By transaction, by part: where it is, and whether it is the last.
    transactions: dict[int, dict[int, tuple[Place, bool]]] = field(default_factory=dict)
    checkpoints: dict[int, dict[int, tuple[Place, bool]]] = field(default_factory=dict)

    def records(self, on_progress: OnProgress) -> Iterator[Record]:
        """Yield the record of every blob, in the order of the segments; take note of the journals."""
        total = sum(found.path.stat().st_size for found in self.segments.values())
        done = 0
        for number, found in self.segments.items():
            with Salvage(found.path, number) as salvage:
                for record in salvage.records():
                    on_progress("segments", done + record.end, total)
                    if isinstance(record, Gap):
                        # At the end it is the rest of a transaction that never was, or was cut off.
                        if record.end < salvage.size:
                            self._damaged(number, record)
                        continue
                    found.length = record.end
                    if isinstance(record, Footer):
                        continue
                    if record.encoding == JOURNAL:
                        self._add_journal(found, record)
                    else:
                        yield record
                done += salvage.size

    def newest_checkpoint(self) -> int:
        """Return the transaction of the newest complete checkpoint, 0 if there is none."""
        return max(
            (txn for txn, parts in self.checkpoints.items() if _is_complete(parts)), default=0
        )

    def complete(self) -> set[int]:
        """Return the transactions whose journals are complete."""
        return {txn for txn, parts in self.transactions.items() if _is_complete(parts)}

    def parts(self, txn: int, *, is_checkpoint: bool) -> Iterator[JournalPart]:
        """Yield the journal of a transaction that is complete, or a checkpoint; raises CorruptError, StoreError."""
        parts = (self.checkpoints if is_checkpoint else self.transactions)[txn]
        last = _last(parts)
        assert last is not None, "asked for what is complete"
        # What comes after is the rest of a transaction of that number that failed.
        for number in range(last + 1):
            place, _ = parts[number]
            with Salvage(self.segments[place.segment].path, place.segment) as salvage:
                record = salvage.record(place.offset)
            if record is None:
                raise CorruptError(f"segment {place.segment} changes while it is read")
            yield unpack_journal(record.stored, record.length)

    def _add_journal(self, found: FoundSegment, record: Record) -> None:
        try:
            head = decode_journal_head(decompress(record.stored, record.length))
        except CorruptError as exc:
            where = f"segment {record.segment} at {record.offset}"
            self.problems.append(f"journal in {where}: {exc}")
            return
        found.journal_bytes += record.end - record.offset
        found.journal_txn = max(found.journal_txn, head.txn)
        which = self.checkpoints if head.is_checkpoint else self.transactions
        place = Place(record.segment, record.offset)
        which.setdefault(head.txn, {})[head.part] = place, head.is_last

    def _damaged(self, number: int, gap: Gap) -> None:
        self.problems.append(f"segment {number} holds no record from {gap.offset} to {gap.end}")


def find(directory: Path) -> Findings:
    """Return the segments in *directory*, none of them read yet; raises StoreError."""
    try:
        segments = dict(list_segments(directory))
    except OSError as exc:
        raise StoreError(f"{directory} cannot be read: {exc.strerror}") from exc
    uuids = {number: _uuid(path, number) for number, path in segments.items()}
    known = [uuid for uuid in uuids.values() if uuid is not None]
    if not known:
        raise StoreError(
            f"{directory} holds no segment of a store, so there is nothing to rebuild from"
        )
    uuid = max(known, key=known.count)
    findings = Findings(uuid, {})
    for number, path in segments.items():
        if uuids[number] is None:
            findings.problems.append(f"segment {number} does not start with its header")
        if uuids[number] in (None, uuid):
            findings.segments[number] = FoundSegment(path)
        else:
            findings.problems.append(f"segment {number} belongs to another store")
    return findings


def _uuid(path: Path, number: int) -> bytes | None:
    """Return what the header of segment *number* says; None if it is damaged."""
    try:
        with path.open("rb") as file:
            data = file.read(HEADER.size)
    except OSError as exc:
        raise StoreError(f"segment {path} cannot be read: {exc.strerror}") from exc
    if len(data) < HEADER.size:
        return None
    magic, fmt, found, uuid = HEADER.unpack(data)
    is_sound = magic == MAGIC and fmt in FORMATS and found == number
    return bytes(uuid) if is_sound else None


def _is_complete(parts: dict[int, tuple[Place, bool]]) -> bool:
    last = _last(parts)
    return last is not None and all(number in parts for number in range(last + 1))


def _last(parts: dict[int, tuple[Place, bool]]) -> int | None:
    return min((number for number, (_, is_last) in parts.items() if is_last), default=None)
