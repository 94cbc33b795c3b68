"""What a sync waits for: whatever it said is durable is found after a kill, in order, and exactly as it was."""

import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs import failpoints
from dkfs.history.change import NodeChange
from dkfs.history.frozen import FrozenFile
from dkfs.history.intent import IntentLog
from dkfs.history.recorder import Recorder
from dkfs.history.recovery import open_store
from dkfs.model.ids import ROOT, NodeId, Seq
from dkfs.model.operation import Operation, OpKind, Origin
from dkfs.store import Store, intent
from dkfs.store.check import check
from dkfs.store.intent import PAGE, read_intents
from tests.history.intents import SIZE, World, contents_at


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_what_was_synced_is_found_after_a_kill_although_nothing_of_it_was_committed(
    world: World,
) -> None:
    before = world.recorder.committed
    kept = {}
    with world.store.write():  # the recorder has to wait
        for number in range(5):
            seq = world.write(number * 3000, b"%d" % number * 2000)
            assert world.recorder.secure(seq, world.node)
            kept[seq] = bytes(world.contents)
        assert world.recorder.committed == before
        killed = world.killed()

    with open_store(killed, writable=True) as store:
        with store.read() as reader:
            assert reader.last == before + 5
            record = reader.record(Seq(before + 3))
            assert record is not None
            assert record.operation.origin == Origin(1, 2, b"test")
            assert not reader.clean()
        assert {seq: contents_at(store, seq) for seq in kept} == kept
        assert list(check(store, read_data=True)) == []
    assert not (killed / "intent").exists()


def test_who_only_reads_after_a_kill_sees_what_was_synced(world: World) -> None:
    with world.store.write():
        seq = world.write(5, b"synced")
        assert world.recorder.secure(seq)
        killed = world.killed()

    with open_store(killed, writable=False) as store:
        assert contents_at(store, seq) == bytes(world.contents)


def test_a_store_that_is_recorded_into_is_read_as_it_is_committed(world: World) -> None:
    with world.store.write():
        seq = world.write(5, b"synced")
        assert world.recorder.secure(seq)
        with Store.open(world.path, writable=False) as store, store.read() as reader:
            assert reader.last == seq - 1
        assert read_intents(world.path, world.store.uuid.bytes)


def test_an_end_without_a_kill_leaves_no_log(tmp_path: Path) -> None:
    world = World(tmp_path)
    seq = world.write(5, b"synced")
    assert world.recorder.secure(seq)
    world.close()

    assert sorted(os.listdir(world.path)) == ["LOCK", "index.lmdb", "index.lmdb-lock", "segments"]
    with Store.open(world.path, writable=False) as store:
        assert contents_at(store, seq) == bytes(world.contents)


def test_what_is_not_in_memory_or_not_known_to_be_sound_waits_for_the_index(
    world: World, tmp_path: Path
) -> None:
    with world.store.write():
        seq = world.write(5, b"data")
        assert not world.recorder.secure(seq, NodeId(0))  # nothing is known of it
        assert world.recorder.secure(seq, world.node)
        fd = os.open(world.file, os.O_RDONLY)
        change = NodeChange(world.node, os.fstat(fd), None, FrozenFile(fd, ((0, 9),), SIZE))
        seq = world.recorder.append(world.operation(OpKind.WRITE, world.node), (change,))
        assert not world.recorder.secure(seq, world.node)
        killed = world.killed()
    assert world.recorder.wait(seq)

    with open_store(killed, writable=True) as store, store.read() as reader:
        assert reader.last == seq - 1


