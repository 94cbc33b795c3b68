"""Stores through shared maps are recorded, in every io mode."""

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.engines import each_engine, each_way
from tests.mount.test_posix import recorded_now
from tests.mounting import Mounted

pytestmark = [pytest.mark.mount, pytest.mark.slow]

SIZE = 300_000  # bytes


def recorded(place: Mounted, path: Path) -> bytes:
    return recorded_now(place, os.fsencode(path.name))


@each_engine
def test_msync_is_an_fsync(mounted: Mounted) -> None:
    path = mounted.mountpoint / "file"
    path.write_bytes(bytes(SIZE))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), SIZE) as mapped:
        for number in range(5):
            mapped[number * 50_000] = number + 1
            mapped.flush()
            assert recorded(mounted, path)[number * 50_000] == number + 1


def msync_makes_the_backing_file_what_the_map_is(place: Mounted, path: Path) -> None:
    """Where the kernel passes a map through, msync does not reach dkfs: fsync does."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), SIZE) as mapped:
        mapped[123_456:123_461] = b"store"
        mapped.flush()
        assert (place.state_dir / path.name).read_bytes()[123_456:123_461] == b"store"
        os.fsync(file.fileno())
        assert recorded(place, path)[123_456:123_461] == b"store"


def fsync_takes_in_what_maps_have_stored(place: Mounted, path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), SIZE) as mapped:
        mapped[123_456:123_461] = b"store"
        os.pwrite(file.fileno(), b"write", 200_000)
        other = os.open(path, os.O_RDONLY)
        os.fsync(other)
        os.close(other)
        data = recorded(place, path)

    assert (data[123_456:123_461], data[200_000:200_005]) == (b"store", b"write")


def a_map_that_outlives_its_fd_is_recorded(place: Mounted, path: Path) -> None:
    file = path.open("r+b")
    mapped = mmap.mmap(file.fileno(), SIZE)
    file.close()
    place.flush()
    mapped[100_000:100_005] = b"later"
    assert path.read_bytes()[100_000:100_005] == b"later"
    mapped.close()
    place.flush()

    assert recorded(place, path)[100_000:100_005] == b"later"


def a_private_map_changes_nothing(place: Mounted, path: Path) -> None:
    before = place.dkfs("log", "--json").stdout.count("\n")
    with (
        path.open("r+b") as file,
        mmap.mmap(file.fileno(), SIZE, flags=mmap.MAP_PRIVATE) as mapped,
    ):
        mapped[5] = 5
        assert path.read_bytes()[5] == 0
    place.flush()

    assert recorded(place, path) == bytes(SIZE)
    assert place.dkfs("log", "--json").stdout.count("\n") == before


BEHAVIOURS: tuple[Callable[[Mounted, Path], None], ...] = (
    msync_makes_the_backing_file_what_the_map_is,
    fsync_takes_in_what_maps_have_stored,
    a_map_that_outlives_its_fd_is_recorded,
    a_private_map_changes_nothing,
)


@each_way
def test_what_maps_store_is_recorded(mounted: Mounted) -> None:
    for behaviour in BEHAVIOURS:
        path = mounted.mountpoint / behaviour.__name__
        path.write_bytes(bytes(SIZE))
        mounted.flush()
        behaviour(mounted, path)
