"""Attributes of files that the kernel writes past dkfs: a store through a map moves times, of which it tells nobody."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.core.io_mode import IoMode
from dkfs.fuse.kernel.dispatcher import Dispatcher
from dkfs.fuse.kernel.notify import Notifier
from tests.fuse.kernel import wire
from tests.fuse.kernel.kernel_side import DAY_S, CountingMeter, reply_of
from tests.fuse.kernel.test_passthrough import Mounted
from tests.fuse.kernel.wire import ROOT, Op

_INVAL_INODE = struct.Struct("<Qq8x")  # struct fuse_notify_inval_inode_out: inode, offset


PASSED = 1 << 7  # FOPEN_PASSTHROUGH


class Asking:
    """A kernel that asks a mount which passes files through, and hears its notifications."""

    def __init__(self, top: Path, mode: IoMode) -> None:
        self.mounted = Mounted(top, mode)
        self.heard: list[tuple[int, int]] = []  # inode, offset
        notifier = Notifier(lambda data: self.heard.append(_INVAL_INODE.unpack(data[16:])))
        self.dispatcher = Dispatcher(self.mounted.fs, CountingMeter(), notifier=notifier)
        self.dispatcher.is_ready = True
        self.dispatcher.files.passthrough = self.mounted.passthrough

    def ask(self, op: int, node: int, body: bytes) -> bytes:
        message = wire.request(op, node, body)
        answer = self.dispatcher.handle(bytearray(message), len(message))
        assert isinstance(answer, bytes)
        reply = reply_of(answer)
        assert reply.error == 0
        return reply.body

    def lookup(self, name: bytes) -> wire.Entry:
        return wire.entry_of(self.ask(Op.LOOKUP, ROOT, wire.name(name)))

    def open(self, node: int, flags: int) -> int:
        return int(wire.OPEN_OUT.unpack(self.ask(Op.OPEN, node, wire.OPEN.pack(flags, 0)))[0])

    def believed_s(self, node: int) -> int:
        """Return for how long the attributes of *node* may be believed."""
        body = self.ask(Op.GETATTR, node, wire.GETATTR.pack(0, 0, 0))
        return int.from_bytes(body[:8], "little")


@pytest.fixture(params=[IoMode.HYBRID, IoMode.CHECKPOINT])
def asking(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Asking]:
    made = Asking(tmp_path, request.param)
    yield made
    made.mounted.world.close()


def test_they_are_believed_only_while_nothing_can_be_stored_unseen(asking: Asking) -> None:
    (asking.mounted.world.state / "f").write_bytes(b"123")
    entry = asking.lookup(b"f")
    assert (entry.entry_valid, entry.attr_valid) == (DAY_S, DAY_S)
    reading = asking.open(entry.nodeid, os.O_RDONLY)
    assert (asking.believed_s(entry.nodeid), asking.heard) == (DAY_S, [])
    first, second = (asking.open(entry.nodeid, os.O_RDWR) for _ in range(2))
    assert asking.heard == [
        (entry.nodeid, -1)
    ]  # attributes alone, once: they are asked for from then on
    assert asking.believed_s(entry.nodeid) == 0
    again = asking.lookup(b"f")
    assert (again.entry_valid, again.attr_valid) == (DAY_S, 0)

    for number in (reading, first, second):
        asking.ask(Op.RELEASE, entry.nodeid, wire.RELEASE.pack(number, 0, 0, 0))
    asking.mounted.fs.captures.capture_all()
    assert asking.mounted.world.recorder.flush()
    asking.mounted.fs.tick(0.0)
    asking.mounted.fs.tick(0.0)
    assert asking.believed_s(entry.nodeid) == DAY_S


def test_those_of_a_new_file_are_not_believed_at_all(asking: Asking) -> None:
    body = wire.CREATE.pack(os.O_RDWR | os.O_CREAT, 0o100644, 0, 0) + wire.name(b"new")
    entry = wire.entry_of(asking.ask(Op.CREATE, ROOT, body)[: wire.ENTRY_SIZE])

    assert (entry.entry_valid, entry.attr_valid, asking.heard) == (DAY_S, 0, [])


def test_a_file_that_had_no_name_is_passed_through_once_it_is_closed(asking: Asking) -> None:
    body = wire.CREATE.pack(os.O_RDWR | os.O_TMPFILE, 0o100600, 0, 0) + wire.name(b"/")
    reply = asking.ask(Op.TMPFILE, ROOT, body)
    node = wire.entry_of(reply[: wire.ENTRY_SIZE]).nodeid
    number, flags, _ = wire.OPEN_OUT.unpack_from(reply, wire.ENTRY_SIZE)
    assert not flags & PASSED
    asking.ask(Op.LINK, ROOT, wire.LINK.pack(node) + wire.name(b"named"))
    body = wire.OPEN.pack(os.O_RDWR, 0)
    second, flags, _ = wire.OPEN_OUT.unpack(asking.ask(Op.OPEN, node, body))
    assert not flags & PASSED  # the kernel would refuse it: EIO
    for each in (number, second):
        asking.ask(Op.RELEASE, node, wire.RELEASE.pack(each, 0, 0, 0))

    assert asking.mounted.fs.table.files == 0
    third, flags, _ = wire.OPEN_OUT.unpack(asking.ask(Op.OPEN, node, body))
    assert flags & PASSED
    asking.ask(Op.RELEASE, node, wire.RELEASE.pack(third, 0, 0, 0))
