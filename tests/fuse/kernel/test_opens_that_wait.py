"""An open that a map could follow, of a file that is still to be read for a version."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.core.io_mode import IoMode
from dkfs.errors import CorruptError
from dkfs.fuse.kernel.dispatcher import Dispatcher
from dkfs.fuse.kernel.request import Held
from dkfs.history.frozen import FrozenFile
from dkfs.overlay import captures
from dkfs.overlay.inodes import Inode
from dkfs.store import Writer
from tests.fuse.kernel import wire
from tests.fuse.kernel.kernel_side import CountingMeter, reply_of
from tests.fuse.kernel.test_passthrough import Mounted
from tests.fuse.kernel.wire import Op
from tests.overlay.world import World


class Waiting:
    """A checkpoint mount, of which no file is read for a version until *go_on* is set."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mounted = Mounted(top, IoMode.CHECKPOINT)
        self.fs, self.world = self.mounted.fs, self.mounted.world
        self.fs.captures.unseen.no_clones.add(os.fstat(self.world.root_fd).st_dev)
        self.dispatcher = Dispatcher(self.fs, CountingMeter())
        self.dispatcher.is_ready = True
        self.dispatcher.files.passthrough = self.mounted.passthrough
        self.go_on = threading.Event()
        self._monkeypatch = monkeypatch

    def closed(self, content: bytes) -> Inode:
        """Make a file, which is written past dkfs and closed; all of it is to be read."""
        number, _, _ = self.mounted.open(b"f", os.O_RDWR)
        assert self.world.recorder.flush()
        write = self.world.store.write

        def slow() -> Writer:
            self.go_on.wait()
            return write()

        self._monkeypatch.setattr(self.world.store, "write", slow)
        (self.world.state / "f").write_bytes(content)
        inode = self.fs.files.handles[number].inode
        self.mounted.release(number)
        self.fs.captures.capture_due(1e-9)
        for watch in self.fs.captures.unseen.all():
            watch.wait()
        self.fs.captures.capture_due(1e-9)
        return inode

    def open(self, inode: Inode, flags: int) -> object:
        """Open as the kernel asks for it; return the answer, if it takes no wait the errno."""
        return self._ask(wire.request(Op.OPEN, inode.id, wire.OPEN.pack(flags, 0)))

    def create(self, name: bytes, flags: int) -> object:
        """See open(); the kernel thinks that *name* is not there."""
        body = wire.CREATE.pack(flags | os.O_CREAT, 0o100644, 0, 0) + wire.name(name)
        return self._ask(wire.request(Op.CREATE, wire.ROOT, body))

    def _ask(self, message: bytes) -> object:
        answer = self.dispatcher.handle(bytearray(message), len(message))
        if isinstance(answer, Held):
            return answer
        assert isinstance(answer, bytes)
        return reply_of(answer).error

    def close(self) -> None:
        self.go_on.set()
        self.world.close()


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiting]:
    made = Waiting(tmp_path, monkeypatch)
    yield made
    made.close()


def test_it_waits_until_the_file_was_read(waiting: Waiting) -> None:
    content = os.urandom(9 << 20)
    inode = waiting.closed(content)
    assert waiting.open(inode, os.O_RDONLY) == 0
    held = waiting.open(inode, os.O_RDWR)
    assert isinstance(held, Held)
    assert not [handle for handle in inode.handles or () if handle.writable]

    waiting.go_on.set()
    reply = held.finish()
    assert reply_of(reply).error == 0
    assert waiting.world.read(b"f") == content


def test_of_a_smaller_file_what_may_be_changed_is_saved_and_nobody_waits(waiting: Waiting) -> None:
    content = os.urandom(3 << 20)
    inode = waiting.closed(content)
    assert waiting.open(inode, os.O_RDWR) == 0
    with (waiting.world.state / "f").open("r+b") as file:
        file.write(b"stored through a map")

    waiting.go_on.set()
    assert waiting.world.read(b"f", waiting.world.recorder.last) == content


def test_it_is_refused_after_a_while(waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "_WAIT_S", 0.0)
    monkeypatch.setattr(FrozenFile, "wait_released", lambda *_: False)
    inode = waiting.closed(os.urandom(9 << 20))
    held = waiting.open(inode, os.O_RDWR)
    assert isinstance(held, Held)
    reply = held.finish()
    monkeypatch.undo()

    assert reply_of(bytes(reply)).error == errno.EIO


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDWR | os.O_TRUNC])
def test_so_does_the_creation_of_what_is_there(waiting: Waiting, flags: int) -> None:
    content = os.urandom(9 << 20)
    inode = waiting.closed(content)
    known = inode.lookups
    held = waiting.create(b"f", flags)
    assert isinstance(held, Held)
    assert (inode.lookups, inode.handles or []) == (known, [])

    seq = waiting.world.recorder.last
    waiting.go_on.set()
    assert reply_of(held.finish()).error == 0
    assert inode.lookups == known + 1
    assert waiting.world.read(b"f", seq) == content
    assert waiting.create(b"f", os.O_RDWR | os.O_EXCL) == errno.EEXIST


@pytest.mark.parametrize("how", ["open", "create", "create new"])
def test_what_cannot_be_told_to_the_kernel_is_closed(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    inode = waiting.closed(b"")
    waiting.go_on.set()
    assert waiting.world.recorder.flush()
    known, table = inode.lookups, waiting.fs.table
    before = len(waiting.fs.files.handles), table.files, len(waiting.mounted.registry.ids)
    inodes = len(table)

    def fail(_: object) -> None:
        raise CorruptError("damaged")

    monkeypatch.setattr(waiting.fs.captures, "passed", fail)
    if how == "open":
        error = waiting.open(inode, os.O_RDONLY)
    else:
        error = waiting.create(b"f" if how == "create" else b"new", os.O_RDONLY)

    assert error == CorruptError.errno
    after = len(waiting.fs.files.handles), table.files, len(waiting.mounted.registry.ids)
    assert (after, inode.lookups) == (before, known)
    assert waiting.world.recorder.flush()
    waiting.fs.tick(0.0)
    assert len(table) == inodes


def test_an_open_that_truncates_waits_for_the_recorder_or_is_refused_as_a_write_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    number = world.create(b"f", b"contents")
    inode = world.fs.files.handles[number].inode
    dispatcher = Dispatcher(world.fs, CountingMeter())
    dispatcher.is_ready = True

    def ask(flags: int) -> object:
        message = wire.request(Op.OPEN, inode.id, wire.OPEN.pack(flags, 0))
        return dispatcher.handle(bytearray(message), len(message))

    monkeypatch.setattr(type(world.recorder), "is_full", property(lambda _: True))
    assert isinstance(ask(os.O_WRONLY | os.O_TRUNC), Held)
    assert isinstance(ask(os.O_WRONLY), bytes)
    monkeypatch.setattr(type(world.recorder), "refusal", property(lambda _: errno.ENOSPC))
    refused = ask(os.O_WRONLY | os.O_TRUNC)
    assert isinstance(refused, bytes)
    assert reply_of(refused).error == errno.ENOSPC
    assert (world.state / "f").read_bytes() == b"contents"
    monkeypatch.undo()
    world.close()
