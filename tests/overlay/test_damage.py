"""Contents that build on damaged ones: refused, told to who waits, and recorded whole soon after."""

import errno
import os

import pytest

from dkfs.errors import CorruptError
from dkfs.history import frozen
from dkfs.history.reading import read_exactly
from dkfs.history.tree import Tree
from dkfs.store import Store
from tests.overlay.world import ME, World


def damage(world: World, name: bytes) -> None:
    """Damage what names the contents of *name*, and forget what was known of it."""
    assert world.recorder.flush()
    with world.store.read() as reader:
        state = reader.node(Tree(reader, reader.last).resolve(name), reader.last)
        assert state is not None
        assert state.content is not None
        location = reader.location(state.content)
    assert location is not None
    segment = world.store.path / "segments" / f"{location.segment:08d}.seg"
    with open(segment, "r+b") as file:
        file.seek(location.offset + 50)
        file.write(b"damaged!")
    world.reopen()


@pytest.mark.expect_logs("is damaged")
def test_damage_in_one_file_does_not_end_the_recording_of_others(world: World) -> None:
    number = world.create(b"file", os.urandom(200_000))
    world.fs.captures.capture_all()
    damage(world, b"file")
    number = world.open(b"file")
    world.fs.files.write(number, 0, b"x")
    world.fs.files.fsync(number)
    node = world.inode(number).node
    world.fs.files.release(world.create(b"other", b"data"))

    assert world.read(b"other") == b"data"
    with pytest.raises(CorruptError):
        world.read(b"file")
    with pytest.raises(OSError, match="damaged in the store"):
        world.recorder.refuse_lost(node)


@pytest.mark.expect_logs("is damaged|not compared")
@pytest.mark.parametrize("is_open", [True, False])
def test_a_file_whose_contents_build_on_damage_is_captured_whole_soon_after(
    world: World, *, is_open: bool
) -> None:
    data = os.urandom(200_000)
    world.fs.files.release(world.create(b"file", data))
    damage(world, b"file")
    number = world.open(b"file")
    world.fs.files.write(number, 0, b"x")
    world.fs.captures.capture_all()
    assert world.recorder.flush()
    if not is_open:
        world.fs.files.release(number)
    with pytest.raises(CorruptError):
        world.read(b"file")
    world.fs.tick(3600.0)

    assert world.read(b"file") == b"x" + data[1:]


def test_contents_saved_anew_are_recorded_whatever_was_there_before(world: World) -> None:
    data = os.urandom(200_000)
    world.fs.files.release(world.create(b"file", data))
    damage(world, b"file")
    number = world.fs.files.open(world.lookup(b"file"), os.O_RDWR | os.O_TRUNC, ME)
    world.fs.files.write(number, 0, b"before" + data)
    world.fs.files.release(number)

    assert world.read(b"file") == b"before" + data


def test_a_file_that_is_emptied_is_recorded_as_empty_whatever_was_there_before(
    world: World,
) -> None:
    world.fs.files.release(world.create(b"file", os.urandom(200_000)))
    damage(world, b"file")
    number = world.fs.files.open(world.lookup(b"file"), os.O_RDWR | os.O_TRUNC, ME)
    world.fs.files.release(number)

    assert world.read(b"file") == b""


@pytest.mark.expect_logs("is damaged|not compared")
def test_a_file_whose_contents_build_on_damage_is_recorded_whole_before_an_unmount(
    world: World,
) -> None:
    data = os.urandom(200_000)
    world.fs.files.release(world.create(b"file", data))
    damage(world, b"file")
    number = world.open(b"file")
    world.fs.files.write(number, 0, b"x")
    world.fs.files.release(number)
    world.reopen()

    assert world.read(b"file") == b"x" + data[1:]


@pytest.mark.expect_logs("is damaged|not compared")
def test_what_builds_on_damage_is_recorded_whole_by_the_next_mount_if_this_one_was_killed(
    world: World,
) -> None:
    data = os.urandom(200_000)
    world.fs.files.release(world.create(b"file", data))
    damage(world, b"file")
    number = world.open(b"file")
    world.fs.files.write(number, 0, b"x")
    world.fs.files.release(number)
    assert world.recorder.close()
    world.store.close()
    world.store = Store.open(world.store.path, writable=True)
    world.reconcile()
    world.start()

    assert world.read(b"file") == b"x" + data[1:]


@pytest.mark.expect_logs("cannot be read: Input/output error|is damaged")
def test_a_file_that_cannot_be_read_keeps_no_other_from_being_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(3_000_000)  # too much to be copied at once: it is read later
    number = world.create(b"file", data)
    bad = (world.state / "file").stat().st_ino
    is_bad = True

    def read(fd: int, offset: int, length: int) -> bytes:
        if is_bad and os.fstat(fd).st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_exactly(fd, offset, length)

    monkeypatch.setattr(frozen, "read_exactly", read)
    world.fs.files.fsync(number)
    node = world.inode(number).node
    world.fs.files.release(world.create(b"other", b"data"))

    assert world.read(b"other") == b"data"
    assert world.recorder.is_recording
    with pytest.raises(OSError, match="damaged"):
        world.recorder.refuse_lost(node)
    before = world.recorder.last
    world.fs.tick(0.0)
    assert world.recorder.last == before  # it is not tried again and again

    is_bad = False
    world.fs.files.write(number, 10, b"new")
    world.fs.files.fsync(number)
    assert world.recorder.flush()
    world.fs.tick(0.0)
    assert world.recorder.flush()
    assert world.read(b"file") == data[:10] + b"new" + data[13:]
