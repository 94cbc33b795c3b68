"""READDIR and READDIRPLUS of a directory in which something cannot be looked at."""

import errno
import os
from collections.abc import Callable

import pytest

from dkfs.errors import CorruptError
from tests.fuse.kernel import wire
from tests.fuse.kernel.kernel_side import KernelSide
from tests.fuse.kernel.wire import ROOT, Op

FILE, DIRECTORY = 8, 4  # DT_REG, DT_DIR


def stat_that_fails(name: bytes, code: int) -> Callable[..., os.stat_result]:
    """Return a stat(2) that refuses *name*."""
    look = os.stat

    def stat(
        path: bytes, *, dir_fd: int | None = None, follow_symlinks: bool = True
    ) -> os.stat_result:
        if path == name:
            raise OSError(code, os.strerror(code))
        return look(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    return stat


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOTCONN, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("plus", [False, True])
def test_what_cannot_be_looked_at_is_listed_with_its_type_and_no_entry(
    kernel: KernelSide, monkeypatch: pytest.MonkeyPatch, code: int, *, plus: bool
) -> None:
    for name in ("before", "behind"):
        (kernel.top / name).touch()
    (kernel.top / "closed").mkdir()
    monkeypatch.setattr(os, "stat", stat_that_fails(b"closed", code))
    fh = kernel.opendir()
    found = {each.name: each for each in kernel.readdir(ROOT, fh, plus=plus)}

    assert found.keys() == {b".", b"..", b"before", b"behind", b"closed"}
    closed = found[b"closed"]
    assert (closed.type, closed.ino) == (DIRECTORY, (kernel.top / "closed").lstat().st_ino)
    assert found[b"before"].type == FILE
    if plus:
        assert closed.entry is not None
        assert closed.entry.nodeid == 0  # so that the kernel takes no reference
        entry = found[b"before"].entry
        assert entry is not None
        assert kernel.lookups(entry.nodeid) == 1
    assert kernel.lookups(closed.ino) == 0


@pytest.mark.parametrize("exc", [OSError(errno.EMFILE, "no fds"), CorruptError("damaged")])
def test_an_error_halfway_takes_nothing_back_that_was_referenced(
    kernel: KernelSide, monkeypatch: pytest.MonkeyPatch, exc: Exception
) -> None:
    for number in range(10):
        (kernel.top / f"{number}").touch()
    fh = kernel.opendir()
    owns = kernel.driver.fs.virtual.owns
    asked: list[bytes] = []

    def fail(parent: int, name: bytes) -> bool:
        asked.append(name)
        if len(asked) > 5:
            raise exc
        return owns(parent, name)

    with monkeypatch.context() as patch:
        patch.setattr(kernel.dispatcher.directories._virtual, "owns", fail)
        found = kernel.readdir(ROOT, fh, plus=True)
        again = wire.READ.pack(fh, found[-1].off, 4096, 0, 0, 0, 0)
        refused = kernel.ask(Op.READDIRPLUS, ROOT, again).error

    told = {each.entry.nodeid for each in found if each.entry is not None and each.entry.nodeid}
    assert len(told) == 5
    assert [kernel.lookups(number) for number in told] == [1] * 5
    assert refused == exc.errno  # type: ignore[attr-defined]  # both kinds have one
    rest = kernel.readdir(ROOT, fh, found[-1].off, plus=True)
    assert len({each.name for each in (*found, *rest)}) == 12
