import errno
import os
import random
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dkfs.core.plan import Binding, Plan, Step
from dkfs.errors import CorruptError, ExistsError
from dkfs.history import content
from dkfs.history.materialise import apply
from dkfs.history.outcome import Result
from dkfs.history.plan import plan
from dkfs.history.replay import reconcile
from dkfs.history.rollback import Move, redo, rollback, undo
from dkfs.history.scan import scan
from dkfs.model.ids import NO_NODE, ROOT, NodeId, Seq
from dkfs.model.node import Kind
from dkfs.model.operation import NOBODY
from dkfs.store import Store
from dkfs.store.check import check
from tests.history.trees import ACL_ACCESS, Picture, RandomTree, picture


class World:
    """A directory and the store of its history."""

    def __init__(self, path: Path) -> None:
        self.top = path / "state"
        self.top.mkdir()
        self._now = 1_000
        Store.create(path / "store")
        self.store = Store.open(path / "store", writable=True)
        self.fd = os.open(self.top, os.O_RDONLY | os.O_DIRECTORY)

    def close(self) -> None:
        assert list(check(self.store, read_data=True)) == []
        os.close(self.fd)
        self.store.close()

    def record(self) -> Seq:
        """Record the directory as it is."""
        return reconcile(
            self.store, self.fd, prefer="dir", clock_ns=self.clock_ns, identity=b"id"
        ).seq

    def clock_ns(self) -> int:
        self._now += 1
        return self._now

    def plan(self, move: Move) -> Plan:
        with self.store.read() as reader:
            return move.plan(reader)

    def move(self, move: Move) -> Result:
        """Do *move* and record it, as the daemon does."""
        with self.store.read() as reader:
            way = move.plan(reader)
            result = apply(way, reader, self.fd)
            way = way.without(result.failed)
        with self.store.write() as writer:
            writer.append(
                Seq(writer.last + 1),
                move.operation(self.clock_ns(), NOBODY),
                way.entry_nodes,
                way.entry_names,
            )
        return result

    def rollback(self, target: Seq, *paths: bytes) -> Result:
        return self.move(rollback(target, paths))

    def undo(self) -> Result:
        with self.store.read() as reader:
            move = undo(reader)
        return self.move(move)

    def redo(self) -> Result:
        with self.store.read() as reader:
            move = redo(reader)
        return self.move(move)

    def differences(self) -> list[tuple[str, bytes]]:
        """Return how the directory differs from the last version."""
        with self.store.read() as reader:
            found = scan(reader, self.fd, at=reader.last, rehash_since_ns=0)
            return [(each.what.name, each.name) for each in found]

    def picture(self) -> dict[bytes, Picture]:
        return picture(self.top)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def _differing(one: dict[bytes, Picture], other: dict[bytes, Picture]) -> dict[bytes, object]:
    """Return what differs, for a readable failure."""
    return {
        path: (one.get(path), other.get(path))
        for path in one.keys() | other.keys()
        if one.get(path) != other.get(path)
    }


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_random_trees_are_rolled_back_and_undone_exactly(world: World, seed: int) -> None:
    rng = random.Random(seed)
    tree = RandomTree(world.top, rng)
    tree.change(rng.choice((5, 40)))
    first, before = world.record(), world.picture()
    tree.change(rng.choice((1, 5, 40)))
    world.record()
    after = world.picture()

    assert world.rollback(first).problems == ()
    assert _differing(world.picture(), before) == {}
    assert world.differences() == []
    world.undo()
    assert _differing(world.picture(), after) == {}
    assert world.differences() == []
    world.redo()
    assert _differing(world.picture(), before) == {}


def damage(world: World, data: bytes) -> None:
    """Change a byte of the blob *data*, which is stored plain, in the segments."""
    for segment in (world.store.path / "segments").iterdir():
        raw = bytearray(segment.read_bytes())
        at = raw.find(data)
        if at >= 0:
            raw[at] ^= 1
            segment.write_bytes(raw)
            return
    raise AssertionError("no such blob")


