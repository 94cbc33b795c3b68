"""The tree of files by version; numbers and handles."""

import errno
import random

import pytest

from dkfs.model.node import Kind
from dkfs.overlay.virtual import VIRTUAL
from tests.history.model_history import ModelHistory
from tests.overlay.virtual_kernel import (
    ADMIN,
    Kernel,
    number_of_error,
    shown,
    virtual_of,
)
from tests.overlay.virtual_operations import Operations


def test_all_versions_of_a_file_are_side_by_side(history: ModelHistory, kernel: Kernel) -> None:
    history.mkdir(b"d")
    history.create(b"d/f", b"one")  # 3
    history.write(b"d/f", b"two")  # 4
    history.chmod(b"d/f", 0o600)  # 5
    history.link(b"d/f", b"d/other")  # 6: nothing of d/f changes
    history.unlink(b"d/f")  # 7
    history.create(b"d/f", b"three")  # 8

    assert kernel.list(b".dkfs/files") == [b"d"]
    assert kernel.list(b".dkfs/files/d") == [b"f", b"other"]
    assert kernel.list(b".dkfs/files/d/f") == [b"8", b"5", b"4", b"3"]
    assert [kernel.read(b".dkfs/files/d/f/" + n) for n in (b"3", b"4", b"8")] == [
        b"one",
        b"two",
        b"three",
    ]
    assert kernel.find(b".dkfs/files/d/f/5").mode == 0o100600
    assert kernel.find(b".dkfs/files/d/f/4").mode == 0o100644
    for absent in (b"2", b"6", b"7", b"9", b"04"):
        assert not kernel.exists(b".dkfs/files/d/f/" + absent)
    assert kernel.list(b".dkfs/files/d/other") == [b"6"]


def test_path_stays_in_files_after_all_is_moved_and_removed(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.mkdir(b"a")
    history.create(b"a/f", b"one")  # 3
    history.rename(b"a", b"b")
    history.write(b"b/f", b"two")  # 5
    history.unlink(b"b/f")
    history.rmdir(b"b")

    assert kernel.list(b".dkfs/versions/7") == []
    assert kernel.list(b".dkfs/files") == [b"a", b"b"]
    assert kernel.list(b".dkfs/files/a/f") == [b"3"]
    assert kernel.list(b".dkfs/files/b/f") == [b"5", b"4"]
    assert kernel.read(b".dkfs/files/b/f/4") == b"one"


def test_path_that_was_file_and_directory_holds_both_and_numbers_mean_versions(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.create(b"p", b"file")  # 2
    history.unlink(b"p")
    history.mkdir(b"p")
    history.create(b"p/2", b"child")  # 5
    history.create(b"p/x", b"child")  # 6

    assert sorted(kernel.list(b".dkfs/files/p")) == [b"2", b"x"]
    assert kernel.read(b".dkfs/files/p/2") == b"file"
    assert kernel.read(b".dkfs/files/p/x/6") == b"child"
    assert kernel.read(b".dkfs/versions/6/p/2") == b"child"


def test_files_lists_the_newest_thousand_versions_and_finds_all(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.create(b"f")
    with history.batch():
        for i in range(1200):
            history.utime(b"f", i)

    assert kernel.list(b".dkfs/files/f") == [b"%d" % n for n in range(1202, 202, -1)]
    assert kernel.find(b".dkfs/files/f/3").mtime_ns == 0


def test_path_too_deep_for_files_is_refused(history: ModelHistory, kernel: Kernel) -> None:
    path = b"/".join([b"d"] * 129)
    with history.batch():
        for depth in range(1, 130):
            history.mkdir(b"/".join([b"d"] * depth))

    assert number_of_error(lambda: kernel.find(b".dkfs/files/" + path)) == errno.ENAMETOOLONG
    assert kernel.exists(b".dkfs/files/" + path[2:])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_files_of_a_random_history_hold_every_version_of_every_path(
    history: ModelHistory, kernel: Kernel, seed: int
) -> None:
    Operations(history, random.Random(seed)).run(150)
    expected: dict[bytes, set[int]] = {}
    for version in range(1, history.last + 1):
        now, before = history.trees[version], history.trees[version - 1]
        for path, node in now.paths().items():
            expected.setdefault(path, set())
            old = before.paths().get(path)
            state = now.states[node]
            if state.attr.kind is Kind.FILE and (
                old is None or shown(before.states[old]) != shown(state)
            ):
                expected[path].add(version)

    for path, versions in expected.items():
        names = kernel.list(b".dkfs/files" + (b"/" + path if path else b""))
        below = {p.rsplit(b"/", 1)[-1] for p in expected if p and p.rpartition(b"/")[0] == path}
        assert set(names) == below | {b"%d" % n for n in versions}


# ---- numbers and handles


def test_inode_keeps_its_number_while_it_is_referenced_and_is_forgotten_after(
    history: ModelHistory,
) -> None:
    history.create(b"f")
    virtual = virtual_of(history)
    top = virtual.lookup(1, b".dkfs", ADMIN).number

    again = virtual.lookup(1, b".dkfs", ADMIN).number
    peeked = virtual.peek(top, b"versions")
    assert again == top
    assert peeked is not None
    assert virtual.lookup(top, b"versions", ADMIN).number == peeked.number
    virtual.forget(top, 1)
    assert virtual.getattr(top).number == top
    virtual.forget(top, 1)
    assert number_of_error(lambda: virtual.getattr(top)) == errno.ESTALE
    assert virtual.lookup(1, b".dkfs", ADMIN).number > peeked.number


def test_memory_is_bounded_by_what_is_referenced(history: ModelHistory) -> None:
    with history.batch():
        for i in range(3000):
            history.utime(b"", i)
    virtual = virtual_of(history)
    versions = virtual.lookup(virtual.lookup(1, b".dkfs", ADMIN).number, b"versions", ADMIN).number

    for n in range(1, 3001):
        virtual.peek(versions, b"%d" % n)
    assert len(virtual._numbers) == 2
    assert len(virtual._numbers._numbers) <= 2 + 1024
    for n in range(1, 3001):
        virtual.forget(virtual.lookup(versions, b"%d" % n, ADMIN).number, 1)
    assert len(virtual._numbers) == 2
    assert len(virtual._numbers._numbers) <= 2 + 1024


def test_unknown_numbers_are_nobodys(kernel: Kernel) -> None:
    kernel.virtual.forget(VIRTUAL + 999, 1)

    assert number_of_error(lambda: kernel.virtual.getattr(VIRTUAL + 999)) == errno.ESTALE
    assert number_of_error(lambda: kernel.virtual.read(VIRTUAL + 999, 0, 1)) == errno.EBADF
    assert number_of_error(lambda: kernel.virtual.releasedir(VIRTUAL + 999)) == errno.EBADF
