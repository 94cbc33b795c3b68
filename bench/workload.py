"""What a workload is: prepared, run against the clock, and verified to have happened."""

import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

from bench.peers import BenchError, Peer


class Level(IntEnum):
    """How much is done; only FULL gives numbers worth keeping."""

    FULL = 0
    QUICK = 1
    TINY = 2  # for tests: everything happens, once or twice


class Target(NamedTuple):
    """What dkfs is to reach, by the median."""

    bound: float
    of_raw: bool  # the bound is a share of what the raw directory does

    @property
    def kind(self) -> str:
        """For the JSON."""
        return "of raw" if self.of_raw else "absolute"


class Workload(ABC):
    """One thing that is measured; an instance lives through all repetitions on all peers."""

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str]
    more_is_better: ClassVar[bool] = True
    target: ClassVar[Target | None] = None
    changes: ClassVar[bool] = True  # run() makes versions
    records_only: ClassVar[bool] = False  # measured on peers with a history only
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


def require(condition: bool, what: str) -> None:  # noqa: FBT001 - reads as an assertion
    """Raise BenchError with *what* was expected unless *condition*."""
    if not condition:
        raise BenchError(f"expected {what}")


def median(values: Sequence[float]) -> float:
    """Return the middle of *values*."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
