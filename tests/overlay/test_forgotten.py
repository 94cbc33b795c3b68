"""Inodes that the kernel has forgotten, and asks for again by their numbers."""

import errno
import os

import pytest

from dkfs.overlay.forgotten import Forgotten
from dkfs.overlay.inodes import Inode
from tests.overlay.world import ME, World


def forgotten(world: World, *inodes: Inode) -> None:
    """Let the kernel forget *inodes*, and what only waits for the store with them."""
    for inode in inodes:
        world.fs.forget(inode.id, inode.lookups)
    assert world.recorder.flush()
    world.fs.tick(0.0)
    for inode in inodes:
        with pytest.raises(OSError) as refusal:
            world.fs.table[inode.id]
        assert refusal.value.errno == errno.ESTALE


def directory_and_file(world: World) -> tuple[Inode, Inode]:
    directory, _ = world.fs.names.mkdir(world.root, b"dir", 0o755, ME)
    number, file, _ = world.fs.names.create(directory, b"file", 0o644, os.O_RDWR, ME)
    world.fs.files.release(number)
    return directory, file


def is_stale(world: World, number: int) -> bool:
    try:
        world.fs.forgotten.find(number)
    except OSError as exc:
        return exc.errno == errno.ESTALE
    return False


def test_it_is_found_again_with_all_directories_above(world: World) -> None:
    directory, file = directory_and_file(world)
    forgotten(world, file, directory)
    found = world.fs.forgotten.find(file.id)

    assert (found.id, world.fs.table.path(found)) == (file.id, b"dir/file")
    world.fs.forget(found.id, 1)
    assert len(world.fs.table) == 1


def test_what_is_known_is_itself(world: World) -> None:
    _, file = directory_and_file(world)

    assert world.fs.forgotten.find(file.id) is file
    assert is_stale(world, 12345678)


def test_what_was_removed_is_stale_even_if_its_number_is_used_again(world: World) -> None:
    directory, file = directory_and_file(world)
    world.fs.names.unlink(directory, b"file", ME)
    forgotten(world, file)
    for _ in range(3):
        number, again, _ = world.fs.names.create(directory, b"file", 0o644, os.O_RDWR, ME)
        world.fs.files.release(number)
        assert (again.id == file.id) or is_stale(world, file.id)
        world.fs.names.unlink(directory, b"file", ME)
        world.fs.forget(again.id, again.lookups)
        assert is_stale(world, file.id)


def test_another_file_under_its_name_is_not_it(world: World) -> None:
    directory, file = directory_and_file(world)
    forgotten(world, file)
    os.rename(world.state / "dir" / "file", world.state / "elsewhere")
    (world.state / "dir" / "file").write_bytes(b"another")

    assert is_stale(world, file.id)
    assert len(world.fs.table) == 2
    world.fs.forget(directory.id, directory.lookups)


def test_it_is_found_where_it_was_moved_to(world: World) -> None:
    directory, file = directory_and_file(world)
    other, _ = world.fs.names.mkdir(world.root, b"other", 0o755, ME)
    world.fs.names.rename(directory, b"file", other, b"moved", 0, ME)
    forgotten(world, file)

    assert world.fs.table.path(world.fs.forgotten.find(file.id)) == b"other/moved"


def test_only_so_many_are_remembered(world: World) -> None:
    few = Forgotten(world.fs.table, most=3)
    for index in range(10):
        number, inode, _ = world.fs.names.create(world.root, b"%d" % index, 0o644, os.O_RDWR, ME)
        world.fs.files.release(number)
        few.note(inode)

    assert len(few) == 3
