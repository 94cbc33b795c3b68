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
