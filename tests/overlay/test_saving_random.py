"""However files are saved, every version holds what they were, whole or in chunks, as deltas or not."""

import os
import random
from pathlib import Path

import pytest

from dkfs.core.chunking import Chunking
from dkfs.history import content
from dkfs.history.tree import Tree
from dkfs.model.ids import Seq
from dkfs.overlay import captures
from dkfs.overlay.attributes import NewAttributes
from dkfs.store.check import check
from tests.overlay.world import ME, World

SMALL = Chunking(minimum=64, average=256, maximum=1024, threshold=300)
NAMES = (b"a", b"b", b"c.tmp", b"c")
SIZE = 20_000


class Saver:
    """Saves files at random, and remembers what each version must be."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.open: dict[bytes, int] = {}  # handles, by the name of the file
        self.expected: dict[Seq, dict[bytes, bytes]] = {}

    def step(self) -> None:
        """Do something, and sometimes have it recorded."""
        rng = self.rng
        name = rng.choice(NAMES)
        if name not in self.open:
            self._open(name)
        rng.choice((self._write, self._write, self._write, self._truncate, self._close))(name)
        if rng.random() < 0.1:
            self._rename(name)
        if rng.random() < 0.05:
            self._unlink(name)
        if rng.random() < 0.3:
            self.record()

    def record(self) -> None:
        """Have everything captured and remember what it is."""
        self.world.fs.captures.capture_all()
        state = self.world.state
        now = {os.fsencode(path.name): path.read_bytes() for path in state.iterdir()}
        self.expected[self.world.recorder.last] = now

    def close(self) -> None:
        """Close every file and have the rest recorded."""
        for name in tuple(self.open):
            self._close(name)
        self.record()
        assert self.world.recorder.flush()

    def check(self) -> None:
        """Compare every version that was recorded with what it must be."""
        with self.world.store.read() as reader:
            for seq, files in self.expected.items():
                tree = Tree(reader, seq)
                assert {name for name, _ in tree.children(tree.resolve(b""))} == set(files)
                for name, data in files.items():
                    state = tree.state(tree.resolve(name))
                    assert content.read(reader, state, 0, state.attr.size) == data, (seq, name)

    def _data(self) -> bytes:
        """Return new bytes, or zeros, or some of another file."""
        rng = self.rng
        length = int(SIZE ** rng.random())
        kind = rng.random()
        if kind < 0.2:
            return bytes(length)
        if kind < 0.5:
            other = self.world.state / os.fsdecode(rng.choice(NAMES))
            data = other.read_bytes() if other.exists() else b""
            start = rng.randrange(len(data) + 1)
            return data[start : start + length]
        return rng.randbytes(length)

    def _open(self, name: bytes) -> None:
        world, flags = self.world, os.O_RDWR | self.rng.choice((0, 0, os.O_TRUNC))
        if (world.state / os.fsdecode(name)).exists():
            inode, _ = world.fs.names.lookup(world.root, name)
            self.open[name] = world.fs.files.open(inode, flags, ME)
        else:
            self.open[name] = world.create(name)

    def _write(self, name: bytes) -> None:
        for _ in range(self.rng.randrange(1, 4)):
            data = self._data()
            offset = self.rng.choice((0, self.rng.randrange(SIZE)))
            self.world.fs.files.write(self.open[name], offset, data)

    def _truncate(self, name: bytes) -> None:
        number = self.open[name]
        inode = self.world.inode(number)
        handle = self.rng.choice((None, number))
        new = NewAttributes(size=int(SIZE ** self.rng.random()) - 1)
        self.world.fs.attributes.set(inode, new, handle, ME)

    def _close(self, name: bytes) -> None:
        number = self.open.pop(name)
        self.world.fs.files.flush(number)
        self.world.fs.files.release(number)

    def _rename(self, name: bytes) -> None:
        if not (self.world.state / os.fsdecode(name)).exists():
            return
        other = self.rng.choice([n for n in NAMES if n != name])
        if other in self.open:
            self._close(other)
        self.world.fs.names.rename(self.world.root, name, self.world.root, other, 0, ME)
        if name in self.open:
            self.open[other] = self.open.pop(name)

    def _unlink(self, name: bytes) -> None:
        if name not in self.open and (self.world.state / os.fsdecode(name)).exists():
            self.world.fs.names.unlink(self.world.root, name, ME)


CHUNKINGS = {
    "small chunks": (SMALL, range(8)),
    "one chunk": (Chunking(), range(3)),
    "no chunks": (Chunking(enabled=False, threshold=0), range(3)),
}


@pytest.mark.parametrize(
    ("chunking", "seed"),
    [
        pytest.param(chunking, seed, id=f"{name}, {seed}")
        for name, (chunking, seeds) in CHUNKINGS.items()
        for seed in seeds
    ],
)
def test_every_version_of_files_saved_at_random_is_what_they_were(
    tmp_path: Path, chunking: Chunking, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, chunking)
    monkeypatch.setattr(captures, "COPY_MOST", 3000)  # what is more is read later
    rng = random.Random(seed)
    saver = Saver(world, rng)
    for turn in range(5):
        if turn:
            world.reopen()
        for _ in range(40):
            saver.step()
        saver.close()

    saver.check()
    assert list(check(world.store, read_data=True)) == []
    world.close()
