import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core import delta
from dkfs.core.delta import Copy, common_ends, copies_by_position, read_signed, signed
from dkfs.core.varint import varint
from dkfs.errors import CorruptError
from tests.alike import alike, mutated

ZEROS = bytes(1000)


def halve(data: bytes) -> bytes:
    """Compress zeros to half of them; what is nothing but zeros."""
    return data[: len(data) // 2]


def double(data: bytes, length: int) -> bytes:
    """Undo halve()."""
    return bytes(length) if 2 * len(data) == length else data


def expect_no_compression(data: bytes, length: int) -> bytes:
    raise AssertionError(f"{len(data)} bytes that are not compressed, to {length}")


def decode(payload: bytes, reference: bytes, length: int) -> bytes:
    return delta.decode(payload, reference, length, expect_no_compression)


@st.composite
def programs(draw: st.DrawFn) -> tuple[bytes, tuple[Copy, ...], bytes]:
    """Draw new contents, copies that make some of them, and the reference."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    reference = rng.randbytes(draw(st.integers(0, 500)))
    data = b""
    copies = []
    for _ in range(draw(st.integers(0, 8))):
        data += rng.randbytes(rng.choice((0, 1, 30, 200)))
        source = rng.randint(0, len(reference))
        length = rng.randint(0, len(reference) - source)
        copies.append(Copy(len(data), source, length))
        data += reference[source : source + length]
    return data + rng.randbytes(rng.choice((0, 5))), tuple(copies), reference


@given(programs())
def test_a_program_makes_what_it_was_made_of(
    program: tuple[bytes, tuple[Copy, ...], bytes],
) -> None:
    data, copies, reference = program

    payload = delta.encode(data, copies)

    assert decode(payload, reference, len(data)) == data


def test_the_bytes_of_a_program_are_those_of_the_format() -> None:
    data = b"ab" + bytes(range(40)) + b"c" + bytes(range(100, 200))
    copies = [Copy(2, 1000, 40), Copy(43, 1041, 100)]

    payload = delta.encode(data, copies)

    assert payload.hex() == "00" + "02" + "0228cc0f" + "016400" + b"abc".hex()


def test_what_does_not_move_costs_four_bytes_a_copy() -> None:
    data = bytes(40) + b"1" * 10 + bytes(40) + b"2" * 10 + bytes(40)

    payload = delta.encode(data, [Copy(0, 0, 40), Copy(50, 50, 40), Copy(100, 100, 40)])

    assert len(payload) == 2 + 3 * 3 + 20


def test_a_copy_too_short_to_be_worth_it_is_literal() -> None:
    payload = delta.encode(b"a" * 31, [Copy(0, 0, 31)])

    assert payload == b"\0\0" + b"a" * 31


def test_literals_are_compressed_where_that_is_smaller() -> None:
    payload = delta.encode(ZEROS, [], halve)

    assert payload == b"\1\0" + bytes(500)
    assert delta.decode(payload, b"", 1000, double) == ZEROS
    assert delta.encode(ZEROS, [], lambda data: data) == b"\0\0" + ZEROS


def test_compressed_literals_of_another_length_are_corrupt() -> None:
    with pytest.raises(CorruptError, match="delta with 499 literal bytes, need 1000"):
        delta.decode(b"\1\0" + bytes(499), b"", 1000, double)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "delta of 0 bytes ends too early"),
        (b"\0", "delta of 1 bytes ends too early"),
        (b"\2\0", "flags 0x02"),
        (b"\0\1\0\x20", "ends too early"),
        (b"\0\0" + bytes(99), "99 literal bytes, need 100"),
        (b"\0\0" + bytes(101), "101 literal bytes, need 100"),
        (b"\0\4" + b"\0\x20\0" * 4, "4 copies for 100 bytes"),
        (b"\0\1\0\x1f\0", "copies 31 bytes"),
        (b"\0\1\0" + varint(101) + b"\0", "copies 101 bytes"),
        (b"\0\1\x64\x20\0", "copies 32 bytes"),
        (b"\0\1\0\x20\1", "from -1 of 64"),
        (b"\0\1\0\x20" + signed(33), "from 33 of 64"),
        (b"\0\1\0\x20" + b"\xff" * 10, "longer than 64 bits"),
        (b"\0" + varint(2**63), "9223372036854775808 copies"),
    ],
)
def test_a_program_that_cannot_be_is_corrupt(payload: bytes, message: str) -> None:
    with pytest.raises(CorruptError, match=message):
        decode(payload, bytes(64), 100)


@given(alike(), st.integers(0, 2**32))
def test_a_damaged_program_makes_as_many_bytes_or_is_corrupt(
    contents: tuple[bytes, bytes], seed: int
) -> None:
    data, reference = contents
    payload = delta.encode(data, copies_by_position(data, reference), halve)

    try:
        made = delta.decode(mutated(random.Random(seed), payload), reference, len(data), double)
    except CorruptError:
        return
    assert len(made) == len(data)


@given(st.binary(), st.binary(max_size=100), st.integers(0, 200))
def test_any_bytes_make_as_many_bytes_or_are_corrupt(
    payload: bytes, reference: bytes, length: int
) -> None:
    try:
        made = delta.decode(payload, reference, length, double)
    except CorruptError:
        return
    assert len(made) == length


def test_a_program_needs_ten_times_the_length_it_makes_at_most() -> None:
    count = 10_000
    far = signed(100_000), signed(-100_064)  # every copy elsewhere, and as short as it may be
    body = b"".join(b"\0\x20" + far[i % 2] for i in range(count - 1))
    payload = b"\0" + varint(count) + b"\0\x20" + signed(64) + body
    reference = bytes(200_000)

    tracemalloc.start()
    try:
        made = decode(payload, reference, 32 * count)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert len(made) == 32 * count
    assert peak < 10 * len(made)


@given(alike())
def test_copies_by_position_are_the_same_bytes_at_the_same_offset(
    contents: tuple[bytes, bytes],
) -> None:
    data, reference = contents

    copies = copies_by_position(data, reference)

    end = 0
    for offset, source, length in copies:
        assert offset == source >= end
        assert length >= delta.MIN_COPY
        assert data[offset : offset + length] == reference[offset : offset + length]
        end = offset + length
    assert decode(delta.encode(data, copies), reference, len(data)) == data


def test_copies_by_position_are_exact() -> None:
    data = bytearray(100_000)
    for at in (0, 5000, 5033, 5065, 99_999):
        data[at] = 1

    copies = copies_by_position(bytes(data), bytes(100_000))

    assert copies == (
        Copy(1, 1, 4999),
        Copy(5001, 5001, 32),  # but not the 31 bytes from 5034 on
        Copy(5066, 5066, 94_933),
    )


def test_copies_by_position_of_very_different_contents_are_where_they_begin_and_end_alike() -> None:
    one = bytes(50) + b"x" * 500_000 + bytes(60) + b"x" * 500_000 + bytes(70)
    other = bytes(50) + b"y" * 500_000 + bytes(60) + b"y" * 500_000 + bytes(70)

    copies = copies_by_position(one, other)

    assert copies == (Copy(0, 0, 50), Copy(len(one) - 70, len(one) - 70, 70))


def test_copies_by_position_are_exact_for_a_limited_number_of_blocks() -> None:
    unlike = b"x" * 40_000 + bytes(60) + b"x" * 40_000
    data = unlike + bytes(10_000) + unlike + bytes(10_000)

    copies = copies_by_position(data, bytes(len(data)))

    assert copies == (
        Copy(40_000, 40_000, 60),
        Copy(80_060, 80_060, 10_000),
        Copy(170_120, 170_120, 10_000),  # but not the 60 bytes from 130_060 on
    )


def test_copies_by_position_end_with_the_shorter_one() -> None:
    assert copies_by_position(bytes(100), bytes(50)) == (Copy(0, 0, 50),)
    assert copies_by_position(bytes(50), bytes(100)) == (Copy(0, 0, 50),)
    assert copies_by_position(b"", bytes(100)) == ()


@given(alike())
def test_common_ends_are_the_same_bytes(contents: tuple[bytes, bytes]) -> None:
    data, reference = contents

    copies = common_ends(data, reference)

    assert decode(delta.encode(data, copies), reference, len(data)) == data
    for offset, source, length in copies:
        assert data[offset : offset + length] == reference[source : source + length]


def test_common_ends_of_an_insertion_are_all_but_what_was_inserted() -> None:
    reference = bytes(range(256)) * 16
    data = reference[:2000] + b"between" + reference[2000:]

    assert common_ends(data, reference) == (Copy(0, 0, 2000), Copy(2007, 2000, 2096))


def test_common_ends_do_not_overlap() -> None:
    assert common_ends(bytes(100), bytes(60)) == (Copy(0, 0, 60),)
    assert common_ends(bytes(100), bytes(100)) == (Copy(0, 0, 100),)


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_the_common_prefix_and_suffix_are_as_long_as_they_can_be(one: bytes, other: bytes) -> None:
    both = list(zip(one, other, strict=False))
    ends = list(zip(reversed(one), reversed(other), strict=False))

    prefix, suffix = delta.common_prefix(one, other), delta.common_suffix(one, other)

    assert prefix == next((i for i, (a, b) in enumerate(both) if a != b), len(both))
    assert suffix == next((i for i, (a, b) in enumerate(ends) if a != b), len(ends))


@given(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=3))
def test_a_signed_number_comes_back_as_it_was(value: int, after: bytes) -> None:
    data = signed(value) + after

    assert read_signed(data, 0) == (value, len(data) - len(after))
