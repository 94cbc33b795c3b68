"""What a workload is: prepared, run against the clock, and verified to have happened."""

import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

from bench.building import built
from bench.peer import BenchError, Peer


class Level(IntEnum):
    """How much is done; only FULL gives numbers worth keeping."""

    FULL = 0
    QUICK = 1
    TINY = 2  # for tests: everything happens, once or twice


# The peers that targets are for, by their names; see peers.py.
PYFUSE3 = "dkfs"
KERNEL = "dkfs-kernel"
HYBRID = "dkfs-hybrid"
CHECKPOINT = "dkfs-checkpoint"
KERNELS = (KERNEL, HYBRID, CHECKPOINT)


class Target(NamedTuple):
    """What some peers are to reach, by the median."""

    bound: float
    of: str | None  # the bound is a share of what the peer of this name does; None: it is absolute
    by: tuple[str, ...]  # the peers that it is for


def absolute(bound: float, *by: str) -> Target:
    """Return the target of *bound* in the workload's unit."""
    return Target(bound, None, by)


def of_raw(bound: float, *by: str) -> Target:
    """Return the target of a share of what the raw directory does."""
    return Target(bound, "raw", by)


def of_c(bound: float, *by: str) -> Target:
    """Return the target of a share of what the pass-through in C does."""
    return Target(bound, "passthrough-c", by)


class Workload(ABC):
    """One thing that is measured; an instance lives through all repetitions on all peers."""

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str]
    more_is_better: ClassVar[bool] = True
    targets: ClassVar[tuple[Target, ...]] = ()
    needs: ClassVar[str | None] = None  # a program; without it this is left out
    changes: ClassVar[bool] = True  # run() makes versions
    records_only: ClassVar[bool] = False  # measured on peers with a history only
    not_on: ClassVar[frozenset[str]] = frozenset()  # peers that cannot do it, by name
    in_memory: ClassVar[bool] = False  # everything is on tmpfs, so that no disk is measured
    repetitions: ClassVar[int | None] = None  # if it is not for the command line to say
    counts: ClassVar[tuple[int, int, int]] = (1, 1, 1)  # by Level

    def __init__(self, level: Level, materials: Path) -> None:
        """Measure at *level*; *materials* is a directory that all workloads of a run share."""
        self.level = level
        self.materials = materials
        self.count = self.counts[level]

    def populate(self, backing: Path) -> None:  # noqa: B027 - most need none
        """Put files into a peer's directory before it is mounted."""

    def setup(self, place: Path, peer: Peer) -> None:  # noqa: B027 - most need none
        """Prepare *place*, an empty directory for one repetition on *peer*; not timed."""

    @abstractmethod
    def run(self, place: Path, peer: Peer) -> float:
        """Do the work; return the result in self.unit."""

    def verify(self, place: Path, peer: Peer) -> None:  # noqa: B027 - what run() sees is enough
        """Raise BenchError if the work was not done right; not timed."""


class Stopwatch:
    """Measures the block that it is entered for."""

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        self.s = 0.0
        return self

    def __exit__(self, *_: object) -> None:
        self.s = time.perf_counter() - self._started


def program(*words: str | Path, cwd: Path | None = None) -> str:
    """Run a program that must succeed, without the user's settings; return what it prints."""
    clean = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    done = subprocess.run(
        words,
        cwd=cwd,
        env=clean,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{' '.join(map(str, words))}: status {done.returncode}: {done.stderr}")
    return done.stdout


def hammer(*words: str | Path | int) -> float:
    """Run the program of hammer.c; return the seconds that its loop took."""
    return float(program(built("hammer"), *map(str, words)))


def sync(directory: Path) -> None:
    """Write what is dirty in the file system of *directory*; sync(2) would wait for every mount there is."""
    program("sync", "--file-system", directory)


def require(condition: bool, what: str) -> None:  # noqa: FBT001 - reads as an assertion
    """Raise BenchError with *what* was expected unless *condition*."""
    if not condition:
        raise BenchError(f"expected {what}")


def median(values: Sequence[float]) -> float:
    """Return the middle of *values*."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
