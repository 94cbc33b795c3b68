"""A store on a file system that is full, or mounted read-only."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.errors import StoreError
from dkfs.model.ids import Seq
from dkfs.store import Store
from dkfs.store.check import check
from tests.store.making import add_file


@pytest.fixture
def disk(tmp_path: Path, needs_root: None) -> Iterator[Path]:
    """Mount a file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "dkfs-test", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(store: Store) -> int:
    """Add files until there is no more room; return how many were added."""
    for count in range(1000):
        try:
            add_file(store, b"f%d" % count, os.urandom(10_000))
        except StoreError as exc:
            if exc.errno != errno.ENOSPC:
                raise
            return count
    raise AssertionError("the disk has no end")


@pytest.mark.root
def test_a_full_disk_loses_nothing_that_was_committed(disk: Path) -> None:
    path = disk / "store"
    Store.create(path)
    with Store.open(path, writable=True) as store:
        count = fill(store)
        assert count > 20
        for _ in range(3):
            fill(store)
        with store.read() as reader:
            last = reader.last
        assert last >= count
        assert list(check(store, read_data=True)) == []

        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)

        assert add_file(store, b"more", b"room")[0] == last + 1
        assert list(check(store, read_data=True)) == []


@pytest.mark.root
@pytest.mark.parametrize("lock_file", ["there", "missing"])
def test_a_store_on_a_read_only_file_system_is_read(disk: Path, lock_file: str) -> None:
    path = disk / "store"
    Store.create(path)
    with Store.open(path, writable=True) as store:
        _, _, blob = add_file(store, b"f", b"data")
    if lock_file == "missing":
        (path / "index.lmdb-lock").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    with Store.open(path, writable=False) as store, store.read() as reader:
        assert reader.last == Seq(1)
        assert reader.blob(blob) == b"data"
    with pytest.raises(StoreError, match="cannot be written: Read-only file system"):
        Store.open(path, writable=True)
    with pytest.raises(StoreError, match="cannot be made: Read-only file system"):
        Store.create(disk / "other")
