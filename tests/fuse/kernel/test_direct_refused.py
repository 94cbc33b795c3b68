"""An open that must be refused because the device has no O_DIRECT leaves the file as it is."""

import errno
import os
from pathlib import Path

import pytest

from dkfs.core.io_mode import IoMode
from dkfs.fuse.kernel.dispatcher import Dispatcher
from tests.fuse.kernel import wire
from tests.fuse.kernel.kernel_side import CountingMeter, reply_of
from tests.fuse.kernel.test_passthrough import Mounted
from tests.fuse.kernel.wire import Op


def test_a_file_that_is_passed_through_is_not_truncated_by_an_open_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = Mounted(tmp_path, IoMode.HYBRID)
    dispatcher = Dispatcher(mounted.fs, CountingMeter())
    init = wire.INIT.pack(7, 45, 1 << 20, 0x7FFF_FFFF, 0x7FF, *[0] * 11)
    dispatcher.handle(bytearray(wire.request(Op.INIT, 0, init)), 40 + len(init))
    mounted.fs.modes.grant()
    dispatcher.files.passthrough = mounted.passthrough
    (mounted.world.state / "f").write_bytes(b"data")
    writer, _, backing = mounted.open(b"f", os.O_RDWR)
    assert backing
    monkeypatch.setattr(mounted.fs.modes, "_can_be_direct", lambda _: False)
    flags = os.O_RDWR | os.O_TRUNC | os.O_DIRECT
    node = mounted.world.inode(writer).id
    message = wire.request(Op.OPEN, node, wire.OPEN.pack(flags, 0), uid=os.getuid())

    answer = dispatcher.handle(bytearray(message), len(message))

    assert isinstance(answer, bytes | bytearray | memoryview)
    assert reply_of(bytes(answer)).error == errno.EINVAL
    assert (mounted.world.state / "f").read_bytes() == b"data"
    mounted.release(writer)
    mounted.world.close()
