import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.location import (
    BLOB_LIMIT,
    DELTAS,
    LOST,
    PATCH,
    PLAIN,
    ZSTD,
    BlobLocation,
    SegmentRow,
    decode_blob_location,
    decode_segment,
    encode_blob_location,
    encode_segment,
)
from dkfs.errors import CorruptError

u64 = st.integers(0, 2**64 - 1)
lengths = st.integers(0, BLOB_LIMIT)


@st.composite
def locations(draw: st.DrawFn) -> BlobLocation:
    encoding = draw(st.sampled_from([PLAIN, ZSTD, LOST, *sorted(DELTAS)]))
    length = draw(lengths)
    is_delta = encoding in DELTAS
    return BlobLocation(
        segment=draw(st.integers(0, 2**32 - 1)),
        offset=draw(st.integers(0, 2**62 - 1)),
        stored_length=length if encoding == PLAIN else draw(lengths),
        length=length,
        encoding=encoding,
        depth=draw(st.integers(1, 255)) if is_delta else 0,
        cost=draw(u64) if is_delta else 0,
    )


rows = st.builds(
    SegmentRow, length=u64, journal_bytes=u64, journal_txn=u64, is_dead=st.booleans(), death=u64
)
DELTA = BlobLocation(3, 36, 400, 65536, PATCH, 2, 900)
ROW = SegmentRow(1000, 200, 7, is_dead=True, death=9)


@given(locations())
def test_a_location_comes_back_as_it_was(location: BlobLocation) -> None:
    assert decode_blob_location(encode_blob_location(location)) == location


@given(rows)
def test_a_segment_comes_back_as_it_was(row: SegmentRow) -> None:
    assert decode_segment(encode_segment(row)) == row


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_are_corrupt(data: bytes) -> None:
    for decode in (decode_blob_location, decode_segment):
        for start in (b"", b"\1", b"\2", b"\2\3", b"\2\0"):
            try:
                decode(start + data)
            except CorruptError:
                continue


@given(st.integers(0, 100), st.integers(1, 255))
def test_a_record_with_any_byte_changed_decodes_or_is_corrupt(at: int, bits: int) -> None:
    for decode, good in (
        (decode_blob_location, encode_blob_location(DELTA)),
        (decode_segment, encode_segment(ROW)),
    ):
        data = bytearray(good)
        data[at % len(data)] ^= bits
        try:
            decode(bytes(data))
        except CorruptError:
            continue


def test_a_record_that_is_cut_or_has_more_behind_it_is_corrupt() -> None:
    location, row = encode_blob_location(DELTA), encode_segment(ROW)

    for data in [location[:n] for n in range(len(location))] + [location + b"\0"]:
        with pytest.raises(CorruptError):
            decode_blob_location(data)
    for data in [row[:n] for n in range(len(row))] + [row + b"\0"]:
        with pytest.raises(CorruptError):
            decode_segment(data)


def test_the_bytes_of_a_location_are_those_of_the_format() -> None:
    assert encode_blob_location(DELTA).hex() == "0203" + "03" + "24" + "9003" + "808004" + "028407"
    assert encode_blob_location(BlobLocation(1, 36, 10, 20, ZSTD)).hex() == "0201" + "01240a14"


def test_the_bytes_of_a_segment_are_those_of_the_format() -> None:
    assert encode_segment(ROW).hex() == f"0201{1000:016x}{200:016x}{7:016x}{9:016x}"


def test_a_location_of_format_1_is_read() -> None:
    data = struct.pack(">BBIQII", 1, ZSTD, 5, 36, 10, 20)

    assert decode_blob_location(data) == BlobLocation(5, 36, 10, 20, ZSTD)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("0301" + "01240a14", "format 03"),
        ("0203" + "01240a14" + "0010", "depth 0"),
        ("0206" + "01240a14", "encoding 6"),
        ("0210" + "01240a14", "encoding 16"),
        ("0201" + "01240a", "5 bytes"),
        ("0201" + "01240a94", "with 3 numbers"),
        ("0201" + "01240a1400", "with 5 numbers"),
        ("0201" + "ff" * 60, "62 bytes"),
        ("0200" + "01240a14", "cannot be"),
        ("0201" + "0124" + "8180808004" + "14", "cannot be"),
        ("0201" + "0124" + "0a" + "8180808004", "cannot be"),
        ("0201" + "8080808010" + "240a14", "cannot be"),
        ("0201" + "01" + "808080808080808040" + "0a14", "cannot be"),
        ("0101" + "00" * 20 + "ff", "need 22"),
        ("0102" + "00" * 20, "format 1 with encoding 2"),
    ],
)
def test_a_location_that_cannot_be_is_corrupt(data: str, why: str) -> None:
    with pytest.raises(CorruptError, match=why):
        decode_blob_location(bytes.fromhex(data))


def test_what_it_costs_to_restore_a_blob_is_what_must_be_read() -> None:
    assert DELTA.read_cost == 900
    assert BlobLocation(1, 36, 10, 20, ZSTD).read_cost == 10
