import random
from itertools import pairwise

from hypothesis import given

from dkfs.core.matches import copies_by_content
from tests.alike import alike


@given(alike())
def test_matches_are_the_same_bytes_and_in_order(contents: tuple[bytes, bytes]) -> None:
    data, reference = contents

    copies = copies_by_content(data, reference)

    assert all(
        data[offset : offset + length] == reference[source : source + length]
        for offset, source, length in copies
    )
    assert all(one.offset + one.length <= other.offset for one, other in pairwise(copies))


def test_what_moved_is_found_to_its_last_byte() -> None:
    reference = random.Random(1).randbytes(10_000)
    data = b"!" + reference[5003:9007] + b"?" + reference[101:5001]

    assert copies_by_content(data, reference) == ((1, 5003, 4004), (4006, 101, 4900))


def test_what_is_alike_for_two_blocks_is_always_found() -> None:
    reference = random.Random(2).randbytes(1000)

    for source in range(64):
        assert copies_by_content(reference[source : source + 64], reference) == ((0, source, 64),)


def test_a_find_is_extended_back_no_further_than_the_one_before_it() -> None:
    reference = bytes(100) + b"x" * 28
    data = bytes(96) + b"y" + bytes(96)

    assert copies_by_content(data, reference) == ((0, 0, 96), (97, 0, 96))


def test_bytes_that_are_looked_up_in_vain_are_counted() -> None:
    rng = random.Random(3)
    reference = rng.randbytes(1000)
    data = rng.randbytes(500) + reference

    assert copies_by_content(data, reference, lookups=501) == ((500, 0, 1000),)
    assert copies_by_content(data, reference, lookups=400) == ()


def test_nothing_is_found_in_nothing() -> None:
    assert copies_by_content(b"", b"") == ()
    assert copies_by_content(bytes(100), b"") == ()
    assert copies_by_content(b"", bytes(100)) == ()
