"""Recording goes on by itself after a time in which nothing could be recorded, and the log says that there was one."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dkfs.errors import StoreError
from dkfs.history.tree import Tree
from dkfs.model.operation import OpKind
from dkfs.overlay import resuming
from dkfs.store import Store, Writer
from dkfs.store.check import check
from dkfs.store.intent import INTENT_NAME, PAGE
from tests.overlay.world import ME, World

pytestmark = pytest.mark.expect_logs(
    r"the store failed, versions are not recorded|are dropped; recording stops|recording goes on|recording cannot go on yet"
)


@contextmanager
def stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the store fail for the length of the block, from its beginning on so that nothing is recorded."""

    def full(_: Store) -> Writer:
        error = StoreError("the disk is full")
        error.errno = errno.ENOSPC
        raise error

    assert world.recorder.flush()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", full)
        number = world.create(b"lost", b"never recorded as it was")
        world.fs.files.flush(number)
        world.recorder.press()
        assert not world.recorder.flush()
        until(lambda: world.recorder.is_stopped)
        yield
        assert not world.fs.resuming.works()


def until(what: Callable[[], bool]) -> None:
    while not what():
        os.sched_yield()


def kinds(world: World) -> list[OpKind]:
    with world.store.read() as reader:
        return [record.operation.kind for record in reader.log(1, reader.last)]  # type: ignore[arg-type]


def names(world: World) -> set[bytes]:
    with world.store.read() as reader:
        return {path for path, _, _ in Tree(reader, reader.last).walk() if path}


def test_what_was_done_while_nothing_was_recorded_is_one_version_that_is_called_a_gap(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = world.create(b"kept", b"before")
    world.fs.files.flush(kept)
    world.create(b"goes", b"away")
    with stopped(world, monkeypatch):
        world.fs.files.write(kept, 0, b"during")
        world.fs.names.unlink(world.root, b"goes", ME)
        world.fs.names.rename(world.root, b"lost", world.root, b"moved", 0, ME)
        before = kinds(world)

    assert world.fs.resuming.works()
    assert world.fs.resuming.resume() is None

    assert kinds(world) == [*before, OpKind.GAP]
    assert names(world) == {b"kept", b"moved"}
    assert world.read(b"kept") == b"during"
    assert world.read(b"moved") == b"never recorded as it was"
    assert world.recorder.is_recording


def test_after_a_gap_what_is_open_is_recorded_under_the_names_that_it_has_now(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = world.create(b"one", b"1"), world.create(b"two", b"2")
    with stopped(world, monkeypatch):
        world.fs.names.rename(world.root, b"one", world.root, b"three", 0, ME)
        inside = world.fs.names.mkdir(world.root, b"dir", 0o755, ME)[0]
    assert world.fs.resuming.works()
    world.fs.resuming.resume()
    world.fs.files.write(one, 1, b"more")
    world.fs.files.flush(one)
    world.fs.names.rename(world.root, b"two", inside, b"two", 0, ME)
    world.fs.files.write(two, 1, b"more")
    world.fs.files.flush(two)

    assert world.read(b"three") == b"1more"
    assert names(world) == {b"three", b"lost", b"dir", b"dir/two"}
    assert list(check(world.store, read_data=True)) == []


def test_a_gap_in_which_nothing_changed_is_a_version_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stopped(world, monkeypatch):
        world.fs.names.unlink(world.root, b"lost", ME)
    assert world.fs.resuming.works()
    world.fs.resuming.resume()

    assert kinds(world)[-1] is OpKind.GAP
    assert names(world) == set()


def test_a_sync_from_before_a_gap_waits_for_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stopped(world, monkeypatch):
        of_before = world.recorder.last
    world.fs.resuming.works()
    world.fs.resuming.resume()

    assert world.recorder.wait(of_before)
    assert world.recorder.wait(type(of_before)(of_before + 100))


def test_a_mount_that_ends_after_the_store_works_again_records_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stopped(world, monkeypatch):
        pass
    assert world.fs.close()
    world.store.close()
    world.store = Store.open(world.store.path, writable=True)
    world.start()

    assert kinds(world)[-1] is OpKind.GAP
    assert world.read(b"lost") == b"never recorded as it was"


def test_a_gap_that_cannot_be_recorded_is_tried_again_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stopped(world, monkeypatch):
        assert (world.fs.resuming.resume() or 0) >= 2
        assert not world.recorder.is_recording
    assert world.fs.resuming.resume() is None
    assert world.recorder.is_recording


@pytest.mark.expect_logs("is kept as|is not recorded")
@pytest.mark.parametrize("damage", [b"", b"no header"])
def test_an_intent_log_that_cannot_be_taken_in_is_kept_aside_and_recording_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    with stopped(world, monkeypatch):
        pass
    path = world.store.path / INTENT_NAME
    path.write_bytes(damage.ljust(3 * PAGE, b"\0"))
    if not damage:
        monkeypatch.setattr(resuming, "read_intents", lambda *_: [])
        monkeypatch.setattr(resuming, "recover", lambda *_: False)

    assert world.fs.resuming.works()
    assert world.fs.resuming.resume() is None

    assert (world.store.path / f"{INTENT_NAME}.damaged-1").read_bytes() == damage.ljust(
        3 * PAGE, b"\0"
    )
    assert kinds(world)[-1] is OpKind.GAP
    assert world.recorder.is_recording
