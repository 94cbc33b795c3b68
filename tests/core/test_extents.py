"""Dirty extents: what was added is in the set, and the set stays small."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.extents import Extents, below, within

RANGES = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 60)), max_size=40)


def made(*ranges: tuple[int, int]) -> Extents:
    extents = Extents()
    for start, end in ranges:
        extents.add(start, end)
    return extents


@given(RANGES)
def test_the_set_is_exactly_what_was_added_sorted_and_joined(ranges: list[tuple[int, int]]) -> None:
    extents = made(*((start, start + length) for start, length in ranges))

    bytes_in = {b for start, length in ranges for b in range(start, start + length)}
    assert {b for start, end in extents for b in range(start, end)} == bytes_in
    pairs = list(extents)
    assert all(start < end for start, end in pairs)
    assert all(one[1] < other[0] for one, other in pairwise(pairs))


def test_neighbours_are_joined() -> None:
    assert list(made((0, 5), (5, 9))) == [(0, 9)]
    assert list(made((5, 9), (0, 5))) == [(0, 9)]
    assert list(made((0, 2), (8, 9), (1, 8))) == [(0, 9)]


def test_an_empty_range_changes_nothing() -> None:
    assert not made((5, 5))


def test_what_is_cleared_is_empty() -> None:
    extents = made((1, 2))
    extents.clear()

    assert list(extents) == []


def test_update_adds_every_range_of_another() -> None:
    extents = made((0, 1))
    extents.update(made((3, 4), (1, 2)))

    assert list(extents) == [(0, 2), (3, 4)]


def test_many_extents_are_joined_coarsely_and_nothing_is_missed() -> None:
    offsets = [n * 7919 % 40_000_000 for n in range(20_000)]
    extents = made(*((offset, offset + 1) for offset in offsets))
    found = list(extents)

    assert len(found) <= 4096
    assert all(any(s <= o < e for s, e in found) for o in offsets[::499])


def test_of_too_many_extents_those_with_the_least_between_them_are_joined() -> None:
    extents = Extents()
    for pair in range(2048):
        extents.add(pair * 1_000_000, pair * 1_000_000 + 10)
        extents.add(pair * 1_000_000 + 20, pair * 1_000_000 + 30)
    extents.add(5_000_000_000, 5_000_000_001)

    assert len(extents) == 2048
    assert list(extents)[-3] == (2_046_000_000, 2_046_000_030)
    assert sum(end - start for start, end in extents) < 2048 * 30 + 2_000_000


@given(RANGES, st.integers(0, 400))
def test_what_lies_below_a_size_is_all_that_does_and_no_more(
    ranges: list[tuple[int, int]], size: int
) -> None:
    extents = made(*((start, start + length) for start, length in ranges))

    found = [b for start, end in below(extents, size) for b in range(start, end)]
    assert found == [b for start, end in extents for b in range(start, end) if b < size]


@given(RANGES, st.integers(0, 400), st.integers(0, 400))
def test_what_lies_within_is_all_that_does_and_no_more(
    ranges: list[tuple[int, int]], start: int, end: int
) -> None:
    extents = made(*((first, first + length) for first, length in ranges))

    found = [b for pair in within(list(extents), start, end) for b in range(*pair)]
    assert found == [b for pair in extents for b in range(*pair) if start <= b < end]


def test_many_scattered_writes_do_not_make_each_further_one_slow() -> None:
    extents = Extents()
    sizes = []
    for cell in range(20_000):
        extents.add(cell * 7919 % 20_000 * 131_072, cell * 7919 % 20_000 * 131_072 + 4096)
        sizes.append(len(extents))

    shrinks = sum(after < before for before, after in pairwise(sizes))
    assert max(sizes) <= 4096
    assert shrinks < 20
