"""After a rollback returned no process sees anything of what was before: contents, sizes, names, symlinks, listings."""

import mmap
import os
import struct
import time
from pathlib import Path

import pytest

from dkfs.daemon import control
from tests.mount import witnesses
from tests.mount.engines import STRICT, each_way
from tests.mount.witnesses import LOOKS, Shared
from tests.mounting import Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]


def version(place: Mounted) -> int:
    last = control.request(place.store, {"command": "flush"})["last"]
    assert isinstance(last, int)
    return last


def roll_back(place: Mounted, seq: int) -> None:
    control.request(place.store, {"command": "rollback", "version": str(seq)})


def rolled_under_readers(
    place: Mounted, shared_path: Path, times: int
) -> dict[str, tuple[int, int, str]]:
    """Go to and fro between two versions while processes look; return what each of them saw."""
    top = place.mountpoint
    witnesses.make_generation(top, 1)
    versions = [version(place)]
    witnesses.make_generation(top, 2)
    versions.append(version(place))
    shared = Shared(shared_path)
    state = 2  # generation 1 + state // 2 % 2, and odd while it changes
    shared.set(state)
    readers = {how: witnesses.start("generations", shared_path, top, how) for how in LOOKS}
    for _ in range(times):
        shared.set(state + 1)
        roll_back(place, versions[(state // 2 + 1) % 2])
        state += 2
        shared.set(state)
        time.sleep(0.05)  # for the readers to look
    shared.set(1, 8)
    return {how: witnesses.told(process, 60) for how, process in readers.items()}


def check_seen(seen: dict[str, tuple[int, int, str]], least: int) -> None:
    wrong = {how: (count, said[-2000:]) for how, (_, count, said) in seen.items() if count}
    assert not wrong
    assert min(looked for looked, _, _ in seen.values()) >= least


@each_way
def test_no_reader_sees_a_stale_page_name_or_size_after_a_rollback(
    unmounted: Mounted, tmp_path: Path, mount_options: tuple[str, ...]
) -> None:
    unmounted.mount(*mount_options)

    check_seen(rolled_under_readers(unmounted, tmp_path / "shared", 15), witnesses.LEAST)


@pytest.mark.torture
@pytest.mark.timeout(900)
@each_way
def test_no_reader_sees_anything_stale_in_200_rollbacks(
    unmounted: Mounted, tmp_path: Path, mount_options: tuple[str, ...]
) -> None:
    unmounted.mount(*mount_options)

    check_seen(rolled_under_readers(unmounted, tmp_path / "shared", 200), 200)


@each_way
def test_what_a_map_has_stored_is_recorded_before_a_rollback_and_gone_after_it(
    unmounted: Mounted, mount_options: tuple[str, ...]
) -> None:
    unmounted.mount(*mount_options)
    path = unmounted.mountpoint / "file"
    path.write_bytes(b"a" * 8192)
    then = version(unmounted)
    path.write_bytes(b"b" * 8192)
    fd = os.open(path, os.O_RDWR)
    with mmap.mmap(fd, 8192) as pages:
        pages[100:106] = b"stored"  # nobody has told dkfs of it
        roll_back(unmounted, then)
        seen = pages[:], path.read_bytes(), (unmounted.state_dir / "file").read_bytes()
        pages[200:204] = b"more"
        control.request(unmounted.store, {"command": "undo"})
        after = path.read_bytes()
    os.close(fd)

    assert seen == (b"a" * 8192,) * 3
    assert after == b"b" * 100 + b"stored" + b"b" * 8086
    control.request(unmounted.store, {"command": "redo"})
    assert path.read_bytes()[:208] == b"a" * 200 + b"more" + b"a" * 4


# pyfuse3 is not told which writes come from a map: see docs/decisions/0011.
@pytest.mark.parametrize("mount_options", [STRICT.options])
def test_a_map_that_is_stored_into_all_the_time_brings_nothing_back(
    unmounted: Mounted, tmp_path: Path, mount_options: tuple[str, ...]
) -> None:
    unmounted.mount(*mount_options)
    top = unmounted.mountpoint
    witnesses.make_generation(top, 1)
    versions = [version(unmounted)]
    witnesses.make_generation(top, 2)
    versions.append(version(unmounted))
    shared = Shared(tmp_path / "shared")
    process = witnesses.start("store", tmp_path / "shared", top / "file")
    wrong = []
    for count in range(10):
        time.sleep(0.02)  # for it to store
        roll_back(unmounted, versions[count % 2])
        data = (top / "file").read_bytes()
        stray = {
            number
            for at, (number,) in enumerate(struct.iter_unpack("<Q", data[: witnesses.MAPPED]))
            if at % 512 and number != 1 + count % 2
        }
        wrong += [(count, stray)] if stray else []
    shared.set(1, 8)
    stored, _, _ = witnesses.told(process, 60)

    assert wrong == []
    assert stored >= witnesses.LEAST


@pytest.mark.parametrize("times", [15, pytest.param(400, marks=pytest.mark.torture)])
@each_way
def test_what_is_cached_is_what_is_there_after_rollbacks_under_a_writer(
    unmounted: Mounted, tmp_path: Path, mount_options: tuple[str, ...], times: int
) -> None:
    unmounted.mount(*mount_options)
    top = unmounted.mountpoint
    witnesses.make_generation(top, 1)
    versions = [version(unmounted)]
    witnesses.make_generation(top, 2)
    versions.append(version(unmounted))
    shared = Shared(tmp_path / "shared")
    writer = witnesses.start("overwrite", tmp_path / "shared", top / "file")
    reader = witnesses.start("generations", tmp_path / "shared", top, "read")
    shared.set(1)  # in transition all the time: what it reads is not looked at
    different = []
    for count in range(times):
        time.sleep(0.02)
        roll_back(unmounted, versions[count % 2])
        time.sleep(0.01)
        shared.set(1, witnesses.PAUSE)
        while not shared.get(witnesses.PAUSED):
            time.sleep(0.001)
        if (top / "file").read_bytes() != (unmounted.state_dir / "file").read_bytes():
            different.append(count)
        shared.set(0, witnesses.PAUSE)
        while shared.get(witnesses.PAUSED):  # or the next pause would seem to be there already
            time.sleep(0.001)
    shared.set(1, 8)
    written, _, _ = witnesses.told(writer, 60)
    witnesses.told(reader, 60)

    assert different == []
    assert written >= witnesses.LEAST
