"""Space given and taken, ranges shifted and copied, at random: every version holds what the files were."""

import errno
import os
import random
from pathlib import Path

import pytest

from dkfs.core.chunking import Chunking
from dkfs.overlay import captures
from dkfs.overlay import ranges as of_files
from dkfs.overlay.ranges import (
    COLLAPSE_RANGE,
    INSERT_RANGE,
    KEEP_SIZE,
    PUNCH_HOLE,
    UNSHARE_RANGE,
    ZERO_RANGE,
)
from dkfs.store.check import check
from tests.overlay.test_saving_random import NAMES, SIZE, SMALL, Saver
from tests.overlay.world import ME, World

BLOCK = 4096  # bytes, of the file system of the test
MODES = (
    *(0, 0, KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE, UNSHARE_RANGE),
    *(PUNCH_HOLE | KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE),
    *(COLLAPSE_RANGE, COLLAPSE_RANGE, INSERT_RANGE, INSERT_RANGE),
)
# Where what was asked for could not be done: at the end, not in whole blocks, not by this file system.
REFUSALS = (errno.EINVAL, errno.EOPNOTSUPP)


class RangeSaver(Saver):
    """See Saver; these things, too."""

    done = 0  # of what was asked for and was not refused

    def step(self) -> None:
        """See Saver."""
        super().step()
        rng = self.rng
        if self.open:
            name = rng.choice(sorted(self.open))
            for _ in range(rng.randrange(4)):
                rng.choice((self._fallocate, self._fallocate, self._copy))(name)
                if rng.random() < 0.3:
                    self.record()
        if rng.random() < 0.1:
            self._tmpfile()

    def _fallocate(self, name: bytes) -> None:
        rng = self.rng
        mode = rng.choice(MODES)
        offset, length = rng.randrange(SIZE), rng.randrange(1, SIZE // 3)
        if mode in (COLLAPSE_RANGE, INSERT_RANGE) or rng.random() < 0.2:
            offset, length = offset // BLOCK * BLOCK, max(BLOCK, length // BLOCK * BLOCK)
        try:
            self.world.fs.files.fallocate(self.open[name], mode, offset, length)
            self.done += 1
        except OSError as exc:
            assert exc.errno in REFUSALS, exc  # noqa: PT017 - most of the time there is no error

    def _copy(self, name: bytes) -> None:
        rng = self.rng
        other = rng.choice(sorted(self.open))
        places = rng.randrange(SIZE), rng.randrange(SIZE)
        files = self.world.fs.files
        try:
            length = rng.randrange(SIZE // 2)
            files.copy_range(self.open[other], places[0], self.open[name], places[1], length)
            self.done += 1
        except OSError as exc:
            assert exc.errno == errno.EINVAL  # noqa: PT017 - the ranges overlap
            assert other == name

    def _tmpfile(self) -> None:
        fs, rng = self.world.fs, self.rng
        number, inode, _ = fs.names.tmpfile(self.world.root, 0o600, os.O_RDWR, ME)
        fs.files.write(number, rng.randrange(SIZE), self._data())
        if rng.random() < 0.5:
            fs.files.flush(number)
        free = [n for n in NAMES if not (self.world.state / os.fsdecode(n)).exists()]
        if free and rng.random() < 0.7:
            fs.names.link(inode, self.world.root, free[0], ME)
            self.open[free[0]] = number
            return
        fs.files.release(number)
        fs.forget(inode.id, inode.lookups)


@pytest.mark.parametrize(
    ("chunking", "seed"),
    [
        *(pytest.param(SMALL, seed, id=f"small chunks, {seed}") for seed in range(8)),
        *(pytest.param(Chunking(), seed, id=f"one chunk, {seed}") for seed in range(8, 12)),
        *(
            pytest.param(SMALL, seed, id=f"small chunks, {seed}", marks=pytest.mark.torture)
            for seed in range(12, 200)
        ),
    ],
)
def test_every_version_of_files_changed_by_ranges_is_what_they_were(
    tmp_path: Path, chunking: Chunking, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, chunking)
    monkeypatch.setattr(captures, "COPY_MOST", 3000)  # what is more is read later
    rng = random.Random(seed)
    # What would have to be saved waits for the recorder instead; what is more is copied in several calls.
    monkeypatch.setattr(captures, "_SAVE_MOST", rng.choice((2000, 1 << 20)))
    monkeypatch.setattr(of_files, "_COPY_MOST", rng.choice((3000, 1 << 20)))
    saver = RangeSaver(world, rng)
    for turn in range(3):
        if turn:
            world.reopen()
        for _ in range(40):
            saver.step()
        saver.close()

    assert saver.done > 50
    saver.check()
    assert list(check(world.store, read_data=True)) == []
    world.close()
