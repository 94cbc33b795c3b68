"""How many files there are, and how many of them are large: as counted, and as kept up since."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.overlay.attributes import NewAttributes
from tests.overlay.world import ME, World

LARGE = 65_537


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.fs.count.count(world.recorder.last)
    yield world
    world.close()


def counts(world: World) -> tuple[int | None, int | None]:
    """Return files and large files as known, after comparing them with a fresh count."""
    kept = world.fs.count.value, world.fs.count.large
    world.fs.captures.capture_all()
    assert world.recorder.flush()
    after = world.fs.count.value, world.fs.count.large
    world.fs.count.again()
    world.fs.count.count(world.recorder.last)
    assert (world.fs.count.value, world.fs.count.large) == after
    return kept


def test_a_file_is_large_from_the_version_on_in_which_it_is(counted: World) -> None:
    number = counted.create(b"file", bytes(LARGE))
    assert counts(counted) == (1, 0)
    assert counts(counted) == (1, 1)

    counted.fs.attributes.set(counted.inode(number), NewAttributes(size=5), number, ME)
    counted.fs.files.release(number)
    assert counts(counted) == (1, 0)


def test_each_name_of_a_large_file_counts(counted: World) -> None:
    counted.fs.files.release(counted.create(b"one", bytes(LARGE)))
    inode, _ = counted.fs.names.lookup(counted.root, b"one")
    counted.fs.names.link(inode, counted.root, b"two", ME)
    assert counts(counted) == (2, 2)

    counted.fs.names.unlink(counted.root, b"one", ME)
    assert counts(counted) == (1, 1)


def test_what_a_rename_replaces_counts_no_more(counted: World) -> None:
    counted.fs.files.release(counted.create(b"small", b"s"))
    counted.fs.files.release(counted.create(b"large", bytes(LARGE)))
    counted.fs.names.rename(counted.root, b"small", counted.root, b"large", 0, ME)

    assert counts(counted) == (1, 0)


def test_what_was_written_before_a_removal_and_never_captured_counts_as_it_was(
    counted: World,
) -> None:
    number = counted.create(b"file", b"small")
    counted.fs.captures.capture_all()
    counted.fs.files.write(number, LARGE, b"x")
    counted.fs.names.unlink(counted.root, b"file", ME)
    counted.fs.files.release(number)

    assert counts(counted) == (0, 0)


def test_a_file_emptied_when_it_is_opened_is_not_large(counted: World) -> None:
    counted.fs.files.release(counted.create(b"file", bytes(LARGE)))
    inode, _ = counted.fs.names.lookup(counted.root, b"file")
    counted.fs.files.release(counted.fs.files.open(inode, os.O_RDONLY | os.O_TRUNC, ME))

    assert counts(counted) == (1, 0)