def test_before_the_first_commit_of_a_session_a_sync_waits_for_the_index(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.close()
    with Store.open(world.path, writable=True) as store:
        recorder = Recorder(
            store, clock_ns=lambda: 1000, on_commit=lambda _: None, on_drop=lambda _: None
        )
        world.recorder = recorder
        with store.write():
            operation = world.operation(OpKind.SETATTR, ROOT)
            seq = recorder.append(operation, (NodeChange(ROOT, tmp_path.stat()),))
            assert not recorder.secure(seq)
        assert recorder.wait(seq)
        with store.write():
            seq = recorder.append(operation, (NodeChange(ROOT, tmp_path.stat()),))
            assert recorder.secure(seq)
        recorder.close()


@pytest.mark.expect_logs("from now on a sync waits until its version is in the index")
def test_after_a_write_to_the_log_has_failed_syncs_wait_for_the_index_and_nothing_is_lost(
    world: World,
) -> None:
    with world.store.write():
        first = world.write(5, b"one")
        assert world.recorder.secure(first, world.node)
        failpoints.arm("intent.write=1*EIO")
        try:
            seq = world.write(9, b"two")
            assert not world.recorder.secure(seq, world.node)
        finally:
            failpoints.arm("")
        assert not world.recorder.secure(seq, world.node)
        killed = world.killed()
    assert world.recorder.wait(seq)
    assert not world.recorder.secure(world.write(9, b"three"), world.node)

    with open_store(killed, writable=True) as store, store.read() as reader:
        assert reader.last == first
    with world.store.read() as reader:
        assert reader.last >= seq


def test_a_log_without_room_sends_who_syncs_to_the_index_until_there_is_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.recorder._intent, "_limit", 8 * PAGE)
    with world.store.write():
        seqs: list[Seq] = []
        while world.recorder.secure(seq := world.write(0, b"%d" % len(seqs) * 100), world.node):
            seqs.append(seq)
        assert len(seqs) == 7
        killed = world.killed()
    assert world.recorder.wait(seq)
    with world.store.write():
        assert world.recorder.secure(world.write(1, b"more"), world.node)

    with open_store(killed, writable=True) as store, store.read() as reader:
        assert reader.last == seqs[-1]


def test_a_version_that_was_recorded_otherwise_comes_between(world: World) -> None:
    with world.store.write():
        assert world.recorder.secure(world.write(5, b"one"), world.node)
    world.recorder.flush()
    with world.store.write() as writer:  # as a rollback does it
        operation = world.operation(OpKind.SETATTR, ROOT)
        seq = Seq(world.recorder.last + 1)
        writer.append(seq, operation, (), ())
    world.recorder.last = world.recorder.committed = seq
    world.recorder._intent.skip(seq, operation.time_ns)
    with world.store.write():
        last = world.write(9, b"two")
        assert world.recorder.secure(last, world.node)
        killed = world.killed()

    with open_store(killed, writable=True) as store:
        assert contents_at(store, last) == bytes(world.contents)


@pytest.mark.expect_logs("the intent log of .* is not the one that it goes on from", "is kept as")
def test_a_log_that_does_not_go_on_from_the_store_is_kept_aside(world: World) -> None:
    with world.store.write():
        world.recorder.secure(world.write(5, b"one"), world.node)
        killed = world.killed()
    (killed / "intent").unlink()
    with open_store(killed, writable=True) as store, store.write() as writer:
        writer.append(Seq(3), Operation(OpKind.SETATTR, 1_000_000, Origin(0, 0, b""), ROOT), (), ())
    world.recorder.flush()
    with world.store.write():
        world.recorder.secure(world.write(5, b"two"), world.node)
        shutil.copy(world.path / "intent", killed / "intent")

    with open_store(killed, writable=True) as store, store.read() as reader:
        assert reader.last == 3
    assert (killed / "intent.damaged-1").exists()


# Takes in what is only in the log of a store.
_RECOVER = """
import sys
from pathlib import Path
from dkfs import failpoints
from dkfs.history.recovery import open_store
failpoints.arm(sys.argv[2])
open_store(Path(sys.argv[1]), writable=True).close()
"""


