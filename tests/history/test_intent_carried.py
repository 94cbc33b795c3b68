"""What a sync of a file carries: the log that was laid before it is durable when it returns, and only then."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dkfs.history.recovery import open_store
from dkfs.model.ids import Seq
from dkfs.store.flushing import Disk
from dkfs.store.intent import PAGE, IntentFile, read_intents
from tests.history.intents import World, contents_at


class Carrying(Disk):
    """A disk that every file is on, wherever the test runs."""

    def __init__(self) -> None:
        super().__init__(0, 0)

    def is_flushed_by(self, _: int) -> bool:
        return True


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("dkfs.store.intent.disk_of", lambda _: Carrying())
    made = World(tmp_path)
    yield made
    made.close()


def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return where it is noted that the log is synced."""
    done: list[str] = []
    real = IntentFile.sync

    def sync(file: IntentFile) -> None:
        done.append("log")
        real(file)

    monkeypatch.setattr(IntentFile, "sync", sync)
    return done


def never(_: IntentFile) -> None:
    raise AssertionError("the log is synced")


def test_the_sync_of_a_file_on_the_same_disk_is_the_only_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IntentFile, "sync", never)
    seen: list[tuple[Seq, Seq]] = []

    def sync(_: int) -> None:
        seen.append((read_intents(world.path, world.store.uuid.bytes)[-1].span.last, promised()))

    def promised() -> Seq:
        return world.recorder._intent.promised

    seq = Seq(0)
    with world.store.write():
        for number in range(3):
            seq = world.write(number * 3000, b"%d" % number * 2000)
            world.recorder.sync(world.fd, sync, seq, world.node)

            assert seen[-1] == (seq, seq - 1)  # it is there, and not promised yet
            assert promised() == seq
        killed = world.killed()

    with open_store(killed, writable=True) as store:
        assert contents_at(store, seq) == bytes(world.contents)


def test_a_file_on_another_disk_carries_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Carrying, "is_flushed_by", lambda *_: False)
    done = noted(monkeypatch)
    with world.store.write():
        seq = world.write(5, b"one")
        world.recorder.sync(world.fd, lambda _: done.append("file"), seq, world.node)

        assert done == ["log", "file"]
        assert world.recorder._intent.promised == seq


def test_who_syncs_what_another_has_laid_and_not_flushed_flushes_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.store.write():
        seq = world.write(5, b"one")
        assert world.recorder._intent.lay(seq) is not None
        assert world.recorder._intent.promised < seq
        done = noted(monkeypatch)
        assert world.recorder.secure(seq, world.node)

        assert done == ["log"]


def fails(_: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.expect_logs("from now on a sync waits until its version is in the index")
@pytest.mark.parametrize("later", [os.fsync, fails])
def test_after_a_flush_that_failed_no_later_one_is_trusted(
    world: World, later: Callable[[int], None]
) -> None:
    with world.store.write():
        first = world.write(5, b"one")
        world.recorder.sync(world.fd, os.fsync, first, world.node)
        second = world.write(9, b"two")
        other = world.recorder._intent.lay(second)  # somebody else, who is about to sync
        assert other is not None
        with pytest.raises(OSError, match="Input/output"):
            world.recorder.sync(world.fd, fails, second, world.node)
        if later is fails:
            world.recorder._intent.doubt(other, OSError(errno.EIO, "again"))

        assert not world.recorder._intent.flushed(other)
        assert not world.recorder.secure(second, world.node)
        assert world.recorder._intent.promised == first
    world.recorder.sync(world.fd, os.fsync, second, world.node)
    assert world.recorder.committed >= second


@pytest.mark.expect_logs("from now on a sync waits until its version is in the index")
def test_if_the_log_itself_cannot_be_synced_it_is_waited_for_the_index(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.store.write():
        seq = world.write(5, b"one")
        monkeypatch.setattr(IntentFile, "sync", fails)
        assert not world.recorder.secure(seq, world.node)
        monkeypatch.undo()
        assert not world.recorder.secure(seq, world.node)
        assert world.recorder._intent.promised < seq
    assert world.recorder.wait(seq)


def test_who_had_it_flushed_before_recording_began_anew_is_promised_nothing_by_that(
    world: World,
) -> None:
    with world.store.write():
        seq = world.write(5, b"one")
        laid = world.recorder._intent.lay(seq)
        assert laid is not None
        world.recorder._intent.restart(Seq(seq - 1), world.time_ns)

        assert not world.recorder._intent.flushed(laid)
        assert not world.recorder._intent.sync(laid)
        assert world.recorder._intent.promised == seq - 1


def lose_the_second_of_three(world: World, *, is_promised: bool) -> tuple[Path, Seq, bytes]:
    """Return a store whose disk has lost one record and kept the next, its first version that was promised, and its contents then."""
    log = world.recorder._intent
    with world.store.write():
        first = world.write(5, b"one")
        assert world.recorder.secure(first, world.node)
        contents = bytes(world.contents)
        laid = log.lay(world.write(9, b"two"))
        assert laid is not None
        assert not is_promised or log.flushed(laid)
        assert log.lay(world.write(15, b"three")) is not None
        killed = world.killed()
    data = bytearray((killed / "intent").read_bytes())
    data[2 * PAGE : 3 * PAGE] = bytes(PAGE)  # as before it was written
    (killed / "intent").write_bytes(data)
    return killed, first, contents


def test_a_record_that_the_disk_lost_before_it_was_promised_ends_the_log(world: World) -> None:
    killed, first, contents = lose_the_second_of_three(world, is_promised=False)

    with open_store(killed, writable=True) as store, store.read() as reader:
        assert reader.last == first
        assert contents_at(store, first) == contents
    assert not list(killed.glob("intent*"))


@pytest.mark.expect_logs("version 5 cannot follow version 3", "is kept as")
def test_a_record_that_the_disk_lost_although_it_was_promised_is_damage(world: World) -> None:
    killed, first, contents = lose_the_second_of_three(world, is_promised=True)

    with open_store(killed, writable=True) as store:
        assert contents_at(store, first) == contents
    assert (killed / "intent.damaged-1").exists()
