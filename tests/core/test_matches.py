import random
from itertools import pairwise

from hypothesis import given

from dkfs.core.delta import Copy
from dkfs.core.matches import are_news, copies_by_content
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


# ---- whether it is worth looking

OLD = random.Random(4).randbytes(100_000)
NEW = random.Random(5).randbytes(40_000)
AROUND = (Copy(0, 0, 30_000), Copy(70_000, 70_000, 30_000))  # of the gap that the tests fill


def filled(gap: bytes) -> bytes:
    assert len(gap) == 40_000
    return OLD[:30_000] + gap + OLD[70_000:]


def test_random_bytes_are_news() -> None:
    assert are_news(filled(NEW), AROUND, OLD)
    assert are_news(NEW, (), OLD)
    assert are_news(NEW, (), b"")


def test_bytes_that_were_written_but_hardly_changed_are_no_news() -> None:
    gap = bytearray(OLD[30_000:70_000])
    for at in range(0, len(gap), 100):
        gap[at] ^= 1

    assert not are_news(filled(bytes(gap)), AROUND, OLD)


def test_a_twentieth_that_stayed_in_its_place_is_noticed() -> None:
    assert not are_news(filled(NEW[:38_000] + OLD[68_000:70_000]), AROUND, OLD)


def test_what_moved_is_no_news() -> None:
    assert not are_news(filled(b"!" + OLD[30_000:69_999]), AROUND, OLD)
    assert not are_news(filled(OLD[1000:21_000] + NEW[20_000:]), AROUND, OLD)


def test_bases_that_begin_elsewhere_are_compared_at_their_places() -> None:
    reference = OLD[20_000:]
    around = (Copy(0, 80_000, 100), Copy(30_000, 10_000, 10_000), Copy(70_000, 50_000, 30_000))
    gap = bytearray(OLD[40_000:70_000])
    gap[::24] = bytes(
        b ^ 1 for b in gap[::24]
    )  # too dense for the few samples that are looked for everywhere
    data = NEW[:30_000] + OLD[30_000:40_000] + bytes(gap) + OLD[70_000:]

    assert not are_news(data, around, reference)


@given(alike())
def test_any_bytes_are_news_or_not(contents: tuple[bytes, bytes]) -> None:
    data, reference = contents

    assert are_news(data, copies_by_content(data, reference), reference) in {True, False}


def test_what_is_copied_whole_is_news_to_nobody() -> None:
    assert are_news(OLD, (Copy(0, 0, 100_000),), OLD)
    assert are_news(b"", (), OLD)
