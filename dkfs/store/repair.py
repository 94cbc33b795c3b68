"""Repairs contents: what is damaged is stored again from wherever its bytes are still to be had.

Nothing that is sound is touched, and what is damaged stays where it is until something better is on the disk. What
nobody has any more is marked as lost, so that reading says so at once.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from dkfs.core.location import DELTAS, JOURNAL, LOST, BlobLocation, encode_blob_location
from dkfs.errors import CorruptError, DkfsError, StoreError
from dkfs.model.ids import BlobId
from dkfs.store.blobs import decode, split_delta
from dkfs.store.damage import Damage, DamageKind, Step
from dkfs.store.encoders import decode_delta
from dkfs.store.evacuate import evacuate, write_checkpoint
from dkfs.store.reach import LOST_NOTE
from dkfs.store.reader import Reader
from dkfs.store.salvage import Record, Salvage
from dkfs.store.segments import list_segments
from dkfs.store.store import Store

_BATCH: Final = 32 << 20  # plain bytes put in one transaction


class Source(Protocol):
    """Somewhere the bytes of blobs may still be."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    def find(self, reader: Reader, wanted: Collection[BlobId]) -> Iterator[bytes]:
        """Yield what may be the plain bytes of some of *wanted*: they are compared with the ids afterwards.

        *reader* is a view of the damaged store; *wanted* shrinks meanwhile.
        """
        ...


class Itself:
    """The blob's own record: if only what nobody needs to read it is damaged."""

    @property
    def name(self) -> str:
        """See Source."""
        return "its own record, whose checksum is damaged"

    def find(self, reader: Reader, wanted: Collection[BlobId]) -> Iterator[bytes]:
        """See Source."""
        for blob in list(wanted):
            try:
                yield reader.blob(blob)
            except (CorruptError, StoreError):
                continue


class Copies:
    """Other records of the same blobs, in the segments of the store itself."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def name(self) -> str:
        """See Source."""
        return "another record in the segments"

    def find(self, reader: Reader, wanted: Collection[BlobId]) -> Iterator[bytes]:
        """See Source."""
        for number, path in list_segments(self._directory):
            with Salvage(path, number) as salvage:
                for record in salvage.records(knows=lambda head: head.blob not in wanted):
                    if isinstance(record, Record) and record.blob in wanted:
                        try:
                            yield _plain(reader, record)
                        except DkfsError:
                            continue  # a delta to something that is damaged itself


def _plain(reader: Reader, record: Record) -> bytes:
    if record.encoding not in DELTAS | {JOURNAL}:
        at = BlobLocation(
            record.segment, record.offset, record.stored_length, record.length, record.encoding
        )
        return decode(record.stored, at)
    bases, payload = split_delta(record.stored)
    reference = b"".join(map(reader.blob, bases))
    return decode_delta(record.encoding, payload, reference, record.length)


@dataclass(frozen=True, slots=True)
class OtherStore:
    """A store that may have the same blobs."""

    path: Path

    @property
    def name(self) -> str:
        """See Source."""
        return f"store {self.path}"

    def find(self, reader: Reader, wanted: Collection[BlobId]) -> Iterator[bytes]:  # noqa: ARG002 - see Source
        """See Source."""
        with Store.open(self.path, writable=False) as store, store.read() as other:
            for blob in list(wanted):
                try:
                    if other.has_blob(blob):
                        yield other.blob(blob)
                except (CorruptError, StoreError):
                    continue  # damaged there too


def repair_contents(
    store: Store, damages: Sequence[Damage], sources: Sequence[Source], *, dry_run: bool
) -> Iterator[Step]:
    """Repair what *damages* say of blobs and segments; raises StoreError.

    With *dry_run*, only say what would be done: *store* need not be open for writing then.
    """
    yield from _Contents(store, sources, dry_run=dry_run).repair(_wanted(damages))
    numbers = sorted({damage.segment for damage in damages if damage.segment is not None})
    if numbers:
        moved = 0 if dry_run else evacuate(store, numbers)
        what = "segments " + ", ".join(map(str, numbers))
        yield Step(what, "given up" if dry_run else f"given up, {moved} blobs moved out of them")
    elif any(damage.kind is DamageKind.SEGMENT for damage in damages):
        if not dry_run:
            write_checkpoint(store)
        yield Step("journals", "the whole index is written to the segments instead")


def _wanted(damages: Sequence[Damage]) -> dict[BlobId, int]:
    """Return the blobs that are damaged or lost, with their lengths as far as they are known."""
    kinds = {DamageKind.BLOB, DamageKind.LOST}
    wanted: dict[BlobId, int] = {}
    for damage in damages:
        if damage.blob is not None and damage.kind in kinds:
            wanted[damage.blob] = max(damage.length, wanted.get(damage.blob, 0))
    return wanted


class _Contents:
    """One repair of blobs."""

    def __init__(self, store: Store, sources: Sequence[Source], *, dry_run: bool) -> None:
        self._store = store
        self._sources: tuple[Source, ...] = (Itself(), Copies(store.segments), *sources)
        self._dry_run = dry_run

    def repair(self, lengths: Mapping[BlobId, int]) -> Iterator[Step]:
        """Store the blobs of *lengths* again, or mark them as lost."""
        wanted = set(lengths)
        with self._store.read() as reader:
            found: dict[BlobId, bytes] = {}
            size = 0
            for source in self._sources:
                if not wanted:
                    break
                for data in source.find(reader, wanted):
                    blob = self._store.hash(data)
                    if blob not in wanted:
                        continue
                    wanted.discard(blob)
                    found[blob] = data
                    size += len(data)
                    yield Step(f"blob {blob.hex()}", f"from {source.name}", blob=blob)
                    if size >= _BATCH:
                        self._put(found)
                        found, size = {}, 0
            self._put(found)
        yield from self._give_up(wanted, lengths)

    def _put(self, found: dict[BlobId, bytes]) -> None:
        if self._dry_run or not found:
            return
        with self._store.write() as writer:
            for blob, data in found.items():
                # It may be readable for all that, with damage in what nobody needs to read it.
                writer.delete_row("blobs", blob)
                writer.put_blob(data)

    def _give_up(self, wanted: set[BlobId], lengths: Mapping[BlobId, int]) -> Iterator[Step]:
        """Mark as lost what still cannot be read: a delta can, if its bases were stored again."""
        lost: list[BlobId] = []
        with self._store.read() as reader:
            for blob in sorted(wanted):
                if _is_sound(reader, blob):
                    yield Step(f"blob {blob.hex()}", "can be read again", blob=blob)
                else:
                    lost.append(blob)
        if lost and not self._dry_run:
            with self._store.write() as writer:
                for blob in lost:
                    at = BlobLocation(0, 0, 0, _length(writer, blob) or lengths[blob], LOST)
                    writer.put_row("blobs", blob, encode_blob_location(at))
                writer.put_meta(LOST_NOTE, b"1")
        for blob in lost:
            yield Step(f"blob {blob.hex()}", "lost: nobody has it", is_done=False, blob=blob)


def _is_sound(reader: Reader, blob: BlobId) -> bool:
    try:
        reader.blob(blob, strict=True)
    except (CorruptError, StoreError):
        return False
    return True


def _length(reader: Reader, blob: BlobId) -> int:
    """Return the plain length of *blob* that its row says, 0 if it has no sound one."""
    try:
        at = reader.location(blob)
    except CorruptError:
        return 0
    return 0 if at is None else at.length
