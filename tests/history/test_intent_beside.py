"""The intent log beside others: who reads or mounts meanwhile, contents that go, clocks that jump."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.history.frozen import FrozenBytes
from dkfs.history.recovery import open_store
from dkfs.store import intent
from dkfs.store.intent import read_intents
from tests.history.intents import SIZE, World, contents_at


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


# Reads a store, and so takes in what is only in the log, which takes a while.
_READ = """
import sys
from pathlib import Path
from dkfs import failpoints
from dkfs.history.recovery import open_store
failpoints.arm("intent.recover=sleep(0.3)")
open_store(Path(sys.argv[1]), writable=False).close()
"""


def test_a_mount_that_begins_while_a_reader_takes_in_the_log_waits_for_that(world: World) -> None:
    with world.store.write():
        seq = world.write(5, b"one")
        assert world.recorder.secure(seq, world.node)
        killed = world.killed()
    (killed / "LOCK").write_text("")
    with subprocess.Popen([sys.executable, "-c", _READ, str(killed)]) as reading:
        while not (killed / "LOCK").read_text() and reading.poll() is None:
            os.sched_yield()

        with open_store(killed, writable=True) as store:
            assert contents_at(store, seq) == bytes(world.contents)
    assert reading.returncode == 0


def test_contents_that_go_while_they_are_written_down_are_not_promised(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Going(FrozenBytes):
        """Dropped by the recorder in the middle of being encoded."""

        def parts(self) -> list[tuple[int, bytes]]:
            world.recorder._intent.drop()
            self.release()
            return super().parts()

    with world.store.write():
        monkeypatch.setattr(world, "frozen", lambda a, b: Going(world.fd, ((a, b),), SIZE))
        assert not world.recorder.secure(world.write(5, b"one"), world.node)

        assert read_intents(world.path, world.store.uuid.bytes) == []


def test_what_begins_anew_has_nothing_of_the_old_log(world: World) -> None:
    with world.store.write():
        assert world.recorder.secure(world.write(5, b"one"), world.node)
        assert read_intents(world.path, world.store.uuid.bytes) != []
        world.recorder._intent.restart(world.recorder.last, world.time_ns)

        assert not (world.path / "intent").exists()


def test_who_wants_to_see_what_is_in_the_log_is_noticed(world: World) -> None:
    with world.store.write():
        assert world.recorder.secure(world.write(5, b"one"), world.node)
        log = world.recorder._intent
        assert not log.is_due(log._since_s or 0.0)
        with intent.Asking(world.path):
            assert log.is_due(log._since_s or 0.0)

        assert not log.is_due(log._since_s or 0.0)


@pytest.mark.parametrize("days", [(-10,), (10, -10), (-1, 20, -30)])
def test_what_was_synced_is_found_whatever_the_clock_did(
    tmp_path: Path, days: tuple[int, ...]
) -> None:
    world = World(tmp_path)
    world.time_ns = 1_700_000_000 * 10**9
    seqs = []
    with world.store.write():
        for number in range(3 * len(days)):
            world.time_ns += days[number % len(days)] * 86_400 * 10**9
            seqs.append(world.write(number, b"%d" % number))
            assert world.recorder.secure(seqs[-1], world.node)
        killed = world.killed()
    world.close()

    with open_store(killed, writable=True) as store:
        assert contents_at(store, seqs[-1]) == bytes(world.contents)
        with store.read() as reader:
            times = [record.operation.time_ns for record in reader.log(seqs[0], seqs[-1])]
    assert len(times) == len(seqs)
    assert times == sorted(set(times))


@pytest.mark.expect_logs("from now on a sync waits|the store failed|could not be recorded")
def test_in_a_store_that_is_gone_nothing_is_promised(world: World, tmp_path: Path) -> None:
    with world.store.write() as writer:
        assert world.recorder.secure(world.write(5, b"one"), world.node)
        world.path.rename(tmp_path / "away")
        seq = world.write(9, b"two")
        assert not world.recorder.secure(seq, world.node)
        (tmp_path / "away").rename(world.path)
        assert writer.last < seq

    assert world.recorder.wait(seq)
