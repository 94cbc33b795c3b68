"""What the file system has recorded, and what it does when that cannot be."""

import errno
import os
import threading
import time

import pytest
import trio

from dkfs.config.settings import MountSettings
from dkfs.daemon.service import Service
from dkfs.errors import CorruptError, StoreError
from dkfs.fuse.engine import choose
from dkfs.history import content, frozen
from dkfs.history.tree import Tree
from dkfs.model.ids import Seq
from dkfs.overlay import captures
from dkfs.overlay.attributes import NewAttributes
from dkfs.overlay.backing import RENAME_EXCHANGE
from dkfs.overlay.inodes import ROOT_ID
from dkfs.overlay.virtual import VIRTUAL
from dkfs.store import Writer
from tests.overlay.world import ME, World


def fail(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_exchanged_files_have_both_their_contents_under_their_new_names(world: World) -> None:
    one, two = world.create(b"one", b"old one"), world.create(b"two", b"old two")
    world.fs.captures.capture_all()
    world.fs.files.write(one, 0, b"new one")
    world.fs.files.write(two, 0, b"new two")
    world.fs.names.rename(world.root, b"one", world.root, b"two", RENAME_EXCHANGE, ME)
    exchanged = world.recorder.last

    assert world.read(b"one", exchanged) == b"new two"
    assert world.read(b"two", exchanged) == b"new one"


def test_no_version_has_the_new_attributes_of_a_file_with_its_older_bytes(world: World) -> None:
    number = world.create(b"f", b"one")

    world.fs.attributes.set(world.inode(number), NewAttributes(mode=0o600), None, ME)
    world.fs.files.flush(number)

    assert world.recorder.flush()
    with world.store.read() as reader:
        node = Tree(reader, reader.last).resolve(b"f")
        states = [
            (state.attr.mode, content.read(reader, state, 0, 9))
            for _, state in reader.node_versions(node)
        ]
    assert states == [(0o644, b""), (0o644, b"one"), (0o600, b"one")]


def test_a_file_that_cannot_be_read_when_it_is_closed_does_not_end_the_mount(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = world.create(b"file", b"data")
    with monkeypatch.context() as patch:
        patch.setattr(captures, "FrozenBytes", fail)
        with pytest.raises(OSError, match="Input/output"):
            world.fs.files.release(number)
    world.fs.tick(0.0)

    assert len(world.fs.files.handles) == 0


def test_what_could_not_be_read_is_recorded_with_the_next_change_of_the_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = world.create(b"file", b"a" * 100)
    inode = world.inode(number)
    world.fs.captures.capture_all()
    world.fs.files.write(number, 0, b"b" * 300_000)
    with monkeypatch.context() as patch:
        patch.setattr(captures, "FrozenBytes", fail)
        with pytest.raises(OSError, match="Input/output"):
            world.fs.files.release(number)
    number = world.fs.files.open(inode, os.O_RDWR, ME)
    world.fs.files.write(number, 299_999, b"cc")
    world.fs.files.release(number)

    assert world.read(b"file") == b"b" * 299_999 + b"cc"


@pytest.mark.expect_logs("cannot be recorded")
def test_a_store_that_cannot_be_read_does_not_end_the_mount_at_the_next_tick(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    number = world.create(b"file", b"data")

    def broken(_: object) -> None:
        raise StoreError("the index is damaged")

    with monkeypatch.context() as patch:
        patch.setattr(world.fs.journal, "node", broken)
        world.fs.tick(0.0)
    assert "file cannot be recorded: the index is damaged" in caplog.text
    world.fs.tick(0.0)
    world.fs.files.release(number)
    assert world.read(b"file") == b"data"


class Stuck:
    """Lets the store fail for as long as the test wants."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._write = world.store.write
        self.fails = True
        monkeypatch.setattr(world.store, "write", self.write)

    def write(self) -> object:
        if self.fails:
            raise StoreError("the store is full")
        return self._write()


@pytest.mark.expect_logs("the store failed|could not be recorded")
@pytest.mark.expect_logs("recording goes on")
def test_a_failing_store_does_not_keep_an_application_from_truncating(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captures, "_WAIT_S", 60.0)
    stuck = Stuck(world, monkeypatch)
    number = world.create(b"file", os.urandom(9 * 1024 * 1024))
    world.fs.captures.capture_all()
    started = time.monotonic()
    world.fs.attributes.set(world.inode(number), NewAttributes(size=0), number, ME)

    assert (world.state / "file").stat().st_size == 0
    assert time.monotonic() - started < 30.0
    stuck.fails = False


@pytest.mark.expect_logs("the store failed|could not be recorded")
@pytest.mark.expect_logs("recording goes on")
def test_after_recording_has_stopped_nothing_is_remembered_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    Stuck(world, monkeypatch)
    world.recorder._closing = True  # the first failure is final
    world.fs.files.release(world.create(b"before"))
    assert not world.recorder.flush()
    before = len(world.fs.table)
    for name in (b"a", b"b", b"c"):
        number = world.create(name, b"data")
        inode = world.inode(number)
        world.fs.files.release(number)
        world.fs.table.forget(inode, 1)
    world.fs.tick(0.0)

    assert len(world.fs.table) == before


def test_memory_that_is_saved_while_contents_are_released_is_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = frozen.FrozenFile.release

    def late(self: frozen.FrozenFile) -> int:
        world.recorder.saved(self.before_change(0, 3))  # by a write that comes right now
        return release(self)

    monkeypatch.setattr(frozen.FrozenFile, "release", late)
    world.create(b"file", os.urandom(2 * 1024 * 1024))
    world.fs.captures.capture_all()
    assert world.recorder.flush()

    assert world.recorder.held_bytes == 0


def fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_contents_that_wait_for_the_recorder_do_not_take_all_fds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    write = world.store.write

    def slow() -> Writer:
        go_on.wait()
        return write()

    monkeypatch.setattr(world.store, "write", slow)
    data = os.urandom(1024 * 1024 + 1)
    before = fds()
    for number in range(400):
        if world.recorder.is_full:
            break
        world.fs.files.release(world.create(b"%d" % number, data))
    taken = fds() - before
    go_on.set()

    assert taken < 200
    assert world.recorder.flush()
    assert not world.recorder.is_full


def test_a_big_file_that_appeared_behind_the_mount_is_not_taken_into_memory(
    world: World,
) -> None:
    data = os.urandom(4 * 1024 * 1024)
    (world.state / "file").write_bytes(data)
    inode, _ = world.fs.names.lookup(world.root, b"file")
    world.fs.attributes.set(inode, NewAttributes(mode=0o600), None, ME)
    found = world.recorder.last - 1

    assert world.recorder.held_bytes <= 1024 * 1024
    number = world.fs.files.open(inode, os.O_RDWR | os.O_TRUNC, ME)
    world.fs.files.release(number)
    assert world.read(b"file") == b""
    assert world.read(b"file", found) == data


def test_a_file_that_cannot_be_read_and_is_not_recorded_can_be_removed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.state / "file").write_bytes(b"data")
    world.fs.names.lookup(world.root, b"file")
    opened = os.open

    def refused(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if not flags & os.O_PATH and str(path).find("/fd/") >= 0:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refused)
    world.fs.names.unlink(world.root, b"file", ME)

    assert not (world.state / "file").exists()


@pytest.mark.parametrize("ino", [1 << 62 | 5, 1 << 63 | 5, (1 << 64) - 1])
def test_a_large_inode_number_is_not_taken_for_the_history(world: World, ino: int) -> None:
    status = os.stat(world.state)
    large = os.stat_result([status.st_mode, ino, status.st_dev, *status[3:]])

    assert ROOT_ID < world.fs.table.number(large) < VIRTUAL
    assert world.fs.table.number(large) == world.fs.table.number(large)


@pytest.mark.expect_logs("cannot be counted")
def test_a_store_that_cannot_be_counted_does_not_end_the_mount(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(_: Seq) -> None:
        raise CorruptError("node 7 is damaged")

    monkeypatch.setattr(world.fs.count, "count", damaged)
    settings = MountSettings(state_dir=world.state, mountpoint=world.state, store=world.store.path)
    service = Service(settings, world.store, choose("auto"), version="0")
    service.start(world.fs)

    async def count() -> None:
        with trio.move_on_after(0.2):
            await service._count()

    trio.run(count)


def test_a_timer_leaves_a_file_alone_whose_last_contents_are_not_read_yet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    write = world.store.write

    def slow() -> Writer:
        go_on.wait()
        return write()

    number = world.create(b"f", os.urandom(1024 * 1024 + 1))  # too much to be copied at once
    monkeypatch.setattr(world.store, "write", slow)
    world.fs.captures.capture_all()
    world.fs.files.write(number, 0, b"two")
    last = world.recorder.last

    world.fs.captures.capture_due(1e-9)

    assert world.recorder.last == last
    go_on.set()
    assert world.recorder.flush()
    world.fs.captures.capture_due(1e-9)
    assert world.recorder.last == last + 1
    assert world.recorder.flush()
    assert world.read(b"f")[:3] == b"two"
