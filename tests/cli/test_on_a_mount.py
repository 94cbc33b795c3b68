"""The command line on a real mount: finding it by standing in it, stopping it, its refusals."""

import os
import signal
from pathlib import Path

import pytest

from tests.mounting import Mounted, dkfs, wait_for_end

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def test_commands_find_the_store_and_paths_from_where_one_stands(mounted: Mounted) -> None:
    below = mounted.mountpoint / "below"
    below.mkdir()
    (below / "file").write_text("one\n")
    mounted.flush()

    assert "below/file" in dkfs("log", "file", cwd=below).stdout
    assert "write" in dkfs("history", below / "file", cwd=below).stdout
    assert dkfs("-C", below, "status").stdout.startswith("state              recording\n")
    assert dkfs("status", mounted.mountpoint).returncode == 0


def test_rollback_of_a_path_from_where_one_stands(mounted: Mounted) -> None:
    below = mounted.mountpoint / "below"
    below.mkdir()
    (below / "file").write_text("one\n")
    dkfs("tag", "before", cwd=below)
    (below / "file").write_text("two\n")
    (below / "other").write_text("kept\n")

    result = dkfs("rollback", "before", "file", cwd=below)

    assert result.stdout.splitlines()[0] == "M  below/file"
    assert (below / "file").read_text() == "one\n"
    assert (below / "other").read_text() == "kept\n"
    dkfs("undo", cwd=below)
    assert (below / "file").read_text() == "two\n"
    dkfs("redo", cwd=below)
    assert (below / "file").read_text() == "one\n"


def test_umount_returns_when_the_mount_and_the_daemon_are_gone(mounted: Mounted) -> None:
    pid = mounted.daemon_pid
    (mounted.mountpoint / "file").write_text("last words")

    result = mounted.dkfs("umount", mounted.mountpoint)

    assert (result.stdout, result.stderr) == ("", "")
    assert not mounted.mounted
    assert wait_for_end(pid, seconds=0)
    assert mounted.dkfs("cat", "latest:file").stdout == "last words"


def test_umount_of_a_mount_in_use_fails_and_leaves_it_working(mounted: Mounted) -> None:
    with (mounted.mountpoint / "file").open("w") as file:
        result = mounted.dkfs("umount", mounted.mountpoint, check=False)
        file.write("still here")

    assert result.returncode == 1
    assert result.stderr == f"dkfs: {mounted.mountpoint}: Device or resource busy\n"
    assert (mounted.mountpoint / "file").read_text() == "still here"


def test_umount_force_takes_a_mount_in_use_away_and_the_rest_is_recorded(mounted: Mounted) -> None:
    pid = mounted.daemon_pid
    with (mounted.mountpoint / "file").open("w") as file:
        mounted.dkfs("umount", "--force", mounted.mountpoint)
        assert not mounted.mounted
        file.write("written afterwards")

    assert wait_for_end(pid)
    assert mounted.dkfs("cat", "latest:file").stdout == "written afterwards"


def test_a_dead_mount_is_named_and_umount_takes_it_away(mounted: Mounted) -> None:
    pid = mounted.daemon_pid
    os.kill(pid, signal.SIGKILL)
    assert wait_for_end(pid)

    status = dkfs("status", mounted.mountpoint, check=False)
    result = dkfs("umount", mounted.mountpoint)

    assert status.returncode == 1
    assert status.stderr.startswith(f"dkfs: the daemon of {mounted.mountpoint} is gone: ")
    assert result.stderr == f"dkfs: {mounted.mountpoint}: its daemon was gone; detached\n"
    assert not mounted.mounted


def test_a_mount_over_a_mount_is_refused(mounted: Mounted, tmp_path: Path) -> None:
    result = mounted.mount(check=False)

    assert result.returncode == 1
    assert result.stderr == f"dkfs: mount point {mounted.mountpoint} is already a dkfs mount\n"


@pytest.mark.parametrize(
    ("command", "status"),
    [("exit 7", 7), ("kill -KILL $$", 137), ("test $(cat file) = kept", 0)],
)
def test_run_ends_with_the_status_of_its_command(
    unmounted: Mounted, command: str, status: int
) -> None:
    (unmounted.state_dir / "file").write_text("kept\n")

    result = dkfs(
        *("run", "--state-dir", unmounted.state_dir, "--store", unmounted.store),
        *("--", "sh", "-c", command),
        cwd=unmounted.state_dir,
        check=False,
    )

    assert result.returncode == status, result.stderr


@pytest.mark.parametrize(("command", "status"), [("no-such-command", 127), ("/etc/passwd", 126)])
def test_run_of_what_cannot_run_touches_nothing(
    unmounted: Mounted, command: str, status: int
) -> None:
    place = ("--state-dir", unmounted.state_dir, "--store", unmounted.store)

    result = dkfs("run", *place, "--", command, check=False)

    assert result.returncode == status
    assert result.stderr.startswith(f"dkfs: {command}: ")
    assert not unmounted.store.exists()