@pytest.mark.parametrize(
    ("point", "times"),
    [
        *(("intent.recover", times) for times in (0, 1)),
        *(("record.version", times) for times in (0, 200)),
        *(("index.commit", times) for times in (0, 1, 2)),
    ],
)
def test_a_recovery_that_is_killed_is_done_by_the_next_opening(
    world: World, point: str, times: int
) -> None:
    seq = Seq(0)
    with world.store.write():
        for number in range(250):  # of which 128 go into a transaction
            seq = world.write(number * 10, b"%d" % number)
        assert world.recorder.secure(seq, world.node)
        killed = world.killed()
    terms = f"{point}={times}*off->kill" if times else f"{point}=kill"
    run = subprocess.run([sys.executable, "-c", _RECOVER, killed, terms], check=False)
    assert run.returncode == -signal.SIGKILL

    with open_store(killed, writable=True) as store:
        assert contents_at(store, seq) == bytes(world.contents)
        assert list(check(store, read_data=True)) == []


@pytest.mark.slow
def test_whatever_of_a_write_a_power_cut_leaves_nothing_that_was_acknowledged_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(7)
    states: list[tuple[bytes, bytes, Seq, bytes]] = []
    acknowledged = world.recorder.committed
    whole = bytes(world.contents)
    log = world.path / "intent"
    real = intent._write_all

    def write(fd: int, data: mmap.mmap, length: int, at: int) -> None:
        before = log.read_bytes()
        real(fd, data, length, at)
        states.append((before, log.read_bytes(), acknowledged, whole))

    monkeypatch.setattr(intent, "_write_all", write)
    monkeypatch.setattr(world.recorder._intent, "_limit", 16 * PAGE)
    snapshots: list[Path] = []
    for _ in range(6):
        with world.store.write():
            snapshot = world.killed(f"at-{len(snapshots)}")
            for _ in range(4):
                seq = world.write(chance.randrange(SIZE - 3000), chance.randbytes(3000))
                assert world.recorder.secure(seq, world.node)
                acknowledged, whole = seq, bytes(world.contents)
                snapshots.append(snapshot)
        world.recorder.flush()

    states = states[-len(snapshots) :]
    assert len(states) > 20
    for (before, after, last, data), snapshot in zip(states, snapshots, strict=True):
        torn = bytearray(before.ljust(len(after), b"\0"))
        for at in range(0, len(after), 512):
            if chance.random() < 0.5:
                torn[at : at + 512] = after[at : at + 512]
        place = snapshot.with_name("torn")
        shutil.copytree(snapshot, place)
        (place / "intent").write_bytes(torn)
        with open_store(place, writable=True) as store:
            with store.read() as reader:
                assert last <= reader.last <= last + 1
            assert contents_at(store, last) == data
            assert list(check(store, read_data=True)) == []
        shutil.rmtree(place)


def test_there_is_one_record_for_all_who_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.store.write():
        one, other = world.write(5, b"one"), world.write(9, b"two")
        monkeypatch.setattr(world.recorder._intent, "_wanted", other)
        assert world.recorder.secure(one, world.node)
        monkeypatch.setattr(intent.IntentFile, "append", None)
        assert world.recorder.secure(other, world.node)
        assert [r.span[:2] for r in read_intents(world.path, world.store.uuid.bytes)] == [
            (one, other)
        ]


def test_who_is_asked_whether_it_is_due_while_another_thread_forgets_it_does_not_fail(
    world: World,
) -> None:
    class Forgotten(IntentLog):
        """What is in it comes into the index after the first look at it."""

        seen: float | None = None

        @property
        def _since_s(self) -> float | None:
            seen, self.seen = self.seen, None
            return seen

        @_since_s.setter
        def _since_s(self, value: float | None) -> None:
            self.seen = value

    forgotten = Forgotten(world.store, time_ns=0, committed=lambda: Seq(0))
    forgotten.seen = 1.0

    # The recorder's thread asks: if this raised, it would end, and every sync would wait for ever.
    assert not forgotten.is_due(1.1)
