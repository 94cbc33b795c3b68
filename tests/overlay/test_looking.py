"""One look at a file that others write: what it finds was there at one instant, or it says that it cannot tell."""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dkfs.history.frozen import COPY_MOST
from dkfs.overlay import clones
from dkfs.overlay.looking import Found, Look
from tests.disks import disk, overlay


@contextmanager
def _looking(top: Path, content: bytes, **how: bool) -> Iterator[tuple[int, Look]]:
    fd = os.open(top / "f", os.O_RDWR | os.O_CREAT)
    directory = os.open(top, os.O_RDONLY)
    try:
        os.pwrite(fd, content, 0)
        yield fd, Look(fd, directory, None, no_clones=set(), **how)
    finally:
        os.close(fd)
        os.close(directory)


def _content(found: Found) -> bytes:
    assert found.frozen is not None
    return b"".join(found.frozen.read(start, end) for start, end in found.ranges)


@pytest.mark.parametrize("size", [0, 1, COPY_MOST, COPY_MOST + 1, 3 * COPY_MOST + 12345])
def test_all_of_a_file_of_which_nothing_is_recorded_is_found(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    with _looking(tmp_path, content) as (_, look):
        found = look.run()

    assert found is not None
    assert found.ranges == (((0, size),) if size else ())
    assert _content(found) == content
    found.drop()


def test_holes_are_found_without_being_copied(tmp_path: Path) -> None:
    with _looking(tmp_path, b"a") as (fd, look):
        os.ftruncate(fd, 1 << 30)
        os.pwrite(fd, b"z", (1 << 30) - 1)
        found = look.run()

    assert found is not None
    assert found.ranges == ((0, 1 << 30),)
    assert found.frozen is not None
    assert found.frozen.held <= 2 * COPY_MOST
    assert found.frozen.read(0, 2) == b"a\0"
    assert found.frozen.read((1 << 30) - 2, 1 << 30) == b"\0z"
    found.drop()


def test_what_is_found_of_a_file_that_nobody_can_write_is_not_copied(tmp_path: Path) -> None:
    with _looking(tmp_path, b"x" * (2 * COPY_MOST), is_still=True) as (_, look):
        found = look.run()

    assert found is not None
    assert found.frozen is None
    assert found.ranges == ((0, 2 * COPY_MOST),)


@contextmanager
def _written_all_the_time(fd: int, size: int) -> Iterator[None]:
    """Fill the file with one number after the other, each by one write(2)."""
    ends = threading.Event()

    def write() -> None:
        number = 0
        while not ends.is_set():
            number = (number + 1) % 256
            os.pwrite(fd, bytes([number]) * size, 0)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_clone_is_never_half_of_a_write(tmp_path: Path, kind: str) -> None:
    size = 4 * COPY_MOST
    with disk(kind, tmp_path) as top:
        directory = os.open(top, os.O_RDONLY)
        fd = os.open(top / "f", os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, bytes(size), 0)
        with _written_all_the_time(fd, size):
            for _ in range(10):
                found = Look(fd, directory, None, no_clones=set()).run()
                assert found is not None
                assert found.clone >= 0
                assert len(set(_content(found))) == 1
                found.drop()
        os.close(fd)
        os.close(directory)


@pytest.mark.parametrize("size", [COPY_MOST, 8 * COPY_MOST])
@pytest.mark.parametrize("kind", ["xfs", "btrfs", "ext4", "tmpfs"])
def test_without_clones_a_file_that_never_rests_is_not_recorded_rather_than_torn(
    tmp_path: Path, kind: str, size: int
) -> None:
    """A write moves the file's time when it begins: one that was under way at the first look is waited for."""
    with disk(kind, tmp_path) as top:
        directory = os.open(top, os.O_RDONLY)
        fd = os.open(top / "f", os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, bytes(size), 0)
        with _written_all_the_time(fd, size):
            for _ in range(40 if size <= COPY_MOST else 3):
                try:
                    found = Look(fd, directory, None, no_clones=None).run()
                except BlockingIOError:
                    continue
                assert found is not None
                assert len(set(_content(found))) == 1
                found.drop()
        os.close(fd)
        os.close(directory)


@pytest.mark.parametrize("kind", ["xfs", "btrfs", "ext4", "tmpfs", "overlay"])
def test_a_write_that_is_under_way_is_waited_for(tmp_path: Path, kind: str) -> None:
    size = 128 << 20
    with overlay(tmp_path) if kind == "overlay" else disk(kind, tmp_path) as top:
        fd = os.open(top / "f", os.O_RDWR | os.O_CREAT)
        data = b"new" * (size // 3)
        os.pwrite(fd, b"o" * len(data), 0)
        thread = threading.Thread(target=os.pwrite, args=(fd, data, 0))
        reading = os.open(top / "f", os.O_RDONLY)
        thread.start()
        while os.pread(reading, 1, 0) != b"n":
            pass
        clones.finish_writes(reading)
        last = os.pread(reading, 3, len(data) - 3)
        thread.join()
        os.close(fd)
        os.close(reading)

    assert last == b"new"


def test_a_device_without_clones_is_asked_once(tmp_path: Path) -> None:
    with disk("tmpfs", tmp_path) as top:
        known: set[int] = set()
        fd = os.open(top / "f", os.O_RDWR | os.O_CREAT)
        directory = os.open(top, os.O_RDONLY)
        os.pwrite(fd, bytes(2 * COPY_MOST), 0)
        found = Look(fd, directory, None, no_clones=known).run()
        assert found is not None
        found.drop()

        assert known == {os.fstat(fd).st_dev}
        os.close(fd)
        os.close(directory)


def test_nothing_is_left_open_by_a_look_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(directory: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with _looking(tmp_path, os.urandom(2 * COPY_MOST)) as (_, look):
        monkeypatch.setattr(clones, "nameless", full)
        with pytest.raises(OSError) as caught:
            look.run()
        open_fds = len(os.listdir("/proc/self/fd"))
    assert caught.value.errno == errno.ENOSPC
    assert len(os.listdir("/proc/self/fd")) == open_fds - 2


def test_the_pages_that_are_not_on_the_disk_are_counted(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, bytes(40960), 0)
    before = clones.unwritten_pages(fd)
    os.fsync(fd)

    if before > 1 << 60:
        pytest.skip("needs cachestat(2): Linux 6.5")
    assert clones.unwritten_pages(fd) == 0
    os.close(fd)
