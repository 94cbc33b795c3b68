"""Mounts that only show a directory and its history: beside the one that records, many at once, changing nothing."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from dkfs.daemon.control import request
from tests.mounting import CHECKOUT, PATIENCE_S, Mounted, wait_for_no_mount

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@contextmanager
def seen(place: Mounted, *options: str, name: str = "seen") -> Iterator[Path]:
    """Mount the directory of *place* read-only, too; it is gone at the end."""
    point = place.base / name
    point.mkdir()
    words = ("-o", ",".join(("ro", *options)), "--store", place.store)
    place.dkfs("mount", place.state_dir, point, *words)
    try:
        yield point
    finally:
        place.dkfs("umount", point)
        assert wait_for_no_mount(point, seconds=5)


def snapshot(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Return size, mtime and inode of everything below *directory*."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns, path.lstat().st_ino)
        for path in [directory, *directory.rglob("*")]
        if path.name != "index.lmdb-lock"  # where readers enter themselves
    }


def errno_of(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as exc:
        return os.strerror(exc.errno or 0)
    return "done"


def test_a_read_only_mount_beside_the_one_that_records_shows_what_that_one_does(
    mounted: Mounted,
) -> None:
    (mounted.mountpoint / "file").write_text("one")
    mounted.flush()
    with seen(mounted) as point:
        assert (point / "file").read_text() == "one"
        mounted.dkfs("tag", "first")
        (mounted.mountpoint / "file").write_text("two")
        (mounted.mountpoint / "new").mkdir()
        os.rename(mounted.mountpoint / "file", mounted.mountpoint / "new" / "moved")
        mounted.flush()

        assert (point / "new" / "moved").read_text() == "two"
        assert sorted(os.listdir(point)) == ["new"]
        assert not (point / "file").exists()
        assert (point / ".dkfs/latest/new/moved").read_text() == "two"
        assert (point / ".dkfs/tags/first/file").read_text() == "one"
        assert errno_of(lambda: (point / "file").write_text("x")) == "Read-only file system"
        assert errno_of(lambda: os.mkdir(point / ".dkfs/tags/mine")) == "Read-only file system"


def test_a_file_that_stays_open_shows_what_is_written_to_it_meanwhile(mounted: Mounted) -> None:
    path = mounted.mountpoint / "file"
    path.write_bytes(b"a" * 8192)
    with seen(mounted) as point, open(point / "file", "rb", buffering=0) as file:
        assert file.read(8192) == b"a" * 8192
        for char in (b"b", b"c"):
            with open(path, "r+b", buffering=0) as other:
                other.write(char * 8192)
            assert os.fstat(file.fileno()).st_size == 8192
            assert os.pread(file.fileno(), 8192, 0) == char * 8192


def test_directories_that_swap_their_places_behind_a_read_only_mount_are_followed(
    mounted: Mounted,
) -> None:
    (mounted.mountpoint / "a" / "b").mkdir(parents=True)
    with seen(mounted) as point:
        inside = os.open(point / "a" / "b", os.O_RDONLY)
        try:
            assert os.listdir(inside) == []
            os.rename(mounted.mountpoint / "a" / "b", mounted.mountpoint / "b")
            os.rename(mounted.mountpoint / "a", mounted.mountpoint / "b" / "a")

            assert os.listdir(inside) == ["a"]
            # The kernel knows "a" above "b", until it looks again.
            assert errno_of(partial(os.stat, "a", dir_fd=inside)).startswith("Too many levels")
            assert os.listdir(point / "b" / "a") == []
            assert os.stat("a", dir_fd=inside).st_nlink == 2
        finally:
            os.close(inside)


def test_many_share_a_store_while_it_is_pruned_and_collected(mounted: Mounted) -> None:
    held = b"held" * 50_000
    (mounted.mountpoint / "held").write_bytes(held)
    mounted.dkfs("hold", "kept")
    for number in range(30):
        (mounted.mountpoint / "file").write_bytes(os.urandom(100_000))
        mounted.dkfs("tag", f"t{number}") if number % 10 == 0 else mounted.flush()
    with seen(mounted, name="one") as one, seen(mounted, name="two") as two:
        points = one, two
        old = [os.open(point / ".dkfs/tags/t0/file", os.O_RDONLY) for point in points]
        before = [len(os.listdir(point / ".dkfs/versions")) for point in points]
        mounted.dkfs("prune", "--keep-last", "3")

        for point, file, count in zip(points, old, before, strict=True):
            assert len(os.listdir(point / ".dkfs/versions")) < count
            assert (point / ".dkfs/tags/kept/held").read_bytes() == held
            assert (point / ".dkfs/latest/file").stat().st_size == 100_000
            assert errno_of(partial(os.read, file, 10)) == "Stale file handle"
            os.close(file)
    assert mounted.dkfs("check", "--read-data").returncode == 0


def test_a_segment_that_was_pruned_gives_its_room_back_although_a_read_only_mount_read_from_it(
    mounted: Mounted,
) -> None:
    (mounted.mountpoint / "file").write_bytes(os.urandom(2_000_000))
    mounted.flush()
    with seen(mounted) as point:
        assert len((point / ".dkfs/latest/file").read_bytes()) == 2_000_000
        (mounted.mountpoint / "file").write_bytes(b"x")
        mounted.dkfs("prune", "--keep-last", "1")
        deadline_s = time.monotonic() + PATIENCE_S
        while removed := _removed_files(_daemon_of(point)):
            assert time.monotonic() < deadline_s, removed
            time.sleep(0.1)


def _removed_files(pid: int) -> list[str]:
    """Return the files that process *pid* has open and that have no name any more."""
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.readlink(fd))
    return [name for name in found if name.endswith("(deleted)")]


def _daemon_of(point: Path) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.exists() else []
            if b"mount" in words and os.fsencode(point) in words:
                return int(entry.name)
    raise AssertionError("no daemon")


def test_a_read_only_mount_changes_nothing_on_disk_and_brings_nothing_back(
    mounted: Mounted,
) -> None:
    (mounted.mountpoint / "file").write_text("in the store")
    mounted.umount()
    (mounted.state_dir / "file").unlink()
    before = snapshot(mounted.base)
    with seen(mounted) as point:
        assert os.listdir(point) == []
        assert (point / ".dkfs/latest/file").read_text() == "in the store"
    (mounted.base / "seen").rmdir()

    after = snapshot(mounted.base)
    assert {path for path in after if after[path] != before.get(path)} == {str(mounted.base)}


def test_a_read_only_mount_needs_a_store(unmounted: Mounted) -> None:
    done = unmounted.mount("ro", check=False)

    assert done.returncode == 4
    assert "does not exist: a read-only mount makes none" in done.stderr
    assert not unmounted.store.exists()


@pytest.mark.root
def test_what_was_mounted_read_only_and_is_told_to_be_writable_still_changes_nothing(
    mounted: Mounted,
) -> None:
    (mounted.mountpoint / "file").write_text("one")
    with seen(mounted) as point:
        done = subprocess.run(["mount", "-i", "-o", "remount,rw", point], check=False)
        assert done.returncode == 0

        for attempt in (
            lambda: (point / "file").write_text("two"),
            (point / "new").mkdir,
            lambda: os.truncate(point / "file", 0),
            lambda: os.chmod(point / "file", 0o600),
            (point / "file").unlink,
            lambda: os.mkdir(point / ".dkfs/tags/mine"),
        ):
            assert errno_of(attempt) == "Read-only file system"
    assert (mounted.state_dir / "file").read_text() == "one"


def test_the_history_is_read_from_where_a_read_only_mount_is(mounted: Mounted) -> None:
    (mounted.mountpoint / "file").write_text("one")
    mounted.flush()
    with seen(mounted) as point:
        log = mounted.dkfs("-C", point, "log", "--json").stdout
        shown = mounted.dkfs("status", point).stdout
        told = json.loads(mounted.dkfs("status", point, "--json").stdout)
        assert (
            f"mount point   {point}" in " ".join(shown.split("\n")).replace("  ", " ")
            or str(point) in shown
        )

    assert '"path": "file"' in log
    assert "read-only" in shown
    assert f" {point}\n" in shown
    assert told["read_only"] is True
    assert told["mountpoint"] == str(point)
    assert told["recorded_at"] == str(mounted.mountpoint)
    assert request(mounted.store, {"command": "status"})["mountpoint"] == str(mounted.mountpoint)


def test_the_one_that_records_may_come_and_go(mounted: Mounted) -> None:
    (mounted.mountpoint / "file").write_text("one")
    mounted.flush()
    with seen(mounted) as point:
        mounted.umount()
        assert (point / ".dkfs/latest/file").read_text() == "one"
        assert mounted.dkfs("status", point).returncode == 0
        mounted.mount()
        (mounted.mountpoint / "file").write_text("two")
        mounted.flush()
        assert (point / ".dkfs/latest/file").read_text() == "two"
    assert mounted.mounted


@pytest.mark.root
def test_a_signal_ends_a_read_only_mount(mounted: Mounted) -> None:
    point = mounted.base / "seen"
    point.mkdir()
    mounted.dkfs("mount", mounted.state_dir, point, "-o", "ro", "--store", mounted.store)
    os.kill(_daemon_of(point), 15)

    assert wait_for_no_mount(point, seconds=10)
    assert mounted.mounted


def test_an_application_runs_on_a_read_only_mount(mounted: Mounted) -> None:
    (mounted.mountpoint / "file").write_text("one")
    mounted.flush()
    point = mounted.base / "seen"
    point.mkdir()
    words = ("--state-dir", mounted.state_dir, "--mountpoint", point, "--store", mounted.store)
    script = f"cat {point}/file && ! echo x >{point}/file"
    done = mounted.dkfs("run", "-o", "ro", *words, "--", "sh", "-c", script)

    assert done.stdout == "one"
    assert mounted.mounted


@pytest.mark.root
def test_a_mount_in_a_container_whose_processes_have_the_same_numbers_is_made(
    mounted: Mounted,
) -> None:
    # LMDB knows who reads by the number of the process: two of one number, in two pid namespaces, were refused.
    (mounted.mountpoint / "file").write_text("one")
    mounted.flush()
    (mounted.base / "first").mkdir()
    (mounted.base / "second").mkdir()
    script = (
        "trap 'umount {0}; exit' TERM; "
        "{1} -m dkfs mount {2} {0} -o ro --store {3} && cat {0}/.dkfs/latest/file && sleep 60 & wait"
    )
    made = []
    try:
        for name in ("first", "second"):
            words = mounted.base / name, sys.executable, mounted.state_dir, mounted.store
            made.append(_in_a_namespace(script.format(*words)))
            assert made[-1].stdout is not None
            assert made[-1].stdout.read(3) == b"one"
    finally:
        for process in made:
            process.kill()  # and with it, as --kill-child says, all in its namespace
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        for name in ("first", "second"):
            subprocess.run(["umount", "--lazy", mounted.base / name], check=False)


def _in_a_namespace(script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT), DKFS_METRICS_ADDR=""),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )


@pytest.mark.parametrize("below", ["writable", "read-only"])
def test_a_read_only_mount_after_a_kill_shows_the_directory_and_changes_nothing(
    mounted: Mounted, below: str
) -> None:
    path = mounted.mountpoint / "file"
    path.write_text("one")
    mounted.flush()
    fd = os.open(path, os.O_WRONLY)
    os.pwrite(fd, b"two", 0)
    os.fsync(fd)  # it is in the intent log until it is committed
    mounted.kill()
    with suppress(OSError):  # the daemon cannot hear of it
        os.close(fd)
    before = snapshot(mounted.store), snapshot(mounted.state_dir)
    if below == "read-only":
        freeze(mounted.base)
    try:
        with tempfile.TemporaryDirectory() as name:
            point = Path(name)
            words = ("--store", mounted.store, "-o", "ro")
            said = mounted.dkfs("mount", mounted.state_dir, point, *words)
            try:
                assert (point / "file").read_text() == "two"
                assert (point / ".dkfs/latest/file").read_text() in {"one", "two"}
                has_log = (mounted.store / "intent").exists()
                assert ("what was synced last is not seen" in said.stderr) == has_log
            finally:
                mounted.dkfs("umount", point)
        assert (snapshot(mounted.store), snapshot(mounted.state_dir)) == before
    finally:
        if below == "read-only":
            subprocess.run(["umount", mounted.base], check=True)
    mounted.mount()

    assert mounted.dkfs("cat", "latest:file").stdout == "two"


def freeze(directory: Path) -> None:
    """Have *directory* on a file system that is read-only, until it is unmounted."""
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True)
