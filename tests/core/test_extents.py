"""Dirty extents: what was added is in the set, and the set stays small."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.extents import Extents, on_grid

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


@given(RANGES, st.integers(0, 400))
def test_on_the_grid_everything_dirty_below_the_size_is_covered(
    ranges: list[tuple[int, int]], size: int
) -> None:
    extents = made(*((start, start + length) for start, length in ranges))
    found = on_grid(extents, grid=16, size=size)

    covered = {b for start, end in found for b in range(start, end)}
    assert covered >= {b for start, end in extents for b in range(start, end) if b < size}
    assert all(start % 16 == 0 and (end % 16 == 0 or end == size) for start, end in found)
    assert all(one[1] < other[0] for one, other in pairwise(found))


def test_many_scattered_writes_do_not_make_each_further_one_slow() -> None:
    extents = Extents()
    sizes = []
    for cell in range(20_000):
        extents.add(cell * 7919 % 20_000 * 131_072, cell * 7919 % 20_000 * 131_072 + 4096)
        sizes.append(len(extents))

    shrinks = sum(after < before for before, after in pairwise(sizes))
    assert max(sizes) <= 4096
    assert shrinks < 20
