import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.varint import read_sized, read_varint, sized, varint
from dkfs.errors import CorruptError


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3), st.binary(max_size=3))
def test_a_number_comes_back_as_it_was(value: int, before: bytes, after: bytes) -> None:
    data = before + varint(value) + after

    assert read_varint(data, len(before)) == (value, len(data) - len(after))


@given(st.binary(max_size=300), st.binary(max_size=3), st.binary(max_size=3))
def test_bytes_come_back_as_they_were(value: bytes, before: bytes, after: bytes) -> None:
    data = before + sized(value) + after

    assert read_sized(data, len(before)) == (value, len(data) - len(after))


@given(st.binary(max_size=20))
def test_any_bytes_are_a_number_or_corrupt_or_end_too_early(data: bytes) -> None:
    for read in (read_varint, read_sized):
        try:
            _, at = read(data, 0)
        except (CorruptError, IndexError):
            continue
        assert 0 < at <= len(data)


def test_the_bytes_of_a_number_are_those_of_the_format() -> None:
    assert [varint(value).hex() for value in (0, 127, 128, 300, 2**64 - 1)] == [
        "00",
        "7f",
        "8001",
        "ac02",
        "ffffffffffffffffff01",
    ]


@pytest.mark.parametrize("data", [b"\xff" * 20, b"\xff" * 9 + b"\x02"])
def test_a_number_over_64_bits_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptError, match="longer than 64 bits at 0 of"):
        read_varint(data, 0)


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x80\x80"])
def test_a_number_that_is_cut_ends_too_early(data: bytes) -> None:
    with pytest.raises(IndexError):
        read_varint(data, 0)


def test_bytes_that_are_cut_end_too_early() -> None:
    with pytest.raises(IndexError):
        read_sized(b"\x03ab", 0)
