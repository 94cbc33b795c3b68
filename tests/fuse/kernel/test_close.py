"""Which opens are closed without a FLUSH, and what is captured at RELEASE then."""

import os

import pytest

from tests.fuse.kernel import wire
from tests.fuse.kernel.kernel_side import KernelSide
from tests.fuse.kernel.wire import ROOT, Op

NOFLUSH = 32  # FOPEN_NOFLUSH


def _created(kernel: KernelSide, name: bytes, flags: int) -> tuple[int, int, int]:
    """Make a file; return its number, its handle and how the kernel is to serve it."""
    head = wire.CREATE.pack(flags | os.O_CREAT, 0o100644, 0, 0)
    body = kernel.done(Op.CREATE, ROOT, head + wire.name(name))
    fh, how, _ = wire.OPEN_OUT.unpack_from(body, wire.ENTRY_SIZE)
    return wire.entry_of(body).nodeid, fh, how


@pytest.mark.parametrize(
    ("access", "quiet"),
    [(os.O_WRONLY, NOFLUSH), (os.O_RDWR, 0), (os.O_RDONLY, NOFLUSH)],
)
def test_a_new_file_that_cannot_be_mapped_for_writing_is_closed_without_flush(
    kernel: KernelSide, access: int, quiet: int
) -> None:
    _, _, how = _created(kernel, b"new", access)

    assert how & NOFLUSH == quiet


def test_a_file_that_was_there_is_closed_with_flush(kernel: KernelSide) -> None:
    entry = kernel.file(b"file", b"data")

    _, _, created = _created(kernel, b"file", os.O_WRONLY)
    reply = kernel.done(Op.OPEN, entry.nodeid, wire.OPEN.pack(os.O_WRONLY | os.O_TRUNC, 0))
    _, opened, _ = wire.OPEN_OUT.unpack(reply)

    assert (created & NOFLUSH, opened & NOFLUSH) == (0, 0)


def test_release_without_flush_makes_a_version_of_the_contents(kernel: KernelSide) -> None:
    node, fh, _ = _created(kernel, b"new", os.O_WRONLY)
    kernel.write(node, fh, 0, b"data")
    before = kernel.driver.fs.recorder.last
    kernel.done(Op.RELEASE, node, wire.RELEASE.pack(fh, os.O_WRONLY, 0, 0))

    assert kernel.driver.fs.recorder.last == before + 1
    assert len(kernel.driver.fs.captures) == 0


def test_a_capture_leaves_the_time_of_access_of_a_new_file_alone(kernel: KernelSide) -> None:
    node, fh, _ = _created(kernel, b"new", os.O_WRONLY)
    kernel.write(node, fh, 0, b"data")
    os.utime(kernel.top / "new", ns=(5, 6))
    kernel.done(Op.RELEASE, node, wire.RELEASE.pack(fh, os.O_WRONLY, 0, 0))

    assert (kernel.top / "new").stat().st_atime_ns == 5
