"""What it costs to be certain: one who writes and syncs, and many at once."""

# ruff: noqa: ARG002 - the arguments are those of Workload, not every workload needs all

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from bench.peer import Peer
from bench.workload import KERNEL, Workload, absolute, of_raw, require

_BLOCK = 4096  # bytes
_BLOCKS = 64  # in a file
_MANY = 8

# Writes and syncs a file of its own as often as asked, once it is told to begin; says when it began and ended.
_CHILD = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
os.pwrite(fd, os.urandom(262144), 0)
os.fsync(fd)
print("ready", flush=True)
sys.stdin.readline()
began = time.monotonic()
for i in range(int(sys.argv[2])):
    os.pwrite(fd, os.urandom(4096), i % 64 * 4096)
    os.fsync(fd)
print(began, time.monotonic())
"""


class FsyncLatency(Workload):
    name = "fsync"
    title = "4 KiB write + fsync, median"
    unit = "ms"
    more_is_better = False
    targets = (of_raw(2.5, KERNEL),)
    counts = (300, 50, 3)

    def run(self, place: Path, peer: Peer) -> float:
        fd = os.open(place / "file", os.O_RDWR | os.O_CREAT, 0o644)
        took = []
        for i in range(self.count):
            data = os.urandom(_BLOCK)
            started = time.perf_counter()
            os.pwrite(fd, data, i % _BLOCKS * _BLOCK)
            os.fsync(fd)
            took.append(time.perf_counter() - started)
        os.close(fd)
        return median(took) * 1000


class FsyncTogether(Workload):
    """As many times what one process does are done by eight, each with a file of its own."""

    name = "fsync-together"
    title = "4 KiB write + fsync, eight processes: times the rate of one"
    unit = "x"
    targets = (absolute(3.0, KERNEL),)
    counts = (500, 60, 3)

    def run(self, place: Path, peer: Peer) -> float:
        return self._rate(place, _MANY) / self._rate(place, 1)

    def _rate(self, place: Path, processes: int) -> float:
        """Return how many syncs a second so many processes do."""
        children = [
            subprocess.Popen(
                [sys.executable, "-c", _CHILD, place / f"f{number}", str(self.count)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(processes)
        ]
        for child in children:
            assert child.stdout is not None
            require(child.stdout.readline() == "ready\n", "a child that is ready")
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        said = [child.communicate()[0].split() for child in children]
        began, ended = min(float(began) for began, _ in said), max(float(end) for _, end in said)
        return processes * self.count / (ended - began)
