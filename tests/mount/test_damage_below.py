"""Damage in what a file was: whoever changes the file on a mount is told once, and soon it is recorded whole."""

import errno
import os
import time

import pytest

from dkfs.history.tree import Tree
from dkfs.store import Store
from tests.mounting import PATIENCE_S, Mounted

pytestmark = pytest.mark.mount


def damage(place: Mounted, name: bytes) -> None:
    """Damage the contents of *name* in the store, of which the mount must be gone."""
    with Store.open(place.store, writable=False) as store, store.read() as reader:
        state = reader.node(Tree(reader, reader.last).resolve(name), reader.last)
        assert state is not None
        assert state.content is not None
        location = reader.location(state.content)
    assert location is not None
    with open(place.store / "segments" / f"{location.segment:08d}.seg", "r+b") as file:
        file.seek(location.offset + 50)
        file.write(b"damaged!")


def newest(place: Mounted, name: str) -> bytes | None:
    """Return what *name* is in the last version, None if that is damaged."""
    try:
        return (place.mountpoint / ".dkfs" / "latest" / name).read_bytes()
    except OSError:
        return None


def is_synced(fd: int) -> bool:
    try:
        os.fsync(fd)
    except OSError:
        return False
    return True


def test_fsync_of_a_file_that_builds_on_damage_fails_until_the_file_is_recorded_which_is_soon(
    mounted: Mounted,
) -> None:
    data = os.urandom(50_000)
    path = mounted.mountpoint / "file"
    path.write_bytes(data)
    mounted.umount()
    damage(mounted, b"file")
    mounted.mount()
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, b"x", 100)

    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as failed:
        os.fsync(fd)
    deadline = time.monotonic() + PATIENCE_S
    while not is_synced(fd) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.close(fd)

    assert failed.value.errno == errno.EIO
    assert newest(mounted, "file") == data[:100] + b"x" + data[101:]
