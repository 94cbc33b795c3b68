"""What tests may leave behind, and taking it away: processes, mounts, loop devices."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.mounting import mounts_below, wait_for_end

VARIABLE = "DKFS_TEST_RUN"  # in the environment of every process that the tests start


def wait_for_processes(place: Path, *, seconds: float) -> None:
    """Wait for the processes that have *place* in their command line: who removes it must not be in their way."""
    for pid in processes_of(place):
        if not wait_for_end(pid, seconds=seconds):
            return


def processes_of(place: Path) -> list[int]:
    """Return the processes that have *place* in their command line."""
    words = os.fsencode(place)
    return [pid for pid in _pids() if words in _read(pid, "cmdline")]


def remove(run: str, *places: Path) -> list[str]:
    """End the processes of dkfs that *run*, or a part of it, started, and empty *places*; say what there was."""
    left = []
    for pid, command in _processes(run):
        if not wait_for_end(pid, seconds=10):  # what was told to end may still be on its way
            os.kill(pid, signal.SIGKILL)
            left.append(f"process {pid}: {command}")
    for place in places:
        for mountpoint in mounts_below(place, kind=None):
            subprocess.run(["umount", "--lazy", mountpoint], check=True)
            left.append(f"mount: {mountpoint}")
        for device, image in _loops(place):
            subprocess.run(["losetup", "--detach", device], check=True)
            left.append(f"loop device: {device} on {image}")
    return left


def _pids() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            yield int(entry.name)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""  # ended meanwhile, or not ours to look at


def _processes(run: str) -> Iterator[tuple[int, str]]:
    """Find the processes of dkfs that *run* started: (pid, command line)."""
    marks = f"{VARIABLE}={run}".encode()
    for pid in _pids():
        variables = _read(pid, "environ").split(b"\0")
        if any(each == marks or each.startswith(marks + b".") for each in variables):
            command = _read(pid, "cmdline")
            if b"dkfs" in command:
                yield pid, os.fsdecode(command.replace(b"\0", b" ")).strip()


def _loops(place: Path) -> Iterator[tuple[str, str]]:
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            image = entry.read_text().strip()
        except OSError:
            continue  # detached meanwhile
        if Path(image.removesuffix(" (deleted)")).is_relative_to(place):
            yield f"/dev/{entry.parts[3]}", image