def incompressible(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def test_a_changed_file_keeps_its_inode_and_an_open_handle_sees_the_change(world: World) -> None:
    path = world.top / "a"
    path.write_bytes(b"then")
    seq = world.record()
    path.write_bytes(b"now, and longer")
    world.record()
    with path.open("rb") as file:
        result = world.rollback(seq)

        assert file.read() == b"then"
        assert os.fstat(file.fileno()).st_ino == path.stat().st_ino
    assert (result.created, result.removed, result.rewritten) == (0, 0, 1)


def test_only_chunks_that_differ_are_written(world: World) -> None:
    path = world.top / "a"
    path.write_bytes(incompressible(300_000))
    seq = world.record()
    with path.open("r+b") as file:
        file.seek(70_000)
        file.write(b"x")
    world.record()

    assert 0 < world.rollback(seq).bytes_written < 150_000
    assert path.read_bytes() == incompressible(300_000)


def test_holes_come_back_as_holes(world: World) -> None:
    path = world.top / "sparse"
    with path.open("wb") as file:
        file.seek(64 * 65_536)
        file.write(b"end")
    blocks = path.stat().st_blocks
    seq = world.record()
    path.write_bytes(incompressible(70 * 65_536))
    world.record()

    world.rollback(seq)

    assert path.stat().st_blocks <= blocks + 16
    assert path.read_bytes() == bytes(64 * 65_536) + b"end"


def test_what_did_not_change_is_not_touched(world: World) -> None:
    (world.top / "same").write_bytes(b"1")
    seq = world.record()
    (world.top / "new").write_bytes(b"1")
    world.record()
    before = (world.top / "same").stat()

    world.rollback(seq)

    assert (world.top / "same").stat() == before


def test_a_damaged_file_is_a_problem_and_stays_as_it_was(world: World) -> None:
    data = incompressible(1000)
    (world.top / "bad").write_bytes(data)
    (world.top / "good").write_bytes(b"then")
    (world.top / "bad_too").write_bytes(data)
    seq = world.record()
    (world.top / "bad").write_bytes(b"now")
    (world.top / "good").write_bytes(b"now")
    (world.top / "bad_too").unlink()
    world.record()
    damage(world, data)

    result = world.rollback(seq)

    assert [problem.split(":")[0] for problem in result.problems] == ["bad_too", "bad"]
    assert (world.top / "bad").read_bytes() == b"now"
    assert (world.top / "good").read_bytes() == b"then"
    assert sorted(os.listdir(world.top)) == ["bad", "good"]
    assert world.differences() == []
    damage(world, bytes((data[0] ^ 1,)) + data[1:])  # as it was


def test_an_unfinished_rollback_in_the_way_is_refused(world: World) -> None:
    seq = world.record()
    (world.top / "a").write_bytes(b"1")
    world.record()
    (world.top / ".dkfs-rollback").mkdir()
    (world.top / ".dkfs-rollback" / "m5").write_bytes(b"somebody's")

    with pytest.raises(ExistsError, match="unfinished rollback"):
        world.rollback(seq)
    assert (world.top / "a").read_bytes() == b"1"


def test_trouble_before_the_first_change_leaves_everything_as_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.top / "dir").mkdir()
    for name in "abc":
        (world.top / "dir" / name).write_bytes(b"1")
    seq = world.record()
    for name in "abc":
        (world.top / "dir" / name).unlink()
    (world.top / "dir").rmdir()
    world.record()
    before = world.picture()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="no space"):
            world.rollback(seq)

    assert _differing(world.picture(), before).keys() <= {b"."}
    assert os.listdir(world.top) == []


@pytest.mark.root
def test_without_privilege_owners_and_devices_are_problems_and_the_rest_comes_back(
    world: World,
) -> None:
    os.chmod(world.top.parent.parent, 0o755)
    (world.top / "dir").mkdir()
    (world.top / "dir" / "mine").write_bytes(b"1")
    (world.top / "dir" / "other").write_bytes(b"2")
    for path in (world.top, world.top / "dir", world.top / "dir" / "mine"):
        os.chown(path, 12_345, 12_345)
    os.mknod(world.top / "dir" / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (world.top / "dir").chmod(0o555)
    seq = world.record()
    shutil.rmtree(world.top / "dir")
    head = world.record()
    with world.store.read() as reader:
        way = plan(reader, base=head, target=seq)
        for step in way.steps:  # opens the segment, while that is allowed
            if step.new is not None and step.new.attr.kind is Kind.FILE:
                assert content.read(reader, step.new, 0, 1)
        os.setegid(12_345)
        os.seteuid(12_345)
        try:
            result = apply(way, reader, world.fd)
        finally:
            os.seteuid(0)
            os.setegid(0)

    assert sorted(os.listdir(world.top / "dir")) == ["mine", "other"]
    assert (world.top / "dir").stat().st_mode & 0o7777 == 0o555
    assert sorted(result.problems) == [
        "dir/null: not made: Operation not permitted",
        "dir/other: owner 0:0 not set: Operation not permitted",
    ]


def test_a_name_that_leads_out_is_refused(world: World, tmp_path: Path) -> None:
    (world.top / "a").write_bytes(b"1")
    seq = world.record()
    with world.store.read() as reader:
        state = reader.node(reader.child(ROOT, b"a", seq), seq)
        assert state is not None
        for name in (b"../out", b"..", b"/out"):
            way = Plan(
                base=seq,
                target=seq,
                names=(Binding(ROOT, name, NO_NODE, NodeId(9)),),
                steps=(Step(NodeId(9), None, replace(state, name=name)),),
            )
            with pytest.raises(CorruptError, match="not a name of a file"):
                apply(way, reader, world.fd)

    assert not (tmp_path / "out").exists()


@pytest.mark.root
def test_a_default_acl_of_the_root_is_not_inherited_by_what_comes_back(world: World) -> None:
    (world.top / "a").write_bytes(b"1")
    seq = world.record()
    before = world.picture()[b"./a"]
    (world.top / "a").unlink()
    os.setxattr(world.top, "system.posix_acl_default", ACL_ACCESS)
    world.record()

    world.rollback(seq, b"a")

    assert world.picture()[b"./a"] == before
