"""FSYNC and SYNCFS of contents that are not in the store, because what they build on is damaged."""

import errno
import os
from pathlib import Path

import pytest

from dkfs.fuse.kernel.dispatcher import Dispatcher
from dkfs.fuse.kernel.request import Deferred
from tests.fuse.kernel import wire
from tests.fuse.kernel.kernel_side import CountingMeter, reply_of
from tests.fuse.kernel.wire import ROOT, Op
from tests.overlay.test_damage import damage
from tests.overlay.world import World


def answered(dispatcher: Dispatcher, op: int, node: int, body: bytes) -> int:
    """Return the errno with which a request is answered."""
    message = wire.request(op, node, body, uid=os.getuid(), gid=os.getgid())
    answer = dispatcher.handle(bytearray(message), len(message))
    if isinstance(answer, Deferred):
        answer = answer.finish()
    assert answer is not None
    return reply_of(bytes(answer)).error


@pytest.mark.expect_logs("is damaged|not compared")
def test_a_sync_is_refused_until_lost_contents_are_recorded_whole(tmp_path: Path) -> None:
    world = World(tmp_path)
    data = os.urandom(200_000)
    world.fs.files.release(world.create(b"file", data))
    damage(world, b"file")
    dispatcher = Dispatcher(world.fs, CountingMeter())
    answered(dispatcher, Op.INIT, 0, wire.INIT.pack(7, 45, 1 << 20, 0x7FFF_FFFF, 0x7FF, *[0] * 11))
    number = world.open(b"file")
    node = world.inode(number).id
    fsync = wire.FSYNC.pack(number, 0, 0)
    world.fs.files.write(number, 0, b"x")
    world.fs.files.flush(number)
    chmod = wire.SETATTR.pack(1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0o600, 0, 0, 0, 0)
    assert answered(dispatcher, Op.SETATTR, node, chmod) == 0

    assert answered(dispatcher, Op.SYNCFS, ROOT, wire.SYNCFS.pack(0)) == errno.EIO
    assert answered(dispatcher, Op.SYNCFS, ROOT, wire.SYNCFS.pack(0)) == 0  # each loss once
    assert answered(dispatcher, Op.FSYNC, node, fsync) == errno.EIO
    assert answered(dispatcher, Op.FSYNC, node, fsync) == errno.EIO
    world.fs.tick(3600.0)
    assert answered(dispatcher, Op.FSYNC, node, fsync) == 0
    assert world.read(b"file") == b"x" + data[1:]
    world.close()
