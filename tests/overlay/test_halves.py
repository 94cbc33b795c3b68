"""A write that the kernel cut in two: a capture that nobody asked for waits for its rest."""

from types import SimpleNamespace

import pytest

from dkfs.overlay import captures
from tests.overlay.world import World


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Let captures see a time that stands still."""
    time = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(captures, "time", SimpleNamespace(monotonic=lambda: time.now))
    return time


def test_a_timer_waits_for_the_rest_of_a_write_that_was_cut_where_a_page_ends(
    world: World, clock: SimpleNamespace
) -> None:
    number = world.create(b"f", bytes(100))
    world.fs.captures.capture_all()
    world.fs.files.write(number, 100, b"a" * 3996)
    last = world.recorder.last
    clock.now += 1.1

    world.fs.captures.capture_due(1.0)
    assert world.recorder.last == last

    world.fs.files.write(number, 4096, b"b" * 5)
    world.fs.captures.capture_due(1.0)
    assert world.read(b"f") == bytes(100) + b"a" * 3996 + b"b" * 5


def test_a_timer_waits_once_for_a_rest_that_does_not_come(
    world: World, clock: SimpleNamespace
) -> None:
    number = world.create(b"f")
    world.fs.files.write(number, 1, b"a" * 4095)
    clock.now += 1.1

    world.fs.captures.capture_due(1.0)
    world.fs.captures.capture_due(1.0)

    assert len(world.read(b"f")) == 4096


def test_a_file_in_which_every_write_looks_cut_is_captured_nevertheless(
    world: World, clock: SimpleNamespace
) -> None:
    number = world.create(b"f")
    seen = [world.recorder.last]
    for _ in range(12):
        world.fs.files.write(number, 1, b"a" * 4095)
        clock.now += 0.25
        world.fs.captures.capture_due(1.0)
        seen.append(world.recorder.last)

    assert seen[-1] == seen[0] + 1


@pytest.mark.parametrize(("offset", "length"), [(0, 4096), (8192, 65536), (1, 4096), (4095, 2)])
def test_a_write_that_cannot_be_part_of_a_longer_one_is_waited_for_by_nobody(
    world: World, clock: SimpleNamespace, offset: int, length: int
) -> None:
    number = world.create(b"f")
    world.fs.files.write(number, offset, bytes(length))
    last = world.recorder.last
    clock.now += 1.1

    world.fs.captures.capture_due(1.0)

    assert world.recorder.last == last + 1
