import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dkfs.core.plan import Plan
from dkfs.errors import ExistsError, NotFoundError
from dkfs.history.fill import Source, fill
from dkfs.history.links import remember
from dkfs.history.materialise import apply
from dkfs.history.plan import plan
from dkfs.history.rollback import Move, rollback, undo
from dkfs.history.scan import scan
from dkfs.history.tree import Tree
from dkfs.model.ids import NO_NODE, ROOT, NodeId, Seq
from dkfs.model.operation import NOBODY
from tests.history.model_history import ModelHistory
from tests.history.random_history import fill as do_random_operations
from tests.history.trees import Picture, picture

pytestmark = pytest.mark.root  # the model has owners and devices


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def made(history: ModelHistory, at: int, path: Path) -> dict[bytes, Picture]:
    """Make the directory *path* equal version *at*."""
    path.mkdir()
    with opened(path) as fd, history.store.read() as reader:
        assert fill(Source(reader, Seq(at)), fd).problems == ()
    return picture(path)


def move(history: ModelHistory, way: Move, top: Path) -> Plan:
    """Do *way* in the directory *top*, which equals the last version, and record it."""
    with opened(top) as fd, history.store.read() as reader:
        done = way.plan(reader)
        assert apply(done, reader, fd).problems == ()
        last = reader.last
    with history.store.write() as writer:
        operation = way.operation(history.time_ns(last + 1), NOBODY)
        writer.append(Seq(last + 1), operation, done.entry_nodes, done.entry_names)
        remember(writer, done.secondary_names)
    with opened(top) as fd, history.store.read() as reader:
        assert list(scan(reader, fd, at=reader.last, rehash_since_ns=0)) == []
    return done


def last(history: ModelHistory) -> Seq:
    with history.store.read() as reader:
        return reader.last


