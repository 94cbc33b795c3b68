"""Thousands of random operations: the mount equals a model, and every version equals the model's past."""

import os
import random
import shutil
import stat
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from dkfs.daemon import control
from dkfs.history.tree import Tree
from dkfs.model.ids import Seq
from dkfs.store import Store
from tests.mount.model import Pictures, Versions, differences, pictures_of, statuses_of
from tests.mount.twin import Twin
from tests.mounting import Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

OPERATIONS = 800
BATCH = 50


class Note(NamedTuple):
    """What a version is to be."""

    what: str  # was done last
    pictures: Pictures


Noted = dict[Seq, Note]


@pytest.fixture(autouse=True)
def _no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def last_version(place: Mounted) -> Seq:
    """Return the version that holds everything done so far."""
    last = control.request(place.store, {"command": "flush"})["last"]
    assert isinstance(last, int)
    return Seq(last)


def do(place: Mounted, twin: Twin, operations: int, noted: Noted) -> None:
    """Do random operations and note the model's state at each version that is made."""
    recent: list[str] = []
    for number in range(1, operations + 1):
        recent.append(twin.step().replace("n" * 250, "..."))
        noted[last_version(place)] = Note(recent[-1], twin.model.pictures())
        if number % BATCH == 0 or number == operations:
            wrong = differences(
                noted[max(noted)].pictures, pictures_of(os.fsencode(place.mountpoint))
            )
            assert not wrong, "\n".join([*recent[-BATCH:], "the mount is not the model:", *wrong])
            mount, backing = (
                statuses_of(os.fsencode(top)) for top in (place.mountpoint, place.state_dir)
            )
            assert mount == backing


def check_history(place: Mounted, noted: Noted) -> None:
    with Store.open(place.store, writable=False) as store, store.read() as reader:
        versions = Versions(reader)
        for seq, (what, expected) in noted.items():
            wrong = differences(expected, versions.pictures(Tree(reader, seq)))
            assert not wrong, f"version {seq} after {what}:\n" + "\n".join(wrong)


def seeded(request: pytest.FixtureRequest) -> random.Random:
    seed = os.environ.get("DKFS_TEST_SEED") or f"{request.node.name} {os.urandom(4).hex()}"
    print(f"DKFS_TEST_SEED={seed!r}")
    return random.Random(seed)


def check_random_operations(mounted: Mounted, rng: random.Random, operations: int) -> None:
    twin = Twin(os.fsencode(mounted.mountpoint), rng)
    noted: Noted = {last_version(mounted): Note("mount", twin.model.pictures())}
    try:
        do(mounted, twin, operations, noted)
    finally:
        twin.close()
    noted[last_version(mounted)] = Note("close", twin.model.pictures())

    check_history(mounted, noted)
    for seq in rng.sample(sorted(noted), 20):
        top = os.fsencode(mounted.mountpoint / ".dkfs" / "versions" / str(seq))
        wrong = differences(harmless(noted[seq].pictures), pictures_of(top))
        assert not wrong, f".dkfs/versions/{seq} is not what was:\n" + "\n".join(wrong)
    check_rollbacks(mounted, noted, rng)
    check_new_mounts(mounted, twin)


def harmless(pictures: Pictures) -> Pictures:
    """Return *pictures* as .dkfs shows them: no right to become somebody, or to use a device."""
    shown = {}
    for path, picture in pictures.items():
        mode = picture.mode & ~(stat.S_ISUID | stat.S_ISGID)
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            mode = stat.S_IFMT(mode)
        shown[path] = picture._replace(mode=mode)
    return shown


def check_rollbacks(mounted: Mounted, noted: Noted, rng: random.Random) -> None:
    """Go back to some versions, and to the last one again."""
    now = noted[max(noted)].pictures
    for seq in [*rng.sample(sorted(noted), 8), max(noted)]:
        answer = control.request(mounted.store, {"command": "rollback", "version": str(seq)})
        assert answer["problems"] == []
        wrong = differences(noted[seq].pictures, pictures_of(os.fsencode(mounted.mountpoint)))
        assert not wrong, f"rollback to {seq} is not what was:\n" + "\n".join(wrong)
    for _ in range(9):
        control.request(mounted.store, {"command": "undo"})
    wrong = differences(now, pictures_of(os.fsencode(mounted.mountpoint)))
    assert not wrong, "undone, but not what was:\n" + "\n".join(wrong)


def check_new_mounts(mounted: Mounted, twin: Twin) -> None:
    """Mount again, and again with everything lost."""
    last = last_version(mounted)
    mounted.umount()
    mounted.mount()
    assert last_version(mounted) == last, "nothing was different, but something was found"
    mounted.umount()
    shutil.rmtree(mounted.state_dir)
    mounted.state_dir.mkdir()
    mounted.mount()
    wrong = differences(twin.model.pictures(), pictures_of(os.fsencode(mounted.mountpoint)))
    assert not wrong, "replayed, but not what was:\n" + "\n".join(wrong)


@pytest.mark.timeout(600)
def test_every_version_of_random_operations_is_what_the_mount_was(
    mounted: Mounted, request: pytest.FixtureRequest
) -> None:
    check_random_operations(mounted, seeded(request), OPERATIONS)


@pytest.mark.torture
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("run", range(20))
def test_every_version_of_many_random_operations_is_what_the_mount_was(
    mounted: Mounted, request: pytest.FixtureRequest, run: int
) -> None:
    check_random_operations(mounted, seeded(request), 10 * OPERATIONS)
