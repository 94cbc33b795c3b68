"""What a kill -9 at any step of a collection leaves, and what a full disk does."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.errors import StoreError
from dkfs.store import Store
from dkfs.store.check import check
from dkfs.store.collect_copy import Copied
from dkfs.store.compact import compact
from dkfs.store.reserve import RESERVE_NAME, Reserve
from dkfs.store.segments import UNFINISHED
from tests.store.collecting import (
    SEGMENT_LIMIT,
    collect,
    contents,
    expect,
    fill,
    lose,
    segment_bytes,
)


def killed_at(path: Path, count: int) -> str | None:
    """Collect the store at *path* in a child that is killed at its step *count*; return which one that is.

    None if it ended before.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        left = count

        def at(step: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                os.write(writing, step.encode())
                os.kill(os.getpid(), signal.SIGKILL)

        with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as store:
            collect(store, max_unused=0, at=at)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as steps:
        step = steps.read().decode()
    _, status = os.waitpid(pid, 0)
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
    return step or None


@pytest.mark.slow
def test_killed_at_any_step_a_collection_loses_nothing_and_the_next_one_ends_it(
    path: Path, tmp_path: Path
) -> None:
    with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as store:
        fill(store, range(1, 151), size=1500)
        lose(store, 1, 40)
        lose(store, 81, 120)
    kept = [*range(41, 81), *range(121, 151)]
    reached: set[str] = set()
    count = 1
    while True:
        copy = tmp_path / f"copy{count}"
        shutil.copytree(path, copy)
        step = killed_at(copy, count)
        with Store.open(copy, writable=True, segment_limit=SEGMENT_LIMIT) as store:
            expect(store, kept, size=1500)
            assert list(check(store, read_data=True)) == []
            assert not list((copy / "segments").glob(f"*{UNFINISHED}"))
            fill(store, [151], size=1500)
            collect(store, max_unused=0)
            expect(store, [*kept, 151], size=1500)
            assert list(check(store, read_data=True)) == []
            assert segment_bytes(copy) < 130_000
        shutil.rmtree(copy)
        if step is None:
            break
        reached.add(step)
        count += 1

    assert reached == {
        "looked",
        "dead rows removed",
        "rolled",
        "checkpoint written",
        "copied",
        "adopted",
        "rows moved",
        "ended",
        "rows of segments removed",
    }


def test_killed_when_a_copy_has_its_name_but_is_not_known_a_store_is_as_before(path: Path) -> None:
    with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as store:
        fill(store, range(1, 101), size=1500)
        lose(store, 1, 40)
    pid = os.fork()
    if pid == 0:
        appear = Copied.appear

        def die(copied: Copied) -> None:
            appear(copied)
            os.kill(os.getpid(), signal.SIGKILL)

        Copied.appear = die  # type: ignore[method-assign, assignment]  # in the child only
        with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as store:
            collect(store, max_unused=0)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    before = segment_bytes(path)

    with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as store:
        assert segment_bytes(path) < before
        expect(store, range(41, 101), size=1500)
        assert list(check(store, read_data=True)) == []
        collect(store, max_unused=0)
        expect(store, range(41, 101), size=1500)
        assert list(check(store, read_data=True)) == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    point = tmp_path / "disk"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "dkfs-test", point], check=True)
    yield point
    subprocess.run(["umount", point], check=True)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Path]:
    """Mount a small disk with a file system that is one."""
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root and mkfs.ext4")
    image, point = tmp_path / "image", tmp_path / "loop"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, point], check=False).returncode:
        pytest.skip("no loop device")
    yield point
    subprocess.run(["umount", point], check=True)


