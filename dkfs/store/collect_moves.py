"""Rows of the table blobs on their way from one segment to another."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from dkfs.core.location import (
    LOST,
    BlobLocation,
    decode_blob_location,
    encode_blob_location,
)
from dkfs.core.varint import read_varint
from dkfs.model.ids import BlobId
from dkfs.store.collect_sweep import Swap
from dkfs.store.reader import Reader
from dkfs.store.rows import seal, unseal
from dkfs.store.segments import RECORD

_TELL_EVERY: Final = 2048  # rows


class PlacedRow(NamedTuple):
    """A row of the table blobs, and where its record lies."""

    place: tuple[int, int]  # segment, offset
    end: int  # the offset after the record
    blob: BlobId
    value: bytes


class Move(NamedTuple):
    """A row of the table blobs, and where its blob is in the last copy: as it was elsewhere, or encoded anew."""

    blob: BlobId
    value: bytes
    to: tuple[int, int] | BlobLocation
    is_deeper: bool


def swap(move: Move) -> Swap:
    """Return the row of *move* as it is, and as it becomes."""
    to = move.to
    if not isinstance(to, BlobLocation):
        old = decode_blob_location(unseal("blobs", move.blob, move.value))
        to = replace(old, segment=to[0], offset=to[1])
    new = seal(move.blob, encode_blob_location(to))
    return Swap(move.blob, move.value, new, move.is_deeper)


def rows_in(
    reader: Reader, segments: frozenset[int], say: Callable[[], None]
) -> Iterator[PlacedRow]:
    """Yield every row that leads into *segments*, in order of the keys."""
    for done, (key, value) in enumerate(reader.rows("blobs")):
        if done % _TELL_EVERY == 0:
            say()
        # Only the segment is looked at first: most rows are of others, and there may be millions.
        if value[0] == 2 and read_varint(value, 2)[0] not in segments:
            continue
        location = decode_blob_location(unseal("blobs", key, value))
        if location.encoding != LOST and location.segment in segments:
            end = location.offset + RECORD.size + location.stored_length
            yield PlacedRow((location.segment, location.offset), end, BlobId(key), value)


def runs(rows: Iterable[PlacedRow]) -> Iterator[list[PlacedRow]]:
    """Yield runs of *rows* that lie side by side."""
    run: list[PlacedRow] = []
    for row in rows:
        if run and row.place != (run[-1].place[0], run[-1].end):
            yield run
            run = []
        run.append(row)
    if run:
        yield run
