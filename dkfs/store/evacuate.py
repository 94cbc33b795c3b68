"""Moves what is sound out of damaged segments, and ends them; and writes down the whole index where journals are lost."""

from collections.abc import Collection

from dkfs.core.location import LOST, BlobLocation, decode_blob_location
from dkfs.errors import CorruptError
from dkfs.model.ids import BlobId
from dkfs.store.opening import owner
from dkfs.store.reader import Reader
from dkfs.store.rows import SEGMENT_KEY, unseal
from dkfs.store.segments import segment_path
from dkfs.store.store import Store

_BATCH = 32 << 20  # stored bytes of one transaction


def write_checkpoint(store: Store) -> None:
    """Write every row of the index to the segments, so that no journal before is needed; raises StoreError."""
    with store.write() as writer:
        writer.put_checkpoint()


def evacuate(store: Store, numbers: Collection[int]) -> int:
    """Give the segments *numbers* up; return how many blobs were moved out of them.

    What cannot be read there stays where it is said to be: it is damaged, or lost, already. Raises StoreError.
    """
    with store.sweep() as sweep:
        if sweep.tail().segment in numbers:
            sweep.roll()
    with store.read() as reader:
        inside = _inside(reader, numbers)
    moved = 0
    while inside:
        size = 0
        with store.write() as writer:
            while inside and size < _BATCH:
                blob, at = inside.pop()
                try:
                    stored = writer.stored(at, blob)
                    writer.put_record(blob, at.encoding, stored, at.length)
                except CorruptError:
                    continue
                size += len(stored)
                moved += 1
    write_checkpoint(store)
    _end(store, numbers)
    return moved


def _inside(reader: Reader, numbers: Collection[int]) -> list[tuple[BlobId, BlobLocation]]:
    """Return the blobs in the segments *numbers*, those that others rely on last."""
    found = []
    for key, value in reader.rows("blobs"):
        at = decode_blob_location(unseal("blobs", key, value))
        if at.segment in numbers and at.encoding != LOST:
            found.append((BlobId(key), at))
    return sorted(found, key=lambda each: -each[1].depth)


def _end(store: Store, numbers: Collection[int]) -> None:
    # The file of another store that lies in the place of a segment is none of this store's business.
    there = [
        number
        for number in numbers
        if segment_path(store.segments, number).exists()
        and owner(store.segments, number) in {None, store.uuid.bytes}
    ]
    with store.sweep() as sweep:
        sweep.end_segments(there)
    with store.write() as writer:
        for number in set(numbers) - set(there):
            writer.delete_row("segments", SEGMENT_KEY.pack(number))
    store.bury()
