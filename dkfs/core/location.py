"""Where the stored form of a blob is, and what is known of a segment: records of the index. Pure, no I/O."""

import struct
from dataclasses import dataclass
from typing import Final

from dkfs.core.varint import read_varint, varint
from dkfs.errors import CorruptError

# BlobLocation.encoding: what the stored bytes are. The values are stored.
PLAIN: Final = 0  # the plain bytes
ZSTD: Final = 1  # one zstd frame that declares its content size
EXTENTS: Final = 2  # this and the next three: a difference to other blobs, see docs/format.md
PATCH: Final = 3  # ... a zstd frame whose dictionary is the reference
BSDIFF: Final = 4
XDELTA: Final = 5
JOURNAL: Final = 16  # in segments only: rows of the index, one zstd frame
LOST: Final = 255  # in the index only: the stored bytes are damaged beyond repair

DELTAS: Final = frozenset((EXTENTS, PATCH, BSDIFF, XDELTA))
BLOB_LIMIT: Final = 1 << 30  # bytes of a blob, plain

_FORMAT: Final = 2
_OLD_FORMAT: Final = 1
_LEAST: Final = 6  # bytes of a location
_MOST: Final = 53
_OLD: Final = struct.Struct(">BBIQII")
_KNOWN: Final = DELTAS | {PLAIN, ZSTD, LOST}
_SEGMENT_LIMIT: Final = 1 << 32  # numbers of segments, exclusive
_OFFSET_LIMIT: Final = (
    1 << 62
)  # exclusive; so that no sum of offset and length is out of range for pread(2)

_SEGMENT: Final = struct.Struct(">BBQQQQ")


@dataclass(frozen=True, slots=True)
class BlobLocation:
    """Where the stored form of a blob is."""

    segment: int  # number of the segment file, 1, 2, 3 ...
    offset: int  # bytes from the start of the segment to the blob's record
    stored_length: int  # bytes, as stored, without the record's header
    length: int  # bytes, plain
    encoding: int  # PLAIN, ZSTD, ...
    depth: int = (
        0  # differences down to blobs that are stored whole; 0: this one is, and at most 255
    )
    cost: int = 0  # bytes to read to restore it, if depth is not 0

    @property
    def read_cost(self) -> int:
        """The stored bytes to read to restore the blob."""
        return self.cost if self.depth else self.stored_length


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """What the index knows of one segment file."""

    length: int  # bytes that belong to the store
    journal_bytes: int = 0  # of these, in records of journals
    journal_txn: int = 0  # the newest transaction that wrote to a journal here; 0: none
    is_dead: bool = (
        False  # nothing in it is needed: to be unlinked when nobody can be reading from it
    )
    death: int = 0  # the LMDB transaction in which it died


def encode_blob_location(location: BlobLocation) -> bytes:
    """Return the record of *location*."""
    record = b"%c%c%b%b%b%b" % (
        _FORMAT,
        location.encoding,
        varint(location.segment),
        varint(location.offset),
        varint(location.stored_length),
        varint(location.length),
    )
    if location.encoding in DELTAS:
        record += bytes((location.depth,)) + varint(location.cost)
    return record


def decode_blob_location(data: bytes) -> BlobLocation:
    """Return the location that *data* records; raises CorruptError."""
    if data[:1] == b"\1":
        return _decode_old(data)
    if len(data) < _LEAST or len(data) > _MOST or data[0] != _FORMAT:
        raise CorruptError(f"blob location of {len(data)} bytes, format {data[:1].hex()}; need 02")
    encoding = data[1]
    if encoding in DELTAS:
        return _checked(_decode_delta(data))
    # As read_varint() four times, in a third of the time: this is in the way of every blob that is read.
    numbers: list[int] = []
    number = shift = 0
    for byte in data[2:]:
        if byte < 0x80:
            numbers.append(number | byte << shift)
            number = shift = 0
        else:
            number |= (byte & 0x7F) << shift
            shift += 7
    if len(numbers) != 4 or shift or encoding not in _KNOWN:
        raise CorruptError(
            f"blob location of {len(data)} bytes, encoding {encoding}, with {len(numbers)} numbers"
        )
    segment, offset, stored_length, length = numbers
    return _checked(BlobLocation(segment, offset, stored_length, length, encoding))


def encode_segment(row: SegmentRow) -> bytes:
    """Return the record of *row*."""
    return _SEGMENT.pack(
        _FORMAT, row.is_dead, row.length, row.journal_bytes, row.journal_txn, row.death
    )


def decode_segment(data: bytes) -> SegmentRow:
    """Return what *data* records of a segment; raises CorruptError."""
    if len(data) != _SEGMENT.size:
        raise CorruptError(f"segment record of {len(data)} bytes, need {_SEGMENT.size}")
    fmt, state, length, journal_bytes, journal_txn, death = _SEGMENT.unpack(data)
    if fmt != _FORMAT or state > 1:
        raise CorruptError(f"segment record of format {fmt}, state {state}; need format 2")
    return SegmentRow(length, journal_bytes, journal_txn, state == 1, death)


def _decode_delta(data: bytes) -> BlobLocation:
    try:
        segment, at = read_varint(data, 2)
        offset, at = read_varint(data, at)
        stored_length, at = read_varint(data, at)
        length, at = read_varint(data, at)
        depth = data[at]
        cost, at = read_varint(data, at + 1)
    except IndexError:
        raise CorruptError(f"blob location of {len(data)} bytes ends too early") from None
    if at != len(data) or not depth:
        raise CorruptError(f"blob location of {len(data)} bytes, need {at}, of depth {depth}")
    return BlobLocation(segment, offset, stored_length, length, data[1], depth, cost)


def _decode_old(data: bytes) -> BlobLocation:
    if len(data) != _OLD.size:
        raise CorruptError(f"blob location of {len(data)} bytes, need {_OLD.size}")
    _, encoding, segment, offset, stored_length, length = _OLD.unpack(data)
    if encoding > ZSTD:
        raise CorruptError(f"blob location of format {_OLD_FORMAT} with encoding {encoding}")
    return _checked(BlobLocation(segment, offset, stored_length, length, encoding))


def _checked(location: BlobLocation) -> BlobLocation:
    if (
        location.segment >= _SEGMENT_LIMIT
        or location.offset >= _OFFSET_LIMIT
        or location.stored_length > BLOB_LIMIT
        or location.length > BLOB_LIMIT
        or (location.encoding == PLAIN and location.stored_length != location.length)
    ):
        raise CorruptError(f"blob location that cannot be: {location}")
    return location
