"""Where two clones of a file differ, by where their bytes lie."""

from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.extent_map import Mapped, differences

_K = 4096


def _differences(
    old: list[Mapped], old_size: int, new: list[Mapped], new_size: int
) -> list[tuple[int, int]]:
    return list(differences(old, old_size, new, new_size))


def test_a_clone_that_was_not_changed_does_not_differ() -> None:
    whole = [Mapped(0, 10 * _K, 1 << 30)]

    assert _differences(whole, 10 * _K, whole, 10 * _K) == []


def test_a_block_elsewhere_is_a_difference_and_its_neighbours_are_not() -> None:
    old = [Mapped(0, 10 * _K, 100 * _K)]
    new = [Mapped(0, 3 * _K, 100 * _K), Mapped(3 * _K, 4 * _K, 500 * _K)]
    new += [Mapped(4 * _K, 10 * _K, 104 * _K)]

    assert _differences(old, 10 * _K, new, 10 * _K) == [(3 * _K, 4 * _K)]


def test_the_same_address_at_another_place_is_a_difference() -> None:
    old, new = [Mapped(0, 2 * _K, 100 * _K)], [Mapped(_K, 3 * _K, 100 * _K)]

    assert _differences(old, 2 * _K, new, 3 * _K) == [(0, 3 * _K)]


def test_holes_and_blocks_never_written_are_zeros_and_as_good_as_each_other() -> None:
    old = [Mapped(0, _K, 100 * _K, is_zero=True), Mapped(2 * _K, 3 * _K, 300 * _K)]
    new = [Mapped(_K, 2 * _K, 200 * _K, is_zero=True)]

    assert _differences(old, 4 * _K, new, 4 * _K) == [(2 * _K, 3 * _K)]


def test_a_block_written_for_the_first_time_where_it_was_allocated_is_a_difference() -> None:
    old, new = [Mapped(0, _K, 100 * _K, is_zero=True)], [Mapped(0, _K, 100 * _K)]

    assert _differences(old, _K, new, _K) == [(0, _K)]
    assert _differences(new, _K, old, _K) == [(0, _K)]


def test_what_an_address_does_not_tell_of_is_always_a_difference() -> None:
    packed = [Mapped(0, _K, 0, is_sure=False)]

    assert _differences(packed, 100, packed, 100) == [(0, 100)]


def test_what_lies_behind_the_old_end_is_a_difference_unless_it_is_a_hole() -> None:
    grown = [Mapped(0, 2 * _K, 100 * _K), Mapped(3 * _K, 4 * _K, 200 * _K)]

    assert _differences([Mapped(0, 2 * _K, 100 * _K)], _K, grown, 5 * _K) == [
        (_K, 2 * _K),
        (3 * _K, 4 * _K),
    ]


def test_a_file_that_became_shorter_differs_in_nothing_that_is_left() -> None:
    old = [Mapped(0, 4 * _K, 100 * _K)]

    assert _differences(old, 4 * _K, [Mapped(0, 2 * _K, 100 * _K)], _K + 5) == []
    assert _differences(old, 4 * _K, [], 0) == []


_BLOCKS = st.lists(st.sampled_from((0, 0, 1, 2, 3, 4)), max_size=12)


def _mapped(blocks: list[int]) -> list[Mapped]:
    """Lay out *blocks*, each the number of its bytes on the disk, 0: a hole."""
    return [
        Mapped(index * _K, (index + 1) * _K, number * 1000 * _K + index * _K)
        for index, number in enumerate(blocks)
        if number
    ]


@given(_BLOCKS, _BLOCKS)
def test_block_by_block_it_is_what_a_comparison_says(old: list[int], new: list[int]) -> None:
    found = _differences(_mapped(old), len(old) * _K, _mapped(new), len(new) * _K)

    changed = {start // _K + k for start, end in found for k in range((end - start) // _K)}
    before = [*old, *(0 for _ in new)]
    assert changed == {i for i, number in enumerate(new) if number != before[i]}
