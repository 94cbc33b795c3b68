"""Workloads of names and attributes."""

# ruff: noqa: ARG002 - the arguments are those of Workload, not every workload needs all

import os
from pathlib import Path
from typing import ClassVar

from bench.peer import Peer
from bench.workload import (
    KERNELS,
    PYFUSE3,
    Stopwatch,
    Target,
    Workload,
    hammer,
    of_c,
    of_raw,
    program,
    require,
)

_PER_DIRECTORY = 500  # files


def names(place: Path, count: int, stem: str) -> list[bytes]:
    """Return the paths of *count* files in directories of _PER_DIRECTORY, which are made."""
    paths = []
    for index in range(count):
        directory = place / f"d{index // _PER_DIRECTORY}"
        if index % _PER_DIRECTORY == 0:
            directory.mkdir(exist_ok=True)
        paths.append(os.fsencode(directory / f"{stem}{index}"))
    return paths


def create(paths: list[bytes], data: bytes) -> None:
    """Make files of *data*."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    for path in paths:
        fd = os.open(path, flags, 0o644)
        os.write(fd, data)
        os.close(fd)


class _Hammered(Workload):
    """One system call or three on each of many files."""

    unit = "files/s"
    stem = "f"
    in_memory = True
    targets: ClassVar[tuple[Target, ...]] = (of_c(0.50, *KERNELS),)
    counts = (4_000, 1_000, 8)

    def _hammer(self, what: str, place: Path, last: str | int = 0) -> float:
        return self.count / hammer(what, place, self.stem, self.count, last)


class Create(_Hammered):
    name = "create-4k"
    title = "create + write 4 KiB + close"

    def setup(self, place: Path, peer: Peer) -> None:
        names(place, self.count, self.stem)

    def run(self, place: Path, peer: Peer) -> float:
        return self._hammer("create", place, 4096)

    def verify(self, place: Path, peer: Peer) -> None:
        found = sum(len(os.listdir(directory)) for directory in place.iterdir())
        require(found == self.count, f"{self.count} files, not {found}")


class _Existing(_Hammered):
    """Works on files that are there."""

    def setup(self, place: Path, peer: Peer) -> None:
        create(names(place, self.count, self.stem), b"x" * 64)
        if peer.records:
            peer.history.flush()


class OpenClose(_Existing):
    name = "open-close"
    title = "open + close"
    changes = False

    def run(self, place: Path, peer: Peer) -> float:
        return self._hammer("open", place)


class Unlink(_Existing):
    name = "unlink"
    title = "unlink"

    def run(self, place: Path, peer: Peer) -> float:
        return self._hammer("unlink", place)

    def verify(self, place: Path, peer: Peer) -> None:
        require(not any(os.listdir(directory) for directory in place.iterdir()), "no files")


class Rename(_Existing):
    name = "rename"
    title = "rename within a directory"

    def run(self, place: Path, peer: Peer) -> float:
        return self._hammer("rename", place, "g")

    def verify(self, place: Path, peer: Peer) -> None:
        names = [name for directory in place.iterdir() for name in os.listdir(directory)]
        require(
            len(names) == self.count and all(name.startswith("g") for name in names), "new names"
        )


class StatHot(Workload):
    name = "stat-hot"
    title = "stat of one file, again and again"
    unit = "stats/s"
    targets = (of_raw(0.60, PYFUSE3), of_raw(0.70, *KERNELS))
    changes = False
    counts = (500_000, 100_000, 32)

    def setup(self, place: Path, peer: Peer) -> None:
        (place / "file").write_bytes(b"x")

    def run(self, place: Path, peer: Peer) -> float:
        return self.count / hammer("stat", place / "file", self.count)


class Lookup(_Existing):
    name = "lookup"
    title = "repeated lookups of many files"
    unit = "lookups/s"
    in_memory = False
    targets = (of_raw(0.60, PYFUSE3), of_raw(0.70, *KERNELS))
    changes = False
    counts = (2_000, 2_000, 8)
    rounds = (200, 40, 2)

    def run(self, place: Path, peer: Peer) -> float:
        rounds = self.rounds[self.level]
        words = (self.stem, self.count, rounds, self.expected())
        return rounds * self.count / hammer("lookup", place, *words)

    def expected(self) -> int:
        """Return how many of the names exist."""
        return self.count


class LookupNegative(Lookup):
    name = "lookup-negative"
    title = "repeated lookups of names that do not exist"

    def setup(self, place: Path, peer: Peer) -> None:
        names(place, self.count, self.stem)

    def expected(self) -> int:
        return 0


class FindSize(Workload):
    name = "find-size"
    title = "find -size over 100,000 files, the second time"
    unit = "s"
    more_is_better = False
    targets = (of_raw(1.5, *KERNELS),)
    changes = False
    not_on = frozenset({"passthrough", "passthrough-c"})  # an open descriptor for each file
    counts = (100_000, 20_000, 100)

    def populate(self, backing: Path) -> None:
        top = backing / "many"
        top.mkdir()
        create(names(top, self.count, "f"), b"")

    def setup(self, place: Path, peer: Peer) -> None:
        self._find(peer)

    def _find(self, peer: Peer) -> None:
        found = program("find", peer.directory / "many", "-type", "f", "-size", "-1")
        require(found.count("\n") == self.count, f"{self.count} files")

    def run(self, place: Path, peer: Peer) -> float:
        with Stopwatch() as watch:
            self._find(peer)
        return watch.s
