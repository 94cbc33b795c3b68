"""What cannot be captured, or only with difficulty, when a rollback, a tag or a syncfs asks for it."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from dkfs.errors import StoreError
from dkfs.history.rollback import rollback
from dkfs.model.ids import Seq
from dkfs.model.operation import NOBODY
from dkfs.overlay import captures, clones
from dkfs.overlay.looking import Look
from tests.overlay.past import Opened, Past
from tests.overlay.world import World

_LARGE = 3 << 20  # bytes: more than is copied at once


@pytest.fixture
def past(world: World) -> Past:
    made = Past(world)
    made.captures.unseen.no_clones.add(os.fstat(world.root_fd).st_dev)
    return made


def _write_all_the_time(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have something written during each look."""
    counter = iter(range(1 << 20))
    monkeypatch.setattr(
        clones,
        "finish_writes",
        lambda _: opened.write(2 << 20, next(counter).to_bytes(4, "little")),
    )


def _later(past: Past) -> tuple[Opened, Seq]:
    """Make a version of a large file, and write to it once more."""
    opened = past.open(b"f")
    opened.write(0, b"old" * (_LARGE // 3))
    opened.fsync()
    seq = past.world.recorder.last
    opened.write(0, b"later")
    return opened, Seq(seq)


def test_a_rollback_of_a_file_that_is_written_all_the_time_overwrites_nothing_that_is_in_no_version(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, seq = _later(past)
    _write_all_the_time(opened, monkeypatch)
    rolled = past.world.fs.rollback.roll_back(rollback(seq, ()), NOBODY, dry_run=False)

    assert past.world.read(b"f", rolled.seq - 1)[:5] == b"later"
    assert past.world.read(b"f", rolled.seq)[:5] == b"oldol"
    opened.close()


def test_a_look_of_the_timer_that_gave_up_does_not_keep_a_tag_from_what_is_there(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, _ = _later(past)
    _write_all_the_time(opened, monkeypatch)
    past.captures.capture_due(1e-9)
    for watch in past.captures.unseen.all():
        watch.wait()

    assert past.world.read(b"f", past.world.fs.tags.tag("now"))[:5] == b"later"
    opened.close()


@pytest.mark.expect_logs("f cannot be recorded")
def test_what_cannot_be_recorded_is_neither_rolled_back_nor_tagged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = world.create(b"f", b"old")
    world.fs.captures.capture_all()
    seq = Seq(world.recorder.last)
    world.fs.files.write(number, 0, b"new")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as broken:
        broken.setattr(captures, "FrozenBytes", fail)
        with pytest.raises(StoreError, match="f cannot be recorded as it is now: nothing was"):
            world.fs.rollback.roll_back(rollback(seq, ()), NOBODY, dry_run=False)
        with pytest.raises(StoreError, match="no tag was made"):
            world.fs.tags.tag("now")
    assert Path(world.state / "f").read_bytes() == b"new"

    assert world.fs.tags.tag("then", seq) == seq
    world.fs.files.release(number)


def test_syncfs_takes_what_is_there_of_a_file_that_is_written_all_the_time(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, _ = _later(past)
    _write_all_the_time(opened, monkeypatch)

    assert past.world.read(b"f", past.world.fs.attributes.syncfs())[:5] == b"later"
    opened.close()


def _look_again(past: Past, looked: int) -> bool:
    """Ask, as a request does for which it was looked so often, and do what is to be done first."""
    past.captures.looked = looked
    try:
        look = past.captures.before_all()
    finally:
        past.captures.looked = 0
    if look is not None:
        look()
    return look is not None


def test_what_was_found_and_overtaken_is_looked_for_again_but_not_for_ever(past: Past) -> None:
    opened, _ = _later(past)
    others = []
    asked = []
    for looked in range(4):
        asked.append(_look_again(past, looked))
        others.append(past.open(b"f"))  # then what was found does not count any more
    for other in (opened, *others):
        other.close()

    assert asked == [True, True, True, False]


def test_what_was_found_is_not_looked_for_again(past: Past) -> None:
    opened, _ = _later(past)

    assert [_look_again(past, looked) for looked in range(2)] == [True, False]
    past.captures.looked = 1
    past.captures.capture_all()
    past.captures.looked = 0
    assert past.world.read(b"f")[:5] == b"later"
    opened.close()


def test_a_file_that_cannot_be_looked_at_keeps_no_other_from_it(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = _later(past)
    second = past.open(b"g")
    second.write(0, b"g" * _LARGE)
    real = Look.__init__

    def fail_for_second(self: Look, fd: int, *args: Any, **more: Any) -> None:
        if fd == second.handle.fd:
            raise OSError(errno.EMFILE, "too many")
        real(self, fd, *args, **more)

    with monkeypatch.context() as broken:
        broken.setattr(Look, "__init__", fail_for_second)
        look = past.captures.before_all()
    assert look is not None
    look()

    watches = past.captures.unseen.all()
    assert [(watch.looks, watch.has_found) for watch in watches] == [(0, True), (0, False)]
    past.captures.capture_all()
    assert past.world.read(b"g") == b"g" * _LARGE
    first.close()
    second.close()


def test_a_look_that_cannot_begin_leaves_no_fd_open(past: Past) -> None:
    opened, _ = _later(past)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        Look(opened.fd, past.world.root_fd, None, base=1 << 20)

    assert len(os.listdir("/proc/self/fd")) == before
    opened.close()


def test_an_older_look_that_ends_later_does_not_replace_a_newer_one(past: Past) -> None:
    opened, _ = _later(past)
    (watch,) = past.captures.unseen.all()
    older, newer = (
        Look(opened.fd, past.world.root_fd, None, takes_any=True).run() for _ in range(2)
    )
    for found in (newer, older):
        watch.begin()
        watch.deposit(watch.key(), found)

    assert watch.take(os.fstat(opened.fd), is_new=True) is newer
    assert newer is not None
    newer.drop()
    opened.close()
