import bz2
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.errors import CorruptError
from dkfs.store.compression import (
    compress,
    compress_like,
    decompress,
    decompress_like,
    frame_length,
    pack,
    unpack,
)
from tests.alike import alike

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b"some words of a text, " * 100
RANDOM = random.Random(1).randbytes(3000)
SPARSE = bytes(byte == 77 for byte in random.Random(3).randbytes(20_000))


@given(st.binary(max_size=3000) | st.just(TEXT))
def test_a_frame_makes_what_it_was_made_of(data: bytes) -> None:
    frame = zstd.compress(data)

    assert frame_length(frame) == len(data)
    assert decompress(frame, len(data)) == data


def test_what_is_very_short_is_not_compressed() -> None:
    assert compress(b"a" * 63) == b"a" * 63
    assert decompress(compress(b"a" * 64), 64) == b"a" * 64


def test_a_frame_of_another_length_is_corrupt() -> None:
    with pytest.raises(CorruptError, match="zstd frame of 2200 bytes, need 2201"):
        decompress(compress(TEXT), 2201)


def test_a_frame_that_does_not_say_its_length_is_corrupt() -> None:
    compressor = zstd.ZstdCompressor()
    frame = compressor.compress(TEXT[:1100]) + compressor.compress(TEXT[1100:])
    frame += compressor.flush()

    with pytest.raises(CorruptError, match="does not declare its size"):
        decompress(frame, len(TEXT))


def test_a_frame_with_something_behind_it_is_corrupt() -> None:
    for rest in (b"x", compress(TEXT), b"\x50\x2a\x4d\x18\0\0\0\0"):
        with pytest.raises(CorruptError, match="not one whole frame"):
            decompress(compress(TEXT) + rest, len(TEXT))


def test_a_frame_that_is_cut_is_corrupt() -> None:
    frame = compress(TEXT)

    for end in range(len(frame)):
        with pytest.raises(CorruptError):
            decompress(frame[:end], len(TEXT))


def test_a_frame_whose_end_is_missing_is_corrupt_even_if_all_bytes_are_there() -> None:
    compressor = zstd.ZstdCompressor()
    compressor.set_pledged_input_size(len(TEXT))
    frame = compressor.compress(TEXT, zstd.ZstdCompressor.FLUSH_BLOCK)
    end = compressor.flush()

    assert decompress(frame + end, len(TEXT)) == TEXT
    with pytest.raises(CorruptError, match="not one whole frame"):
        decompress(frame, len(TEXT))


@given(alike())
def test_a_frame_like_a_reference_makes_what_it_was_made_of(contents: tuple[bytes, bytes]) -> None:
    data, reference = contents

    frame = compress_like(data, reference)

    assert frame is not None
    assert frame_length(frame) == len(data)
    assert decompress_like(frame, reference, len(data)) == data


def test_a_frame_like_a_reference_reaches_its_first_and_its_last_byte() -> None:
    reference = random.Random(2).randbytes(1 << 20)
    data = reference[-500:] + RANDOM + reference[:500]

    frame = compress_like(data, reference)

    assert frame is not None
    assert len(frame) < len(RANDOM) + 60


def test_contents_too_long_for_a_decoders_window_have_no_frame_like_a_reference() -> None:
    assert compress_like(b"", bytes(1 << 27)) is None


@pytest.mark.parametrize(
    ("data", "coding"), [(b"", 0), (RANDOM, 0), (b"short", 0), (TEXT, 1), (SPARSE, 2)]
)
def test_what_is_packed_is_as_small_as_it_can_be_and_comes_back(data: bytes, coding: int) -> None:
    packed = pack(data)

    assert packed[0] == coding
    assert len(packed) <= len(data) + 1
    assert unpack(packed, len(data)) == data


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (b"", "coding nothing"),
        (b"\3abc", "coding 03"),
        (b"\0abc", "3 packed bytes, need 4"),
        (b"\1abc", "zstd frame of 3 bytes"),
        (b"\2abc", "bzip2 stream of 3 bytes"),
        (b"\2" + bz2.compress(b"abc"), "3 packed bytes, need 4"),
        (b"\2" + bz2.compress(b"abcde"), "5 packed bytes, need 4"),
        (b"\2" + bz2.compress(b"abcdef"), "of which 4 must come"),
        (b"\2" + bz2.compress(b"abcd")[:-1], "of which 4 must come"),
        (b"\2" + bz2.compress(b"abcd") + b"x", "of which 4 must come"),
    ],
)
def test_what_cannot_be_unpacked_is_corrupt(packed: bytes, message: str) -> None:
    with pytest.raises(CorruptError, match=message):
        unpack(packed, 4)
