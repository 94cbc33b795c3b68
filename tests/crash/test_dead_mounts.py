"""A mount whose daemon was killed: who starts dkfs again has nothing to repair."""

import configparser
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mounting import CHECKOUT, Mounted, mounts_below, wait_for_end

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

UNIT = CHECKOUT / "mount-helpers/systemd/dkfs-app.service"


def kill(place: Mounted) -> None:
    """Kill the daemon; its dead mount stays."""
    pid = place.daemon_pid
    os.kill(pid, signal.SIGKILL)
    assert wait_for_end(pid)


def command(place: Mounted, name: str) -> list[str]:
    """Return the command *name* of the unit, for *place*."""
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]  # names as they are
    unit.read(UNIT)
    places = {
        "/var/lib/app": place.state_dir,
        "/srv/app": place.mountpoint,
        "/var/lib/dkfs/app": place.store,
    }
    program, *words = shlex.split(unit["Service"][name])
    assert program == "/usr/local/bin/dkfs"
    return [str(places.get(word, word)) for word in words]


def start(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dkfs", *words],
        cwd=cwd,
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT), DKFS_METRICS_ADDR=""),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_unit_brings_the_mount_back_as_often_as_it_is_killed(unmounted: Mounted) -> None:
    starting, ending = command(unmounted, "ExecStart"), command(unmounted, "ExecStop")
    for n in range(3):
        done = start(starting, unmounted.base)
        assert done.returncode == 0, done.stderr
        assert mounts_below(unmounted.base) == [unmounted.mountpoint]
        assert len(os.listdir(unmounted.mountpoint)) == n
        (unmounted.mountpoint / f"file{n}").write_text("kept")
        kill(unmounted)
    assert start(starting, unmounted.base).returncode == 0
    assert start(ending, unmounted.base).returncode == 0
    assert mounts_below(unmounted.base) == []


@pytest.mark.parametrize("name", ["run", "replay"])
def test_a_dead_mount_over_the_same_directory_is_detached(unmounted: Mounted, name: str) -> None:
    flags = ["--store", str(unmounted.store)]
    assert start(["mount", str(unmounted.state_dir), *flags], unmounted.base).returncode == 0
    (unmounted.state_dir / "file").write_text("there")
    kill(unmounted)

    state = ["--state-dir", str(unmounted.state_dir)]
    program = ["--", "cat", f"{state[1]}/file"] if name == "run" else []
    done = start([name, *state, *flags, *program], unmounted.base)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "there" or name != "run"
    assert mounts_below(unmounted.base) == []


def test_replay_goes_on_where_a_mount_elsewhere_is_dead(unmounted: Mounted) -> None:
    unmounted.mount()
    (unmounted.mountpoint / "file").write_text("there")
    kill(unmounted)

    words = ["--state-dir", str(unmounted.state_dir), "--store", str(unmounted.store)]
    done = start(["replay", *words], unmounted.base)

    assert done.returncode == 0, done.stderr
    assert (unmounted.state_dir / "file").read_text() == "there"
    unmounted.dkfs("umount", unmounted.mountpoint)
