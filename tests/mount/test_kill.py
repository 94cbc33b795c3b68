"""The daemon is killed at any instant: what was promised is there, and the next mount goes on."""

import os
import random
import signal
import sqlite3
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.mount.workloads import git, kill_under, lose, sqlite
from tests.mounting import Mounted, mounts_below, wait_for_end

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

FEW = range(3)
MANY = [pytest.param(n, marks=[pytest.mark.torture, pytest.mark.timeout(0)]) for n in range(3, 60)]


def seeded(name: str) -> random.Random:
    seed = os.environ.get("DKFS_TEST_SEED") or f"{name} {os.urandom(4).hex()}"
    print(f"DKFS_TEST_SEED={seed!r}")
    return random.Random(seed)


def rows(database: Path) -> list[int]:
    connection = sqlite3.connect(database)
    try:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        if connection.execute("select * from sqlite_master").fetchall() == []:
            return []
        return [n for (n,) in connection.execute("select n from t order by n")]
    finally:
        connection.close()


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
@pytest.mark.parametrize("run", [*FEW, *MANY])
def test_every_sqlite_commit_that_returned_survives_kill_and_loss(
    mounted: Mounted, journal: str, run: int
) -> None:
    rng = seeded(f"{journal} {run}")
    database = mounted.mountpoint / "database"
    for _ in range(2):
        workload = sqlite(database, journal, "FULL", mounted.base)
        committed = kill_under(mounted, workload, rng, range(1, 60))
        lose(mounted)
        mounted.mount()

        found = rows(database)
        assert found == list(range(1, len(found) + 1))
        assert len(found) in (committed, committed + 1)


@pytest.mark.parametrize("run", [0, *MANY[:20]])
def test_sqlite_in_wal_mode_without_fsync_loses_only_the_last_commits(
    mounted: Mounted, run: int
) -> None:
    # With synchronous=NORMAL SQLite syncs the WAL only at checkpoints: what dkfs has not captured
    # when it is killed is lost with the directory, the rest is a consistent database.
    rng = seeded(f"NORMAL {run}")
    database = mounted.mountpoint / "database"
    workload = sqlite(database, "WAL", "NORMAL", mounted.base)
    committed = kill_under(mounted, workload, rng, range(50, 800))
    lose(mounted)
    mounted.mount()

    found = rows(database) if database.exists() else []
    assert found == list(range(1, len(found) + 1))
    assert len(found) <= committed + 1


@pytest.mark.parametrize("run", [0, *MANY[:20]])
def test_every_sqlite_commit_that_returned_is_in_the_directory_that_survived(
    mounted: Mounted, run: int
) -> None:
    rng = seeded(f"survivor {run}")
    database = mounted.mountpoint / "database"
    workload = sqlite(database, "DELETE", "FULL", mounted.base)
    committed = kill_under(mounted, workload, rng, range(1, 100))
    mounted.mount()

    assert len(rows(database)) in (committed, committed + 1)


@pytest.mark.parametrize("run", [0, 1, *MANY])
def test_git_is_clean_after_kill_and_loss(mounted: Mounted, run: int) -> None:
    rng = seeded(f"git {run}")
    tree = mounted.mountpoint / "tree"
    tree.mkdir()
    committed = kill_under(mounted, git(tree, mounted.base), rng, range(2, 12))
    lose(mounted)
    mounted.mount()

    fsck = ask_git(tree, "fsck", "--full", "--strict", "--no-dangling")
    assert (fsck.returncode, fsck.stdout, fsck.stderr) == (0, "", "")
    # git syncs no directory, so the name of the last commit may be missing; what came before the
    # next fsync may not.
    count = ask_git(tree, "rev-list", "--count", "HEAD")
    assert int(count.stdout) in (committed - 1, committed, committed + 1)


def ask_git(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-C", tree, *words],
        env=dict(os.environ, GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_SYSTEM="/dev/null"),
        capture_output=True,
        text=True,
        check=False,
    )


def kill_only(place: Mounted) -> None:
    """Kill the daemon; its dead mount stays."""
    pid = place.daemon_pid
    os.kill(pid, signal.SIGKILL)
    assert wait_for_end(pid)


def test_what_survived_only_in_the_directory_is_newer_and_becomes_a_version(
    mounted: Mounted,
) -> None:
    file = mounted.mountpoint / "file"
    file.write_text("old")
    mounted.flush()
    kill_only(mounted)
    (mounted.state_dir / "file").write_text("newer")
    (mounted.state_dir / "other").write_text("found")
    mounted.mount()

    assert file.read_text() == "newer"
    assert mounted.dkfs("cat", "latest:file").stdout == "newer"
    assert mounted.dkfs("cat", "latest:other").stdout == "found"
    assert mounted.dkfs("cat", "latest~1:file").stdout == "old"


def test_a_write_that_was_never_closed_is_found_in_the_directory_that_survived(
    mounted: Mounted,
) -> None:
    file = mounted.mountpoint / "file"
    fd = os.open(file, os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"never closed")
    kill_only(mounted)
    with pytest.raises(OSError, match="not connected"):
        os.write(fd, b"x")
    with suppress(OSError):  # if the kernel was to tell that it is closed, it cannot
        os.close(fd)
    mounted.mount()

    assert file.read_bytes() == b"never closed"
    assert mounted.dkfs("cat", "latest:file").stdout == "never closed"


def test_who_reads_the_store_of_a_killed_daemon_sees_all_that_was_synced(mounted: Mounted) -> None:
    fd = os.open(mounted.mountpoint / "file", os.O_CREAT | os.O_RDWR)
    for number in range(60):  # a burst, which the recorder lets pass
        os.pwrite(fd, b"%02d" % number, 0)
        os.fsync(fd)
    mounted.kill()
    with pytest.raises(OSError, match="not connected"):
        os.close(fd)

    assert mounted.dkfs("cat", "latest:file").stdout == "59"
    assert not (mounted.store / "intent").exists()


def test_the_next_mount_detaches_a_dead_one(mounted: Mounted) -> None:
    kill_only(mounted)
    with pytest.raises(OSError, match="not connected"):
        os.listdir(mounted.mountpoint)
    mounted.mount()

    assert mounts_below(mounted.base) == [mounted.mountpoint]
    assert os.listdir(mounted.mountpoint) == []


def test_a_mount_over_its_own_directory_is_replaced_when_it_is_dead(unmounted: Mounted) -> None:
    words = ("mount", unmounted.state_dir, "--store", unmounted.store, "--metrics-addr", "")
    unmounted.dkfs(*words)
    (unmounted.state_dir / "file").write_text("there")
    unmounted.flush()
    kill_only(unmounted)
    unmounted.dkfs(*words)
    try:
        assert mounts_below(unmounted.base) == [unmounted.state_dir]
        assert (unmounted.state_dir / "file").read_text() == "there"
    finally:
        unmounted.dkfs("umount", unmounted.state_dir)


def test_umount_takes_a_dead_mount_away(mounted: Mounted) -> None:
    kill_only(mounted)
    done = mounted.dkfs("umount", mounted.mountpoint)

    assert done.stderr == f"dkfs: {mounted.mountpoint}: its daemon was gone; detached\n"
    assert not mounted.mounted


def test_an_application_keeps_its_directory_fd_broken_but_ends(mounted: Mounted) -> None:
    fd = os.open(mounted.mountpoint, os.O_RDONLY)
    try:
        kill_only(mounted)
        mounted.mount()
        with pytest.raises(OSError, match="not connected"):
            os.stat("file", dir_fd=fd)
    finally:
        os.close(fd)
