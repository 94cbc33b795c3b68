"""Frozen contents: what a file was at one instant, whatever happens to it afterwards."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.core.extents import Range
from dkfs.history import frozen as module
from dkfs.history.frozen import Frozen, FrozenBytes, FrozenFile

CELL = 64 * 1024


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
    for start, end in frozen.ranges:
        data[start:end] = frozen.read(start, end)
    assert len(data) == frozen.size
    return bytes(data)


def test_copied_bytes_do_not_change_with_the_file(fd: int) -> None:
    os.pwrite(fd, b"before", 0)
    frozen = FrozenBytes(fd, ((0, 6),), 6)
    os.pwrite(fd, b"after!", 0)

    assert contents(frozen) == b"before"
    assert frozen.held == 6


@pytest.mark.parametrize("kind", [FrozenBytes, FrozenFile])
def test_only_the_ranges_are_kept_to_the_byte(
    fd: int, kind: type[FrozenBytes | FrozenFile]
) -> None:
    os.pwrite(fd, b"0123456789", 0)
    frozen = kind(another(fd), ((1, 3), (6, 7)), 10)

    assert frozen.ranges == ((1, 3), (6, 7))
    assert (frozen.read(1, 3), frozen.read(2, 3), frozen.read(6, 7)) == (b"12", b"2", b"6")
    frozen.release()


@pytest.mark.parametrize("kind", [FrozenBytes, FrozenFile])
def test_a_hole_is_stepped_over_and_not_held(fd: int, kind: type[FrozenBytes | FrozenFile]) -> None:
    size = 100 * CELL
    os.pwrite(fd, b"end", size - 3)
    frozen = kind(another(fd), ((5, size),), size)

    assert 99 * CELL <= frozen.next_data(5, size) <= size - 3
    assert frozen.next_data(5, 4096) == 4096
    assert frozen.read(90 * CELL, size) == bytes(10 * CELL - 3) + b"end"
    assert frozen.held <= CELL
    frozen.release()


def test_what_is_about_to_change_is_saved_once(fd: int) -> None:
    os.pwrite(fd, b"a" * 3 * CELL, 0)
    frozen = FrozenFile(another(fd), ((0, 3 * CELL),), 3 * CELL)
    first = frozen.before_change(CELL + 5, CELL + 6)
    os.pwrite(fd, b"b", CELL + 5)
    second = frozen.before_change(CELL, CELL + 10)
    os.pwrite(fd, b"c" * 10, CELL)

    assert (first, second, frozen.held) == (CELL, 0, CELL)
    assert contents(frozen) == b"a" * 3 * CELL
    assert contents(frozen) == b"a" * 3 * CELL  # as often as the store fails
    frozen.release()


def test_what_is_about_to_change_and_was_not_frozen_is_not_saved(fd: int) -> None:
    os.pwrite(fd, b"a" * CELL, 0)
    frozen = FrozenFile(another(fd), ((10, 20), (40, 50)), CELL)

    assert frozen.before_change(20, 40) == 0
    assert frozen.before_change(0, 15) == 10
    assert frozen.before_change(0, CELL) == 10
    frozen.release()


def test_a_hole_that_is_written_stays_a_hole_in_what_is_frozen(fd: int) -> None:
    size = 10 * CELL
    os.ftruncate(fd, size)
    frozen = FrozenFile(another(fd), ((0, size),), size)
    frozen.before_change(5 * CELL, 5 * CELL + 1)
    os.pwrite(fd, b"x", 5 * CELL)

    assert contents(frozen) == bytes(size)
    frozen.release()


def test_released_it_saves_nothing_more(fd: int) -> None:
    os.pwrite(fd, b"data", 0)
    frozen = FrozenFile(another(fd), ((0, 4),), 4)
    assert not frozen.wait_released(0)
    frozen.release()
    frozen.release()

    assert frozen.wait_released(0)
    assert (frozen.before_change(0, 4), frozen.unsaved(0, 4)) == (0, 0)


def test_a_truncation_that_was_announced_changes_nothing(fd: int) -> None:
    size = 3 * CELL + 7
    os.pwrite(fd, b"z" * size, 0)
    frozen = FrozenFile(another(fd), ((0, size),), size)
    assert frozen.unsaved(CELL + 1, size) == size - CELL - 1
    frozen.before_change(CELL + 1, size)
    os.ftruncate(fd, CELL + 1)

    assert frozen.unsaved(CELL + 1, size) == 0
    assert contents(frozen) == b"z" * size
    frozen.release()


def some_ranges(rng: random.Random, size: int) -> tuple[Range, ...]:
    ranges: list[Range] = []
    start = rng.choice((0, rng.randrange(200)))
    while start < size:
        end = min(size, start + rng.randrange(1, 400))
        ranges.append((start, end))
        start = end + rng.randrange(1, 200)
    return tuple(ranges)


class Changing:
    """A file that changes at random after some of it was frozen."""

    def __init__(self, fd: int, rng: random.Random) -> None:
        self.fd = fd
        self.rng = rng
        self.size = rng.randrange(1, 2000)
        os.ftruncate(fd, self.size)
        for _ in range(rng.randrange(6)):
            data = rng.randbytes(rng.randrange(1, 300))
            at = rng.randrange(self.size)
            os.pwrite(fd, data[: self.size - at], at)
        self.expected = os.pread(fd, self.size, 0)
        self.ranges = some_ranges(rng, self.size)

    def change(self, frozen: FrozenFile | None) -> None:
        """Write or truncate, announced to *frozen*."""
        rng = self.rng
        if rng.random() < 0.8:
            at, data = rng.randrange(self.size + 100), rng.randbytes(rng.randrange(1, 300))
            if frozen is not None:
                frozen.before_change(at, at + len(data))
            os.pwrite(self.fd, data, at)
            return
        at = rng.randrange(self.size)
        if frozen is not None:
            frozen.before_change(at, self.size)
            assert frozen.unsaved(at, frozen.size) == 0
        os.ftruncate(self.fd, at)

    def check(self, frozen: Frozen) -> None:
        """Read somewhere."""
        if self.ranges:
            first, last = self.rng.choice(self.ranges)
            start = self.rng.randrange(first, last)
            end = self.rng.randrange(start + 1, last + 1)
            assert frozen.read(start, end) == self.expected[start:end]
            found = frozen.next_data(start, end)
            assert start <= found <= end
            assert not any(self.expected[start:found])


@pytest.mark.parametrize("seed", range(200))
def test_any_changes_during_the_reading_change_nothing(
    fd: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CELL", 64)
    monkeypatch.setattr(module, "_READ_MOST", 100)
    file = Changing(fd, random.Random(seed))
    copied = FrozenBytes(fd, file.ranges, file.size)
    kept = FrozenFile(another(fd), file.ranges, file.size)
    for _ in range(20):
        file.change(kept)
        file.check(copied)
        file.check(kept)

    for start, end in file.ranges:
        assert copied.read(start, end) == file.expected[start:end]
        assert kept.read(start, end) == file.expected[start:end]
    kept.release()


@pytest.mark.parametrize("kind", [FrozenBytes, FrozenFile])
def test_nobody_sees_that_it_was_read(fd: int, kind: type[FrozenBytes | FrozenFile]) -> None:
    os.pwrite(fd, bytes(100), 0)
    os.utime(fd, ns=(1, 2))  # a time of access that any other read would renew
    own = another(fd)
    frozen = kind(own, ((0, 100),), 100)
    frozen.read(0, 100)

    assert os.fstat(fd).st_atime_ns == 1
    frozen.release()
    if kind is FrozenBytes:
        os.pread(own, 1, 0)  # it is the application's again
        assert os.fstat(fd).st_atime_ns > 1
        os.close(own)