def child(history: ModelHistory, path: bytes, at: Seq) -> NodeId:
    with history.store.read() as reader:
        return Tree(reader, at).find(path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_any_version_becomes_any_other(tmp_path: Path, seed: int) -> None:
    with ModelHistory(tmp_path / "store") as history:
        do_random_operations(history, seed, 150)
        rng = random.Random(seed)
        for number in range(4):
            base, target = Seq(rng.randint(1, 150)), Seq(rng.randint(1, 150))
            top = tmp_path / f"top{number}"
            made(history, base, top)
            expected = made(history, target, tmp_path / f"expected{number}")
            with opened(top) as fd, history.store.read() as reader:
                way = plan(reader, base=base, target=target)
                assert apply(way, reader, fd).problems == ()

            assert picture(top) == expected


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_paths_become_what_they_were_and_the_rest_stays(tmp_path: Path, seed: int) -> None:
    with ModelHistory(tmp_path / "store") as history:
        do_random_operations(history, seed, 120)
        rng = random.Random(seed)
        target = Seq(rng.randint(1, 119))
        known = sorted({*history.trees[-1].paths(), *history.trees[target].paths()} - {b""})
        chosen = rng.sample(known, min(len(known), 2)) or [b"a"]
        then = made(history, target, tmp_path / "then")
        before = made(history, history.last, tmp_path / "top")
        try:
            move(history, rollback(target, chosen), tmp_path / "top")
        except ExistsError:
            return  # a file is where a directory above the path was
        after = picture(tmp_path / "top")

        assert after == made(history, last(history), tmp_path / "again")
        for path in before.keys() | then.keys() | after.keys():
            if _is_below(path, chosen):
                assert _plain(after.get(path)) == _plain(then.get(path)), path
            elif path in before and not _is_shared(before[path], chosen):
                assert _plain(after.get(path)) == _plain(before.get(path)), path
        with history.store.read() as reader:
            way = undo(reader)
        move(history, way, tmp_path / "top")
        assert picture(tmp_path / "top") == before


def _is_below(path: bytes, tops: list[bytes]) -> bool:
    return any(path[2:] == top or path[2:].startswith(top + b"/") for top in tops)


def _is_shared(one: Picture, tops: list[bytes]) -> bool:
    """Return whether a file has a name below *tops* too."""
    return any(_is_below(name, tops) for name in one.names)


def _plain(one: Picture | None) -> Picture | None:
    return None if one is None else one._replace(names=())


def test_a_deleted_file_comes_back_as_the_same_node(tmp_path: Path, history: ModelHistory) -> None:
    history.create(b"a", b"data")
    seq = history.last
    node = child(history, b"a", seq)
    history.unlink(b"a")
    made(history, history.last, tmp_path / "top")

    way = move(history, rollback(seq), tmp_path / "top")

    assert way.names == ((ROOT, b"a", NO_NODE, node),)
    assert (tmp_path / "top/a").read_bytes() == b"data"


def test_only_what_differs_is_planned(tmp_path: Path, history: ModelHistory) -> None:
    for name in (b"a", b"b", b"c"):
        history.create(name, name)
    seq = history.last
    history.write(b"b", b"other")
    with history.store.read() as reader:
        way = plan(reader, base=history.last, target=seq)

    assert way.names == ()
    assert way.nodes == {child(history, b"b", seq)}
    assert [(each.change, each.path) for each in way.differences] == [("M", b"b")]


def test_going_to_the_version_that_is_there_changes_nothing(history: ModelHistory) -> None:
    history.create(b"a", b"one")
    with history.store.read() as reader:
        way = plan(reader, base=history.last, target=history.last)

    assert way.is_empty
    assert way.nodes == frozenset()


def test_directories_that_changed_places_keep_their_inodes(
    tmp_path: Path, history: ModelHistory
) -> None:
    history.mkdir(b"a")
    history.mkdir(b"b")
    history.create(b"a/in_a", b"1")
    seq = history.last
    history.rename(b"a", b"c")
    history.rename(b"b", b"c/b")
    history.rename(b"c", b"b")  # what was a is now b, and has in it what was b
    top = tmp_path / "top"
    made(history, history.last, top)
    inodes = {(top / "b").stat().st_ino, (top / "b/b").stat().st_ino}

    move(history, rollback(seq), top)

    assert {(top / "a").stat().st_ino, (top / "b").stat().st_ino} == inodes
    assert (top / "a/in_a").read_bytes() == b"1"


def test_a_file_moved_out_of_the_path_stays_where_it_is_and_is_made_again(
    tmp_path: Path, history: ModelHistory
) -> None:
    history.mkdir(b"in")
    history.mkdir(b"out")
    history.create(b"in/a", b"then")
    seq = history.last
    history.rename(b"in/a", b"out/a")
    history.write(b"out/a", b"now")
    top = tmp_path / "top"
    made(history, history.last, top)

    way = move(history, rollback(seq, [b"in"]), top)

    assert (top / "in/a").read_bytes() == b"then"
    assert (top / "out/a").read_bytes() == b"now"
    assert child(history, b"out/a", history.last) == child(history, b"in/a", seq)
    assert len(way.names) == 1
    assert way.names[0].new > child(history, b"in/a", seq)


def test_missing_directories_above_a_path_are_made_as_they_were(
    tmp_path: Path, history: ModelHistory
) -> None:
    history.mkdir(b"a")
    history.mkdir(b"a/b")
    history.chmod(b"a/b", 0o710)
    history.create(b"a/b/f", b"1")
    history.create(b"a/b/g", b"2")
    seq = history.last
    for path in (b"a/b/f", b"a/b/g"):
        history.unlink(path)
    history.rmdir(b"a/b")
    history.rmdir(b"a")
    top = tmp_path / "top"
    made(history, history.last, top)

    move(history, rollback(seq, [b"a/b/f"]), top)

    assert os.listdir(top / "a/b") == ["f"]
    assert (top / "a/b").stat().st_mode & 0o7777 == 0o710


def test_undo_of_a_path_removes_the_directories_that_it_made(
    tmp_path: Path, history: ModelHistory
) -> None:
    history.mkdir(b"a")
    history.create(b"a/f", b"1")
    seq = history.last
    history.unlink(b"a/f")
    history.rmdir(b"a")
    top = tmp_path / "top"
    before = made(history, history.last, top)
    move(history, rollback(seq, [b"a/f"]), top)
    with history.store.read() as reader:
        way = undo(reader)

    move(history, way, top)

    assert picture(top) == before


def test_a_path_that_never_was_is_not_found(history: ModelHistory) -> None:
    history.create(b"a", b"1")
    with history.store.read() as reader:
        with pytest.raises(NotFoundError, match="a/never does not exist in any version"):
            plan(reader, base=history.last, target=Seq(1), paths=[b"a/never"])


def test_a_path_that_neither_version_has_changes_nothing(history: ModelHistory) -> None:
    seq = history.last
    history.create(b"a", b"1")
    history.unlink(b"a")
    with history.store.read() as reader:
        assert plan(reader, base=history.last, target=seq, paths=[b"a"]).is_empty


def test_a_version_that_is_not_there_is_not_found(history: ModelHistory) -> None:
    with history.store.read() as reader:
        for seq in (0, 99):
            with pytest.raises(NotFoundError, match=f"no version {seq}: the last is"):
                plan(reader, base=history.last, target=Seq(seq))


def test_a_file_above_a_path_is_not_replaced(history: ModelHistory) -> None:
    history.mkdir(b"a")
    history.create(b"a/b", b"1")
    seq = history.last
    history.unlink(b"a/b")
    history.rmdir(b"a")
    history.create(b"a", b"a file now")
    with history.store.read() as reader:
        with pytest.raises(ExistsError, match="a is not a directory"):
            plan(reader, base=history.last, target=seq, paths=[b"a/b"])


def test_hard_links_of_one_operation_are_all_known(tmp_path: Path, history: ModelHistory) -> None:
    history.found([b"d/", b"d/a", b"d/b=d/a", b"d/c=d/a"])
    seq = history.last
    history.unlink(b"d/a")
    history.unlink(b"d/b")
    top = tmp_path / "top"
    made(history, history.last, top)
    inode = (top / "d/c").stat().st_ino

    move(history, rollback(seq), top)

    assert {(top / "d" / name).stat().st_ino for name in "abc"} == {inode}
