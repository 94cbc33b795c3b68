"""A call on the backing directory that is stuck blocks only its own callers."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fuse.kernel import wire
from tests.fuse.kernel.test_server import PATIENCE_S, Kernel, served, write_body
from tests.fuse.kernel.wire import ROOT, Op


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    with served(tmp_path) as made:
        yield made
        assert made.meter.internal_errors == 0


@contextmanager
def stuck_captures(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Have the backing directory keep whoever reads a file; yield what is set then."""
    pread, kept, frozen = os.pread, threading.Event(), threading.Event()

    def slow_pread(fd: int, size: int, offset: int) -> bytes:
        kept.set()
        frozen.wait(PATIENCE_S)
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", slow_pread)
    try:
        yield kept
    finally:
        frozen.set()


def test_a_tick_that_is_stuck_keeps_nobody_who_only_looks(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, handle = kernel.create(b"file")
    kernel.ask(Op.WRITE, node, write_body(handle, b"dirty"))

    def tick() -> None:
        with kernel.server.at_work():
            kernel.world.fs.tick(0.0)

    with stuck_captures(monkeypatch) as kept:
        kernel.in_loop(tick)
        assert kept.wait(PATIENCE_S)

        assert kernel.ask(Op.GETATTR, node, wire.GETATTR.pack(0, 0, 0))[0] == 0
        assert kernel.ask(Op.LOOKUP, ROOT, wire.name(b"file"))[0] == 0

    assert kernel.ask(Op.WRITE, node, write_body(handle, b"after"))[0] == 0
    assert kernel.world.read(b"file") == b"dirty"


_CALLERS = 70  # more than there are stand-ins


@contextmanager
def a_foreign_device_that_hangs(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[int, list[bytes]]]:
    """Have what is in a directory be of another device, which keeps whoever asks; yield its node and who asked."""
    code, body = kernel.ask(Op.MKDIR, ROOT, wire.MKDIR.pack(0o755, 0) + wire.name(b"foreign"))
    assert code == 0
    node = wire.entry_of(body).nodeid
    stat, frozen, asked = os.stat, threading.Event(), list[bytes]()

    def slow_stat(
        path: bytes | Path, *, dir_fd: int | None = None, follow_symlinks: bool = True
    ) -> os.stat_result:
        if isinstance(path, bytes) and path.startswith(b"far"):
            asked.append(path)
            frozen.wait(PATIENCE_S)
        return stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    inode = kernel.world.fs.table[node]
    fd = kernel.world.fs.table.fd(inode)
    assert fd >= 0  # open: it is not opened again, and compared with its device
    inode.dev += 1
    monkeypatch.setattr(os, "stat", slow_stat)
    try:
        yield node, asked
    finally:
        frozen.set()
        inode.dev -= 1


def test_callers_of_a_device_that_hangs_do_not_keep_all_stand_ins(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, handle = kernel.create(b"file")
    with a_foreign_device_that_hangs(kernel, monkeypatch) as (node, asked):
        far = [kernel.send(Op.LOOKUP, node, wire.name(b"far%d" % each)) for each in range(_CALLERS)]

        assert kernel.ask(Op.GETATTR, file, wire.GETATTR.pack(0, 0, 0))[0] == 0
        assert not any(kernel.is_answered(number) for number in far)
        assert len(asked) == 1 + 8  # the loop, and as many as may stand in
        writing = kernel.send(Op.WRITE, file, write_body(handle, b"data"))
        assert kernel.ask(Op.LOOKUP, ROOT, wire.name(b"file"))[0] == 0

    assert [kernel.reply(number)[0] for number in far] == [0] * _CALLERS
    assert sorted(asked) == sorted(b"far%d" % each for each in range(_CALLERS))
    assert kernel.reply(writing)[0] == 0
    assert (kernel.world.state / "file").read_bytes() == b"data"
