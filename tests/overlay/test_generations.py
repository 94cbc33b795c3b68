"""Numbers of inodes: used again for other files, which have other generations; and too large ones."""

import os
import struct
from pathlib import Path

import pytest

from dkfs.model.ids import Seq
from dkfs.overlay.forgotten import Forgotten
from dkfs.overlay.inodes import Inode, InodeTable
from tests.overlay.world import ME, World

_MIX = 0x9E3779B97F4A7C15


def status_of(table: InodeTable, number: int, mode: int = 0o100644) -> os.stat_result:
    return os.stat_result((mode, number, table.root.dev, 1, 0, 0, 0, 0, 0, 0))


def file(table: InodeTable, name: bytes, number: int) -> Inode:
    return table.referred(table.root, name, status_of(table, number))


@pytest.fixture
def table(tmp_path: Path) -> InodeTable:
    return InodeTable(os.open(tmp_path, os.O_RDONLY), committed=lambda: Seq(0), generation=7)


def test_a_number_that_is_used_again_has_another_generation(table: InodeTable) -> None:
    first = file(table, b"file", 1000)
    other = file(table, b"other", 1001)
    first.unlinked = True
    table.unnamed(first)
    table.forget(first, 1)
    second = file(table, b"file", 1000)

    assert (first.generation, other.generation) == (7, 7)
    assert second.generation != first.generation


def test_what_was_only_forgotten_keeps_its_generation(table: InodeTable) -> None:
    forgotten = Forgotten(table)
    kept, removed = file(table, b"kept", 1000), file(table, b"removed", 1001)
    generation = kept.generation
    forgotten.note(kept)
    table.forget(kept, 1)
    removed.unlinked = True
    table.forget(removed, 1)

    assert file(table, b"kept", 1000).generation == generation
    assert file(table, b"new", 1002).generation != generation


def test_a_generation_fits_in_what_the_kernel_keeps_of_it(table: InodeTable) -> None:
    table._generation = (1 << 32) - 1
    first = file(table, b"file", 1000)
    first.unlinked = True
    table.forget(first, 1)

    assert (first.generation, file(table, b"file", 1000).generation) == ((1 << 32) - 1, 0)


def test_a_rollback_makes_handles_of_forgotten_files_stale(world: World) -> None:
    number, made, _ = world.fs.names.create(world.root, b"file", 0o644, os.O_RDWR, ME)
    world.fs.files.release(number)
    generation = made.generation
    world.fs.forget(made.id, 1)
    assert world.recorder.flush()
    world.fs.tick(0.0)
    world.fs.table.forget_places()

    assert world.lookup(b"file").generation != generation
    with pytest.raises(OSError, match="Stale"):
        world.fs.forgotten.find(made.id + 1)


def test_of_large_numbers_nothing_is_remembered(table: InodeTable) -> None:
    for number in range(1 << 62, (1 << 62) + 100):
        inode = file(table, b"file", number)
        assert table.number(status_of(table, number)) == inode.id
        table.forget(inode, 1)

    assert (len(table), len(table._colliding)) == (1, 0)


def _same(table: InodeTable, number: int) -> int:
    """Return another large number of which the same 60 bits are taken."""
    device = table.root.dev * _MIX
    mixed = (number ^ device) * _MIX & (1 << 64) - 1
    other = (mixed ^ 1) * pow(_MIX, -1, 1 << 64) ^ device
    return int(struct.unpack("<Q", struct.pack("<Q", other & (1 << 64) - 1))[0])


def test_two_large_numbers_that_collide_are_two_inodes(table: InodeTable) -> None:
    number = next(n for n in range(1 << 62, 1 << 63) if _same(table, n) > 1 << 62)
    first = file(table, b"first", number)
    second = file(table, b"second", _same(table, number))

    assert first is not second
    assert first.id != second.id
    assert second is file(table, b"second", _same(table, number))
    table.forget(second, 2)
    assert not table._colliding


def test_a_chain_of_places_is_no_deeper_than_the_stack(table: InodeTable) -> None:
    forgotten = Forgotten(table)
    for number in range(1000, 9000):
        table.places[number] = number + 1, b"d", 7
    with pytest.raises(OSError, match="Stale"):
        forgotten.find(1000)
    table.places[9000] = 1000, b"d", 7  # a ring

    with pytest.raises(OSError, match="Stale"):
        forgotten.find(1000)


def test_who_is_noted_again_is_remembered_longer(table: InodeTable) -> None:
    few = Forgotten(table, most=3)
    a, b, c, d = (file(table, b"%d" % number, number) for number in range(1000, 1004))
    for inode in (a, b, c, a, d):
        few.note(inode)

    assert list(table.places) == [c.id, a.id, d.id]
