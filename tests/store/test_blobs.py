import os
import struct

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.location import BLOB_LIMIT, PLAIN, ZSTD, BlobLocation
from dkfs.errors import CorruptError, StoreError, StoreFormatError
from dkfs.store.blobs import Encoder, decode, hash_function


def location(length: int, *, encoding: int = ZSTD) -> BlobLocation:
    return BlobLocation(1, 36, 0, length, encoding)


@given(st.binary(max_size=300), st.integers(1, 50))
def test_what_was_encoded_is_decoded(part: bytes, times: int) -> None:
    data = part * times

    encoding, stored = Encoder().encode(data)

    assert len(stored) <= len(data)
    assert decode(stored, location(len(data), encoding=encoding)) == data


def test_what_does_not_get_smaller_is_stored_plain() -> None:
    data = os.urandom(4096)

    assert Encoder().encode(data) == (PLAIN, data)


def test_what_gets_smaller_is_compressed() -> None:
    encoding, stored = Encoder().encode(b"same " * 1000)

    assert encoding == ZSTD
    assert len(stored) < 50


def test_a_blob_over_the_limit_is_refused() -> None:
    with pytest.raises(StoreError, match=r"blob of \d+ bytes, the limit is 1073741824"):
        Encoder().encode(bytes(BLOB_LIMIT + 1))


@given(st.binary(max_size=100))
def test_any_bytes_decode_or_are_corrupt(stored: bytes) -> None:
    for data in (stored, zstandard.FRAME_HEADER + stored):
        try:
            decode(data, location(len(stored)))
        except CorruptError:
            continue


def test_a_frame_that_asks_for_more_than_was_recorded_is_corrupt() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(50_000_000))

    with pytest.raises(CorruptError, match="frame of 50000000 bytes, need 100"):
        decode(bomb, location(100))


def test_a_frame_that_asks_for_a_terabyte_is_corrupt() -> None:
    # single segment, size in 8 bytes
    bomb = zstandard.FRAME_HEADER + b"\xe0" + struct.pack("<Q", 1 << 40) + b"\1\0\0"

    with pytest.raises(CorruptError):
        decode(bomb, location(100))
    with pytest.raises(CorruptError):
        decode(bomb, location(1 << 40))


def test_a_frame_that_does_not_say_its_size_is_corrupt() -> None:
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(b"data" * 100)

    with pytest.raises(CorruptError, match="need 400"):
        decode(frame, location(400))


def test_bytes_behind_a_frame_are_corrupt() -> None:
    frame = zstandard.ZstdCompressor().compress(b"data" * 100)

    with pytest.raises(CorruptError):
        decode(frame + b"x", location(400))


def test_an_unknown_hash_is_refused() -> None:
    with pytest.raises(StoreFormatError, match="'md5', need blake3 or sha256"):
        hash_function("md5")
