"""Two threads that change things on different devices at once; see decisions/0023."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dkfs.model.ids import Seq
from dkfs.overlay.inodes import Inode
from tests.overlay.world import ME, World

_TIMES = 40


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A file system whose clock lets other threads run whenever it is asked."""
    made = World(tmp_path)
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    next_ns = made.recorder._clock_ns

    def clock_ns() -> int:
        time.sleep(0)
        return next_ns()

    made.recorder._clock_ns = clock_ns
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
    world.fs.count.count(world.recorder.last)
    world.recorder.flush()
    world.fs.count.again()
    world.fs.count.count(world.recorder.last)
    first = world.recorder.last

    _at_once(*(_busy(world, each) for each in directories))

    assert world.recorder.flush()
    assert world.recorder.held_bytes == 0
    with world.store.read() as reader:
        records = [reader.record(Seq(first + 1 + each)) for each in range(world.recorder.last - first)]
        times = [each.operation.time_ns for each in records if each is not None]
    assert len(times) == len(records) == 2 * (_TIMES * 3 + _TIMES // 2)
    assert times == sorted(set(times))
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

    def adopt(index: int) -> Callable[[], None]:
        def work() -> None:
            for pair in inodes:
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
