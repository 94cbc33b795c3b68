"""Running the programs of others on a mount, and what has to be true when they are done."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dkfs.daemon import control
from tests.mount.model import differences, pictures_of, statuses_of
from tests.mounting import Mounted

GIT = dict(
    os.environ,
    GIT_CONFIG_GLOBAL="/dev/null",
    GIT_CONFIG_SYSTEM="/dev/null",
    **{
        f"GIT_{who}_{what}": "test@localhost"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    },
)


def check(place: Mounted, pid: int) -> None:
    """The daemon *pid* still serves and records; mount, directory and last version are the same."""
    status = control.request(place.store, {"command": "flush"})
    status = control.request(place.store, {"command": "status"})
    assert (status["pid"], status["recording"], status["queued_operations"]) == (pid, True, 0)
    tops = os.fsencode(place.mountpoint), os.fsencode(place.state_dir)
    assert statuses_of(tops[0]) == statuses_of(tops[1])
    backing = pictures_of(tops[1])
    assert not differences(backing, pictures_of(tops[0]))
    restored = place.base / "restored"
    place.dkfs("restore", "latest", "--privileged", "--target", restored)
    assert not differences(backing, pictures_of(os.fsencode(restored)))
    shutil.rmtree(restored)


def need(*programs: str) -> None:
    """Skip the test unless all of them are installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")


def run(script: str, cwd: Path, *args: str | Path, seconds: int = 100) -> str:
    """Run a bash script to its end and return what it said; its status must be 0."""
    done = subprocess.run(
        ["nice", "bash", "-e", "-o", "pipefail", "-c", script, "bash", *args],
        cwd=cwd,
        env=GIT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        timeout=seconds,
    )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout[-5000:]}"
    return done.stdout
