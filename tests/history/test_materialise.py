import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.core.plan import Plan
from dkfs.history.materialise import apply
from dkfs.history.outcome import Result
from dkfs.history.plan import plan
from dkfs.history.replay import reconcile
from dkfs.history.rollback import Move, redo, rollback, undo
from dkfs.history.scan import scan
from dkfs.model.ids import Seq
from dkfs.model.operation import NOBODY
from dkfs.store import Store
from dkfs.store.check import check
from tests.history.trees import Picture, RandomTree, picture


class World:
    """A directory and the store of its history."""

    def __init__(self, path: Path) -> None:
        self.top = path / "state"
        self.top.mkdir()
        self._now = 1_000
        Store.create(path / "store")
        self.store = Store.open(path / "store", writable=True)
        self.fd = os.open(self.top, os.O_RDONLY | os.O_DIRECTORY)

    def close(self) -> None:
        assert list(check(self.store, read_data=True)) == []
        os.close(self.fd)
        self.store.close()

    def record(self) -> Seq:
        """Record the directory as it is."""
        return reconcile(
            self.store, self.fd, prefer="dir", clock_ns=self.clock_ns, identity=b"id"
        ).seq

    def clock_ns(self) -> int:
        self._now += 1
        return self._now

    def plan(self, move: Move) -> Plan:
        with self.store.read() as reader:
            return move.plan(reader)

    def move(self, move: Move) -> Result:
        """Do *move* and record it, as the daemon does."""
        with self.store.read() as reader:
            way = move.plan(reader)
            result = apply(way, reader, self.fd)
        with self.store.write() as writer:
            writer.append(
                Seq(writer.last + 1),
                move.operation(self.clock_ns(), NOBODY),
                way.entry_nodes,
                way.entry_names,
            )
        return result

    def rollback(self, target: Seq, *paths: bytes) -> Result:
        return self.move(rollback(target, paths))

    def undo(self) -> Result:
        with self.store.read() as reader:
            move = undo(reader)
        return self.move(move)

    def redo(self) -> Result:
        with self.store.read() as reader:
            move = redo(reader)
        return self.move(move)

    def differences(self) -> list[tuple[str, bytes]]:
        """Return how the directory differs from the last version."""
        with self.store.read() as reader:
            found = scan(reader, self.fd, at=reader.last, rehash_since_ns=0)
            return [(each.what.name, each.name) for each in found]

    def picture(self) -> dict[bytes, Picture]:
        return picture(self.top)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def _differing(one: dict[bytes, Picture], other: dict[bytes, Picture]) -> dict[bytes, object]:
    """Return what differs, for a readable failure."""
    return {
        path: (one.get(path), other.get(path))
        for path in one.keys() | other.keys()
        if one.get(path) != other.get(path)
    }


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_random_trees_are_rolled_back_and_undone_exactly(world: World, seed: int) -> None:
    rng = random.Random(seed)
    tree = RandomTree(world.top, rng)
    tree.change(rng.choice((5, 40)))
    first, before = world.record(), world.picture()
    tree.change(rng.choice((1, 5, 40)))
    world.record()
    after = world.picture()

    assert world.rollback(first).problems == ()
    assert _differing(world.picture(), before) == {}
    assert world.differences() == []
    world.undo()
    assert _differing(world.picture(), after) == {}
    assert world.differences() == []
    world.redo()
    assert _differing(world.picture(), before) == {}