def fill_to_the_brim(directory: Path) -> None:
    """Leave no byte on the disk of *directory*."""
    with (directory / "ballast").open("wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    assert os.statvfs(directory).f_bavail == 0


def check_full(directory: Path, segment_limit: int) -> None:
    path = directory / "store"
    Store.create(path)
    with Store.open(path, writable=True, segment_limit=segment_limit) as store:
        reserve = Reserve(path, 2 << 20)
        assert reserve.take()
        fill(store, range(1, 501), size=20_000)
        fill_to_the_brim(directory)
        with pytest.raises(StoreError, match="No space"):
            fill(store, range(501, 560), size=200_000)
        with store.read() as reader:
            last = int(reader.last)

        with reserve.spending():
            reserve.attempt(lambda: lose(store, 1, 300))
            collect(store, max_unused=0, reserve=2 << 20)

        free = os.statvfs(directory).f_bavail * os.statvfs(directory).f_frsize
        assert free > 3_000_000
        assert (path / RESERVE_NAME).stat().st_blocks * 512 >= 2 << 20
        fill(store, range(last + 1, last + 5), size=20_000)
        expect(store, range(301, 501), size=20_000)
        assert list(check(store, read_data=True)) == []


# With small segments the live part of each finds room in the reserve and in what the ones before gave back; the one
# great segment can only be given up piece by piece, from its end.
@pytest.mark.root
@pytest.mark.slow
@pytest.mark.expect_logs("")
@pytest.mark.parametrize("segment_limit", [2_000_000, 256_000_000])
def test_on_a_full_tmpfs_versions_are_forgotten_and_the_room_comes_back(
    disk: Path, segment_limit: int
) -> None:
    check_full(disk, segment_limit)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.expect_logs("")
@pytest.mark.parametrize("segment_limit", [2_000_000, 256_000_000])
def test_on_a_full_ext4_versions_are_forgotten_and_the_room_comes_back(
    loop: Path, segment_limit: int
) -> None:
    check_full(loop, segment_limit)


def with_little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let collections believe that 200 KB are left on the disk."""
    monkeypatch.setattr("dkfs.store.collect._room", lambda _: 200_000)


def test_with_little_room_a_segment_is_given_up_from_its_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(path, writable=True) as store:
        fill(store, range(1, 501))
        lose(store, 1, 200)
        lose(store, 301, 330)
        with_little_room(monkeypatch)
        steps: list[str] = []
        before = segment_bytes(path)

        report = collect(store, max_unused=0, at=steps.append)

        assert steps.count("cut") > 5
        assert report.skipped == ()
        assert abs(before - segment_bytes(path) - report.freed) < 5000
        assert segment_bytes(path) < 700_000
        expect(store, [*range(201, 301), *range(331, 501)])
        assert list(check(store, read_data=True)) == []


@pytest.mark.expect_logs("somebody reads an older view")
def test_what_somebody_reads_is_not_cut_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(path, writable=True) as store:
        fill(store, range(1, 301))
        lose(store, 1, 200)
        with_little_room(monkeypatch)
        with store.read() as reader:
            report = collect(store, max_unused=0)

            assert report.skipped == (1,)
            for version in range(201, 301):
                assert reader.blob(store.hash(contents(version))) == contents(version)
        assert list(check(store, read_data=True)) == []

        assert collect(store, max_unused=0).skipped == ()
        expect(store, range(201, 301))
        assert list(check(store, read_data=True)) == []


@pytest.mark.slow
def test_killed_while_a_segment_is_given_up_by_pieces_nothing_is_lost(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(path, writable=True, segment_limit=10**9) as store:
        fill(store, range(1, 301), size=1500)
        lose(store, 1, 100)
    reached: set[str] = set()
    for count in range(1, 60):
        copy = tmp_path / f"copy{count}"
        shutil.copytree(path, copy)
        with monkeypatch.context() as patch:
            with_little_room(patch)
            step = killed_at(copy, count)
        with Store.open(copy, writable=True) as store:
            expect(store, range(101, 301), size=1500)
            assert list(check(store, read_data=True)) == []
            collect(store, max_unused=0)
            expect(store, range(101, 301), size=1500)
            assert list(check(store, read_data=True)) == []
            assert segment_bytes(copy) < 400_000
        shutil.rmtree(copy)
        if step is None:
            break
        reached.add(step)

    assert {"copied", "adopted", "rows moved", "shortened", "cut"} <= reached


def test_a_smaller_index_takes_the_place_of_one_with_free_pages(path: Path) -> None:
    with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as store:
        fill(store, range(1, 401), size=100)
        lose(store, 1, 360)
        collect(store)
    before = (path / "index.lmdb").stat().st_size

    freed = compact(path, max_unused=0.1)

    assert freed > before * 0.5
    assert (path / "index.lmdb").stat().st_size == before - freed
    assert compact(path, max_unused=0.1) == 0
    assert sorted(os.listdir(path)) == ["LOCK", "index.lmdb", "index.lmdb-lock", "segments"]
    with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as store:
        expect(store, range(361, 401), size=100)
        fill(store, range(401, 403), size=100)
        assert list(check(store, read_data=True)) == []


def test_an_index_that_another_process_reads_is_not_replaced(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        fill(store, range(1, 301), size=100)
        lose(store, 1, 280)
        collect(store)
    reading, writing = os.pipe()
    ending, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end)
        with Store.open(path, writable=False):
            os.write(writing, b"1")
            os.read(ending, 1)
        os._exit(0)
    os.read(reading, 1)

    assert compact(path, max_unused=0) == 0

    os.close(end)
    assert os.waitpid(pid, 0)[1] == 0
    for fd in (reading, writing, ending):
        os.close(fd)
    assert compact(path, max_unused=0) > 0
    with Store.open(path, writable=False) as store, store.read() as reader:
        assert reader.blob(store.hash(contents(300, 100))) == contents(300, 100)
