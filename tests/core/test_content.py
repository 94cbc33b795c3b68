"""Splicing chunks: a file is what is fresh where something is, and else what it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.content import CHUNK_SIZE, content_size, is_all_hole, splice
from dkfs.errors import CorruptError
from dkfs.model.ids import BlobId
from dkfs.model.node import Chunk


def data(name: int, length: int = CHUNK_SIZE) -> Chunk:
    return Chunk(length, BlobId(bytes([name]) * 32))


def hole(cells: int = 1) -> Chunk:
    return Chunk(cells * CHUNK_SIZE, None)


def test_a_fresh_chunk_replaces_the_one_at_its_offset() -> None:
    old = (data(1), data(2), data(3, 10))

    assert splice(old, [(CHUNK_SIZE, [data(9)])], 2 * CHUNK_SIZE + 10) == (
        data(1),
        data(9),
        data(3, 10),
    )


def test_a_file_that_grew_beyond_its_end_has_a_hole_between() -> None:
    fresh = [(0, [data(1)]), (3 * CHUNK_SIZE, [data(2, 5)])]

    assert splice((data(8, 10),), fresh, 3 * CHUNK_SIZE + 5) == (data(1), hole(2), data(2, 5))


def test_a_file_that_was_cut_on_the_grid_keeps_what_is_below() -> None:
    assert splice((data(1), data(2)), [], CHUNK_SIZE) == (data(1),)


def test_a_hole_can_be_cut_and_joined() -> None:
    assert splice((hole(4),), [(CHUNK_SIZE, [data(1)])], 4 * CHUNK_SIZE) == (
        hole(),
        data(1),
        hole(2),
    )
    assert splice((hole(), data(1), hole()), [(CHUNK_SIZE, [hole()])], 3 * CHUNK_SIZE) == (hole(3),)


def test_a_data_chunk_that_would_be_cut_is_damage() -> None:
    with pytest.raises(CorruptError, match="would be cut"):
        splice((data(1),), [], 10)


def test_an_empty_file_has_no_chunks() -> None:
    assert splice((data(1),), [], 0) == ()
    assert is_all_hole(())


@given(
    st.lists(st.sampled_from((None, 1, 2)), max_size=12),
    st.dictionaries(st.integers(0, 14), st.sampled_from((None, 3, 4)), max_size=8),
    st.integers(0, 15),
)
def test_splice_is_cell_by_cell_what_a_list_would_be(
    old: list[int | None], fresh: dict[int, int | None], cells: int
) -> None:
    fresh = {cell: name for cell, name in fresh.items() if cell < cells}
    runs = [
        (cell * CHUNK_SIZE, [hole() if name is None else data(name)])
        for cell, name in sorted(fresh.items())
    ]
    chunks = splice([hole() if n is None else data(n) for n in old], runs, cells * CHUNK_SIZE)

    expected = (old + [None] * cells)[:cells]
    for cell, name in fresh.items():
        expected[cell] = name
    flat: list[int | None] = []
    for chunk in chunks:
        name = None if chunk.blob is None else chunk.blob[0]
        flat += [name] * (chunk.length // CHUNK_SIZE)
    assert flat == expected
    assert content_size(chunks) == cells * CHUNK_SIZE
    assert is_all_hole(chunks) == all(name is None for name in expected)
