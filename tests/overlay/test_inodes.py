"""Inodes: few fds for many, and the same inode for as long as the kernel knows it."""

import errno
import os
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.model.ids import Seq
from dkfs.overlay.inodes import Inode, InodeTable


def table_of(top: Path, most_fds: int = 16) -> InodeTable:
    return InodeTable(os.open(top, os.O_RDONLY), committed=lambda: Seq(0), most_fds=most_fds)


def find(table: InodeTable, parent: Inode, name: str) -> Inode:
    status = os.stat(name, dir_fd=table.fd(parent), follow_symlinks=False)
    inode = table.found(parent, os.fsencode(name), status)
    inode.lookups += 1
    return inode


def end(table: InodeTable) -> None:
    table.close()
    os.close(table.root.fd)


def test_no_more_fds_are_open_than_allowed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for number in range(100):
        (tmp_path / "d" / str(number)).touch()
    before = len(os.listdir("/proc/self/fd"))
    table = table_of(tmp_path)
    directory = find(table, table.root, "d")
    inodes = [find(table, directory, str(number)) for number in range(100)]
    for _ in range(2):
        for number, inode in enumerate(inodes):
            assert os.fstat(table.fd(inode)).st_ino == (tmp_path / "d" / str(number)).stat().st_ino

    assert len(os.listdir("/proc/self/fd")) <= before + 1 + 16
    end(table)


def test_a_chain_of_directories_longer_than_the_fds_is_opened_again(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    inode, path = table.root, tmp_path
    for _ in range(40):
        path /= "d"
        path.mkdir()
        inode = find(table, inode, "d")
    table.spare_fds()

    assert os.fstat(table.fd(inode)).st_ino == path.stat().st_ino
    assert table.path(inode) == b"/".join([b"d"] * 40)
    end(table)


def test_another_file_under_the_name_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    table = table_of(tmp_path)
    inode = find(table, table.root, "file")
    table.fd(inode)
    table.spare_fds()
    (tmp_path / "other").touch()
    os.rename(tmp_path / "other", tmp_path / "file")

    with pytest.raises(OSError) as refused:
        table.fd(inode)
    assert refused.value.errno == errno.ESTALE
    end(table)


def test_two_names_of_a_file_are_one_inode(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    os.link(tmp_path / "one", tmp_path / "two")
    table = table_of(tmp_path)

    assert find(table, table.root, "one") is find(table, table.root, "two")
    end(table)


def test_what_the_kernel_forgets_goes_and_its_directories_with_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    table = table_of(tmp_path)
    a = find(table, table.root, "a")
    b = find(table, a, "b")
    table.fd(b)
    table.forget(a, 1)
    assert len(table) == 3  # a is where b is
    table.forget(b, 1)

    assert len(table) == 1
    end(table)


def test_an_inode_whose_last_operation_is_not_recorded_stays_until_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    committed = [Seq(0)]
    table = InodeTable(os.open(tmp_path, os.O_RDONLY), committed=lambda: committed[0], most_fds=16)
    inode = find(table, table.root, "file")
    inode.last = Seq(5)
    table.forget(inode, 1)
    table.sweep()
    assert len(table) == 2
    committed[0] = Seq(5)
    table.sweep()

    assert len(table) == 1
    end(table)


def test_a_pin_outlives_the_name_and_can_be_taken_back(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    table = table_of(tmp_path)
    inode = find(table, table.root, "file")
    table.pin(inode)
    table.spare_fds()
    assert (inode.fd >= 0, table.pinned) == (True, 1)
    table.unpin(inode)
    table.spare_fds()

    assert (inode.fd, table.pinned) == (-1, 0)
    end(table)


@pytest.mark.root
def test_what_lost_its_known_name_is_opened_by_its_handle(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    os.link(tmp_path / "one", tmp_path / "two")
    table = table_of(tmp_path)
    inode = find(table, table.root, "one")
    table.pin(inode)
    os.unlink(tmp_path / "one")
    table.unnamed(inode)
    table.unpin(inode)
    table.spare_fds()
    assert (inode.fd, table.pinned) == (-1, 0)

    assert os.fstat(table.fd(inode)).st_ino == (tmp_path / "two").stat().st_ino
    end(table)


def test_two_inodes_are_held_at_the_same_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    table = table_of(tmp_path, most_fds=1)
    a, b = (find(table, table.root, name) for name in ("a", "b"))
    first, second = table.pair(a, b)

    assert (os.fstat(first).st_ino, os.fstat(second).st_ino) == (a.ino, b.ino)
    assert table.pair(a, a) == (table.fd(a), table.fd(a))
    end(table)


def test_the_room_of_many_that_were_forgotten_is_given_back(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    plain = os.stat_result((0o100644, 0, table.root.dev, 1, 0, 0, 0, 0, 0, 0))
    statuses = [os.stat_result((plain[0], 1_000_000 + n, *plain[2:])) for n in range(50_000)]
    inodes = [table.referred(table.root, b"f%d" % s.st_ino, s) for s in statuses]
    most = sys.getsizeof(table._by_id)
    for inode in inodes[10:]:
        table.forget(inode, 1)
    table.sweep()

    assert most > 1 << 20
    assert sys.getsizeof(table._by_id) < 4096
    assert [table.get(status) for status in statuses[:11]] == [*inodes[:10], None]
    end(table)


class _Moving(OrderedDict[Inode, None]):
    """Has another thread ask for an fd, which moves one to the end, between the first iter() and what follows it."""

    is_moved = False

    def __iter__(self) -> Iterator[Inode]:
        found = super().__iter__()
        if not self.is_moved:
            self.is_moved = True
            self.move_to_end(next(super().__iter__()))
        return found


def test_the_oldest_fd_is_found_while_another_thread_uses_one(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    table = table_of(tmp_path, most_fds=3)
    inodes = [find(table, table.root, name) for name in "abc"]
    for inode in inodes:
        table.fd(inode)
    table._open = _Moving(table._open)
    table._most = 1

    table.make_room()

    assert len(table._open) == 1
    end(table)


def test_the_fd_that_is_wanted_is_not_closed_for_the_bound(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    table = table_of(tmp_path)
    inode = find(table, table.root, "a")
    table.spare_fds()
    table._most = 0

    assert os.fstat(table.fd(inode)).st_ino == (tmp_path / "a").stat().st_ino
    end(table)


def test_a_bound_that_open_files_have_used_up_closes_all_that_is_not_pinned(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).touch()
    table = table_of(tmp_path)
    for name in "ab":
        table.fd(find(table, table.root, name))
    table.count_file(sys.maxsize)

    table._close_oldest()

    assert not table._open
    table.count_file(-sys.maxsize)
    end(table)
