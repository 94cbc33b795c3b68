"""On a backing file system that can share blocks, copies through the mount share them, and are recorded."""

import errno
import os
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from fcntl import ioctl
from pathlib import Path

import pytest

from dkfs.overlay.backing import fallocate
from dkfs.overlay.ranges import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from tests.disks import disk
from tests.mount.programs import check
from tests.mount.test_posix import recorded_now
from tests.mounting import Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

MIB = 1 << 20
_FIEMAP = 0xC020660B
_SYNC = 1
_SHARED = 0x2000  # linux/fiemap.h


@pytest.fixture(params=["xfs", "btrfs"])
def place(unmounted: Mounted, request: pytest.FixtureRequest) -> Iterator[Mounted]:
    """Make a mount whose backing directory is on a file system of its own."""
    with disk(request.param, unmounted.base) as top:
        place = replace(unmounted, state_dir=top)
        place.mount("engine=kernel")
        try:
            yield place
            check(place, place.daemon_pid)
            place.umount()
        finally:
            place.detach()


def shared_bytes(path: Path) -> int:
    """Return how much of a file on the backing file system is shared with another."""
    with path.open("rb") as file:
        asked = struct.pack("=QQIIII", 0, 1 << 62, _SYNC, 0, 15, 0)
        found = ioctl(file, _FIEMAP, asked + bytes(15 * 56))
    count = struct.unpack_from("=I", found, 20)[0]
    shared = 0
    for index in range(count):
        _, _, length, flags = struct.unpack_from("=QQQ16xI", found, 32 + 56 * index)
        shared += length if flags & _SHARED else 0
    return shared


def test_a_copy_of_a_file_shares_its_blocks(place: Mounted) -> None:
    source, target = place.mountpoint / "source", place.mountpoint / "target"
    data = os.urandom(MIB) * 20
    source.write_bytes(data)
    with source.open("r+b") as file:
        os.fsync(file.fileno())
    subprocess.run(["cp", source, target], check=True)
    place.flush()

    assert shared_bytes(place.state_dir / "target") == 20 * MIB
    assert recorded_now(place, b"target") == data


def test_copies_holes_and_writes_between_captures_are_recorded_as_they_were(
    place: Mounted,
) -> None:
    source, target = place.mountpoint / "source", place.mountpoint / "target"
    source.write_bytes(os.urandom(3 * MIB))
    target.write_bytes(bytes(3 * MIB))
    with source.open("r+b") as one, target.open("r+b") as other:
        for round_ in range(4):
            at = round_ * 600_000
            os.copy_file_range(one.fileno(), other.fileno(), 500_000, at, at + 17)
            os.copy_file_range(one.fileno(), other.fileno(), MIB, 0, MIB)
            fallocate(other.fileno(), PUNCH_HOLE | KEEP_SIZE, at, 10_000)
            fallocate(one.fileno(), ZERO_RANGE, at + 3, 20_000)
            os.fsync(other.fileno())
            assert recorded_now(place, b"target") == (place.state_dir / "target").read_bytes()
            os.fsync(one.fileno())
            assert recorded_now(place, b"source") == (place.state_dir / "source").read_bytes()


def test_no_range_is_shifted_and_no_file_cloned(place: Mounted) -> None:
    """The kernel asks no FUSE daemon for it: docs/transparency.md."""
    path = place.mountpoint / "file"
    path.write_bytes(bytes(MIB))
    with path.open("r+b") as file, (place.mountpoint / "other").open("w+b") as other:
        for attempt in (
            lambda: fallocate(file.fileno(), 0x08, 0, 65536),
            lambda: fallocate(file.fileno(), 0x20, 0, 65536),
            lambda: ioctl(other, 0x40049409, file.fileno()),
        ):
            with pytest.raises(OSError) as refused:
                attempt()
            assert refused.value.errno == errno.EOPNOTSUPP
