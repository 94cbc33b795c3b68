"""Rolling back: the version that it is says what was done, and nothing else."""

import random
from pathlib import Path

import pytest

from dkfs.history.rollback import rollback
from dkfs.model.operation import NOBODY
from tests.overlay.world import World


def damage(store: Path, data: bytes) -> None:
    """Change a byte of the blob *data*, which is stored plain."""
    for segment in (store / "segments").iterdir():
        raw = bytearray(segment.read_bytes())
        at = raw.find(data)
        if at >= 0:
            raw[at] ^= 1
            segment.write_bytes(raw)
            return
    raise AssertionError("no such blob")


@pytest.mark.expect_logs("do not match the hash|is damaged")
def test_what_cannot_be_rolled_back_is_recorded_as_it_is(world: World) -> None:
    data = random.Random(1).randbytes(1000)
    bad, good = world.create(b"bad", data), world.create(b"good", b"then")
    for number in (bad, good):
        world.fs.files.flush(number)
    assert world.recorder.flush()
    then = world.recorder.committed
    for number in (bad, good):
        world.fs.files.write(number, 0, b"now!" * 250)
        world.fs.files.flush(number)
    assert world.recorder.flush()
    damage(world.store.path, data)

    rolled = world.fs.rollback.roll_back(rollback(then, ()), NOBODY, dry_run=False)

    assert rolled.result is not None
    assert [problem.split(":")[0] for problem in rolled.result.problems] == ["bad"]
    assert world.read(b"bad") == (world.state / "bad").read_bytes() == b"now!" * 250
    assert world.read(b"good") == (world.state / "good").read_bytes() == b"then"
