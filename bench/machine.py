"""Where and with what the numbers were made."""

import os
import platform
import sqlite3
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.peer import CHECKOUT
from dkfs import __version__

_BUSY_MOST = 0.05  # of the processors, in the second before the run
_PACKAGES = ("pyfuse3", "trio", "lmdb", "blake3", "zstandard")
_LOAD_MOST = 0.5
_LATENCY = "/dev/cpu_dma_latency"  # us in which a processor is to be there
_CREATE_MOST_US = 60.0  # 18 on an idle ext4
_PROBED = 1000  # files
_PROGRAMS = ("fusermount3", "bindfs", "fuse-overlayfs", "git", "tar", "gcc", "make", "npm")


def machine(place: Path) -> dict[str, object]:
    """Return what the machine is, with the file system of *place*."""
    processors = Path("/proc/cpuinfo").read_text().splitlines()
    models = {
        line.partition(":")[2].strip() for line in processors if line.startswith("model name")
    }
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "processor": ", ".join(sorted(models)) or platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_mib": int(memory) // 1024,
        "kernel": platform.release(),
        "filesystem": _output("stat", "--file-system", "--format=%T", os.fspath(place)),
        "create_us": create_us(place),
        "load_before": os.getloadavg()[0],
        "busy_before": busy(),
    }


def doubts(found: dict[str, object]) -> list[str]:
    """Return why numbers of the machine() that was *found* are not to be believed."""
    said = []
    if (load := float(str(found["load_before"]))) > _LOAD_MOST:
        said.append(f"the machine is busy, its load is {load:.1f}")
    if (share := float(str(found["busy_before"]))) > _BUSY_MOST:
        said.append(f"others use {share:.0%} of the processors")
    if (create := float(str(found["create_us"]))) > _CREATE_MOST_US:
        said.append(
            f"creating a file takes {create:.0f} us: many were deleted in the last minutes, or the"
            " disk is busy"
        )
    return said


@contextmanager
def awake(*, wanted: bool) -> Iterator[bool]:
    """Keep idle processors from halting until the block ends, if *wanted*; yield whether that is so.

    In a virtual machine a halt is an exit to the host: what waits for another process then measures the host
    (decisions/0015).  See the kernel's Documentation/power/pm_qos_interface.rst.
    """
    try:
        fd = os.open(_LATENCY, os.O_WRONLY) if wanted else -1
    except OSError:  # not permitted, or not there
        fd = -1
    if fd < 0:
        yield False
        return
    try:
        os.write(fd, struct.pack("=i", 0))
        yield True
    finally:
        os.close(fd)


def busy() -> float:
    """Return what share of the processors is in use during a second."""
    before = _ticks()
    time.sleep(1)
    ticks = [after - earlier for after, earlier in zip(_ticks(), before, strict=True)]
    idle = ticks[3] + ticks[4]  # and waiting for a disk
    return 1 - idle / sum(ticks)


def _ticks() -> list[int]:
    return [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]


def create_us(place: Path) -> float:
    """Return how long an empty file in a new directory in *place* takes; see run._make_room()."""
    directory = place / "probe"
    directory.mkdir()
    started = time.perf_counter()
    for index in range(_PROBED):
        os.close(os.open(directory / str(index), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return (time.perf_counter() - started) / _PROBED * 1e6


def versions() -> dict[str, str]:
    """Return the versions of everything that takes part."""
    found = {"dkfs": __version__, "python": platform.python_version()}
    found["sqlite"] = sqlite3.sqlite_version
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    for program in _PROGRAMS:
        found[program] = _output(program, "--version").partition("\n")[0]
    return found


def commit() -> str:
    """Return the commit of the checkout, with a plus if files differ from it."""
    head = _output("git", "-C", os.fspath(CHECKOUT), "rev-parse", "--short=12", "HEAD")
    changed = _output("git", "-C", os.fspath(CHECKOUT), "status", "--porcelain", "-uno")
    return head + ("+" if changed else "")


def _output(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
