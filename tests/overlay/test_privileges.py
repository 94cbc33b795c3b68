"""Set-id bits go with a change of contents, if the kernel says so or, where it says nothing, by the user."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from dkfs.history.tree import Tree
from dkfs.overlay.attributes import NewAttributes
from dkfs.overlay.inodes import Inode
from dkfs.overlay.privileges import CAPABILITY
from tests.overlay.driver import ME, Caller, Driver, driven

ROOT = Caller(uid=0)
USER = Caller(uid=1000)
# cap_net_raw+ep: linux/capability.h, struct vfs_cap_data of version 2
CAPABILITIES = bytes.fromhex("0100000200200000000000000000000000000000")


class Change:
    """One change of the contents of an inode by a caller, about whom the kernel says *kill*."""

    def __init__(self, it: Driver, inode: Inode, caller: Caller, *, kill: bool | None) -> None:
        self.it = it
        self.inode = inode
        self.caller = caller
        self.kill = kill

    def open(self, flags: int = os.O_RDWR) -> int:
        return self.it.fs.files.open(self.inode, flags, self.caller, kill=self.kill)

    def write(self) -> None:
        number = self.open()
        self.it.fs.files.write(number, 0, b"new", kill=self.kill)
        self.it.close(number)

    def truncate(self) -> None:
        new = NewAttributes(size=1)
        self.it.fs.attributes.set(self.inode, new, None, self.caller, kill=self.kill)

    def truncate_open(self) -> None:
        number = self.open()
        new = NewAttributes(size=1)
        self.it.fs.attributes.set(self.inode, new, number, self.caller, kill=self.kill)
        self.it.close(number)

    def open_empty(self) -> None:
        self.it.close(self.open(os.O_WRONLY | os.O_TRUNC))

    def fallocate(self) -> None:
        number = self.open()
        self.it.fs.files.fallocate(number, 0, 0, 10_000)
        self.it.close(number)

    def copy(self) -> None:
        number = self.open()
        self.it.fs.files.copy_range(number, 0, number, 4, 2)
        self.it.close(number)


TOLD: tuple[Callable[[Change], None], ...] = (
    *(Change.write, Change.truncate, Change.truncate_open, Change.open_empty),
)
NOT_TOLD: tuple[Callable[[Change], None], ...] = (Change.fallocate, Change.copy)


def modes_after(
    tmp_path: Path, change: Callable[[Change], None], caller: Caller, *, kill: bool | None
) -> tuple[int, int]:
    """Return the mode of a file of mode 6777 after *change*: as it is, and as it is recorded."""
    with driven(tmp_path) as it:
        inode = it.create(b"file", b"data")
        mine = Caller()
        it.fs.attributes.set(inode, NewAttributes(mode=0o6777), None, mine)
        change(Change(it, inode, caller, kill=kill))
        seq = it.flush()
        with it.store.read() as reader:
            tree = Tree(reader, seq)
            recorded = tree.state(tree.resolve(b"file")).attr.mode
        return stat.S_IMODE(it.fs.attributes.get(inode).st_mode), recorded


@pytest.mark.parametrize("change", TOLD)
@pytest.mark.parametrize(
    ("caller", "kill", "mode"),
    [
        *((ROOT, None, 0o6777), (ROOT, False, 0o6777), (ROOT, True, 0o777)),
        *((USER, None, 0o777), (USER, False, 0o6777), (USER, True, 0o777)),
    ],
)
def test_set_id_bits_go_when_the_kernel_says_so(
    tmp_path: Path,
    change: Callable[[Change], None],
    caller: Caller,
    kill: bool | None,  # noqa: FBT001 - a parameter of the test
    mode: int,
) -> None:
    assert modes_after(tmp_path, change, caller, kill=kill) == (mode, mode)


@pytest.mark.parametrize("change", NOT_TOLD)
@pytest.mark.parametrize(("caller", "mode"), [(ROOT, 0o6777), (USER, 0o777)])
def test_set_id_bits_go_with_what_a_user_does_to_a_range(
    tmp_path: Path, change: Callable[[Change], None], caller: Caller, mode: int
) -> None:
    assert modes_after(tmp_path, change, caller, kill=None) == (mode, mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="capabilities of files are root's")
@pytest.mark.parametrize("change", [*TOLD, *NOT_TOLD])
def test_capabilities_of_a_file_go_with_every_change_of_its_contents(
    tmp_path: Path, change: Callable[[Change], None]
) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file", b"data")
        it.fs.attributes.setxattr(inode, CAPABILITY, CAPABILITIES, ROOT)
        change(Change(it, inode, ROOT, kill=False))

        assert CAPABILITY not in it.fs.attributes.listxattr(inode, ME)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(
    ("caller", "mode", "kept"),
    [
        *((USER, 0o2767, 0o767), (USER, 0o2777, 0o777), (USER, 0o6767, 0o767)),
        *((ROOT, 0o2767, 0o2767), (ROOT, 0o6777, 0o777)),
    ],
)
def test_a_bit_for_locking_goes_with_chown_by_who_is_not_in_the_group(
    tmp_path: Path, caller: Caller, mode: int, kept: int
) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file")
        it.fs.attributes.set(inode, NewAttributes(uid=1000, gid=2000), None, ROOT)
        it.fs.attributes.set(inode, NewAttributes(mode=mode), None, ROOT)
        status = it.fs.attributes.set(inode, NewAttributes(gid=1000), None, caller)

        assert stat.S_IMODE(status.st_mode) == kept


@pytest.fixture
def powerless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be somebody who may not take capabilities away, of a backing file system that does not either."""

    def has(fd: int) -> dict[bytes, bytes]:
        return {CAPABILITY: CAPABILITIES} if stat.S_ISREG(os.fstat(fd).st_mode) else {}

    def refuse(_: int, name: bytes) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), name)

    monkeypatch.setattr("dkfs.overlay.privileges.xattrs_of", has)
    monkeypatch.setattr(os, "removexattr", refuse)


@pytest.mark.expect_logs("left to the backing file system")
@pytest.mark.usefixtures("powerless")
@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDWR | os.O_TRUNC, os.O_RDONLY | os.O_TRUNC])
def test_what_may_not_be_taken_away_refuses_no_change(tmp_path: Path, flags: int) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file", b"data")
        inode.plain = False
        number = it.fs.files.open(inode, flags, USER, kill=True)
        if flags == os.O_RDWR:
            assert it.fs.files.write(number, 0, b"new!", kill=True) == 4
        it.close(number)

        assert (it.top / "file").read_bytes() == (b"new!" if flags == os.O_RDWR else b"")


def test_a_truncation_after_which_something_fails_is_recorded_and_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with driven(tmp_path) as it:
        inode = it.create(b"file", b"data")
        inode.plain = False
        monkeypatch.setattr("dkfs.overlay.files.drop", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
            it.fs.files.open(inode, os.O_RDWR | os.O_TRUNC, USER)

        assert it.fs.table.files == 0
        assert it.recorder.flush()
        with it.store.read() as reader:
            assert Tree(reader, reader.last).resolve(b"file")
            state = reader.node(inode.node, reader.last)
            assert state is not None
            assert state.attr.size == 0
