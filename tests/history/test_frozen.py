"""Frozen contents: what a file was at one instant, whatever happens to it afterwards."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.core.content import CHUNK_SIZE
from dkfs.history.frozen import Frozen, FrozenBytes, FrozenFile


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    yield opened
    os.close(opened)


def another(fd: int) -> int:
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)


def contents(frozen: Frozen) -> bytes:
    """Return what is frozen, zeros elsewhere."""
    data = bytearray(frozen.size)
    for offset, cell, length in frozen.cells():
        data[offset : offset + length] = bytes(length) if cell is None else cell
        assert cell is None or len(cell) == length
    return bytes(data)


def test_copied_bytes_do_not_change_with_the_file(fd: int) -> None:
    os.pwrite(fd, b"before", 0)
    frozen = FrozenBytes(fd, ((0, 6),), 6)
    os.pwrite(fd, b"after!", 0)

    assert contents(frozen) == b"before"
    assert frozen.held == 6


def test_a_long_hole_is_one_cell(fd: int) -> None:
    size = 100 * CHUNK_SIZE
    os.pwrite(fd, b"end", size - 3)
    frozen = FrozenFile(another(fd), ((0, size),), size)
    cells = list(frozen.cells())
    frozen.release()

    assert len(cells) <= 3
    assert cells[0][1] is None


def test_what_is_about_to_change_is_saved_once(fd: int) -> None:
    os.pwrite(fd, b"a" * 3 * CHUNK_SIZE, 0)
    frozen = FrozenFile(another(fd), ((0, 3 * CHUNK_SIZE),), 3 * CHUNK_SIZE)
    first = frozen.before_change(CHUNK_SIZE + 5, CHUNK_SIZE + 6)
    os.pwrite(fd, b"b", CHUNK_SIZE + 5)
    second = frozen.before_change(CHUNK_SIZE, CHUNK_SIZE + 10)
    os.pwrite(fd, b"c" * 10, CHUNK_SIZE)

    assert (first, second, frozen.held) == (CHUNK_SIZE, 0, CHUNK_SIZE)
    assert contents(frozen) == b"a" * 3 * CHUNK_SIZE
    assert contents(frozen) == b"a" * 3 * CHUNK_SIZE  # as often as the store fails
    frozen.release()


def test_a_hole_that_is_written_stays_a_hole_in_what_is_frozen(fd: int) -> None:
    size = 10 * CHUNK_SIZE
    os.ftruncate(fd, size)
    frozen = FrozenFile(another(fd), ((0, size),), size)
    frozen.before_change(5 * CHUNK_SIZE, 5 * CHUNK_SIZE + 1)
    os.pwrite(fd, b"x", 5 * CHUNK_SIZE)

    assert contents(frozen) == bytes(size)
    frozen.release()


def test_released_it_saves_nothing_more(fd: int) -> None:
    os.pwrite(fd, b"data", 0)
    frozen = FrozenFile(another(fd), ((0, 4),), 4)
    assert not frozen.wait_released(0)
    frozen.release()
    frozen.release()

    assert frozen.wait_released(0)
    assert (frozen.before_change(0, 4), frozen.unsaved(0)) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_any_writes_during_the_reading_change_nothing(fd: int, seed: int) -> None:
    rng = random.Random(seed)
    size = 12 * CHUNK_SIZE + rng.randrange(CHUNK_SIZE)
    os.ftruncate(fd, size)
    for _ in range(6):
        os.pwrite(fd, rng.randbytes(5000), rng.randrange(size - 5000))
    expected = os.pread(fd, size, 0)
    frozen = FrozenFile(another(fd), ((0, size),), size)
    seen = bytearray(size)
    for offset, cell, length in frozen.cells():
        seen[offset : offset + length] = bytes(length) if cell is None else cell
        start = rng.randrange(size - 3000)
        frozen.before_change(start, start + 3000)
        os.pwrite(fd, rng.randbytes(3000), start)

    assert bytes(seen) == expected
    assert contents(frozen) == expected
    frozen.release()


def test_a_truncation_that_was_announced_changes_nothing(fd: int) -> None:
    size = 3 * CHUNK_SIZE + 7
    os.pwrite(fd, b"z" * size, 0)
    frozen = FrozenFile(another(fd), ((0, size),), size)
    assert frozen.unsaved(CHUNK_SIZE + 1) == size - CHUNK_SIZE - 1
    frozen.before_change(CHUNK_SIZE + 1, size)
    os.ftruncate(fd, CHUNK_SIZE + 1)

    assert contents(frozen) == b"z" * size
    frozen.release()
