"""Workloads of real programs: tar, git, npm, SQLite, make."""

# ruff: noqa: ARG002 - the arguments are those of Workload, not every workload needs all

import os
import shutil
import sqlite3
from pathlib import Path

from bench import materials
from bench.peer import Peer
from bench.workload import KERNEL, PYFUSE3, Stopwatch, Workload, of_c, of_raw, program, require


class Untar(Workload):
    name = "untar"
    title = "untar of a source tree"
    unit = "s"
    more_is_better = False
    targets = (of_raw(3.0, PYFUSE3), of_raw(1.8, KERNEL))
    counts = materials.TREE_COPIES

    def setup(self, place: Path, peer: Peer) -> None:
        materials.archive(self.materials, self.count)

    def run(self, place: Path, peer: Peer) -> float:
        archive = materials.archive(self.materials, self.count)
        with Stopwatch() as watch:
            program("tar", "xf", archive, "-C", place)
        return watch.s

    def verify(self, place: Path, peer: Peer) -> None:
        _require_unpacked(self, place, peer)


class UntarXz(Workload):
    """The same as it is published: what is unpacked has to be decompressed first."""

    name = "untar-xz"
    repetitions = 1
    title = "untar of that tree from a .tar.xz"
    unit = "s"
    more_is_better = False
    targets = (of_raw(3.0, PYFUSE3), of_raw(1.8, KERNEL))
    counts = materials.TREE_COPIES

    def setup(self, place: Path, peer: Peer) -> None:
        materials.compressed(self.materials, self.count)

    def run(self, place: Path, peer: Peer) -> float:
        archive = materials.compressed(self.materials, self.count)
        with Stopwatch() as watch:
            program("tar", "xf", archive, "-C", place)
        return watch.s

    def verify(self, place: Path, peer: Peer) -> None:
        _require_unpacked(self, place, peer)


def _require_unpacked(workload: Workload, place: Path, peer: Peer) -> None:
    if peer.keeps_times:
        archive = materials.archive(workload.materials, workload.count)
        program("tar", "df", archive, "-C", place)
    else:  # tar compares them always
        tree = materials.tree(workload.materials, workload.count)
        program("diff", "-rq", tree, place / "tree")


class GitClone(Workload):
    name = "git-clone"
    title = "git clone of a repository with that tree"
    unit = "s"
    more_is_better = False
    targets = (of_raw(1.6, PYFUSE3), of_raw(1.4, KERNEL))
    counts = materials.TREE_COPIES

    def setup(self, place: Path, peer: Peer) -> None:
        materials.repository(self.materials, self.count)

    def run(self, place: Path, peer: Peer) -> float:
        source = materials.repository(self.materials, self.count)
        with Stopwatch() as watch:
            program("git", "clone", "-q", source.as_uri(), place / "clone")
        return watch.s

    def verify(self, place: Path, peer: Peer) -> None:
        status = program("git", "status", "--porcelain", cwd=place / "clone")
        require(not status, "a clean working tree")


class NpmInstall(Workload):
    """Packages that lie on the disk; nothing is asked of a network."""

    name = "npm-install"
    needs = "npm"
    title = "npm install of a small project"
    unit = "s"
    more_is_better = False
    targets = (of_raw(2.0, KERNEL),)
    counts = (60, 20, 2)  # packages

    def setup(self, place: Path, peer: Peer) -> None:
        materials.write_npm_project(place, materials.packages(self.materials, self.count))

    def run(self, place: Path, peer: Peer) -> float:
        cache = self.materials / "npm-cache"
        shutil.rmtree(cache, ignore_errors=True)
        words = ("--offline", "--no-audit", "--no-fund", "--no-update-notifier", "--cache", cache)
        with Stopwatch() as watch:
            program("npm", "install", *words, cwd=place)
        return watch.s

    def verify(self, place: Path, peer: Peer) -> None:
        installed = len(list((place / "node_modules").glob("package*/package.json")))
        require(installed == self.count, f"{self.count} packages, not {installed}")


class _Sqlite(Workload):
    """Commits one row at a time."""

    journal: str
    synchronous: str
    unit = "commits/s"
    targets = (of_c(0.60, KERNEL),)

    def _connect(self, place: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(place / "db", isolation_level=None)
        connection.execute(f"PRAGMA journal_mode={self.journal}").fetchall()
        connection.execute(f"PRAGMA synchronous={self.synchronous}")
        return connection

    def setup(self, place: Path, peer: Peer) -> None:
        connection = self._connect(place)
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)")
        connection.close()

    def run(self, place: Path, peer: Peer) -> float:
        data = os.urandom(100)
        connection = self._connect(place)
        with Stopwatch() as watch:
            for _ in range(self.count):
                connection.execute("INSERT INTO t (data) VALUES (?)", (data,))
        connection.close()
        return self.count / watch.s

    def verify(self, place: Path, peer: Peer) -> None:
        connection = self._connect(place)
        rows = connection.execute("SELECT count(*) FROM t").fetchone()[0]
        sound = connection.execute("PRAGMA integrity_check").fetchone()[0]
        connection.close()
        require((rows, sound) == (self.count, "ok"), f"{self.count} rows, not {rows}, {sound}")


class SqliteWal(_Sqlite):
    name = "sqlite-wal"
    title = "SQLite commits, WAL/NORMAL"
    journal = "WAL"
    synchronous = "NORMAL"
    counts = (3_000, 500, 4)


class SqliteDelete(_Sqlite):
    name = "sqlite-delete"
    title = "SQLite commits, DELETE/FULL"
    journal = "DELETE"
    synchronous = "FULL"
    counts = (300, 50, 4)


class Make(Workload):
    name = "make"
    title = "make -j2 of a small C project"
    unit = "s"
    more_is_better = False
    targets = (of_raw(1.3, PYFUSE3), of_raw(1.1, KERNEL))
    counts = (24, 12, 2)  # files

    def setup(self, place: Path, peer: Peer) -> None:
        materials.write_c_project(place, self.count)

    def run(self, place: Path, peer: Peer) -> float:
        with Stopwatch() as watch:
            program("make", "-s", "-j2", cwd=place)
        return watch.s

    def verify(self, place: Path, peer: Peer) -> None:
        require(program(place / "main").split() == [str(self.count)], "a program that works")
