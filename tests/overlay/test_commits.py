"""Commits that are not what they seem."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dkfs.errors import StoreError
from dkfs.history.rollback import rollback
from dkfs.model.ids import Seq
from dkfs.model.operation import NOBODY
from dkfs.store import Writer
from tests.overlay.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.expect_logs("the store failed")
def test_a_commit_that_seemed_to_fail_and_had_landed_is_not_done_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = world.store.write
    failures = [StoreError("seems to fail")]

    @contextmanager
    def landing() -> Iterator[Writer]:
        with write() as writer:
            yield writer
        if failures:
            raise failures.pop()

    monkeypatch.setattr(world.store, "write", landing)
    world.fs.files.release(world.create(b"f", b"one"))
    deadline_s = time.monotonic() + 60
    while world.recorder.committed < world.recorder.last and time.monotonic() < deadline_s:
        time.sleep(0.02)

    assert world.recorder.is_recording
    assert world.read(b"f") == b"one"


def test_a_rollback_alone_makes_the_end_unclean_until_it_is_closed(world: World) -> None:
    world.fs.files.release(world.create(b"f", b"one"))
    assert world.recorder.flush()
    with world.store.write() as writer:
        writer.set_clean(True)

    world.fs.rollback.roll_back(rollback(Seq(1)), NOBODY, dry_run=False)

    with world.store.read() as reader:
        assert not reader.clean()
