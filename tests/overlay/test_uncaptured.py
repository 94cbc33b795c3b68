"""What cannot be captured, or only with difficulty, when a rollback, a tag or a syncfs asks for it."""

import errno
import os
from pathlib import Path

import pytest

from dkfs.errors import StoreError
from dkfs.history.rollback import rollback
from dkfs.model.ids import Seq
from dkfs.model.operation import NOBODY
from dkfs.overlay import captures, clones
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
