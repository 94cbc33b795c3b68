"""Files without a name, and the whiteouts that a rename leaves behind."""

import errno
import os
import stat
from pathlib import Path

import pytest

from dkfs.history.tree import Tree
from dkfs.model.node import Kind
from dkfs.model.operation import OpKind
from dkfs.overlay.attributes import NewAttributes
from dkfs.overlay.backing import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT
from tests.overlay.driver import ME, Caller, Driver, driven
from tests.overlay.world import World

MIB = 1 << 20


def tmpfile(it: Driver, data: bytes = b"") -> int:
    """Make a file without a name; return its handle."""
    number, _, _ = it.fs.names.tmpfile(it.root, 0o640, os.O_RDWR, ME)
    if data:
        it.fs.files.write(number, 0, data)
    return number


def names(it: Driver) -> list[bytes]:
    """Return the names in the root, as they are recorded."""
    seq = it.flush()
    with it.store.read() as reader:
        tree = Tree(reader, seq)
        return sorted(name for name, _ in tree.children(tree.resolve(b"")))


def test_a_file_that_never_gets_a_name_is_never_recorded(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        number = tmpfile(it, b"secret")
        inode = it.fs.files.handles[number].inode
        it.fs.files.flush(number)
        it.fs.files.fsync(number)
        it.fs.attributes.set(inode, NewAttributes(mode=0o600, size=3), number, ME)
        it.fs.attributes.setxattr(inode, b"user.x", b"y", ME)
        it.fs.tick(0.0)

        assert it.kinds() == []
        assert it.fs.files.read(number, 0, 10) == b"sec"
        it.close(number)
        it.forget(inode)
        assert (it.fs.table.pinned, len(it.fs.table)) == (0, 1)
        assert names(it) == []


@pytest.mark.parametrize("size", [0, 5, 3 * MIB])
def test_its_first_name_makes_it_a_file_with_all_that_is_in_it(tmp_path: Path, size: int) -> None:
    with driven(tmp_path) as it:
        number = tmpfile(it, b"n" * size)
        inode = it.fs.files.handles[number].inode
        it.fs.attributes.setxattr(inode, b"user.x", b"y", ME)
        linked, status = it.fs.names.link(inode, it.root, b"file", ME)
        seq = it.recorder.last
        it.fs.files.write(number, 2, b"after")
        it.close(number)

        assert (linked, status.st_nlink, inode.lookups) == (inode, 1, 2)
        assert it.kinds() == [OpKind.CREATE, OpKind.WRITE]
        assert it.recorded(b"file", seq) == b"n" * size
        assert it.recorded(b"file") == (b"n" * size)[:2].ljust(2, b"\0") + b"after" + b"n" * (
            size - 7
        )
        assert it.fs.names.lookup(it.root, b"file")[0] is inode
        with it.store.read() as reader:
            tree = Tree(reader, seq)
            assert tree.state(tree.resolve(b"file")).xattrs is not None
        assert it.fs.table.pinned == 0


def test_after_its_first_name_it_costs_what_is_written(world: World) -> None:
    number, inode, _ = world.fs.names.tmpfile(world.root, 0o600, os.O_RDWR, ME)
    world.fs.files.write(number, 0, os.urandom(MIB))
    world.fs.names.link(inode, world.root, b"file", ME)
    assert world.recorder.flush()
    world.fs.files.write(number, 1000, b"little")
    world.fs.files.flush(number)
    assert world.recorder.flush()

    assert world.commits[-1].counts.plain_bytes == 6
    world.fs.files.release(number)


def test_a_name_that_is_taken_is_refused_and_another_can_be_had(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        it.create(b"taken")
        number = tmpfile(it, b"data" * MIB)
        inode = it.fs.files.handles[number].inode
        with pytest.raises(FileExistsError):
            it.fs.names.link(inode, it.root, b"taken", ME)
        it.fs.files.write(number, 0, b"DATA")
        it.fs.names.link(inode, it.root, b"free", ME)
        it.fs.names.link(inode, it.root, b"second", ME)
        it.close(number)

        assert it.recorded(b"free") == b"DATA" + b"data" * (MIB - 1)
        assert it.node(b"free") == it.node(b"second")
        assert it.recorder.held_bytes == 0


def test_a_file_that_has_lost_its_last_name_gets_no_other(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        for is_nameless in (False, True):
            number = tmpfile(it) if is_nameless else it.open(it.create(b"file", b"data"))
            inode = it.fs.files.handles[number].inode
            if is_nameless:
                it.fs.names.link(inode, it.root, b"file", ME)
            it.fs.names.unlink(it.root, b"file", ME)
            with pytest.raises(FileNotFoundError):
                it.fs.names.link(inode, it.root, b"again", ME)
            it.close(number)
        assert names(it) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_it_is_its_makers_and_in_a_setgid_directory_its_groups(tmp_path: Path) -> None:
    other = Caller(uid=1000, gid=1001)
    with driven(tmp_path) as it:
        _, _, status = it.fs.names.tmpfile(it.root, 0o4640, os.O_RDWR, other)
        assert (status.st_uid, status.st_gid) == (1000, 1001)
        assert stat.S_IMODE(status.st_mode) == 0o4640
        os.chown(tmp_path / "top", 0, 55)
        os.chmod(tmp_path / "top", 0o2777)
        _, _, status = it.fs.names.tmpfile(it.root, 0o640, os.O_WRONLY, other)

        assert (status.st_uid, status.st_gid) == (1000, 55)
        for number in (1, 2):
            it.close(number)


def test_a_whiteout_is_recorded_where_the_file_was(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file", b"data")
        it.create(b"victim", b"gone")
        before = it.fs.count._since
        it.fs.names.rename(it.root, b"file", it.root, b"victim", RENAME_WHITEOUT, ME)

        assert it.kinds()[-1] is OpKind.RENAME
        assert it.recorded(b"victim") == b"data"
        seq = it.flush()
        with it.store.read() as reader:
            tree = Tree(reader, seq)
            left = tree.state(tree.resolve(b"file")).attr
        assert (left.kind, left.rdev, left.mode) == (Kind.CHAR, 0, 0)
        it.fs.tick(0.0)
        assert it.fs.table.get((tmp_path / "top" / "file").lstat()) is None
        whiteout, status = it.fs.names.lookup(it.root, b"file")
        assert stat.S_ISCHR(status.st_mode)
        node = it.fs.journal.node(whiteout)
        assert node == it.node(b"file") != it.node(b"victim") == inode.node
        assert it.fs.count._since == before


def test_a_whiteout_takes_no_name_and_exchanges_nothing(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        it.create(b"file")
        it.create(b"other")
        before = it.kinds()
        for flags, code in (
            (RENAME_WHITEOUT | RENAME_NOREPLACE, errno.EEXIST),
            (RENAME_WHITEOUT | RENAME_EXCHANGE, errno.EINVAL),
        ):
            with pytest.raises(OSError) as refused:
                it.fs.names.rename(it.root, b"file", it.root, b"other", flags, ME)
            assert refused.value.errno == code

        assert it.kinds() == before
        assert it.fs.table.pinned == 0
