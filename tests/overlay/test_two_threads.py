"""Two threads that change things on different devices at once; see decisions/0023."""

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dkfs.history import recorder
from dkfs.history.held import Held
from dkfs.model.ids import NodeId, Seq
from dkfs.model.operation import OpKind
from dkfs.overlay.inodes import Inode
from tests.overlay.past import Past
from tests.overlay.world import ME, World

_TIMES = 20
_PAUSE_S = 0.0002


class _Slow(int):
    """A number that others may change while something is added to it."""

    def __add__(self, other: int) -> "_Slow":
        time.sleep(_PAUSE_S)
        return _Slow(int(self) + other)

    def __sub__(self, other: int) -> "_Slow":
        return self + -other


def _paused(number: int) -> NodeId:
    time.sleep(_PAUSE_S)
    return NodeId(number)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A file system that lets other threads run between reading a time or number and noting the next one."""
    made = World(tmp_path)
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    next_ns, rng = made.recorder._clock_ns, random.Random(1)

    def clock_ns() -> int:
        now_ns = next_ns()
        time.sleep(rng.choice((0.0, 5 * _PAUSE_S)))
        return now_ns

    monkeypatch.setattr(made.recorder, "_clock_ns", clock_ns)
    monkeypatch.setattr(recorder, "NodeId", _paused)
    made.fs.count._since = made.recorder._held._bytes_in = _Slow(0)
    yield made
    sys.setswitchinterval(interval_s)
    made.close()


def _at_once(*works: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 - for the thread that waits
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def _busy(world: World, directory: Inode) -> Callable[[], None]:
    def work() -> None:
        for each in range(_TIMES):
            name = b"f%d" % each
            number, inode, _ = world.fs.names.create(directory, name, 0o644, 1, ME)
            world.fs.files.write(number, 0, b"data%d" % each)
            world.fs.files.flush(number)
            world.fs.names.rename(directory, name, directory, b"r%d" % each, 0, ME)
            world.fs.files.release(number)
            world.fs.forget(inode.id, 1)
            if each % 2:
                world.fs.names.unlink(directory, b"r%d" % each, ME)

    return work


def test_the_log_has_every_change_once_in_the_order_of_its_times(world: World) -> None:
    directories = [world.fs.names.mkdir(world.root, name, 0o755, ME)[0] for name in (b"a", b"b")]
    world.recorder.flush()
    world.fs.count._base = 0
    first = world.recorder.last

    _at_once(*(_busy(world, each) for each in directories))

    assert world.recorder.flush()
    assert world.recorder.held_bytes == 0
    with world.store.read() as reader:
        records = [
            reader.record(Seq(first + 1 + each)) for each in range(world.recorder.last - first)
        ]
        operations = [each.operation for each in records if each is not None]
    times = [each.time_ns for each in operations]
    created = [each.node for each in operations if each.kind is OpKind.CREATE]
    assert len(times) == len(records) == 2 * (_TIMES * 3 + _TIMES // 2)
    assert times == sorted(set(times))
    assert len(created) == len(set(created)) == 2 * _TIMES
    assert world.fs.count.value == _TIMES
    assert sorted(each.name for each in (world.state / "a").iterdir()) == sorted(
        f"r{each}" for each in range(0, _TIMES, 2)
    )


def test_a_directory_that_appeared_is_found_once(world: World) -> None:
    for each in range(_TIMES):
        (world.state / f"new{each}" / "below").mkdir(parents=True)
    inodes = []
    for each in range(_TIMES):
        above, _ = world.fs.names.lookup(world.root, b"new%d" % each)
        below, _ = world.fs.names.lookup(above, b"below")
        inodes.append((above, below))

    both = threading.Barrier(2)

    def adopt(index: int) -> Callable[[], None]:
        def work() -> None:
            for pair in inodes:
                both.wait()
                world.fs.journal.node(pair[index])

        return work

    _at_once(adopt(0), adopt(1))

    nodes = [each.node for pair in inodes for each in pair]
    assert len(set(nodes)) == 2 * _TIMES
    assert world.recorder.flush()
    with world.store.read() as reader:
        for each, (above, below) in enumerate(inodes):
            assert reader.child(world.root.node, b"new%d" % each, reader.last) == above.node
            assert reader.child(above.node, b"below", reader.last) == below.node
        assert reader.last == world.recorder.last


def test_what_one_moves_is_found_while_another_moves_something(world: World) -> None:
    one, _ = world.fs.names.mkdir(world.root, b"one", 0o755, ME)
    two, _ = world.fs.names.mkdir(world.root, b"two", 0o755, ME)
    table = world.fs.table
    first = {one: (two, b"first")}

    table.begin_moving(first)
    table.begin_moving({two: (one, b"second")})
    assert set(table._moving) == {one, two}
    table.end_moving(first)
    assert table._moving == {two: (one, b"second")}


def test_what_is_held_is_counted_by_both() -> None:
    held = Held()
    held._bytes_in = _Slow(0)

    def save() -> None:
        for _ in range(_TIMES):
            held.saved(3)

    _at_once(save, save)

    assert held.bytes == 2 * 3 * _TIMES


@pytest.mark.parametrize("at", [1, 2])
def test_the_timer_leaves_alone_what_another_thread_has_let_go_of_before_it_may_look(
    world: World, tmp_path: Path, at: int
) -> None:
    """Its fd may be another file's by then."""
    past = Past(world)
    opened = past.open(b"f")
    opened.write(0, b"hello")
    with opened.mapped():
        opened.close()
    (watch,) = past.captures.unseen.all()
    asked, others = 0, list[int]()

    def may(_: Inode) -> bool:
        nonlocal asked
        asked += 1
        if asked == at:
            past.captures._let_go_if_still(watch)
            others.extend(_nameless(tmp_path / "other") for _ in range(5))
        return True

    past.captures.capture_due(1e-9, may=may)

    assert not past.captures.unseen.all()
    assert len(others) == 5
    for fd in others:
        os.close(fd)  # raises OSError if somebody else has


def _nameless(path: Path) -> int:
    """Return the fd of a file that has no name any more."""
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    path.unlink()
    return fd
