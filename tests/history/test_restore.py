import io
import os
import random
from pathlib import Path

import pytest

from dkfs.errors import CorruptError, ExistsError, NotFoundError, UsageError
from dkfs.history.archive import dump
from dkfs.history.places import check_name
from dkfs.history.restore import restore
from dkfs.history.tarball import TarFormat
from dkfs.history.wish import Wish
from dkfs.model.ids import NO_NODE, ROOT, NodeId, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.model.operation import NOBODY, Operation, OpKind
from dkfs.store.rows import SEQ, name_key
from tests.history.model_history import ModelHistory
from tests.history.test_materialise import World, damage, incompressible, world
from tests.history.trees import RandomTree, bind_socket, picture

__all__ = ["world"]


@pytest.mark.root
def test_everything_is_restored_with_its_metadata(world: World, tmp_path: Path) -> None:
    top = world.top
    (top / "empty").mkdir()
    (top / "empty").chmod(0o1777)
    (top / "suid").write_bytes(b"#!")
    os.chown(top / "suid", 1, 2)
    (top / "suid").chmod(0o6755)
    os.setxattr(top / "suid", "user.one", b"1")
    (top / "link").symlink_to("/nowhere")
    os.link(top / "suid", top / "same")
    os.mkfifo(top / "fifo")
    bind_socket(top / "socket")
    os.mknod(top / "null", 0o600 | 0o020000, os.makedev(1, 3))
    (top / os.fsdecode(b"\xff" * 255)).write_bytes(b"")
    for name in os.listdir(top):
        os.utime(top / name, ns=(0, 1_234_567_890_123_456_789), follow_symlinks=False)
    seq = world.record()
    target = tmp_path / "deep" / "target"

    with world.store.read() as reader:
        result = restore(reader, seq, b"", target, Wish(privileged=True))

    assert result.problems == ()
    assert picture(target) == world.picture()


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize("seed", range(10))
def test_random_trees_are_restored_exactly(world: World, tmp_path: Path, seed: int) -> None:
    RandomTree(world.top, random.Random(seed)).change(60)
    seq = world.record()
    with world.store.read() as reader:
        restore(reader, seq, b"", tmp_path / "target", Wish(privileged=True))

    assert picture(tmp_path / "target") == world.picture()


def test_a_directory_below_is_restored_as_the_target(world: World, tmp_path: Path) -> None:
    (world.top / "a" / "b").mkdir(parents=True)
    (world.top / "a" / "b" / "c").write_bytes(b"1")
    (world.top / "a" / "b").chmod(0o710)
    seq = world.record()
    with world.store.read() as reader:
        restore(reader, seq, b"a/b", tmp_path / "target")

    assert (tmp_path / "target" / "c").read_bytes() == b"1"
    assert (tmp_path / "target").stat().st_mode & 0o7777 == 0o710


def test_a_file_is_restored_into_the_target(world: World, tmp_path: Path) -> None:
    (world.top / "a").mkdir()
    (world.top / "a" / "f").write_bytes(b"1")
    seq = world.record()
    told: list[tuple[int, int, int]] = []
    with world.store.read() as reader:
        result = restore(
            reader,
            seq,
            b"a/f",
            tmp_path / "target",
            Wish(on_progress=lambda *numbers: told.append(numbers)),
        )

    assert (tmp_path / "target" / "f").read_bytes() == b"1"
    assert (result.created, result.bytes_written) == (1, 1)
    assert told == [(1, 0, 1)]


def test_a_target_that_is_not_empty_is_refused_and_stays(world: World, tmp_path: Path) -> None:
    seq = world.record()
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine").write_bytes(b"1")
    (tmp_path / "file").write_bytes(b"")
    with world.store.read() as reader:
        with pytest.raises(ExistsError, match="is not empty: expected an empty directory"):
            restore(reader, seq, b"", tmp_path / "target")
        with pytest.raises(UsageError, match="is not a directory"):
            restore(reader, seq, b"", tmp_path / "file")

    assert os.listdir(tmp_path / "target") == ["mine"]


