"""What the tests of restoring share."""

import os
from pathlib import Path

from dkfs.history.outcome import Result
from dkfs.history.restore import restore
from dkfs.history.wish import Overwrite, Wish
from dkfs.model.ids import Seq
from tests.history.test_materialise import World
from tests.history.trees import picture

Words = list[str | Path]
OLD_NS, NEW_NS = 1_000_000_000_000_000_000, 2_000_000_000_000_000_000
ALWAYS = Wish(overwrite=Overwrite.ALWAYS)
MIRROR = Wish(overwrite=Overwrite.ALWAYS, delete=True, privileged=True)


def put(path: Path, data: bytes, mtime_ns: int = NEW_NS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(0, mtime_ns))
    return path


def take(world: World, seq: Seq, target: Path, wish: Wish, path: bytes = b"") -> Result:
    with world.store.read() as reader:
        return restore(reader, seq, path, target, wish)


def planned(world: World, seq: Seq, target: Path, wish: Wish) -> set[tuple[str, bytes]]:
    """Return what a dry run names."""
    told: set[tuple[str, bytes]] = set()
    dry = Wish(
        overwrite=wish.overwrite,
        selection=wish.selection,
        delete=wish.delete,
        privileged=wish.privileged,
        dry_run=True,
        on_action=lambda action, name: told.add((action.value, name)),
    )
    before = picture(target) if target.exists() else None
    take(world, seq, target, dry)
    assert (picture(target) if target.exists() else None) == before
    return told


def names_in(target: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(target))
