"""Workloads of names and attributes, and the memory that many known files take."""

# ruff: noqa: ARG002 - the arguments are those of Workload, not every workload needs all

import os
from pathlib import Path

from bench.peers import Peer
from bench.workload import Level, Stopwatch, Target, Workload, require

_PER_DIRECTORY = 500  # files


def _names(place: Path, count: int, stem: str) -> list[bytes]:
    """Return the paths of *count* files in directories of _PER_DIRECTORY, which are made."""
    paths = []
    for index in range(count):
        directory = place / f"d{index // _PER_DIRECTORY}"
        if index % _PER_DIRECTORY == 0:
            directory.mkdir(exist_ok=True)
        paths.append(os.fsencode(directory / f"{stem}{index}"))
    return paths


def _create(paths: list[bytes], data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    for path in paths:
        fd = os.open(path, flags, 0o644)
        os.write(fd, data)
        os.close(fd)


class Create(Workload):
    name = "create-4k"
    title = "create + write 4 KiB + close"
    unit = "files/s"
    counts = (4_000, 1_000, 8)

    def __init__(self, level: Level, materials: Path) -> None:
        super().__init__(level, materials)
        self._data = os.urandom(4096)

    def run(self, place: Path, peer: Peer) -> float:
        paths = _names(place, self.count, "f")
        with Stopwatch() as watch:
            _create(paths, self._data)
        return self.count / watch.s

    def verify(self, place: Path, peer: Peer) -> None:
        found = sum(len(os.listdir(directory)) for directory in place.iterdir())
        require(found == self.count, f"{self.count} files, not {found}")


class _Existing(Workload):
    """Works on files that are there."""

    stem = "f"

    def setup(self, place: Path, peer: Peer) -> None:
        _create(_names(place, self.count, self.stem), b"x" * 64)
        if peer.records:
            peer.history.flush()


class Unlink(_Existing):
    name = "unlink"
    title = "unlink"
    unit = "files/s"
    counts = (4_000, 1_000, 8)

    def run(self, place: Path, peer: Peer) -> float:
        paths = _names(place, self.count, self.stem)
        with Stopwatch() as watch:
            for path in paths:
                os.unlink(path)
        return self.count / watch.s

    def verify(self, place: Path, peer: Peer) -> None:
        require(not any(os.listdir(directory) for directory in place.iterdir()), "no files")


class Rename(_Existing):
    name = "rename"
    title = "rename within a directory"
    unit = "files/s"
    counts = (4_000, 1_000, 8)

    def run(self, place: Path, peer: Peer) -> float:
        old, new = (_names(place, self.count, stem) for stem in (self.stem, "g"))
        with Stopwatch() as watch:
            for source, destination in zip(old, new, strict=True):
                os.rename(source, destination)
        return self.count / watch.s

    def verify(self, place: Path, peer: Peer) -> None:
        names = [name for directory in place.iterdir() for name in os.listdir(directory)]
        require(
            len(names) == self.count and all(name.startswith("g") for name in names), "new names"
        )


class StatHot(Workload):
    name = "stat-hot"
    title = "stat of one file, again and again"
    unit = "stats/s"
    target = Target(0.60, of_raw=True)
    changes = False
    counts = (500_000, 100_000, 32)

    def setup(self, place: Path, peer: Peer) -> None:
        (place / "file").write_bytes(b"x")

    def run(self, place: Path, peer: Peer) -> float:
        path = os.fsencode(place / "file")
        stat = os.stat
        stat(path)
        with Stopwatch() as watch:
            for _ in range(self.count):
                stat(path)
        return self.count / watch.s


class Lookup(_Existing):
    name = "lookup"
    title = "repeated lookups of many files"
    unit = "lookups/s"
    target = Target(0.60, of_raw=True)
    changes = False
    counts = (2_000, 2_000, 8)
    rounds = (100, 20, 2)

    def run(self, place: Path, peer: Peer) -> float:
        paths = _names(place, self.count, self.stem)
        rounds = self.rounds[self.level]
        access = os.access
        found = sum(map(access, paths, [os.F_OK] * len(paths)))
        with Stopwatch() as watch:
            for _ in range(rounds):
                for path in paths:
                    access(path, os.F_OK)
        require(found == self.expected(), f"{self.expected()} files, not {found}")
        return rounds * self.count / watch.s

    def expected(self) -> int:
        """Return how many of the names exist."""
        return self.count


class LookupNegative(Lookup):
    name = "lookup-negative"
    title = "repeated lookups of names that do not exist"

    def setup(self, place: Path, peer: Peer) -> None:
        _names(place, self.count, self.stem)

    def expected(self) -> int:
        return 0


class Memory(Workload):
    name = "memory-100k"
    title = "memory of the daemon, 100,000 files known"
    unit = "MiB"
    more_is_better = False
    target = Target(150, of_raw=False)
    changes = False
    records_only = True
    repetitions = 1
    counts = (100_000, 100_000, 100)

    def populate(self, backing: Path) -> None:
        top = backing / "many"
        top.mkdir()
        for path in _names(top, self.count, "f"):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))

    def run(self, place: Path, peer: Peer) -> float:
        paths = [path for top in (peer.directory / "many").iterdir() for path in os.scandir(top)]
        for path in paths:
            path.stat()
        require(len(paths) == self.count, f"{self.count} files, not {len(paths)}")
        return peer.rss_mib()