def test_what_is_not_in_the_history_makes_no_target(world: World, tmp_path: Path) -> None:
    seq = world.record()
    with world.store.read() as reader:
        with pytest.raises(NotFoundError, match="nothing does not exist"):
            restore(reader, seq, b"nothing", tmp_path / "target")
        with pytest.raises(NotFoundError, match="version 9 does not exist"):
            restore(reader, Seq(9), b"", tmp_path / "target")

    assert not (tmp_path / "target").exists()


def test_a_damaged_file_is_left_out_and_named(world: World, tmp_path: Path) -> None:
    data = incompressible(1000)
    (world.top / "bad").write_bytes(data)
    (world.top / "good").write_bytes(b"1")
    seq = world.record()
    damage(world, data)
    with world.store.read() as reader:
        result = restore(reader, seq, b"", tmp_path / "target")

    assert os.listdir(tmp_path / "target") == ["good"]
    assert len(result.problems) == 1
    assert result.problems[0].startswith("bad: not made: ")
    damage(world, bytes((data[0] ^ 1,)) + data[1:])  # as it was


def _append(history: ModelHistory, *names: tuple[NodeId, bytes, NodeId]) -> Seq:
    """Record names that no file system would give, with a file or directory for each."""
    seq = Seq(history.last + 1)
    root = history.state(b"")
    states: list[tuple[NodeId, NodeState]] = [
        (node, root) for _, _, node in names if node not in (ROOT, NO_NODE)
    ]
    with history.store.write() as writer:
        operation = Operation(OpKind.FOUND, history.time_ns(seq), NOBODY)
        writer.append(seq, operation, states, names)
    return seq


def test_names_of_a_hostile_store_do_not_leave_the_target(
    history: ModelHistory, tmp_path: Path
) -> None:
    assert history.state(b"").attr.kind is Kind.DIR
    names = (b"..", b".")  # the writer refuses those with a slash
    seq = _append(history, *((ROOT, name, NodeId(50 + i)) for i, name in enumerate(names)))
    with history.store.read() as reader:
        result = restore(reader, seq, b"", tmp_path / "target")

    assert os.listdir(tmp_path / "target") == []
    assert len(result.problems) == len(names)
    assert all("is not a name of a file" in problem for problem in result.problems)
    assert sorted(os.listdir(tmp_path)) == ["store", "target"]


def test_names_that_no_writer_would_store_do_not_leave_the_target_either(
    history: ModelHistory, tmp_path: Path
) -> None:
    names = (b"../out", b"/etc/out", b"a/b", b"a\0b", b"a/../../out")
    history.symlink(b"link", b"..")
    history.create(b"f", b"1")
    node = history.tree.paths()[b"f"]
    with history.store.write() as writer:
        for name in names:
            writer.put_row("names", name_key(ROOT, name, history.last), SEQ.pack(node))
    out = io.BytesIO()
    with history.store.read() as reader:
        result = restore(reader, history.last, b"", tmp_path / "target")
        dumped = dump(reader, history.last, b"", TarFormat(out.write))

    assert sorted(os.listdir(tmp_path / "target")) == ["f", "link"]
    assert sorted(os.listdir(tmp_path)) == ["store", "target"]
    for problems in (result.problems, dumped.problems):
        assert sum("is not a name of a file" in each for each in problems) == len(names)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"../out", b"/out", b"in/side", b"a\0b"])
def test_what_is_no_name_is_never_used(name: bytes) -> None:
    with pytest.raises(CorruptError, match="is not a name of a file"):
        check_name(name)


def test_a_directory_inside_itself_ends(history: ModelHistory, tmp_path: Path) -> None:
    seq = _append(
        history,
        (ROOT, b"a", NodeId(50)),
        (NodeId(50), b"b", NodeId(51)),
        (NodeId(51), b"again", NodeId(50)),
    )
    with history.store.read() as reader:
        result = restore(reader, seq, b"", tmp_path / "target")

    assert result.problems == ("a/b/again: not made: directory node 50 has two names",)


def test_a_tree_deeper_than_open_directories_is_restored(world: World, tmp_path: Path) -> None:
    fd = os.dup(world.fd)
    for _ in range(300):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("leaf", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)
    seq = world.record()
    with world.store.read() as reader:
        restore(reader, seq, b"", tmp_path / "target")

    assert (tmp_path / "target").joinpath(*["d"] * 300, "leaf").exists()
