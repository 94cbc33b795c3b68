"""Workloads of file contents: writes, warm reads, fsync, and how soon a change is in the history."""

# ruff: noqa: ARG002 - the arguments are those of Workload, not every workload needs all

import os
import random
import time
from pathlib import Path

from bench.peers import BenchError, Peer
from bench.workload import Level, Stopwatch, Target, Workload, median, require
from dkfs.model.ids import Seq
from dkfs.store import Store

KIB = 1024
MIB = 1024 * KIB


def _noise(size: int, seed: int) -> bytes:
    """Return bytes that neither compress nor repeat."""
    return random.Random(seed).randbytes(size)


class _Writes(Workload):
    """Writes blocks into one file, closing included."""

    block: int
    is_random = False

    def __init__(self, level: Level, materials: Path) -> None:
        super().__init__(level, materials)
        self._data = _noise(16 * MIB, seed=self.block)
        self._offsets = [index * self.block for index in range(self.count)]
        if self.is_random:
            random.Random(1).shuffle(self._offsets)

    def _blocks(self) -> list[memoryview]:
        view = memoryview(self._data)
        return [
            view[at : at + self.block]
            for at in range(0, min(len(view), self.count * self.block), self.block)
        ]

    def _write(self, place: Path) -> float:
        blocks = self._blocks()
        pwrite = os.pwrite
        with Stopwatch() as watch:
            fd = os.open(place / "file", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                for index, offset in enumerate(self._offsets):
                    pwrite(fd, blocks[index % len(blocks)], offset)
            finally:
                os.close(fd)
        return watch.s

    def verify(self, place: Path, peer: Peer) -> None:
        blocks = self._blocks()
        with open(place / "file", "rb", buffering=0) as file:
            for index, offset in enumerate(self._offsets):
                if index % 16 == 0 or self.count <= 64:
                    same = (
                        os.pread(file.fileno(), self.block, offset) == blocks[index % len(blocks)]
                    )
                    require(same, f"what was written at {offset}")


class SequentialWrites4K(_Writes):
    name = "write-seq-4k"
    title = "4 KiB sequential writes"
    unit = "writes/s"
    target = Target(15_000, of_raw=False)
    block = 4 * KIB
    counts = (65_536, 8_192, 32)

    def run(self, place: Path, peer: Peer) -> float:
        return self.count / self._write(place)


class SequentialWrites1M(_Writes):
    name = "write-seq-1m"
    title = "1 MiB sequential writes"
    unit = "MiB/s"
    target = Target(0.25, of_raw=True)
    block = MIB
    counts = (512, 64, 2)

    def run(self, place: Path, peer: Peer) -> float:
        return self.count / self._write(place)


class RandomWrites4K(_Writes):
    name = "write-rand-4k"
    title = "4 KiB random writes"
    unit = "writes/s"
    target = Target(15_000, of_raw=False)
    block = 4 * KIB
    is_random = True
    counts = (65_536, 8_192, 32)

    def setup(self, place: Path, peer: Peer) -> None:
        size = self.count * self.block
        with open(place / "file", "wb") as file:
            file.writelines(
                _noise(min(MIB, size - start), seed=start) for start in range(0, size, MIB)
            )
        if peer.records:
            peer.history.flush()

    def run(self, place: Path, peer: Peer) -> float:
        return self.count / self._write(place)


class _WarmReads(Workload):
    """Reads a file whose pages the kernel has."""

    changes = False
    size_mib = (256, 64, 1)

    def setup(self, place: Path, peer: Peer) -> None:
        for index in range(self.size_mib[self.level]):
            with open(place / "file", "ab") as file:
                file.write(_noise(MIB, seed=index))
        if peer.records:
            peer.history.flush()
        with open(place / "file", "rb", buffering=0) as file:
            while file.read(MIB):
                pass


class RandomReads4K(_WarmReads):
    name = "read-rand-4k"
    title = "4 KiB random reads, warm"
    unit = "reads/s"
    counts = (200_000, 50_000, 32)

    def run(self, place: Path, peer: Peer) -> float:
        blocks = self.size_mib[self.level] * MIB // (4 * KIB)
        chosen = random.Random(2)
        offsets = [chosen.randrange(blocks) * 4 * KIB for _ in range(self.count)]
        pread = os.pread
        fd = os.open(place / "file", os.O_RDONLY)
        try:
            with Stopwatch() as watch:
                for offset in offsets:
                    pread(fd, 4 * KIB, offset)
        finally:
            os.close(fd)
        return self.count / watch.s


class SequentialReads1M(_WarmReads):
    name = "read-seq-1m"
    title = "1 MiB sequential reads, warm"
    unit = "MiB/s"
    counts = (8, 4, 1)  # times through the file

    def run(self, place: Path, peer: Peer) -> float:
        buffer = bytearray(MIB)
        size = self.size_mib[self.level]
        with Stopwatch() as watch:
            for _ in range(self.count):
                with open(place / "file", "rb", buffering=0) as file:
                    done = 0
                    while count := file.readinto(buffer):
                        done += count
                    require(done == size * MIB, f"{size} MiB")
        return self.count * size / watch.s


class FsyncLatency(Workload):
    name = "fsync"
    title = "4 KiB write + fsync, median"
    unit = "ms"
    more_is_better = False
    counts = (300, 50, 3)

    def run(self, place: Path, peer: Peer) -> float:
        data = _noise(self.count * 4 * KIB, seed=3)
        taken = []
        fd = os.open(place / "file", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            for start in range(0, len(data), 4 * KIB):
                with Stopwatch() as watch:
                    os.pwrite(fd, data[start : start + 4 * KIB], start)
                    os.fsync(fd)
                taken.append(watch.s * 1000)
        finally:
            os.close(fd)
        return median(taken)


class Capture(Workload):
    """From close() to the moment when a reader of the store sees the version."""

    name = "capture-1m"
    title = "changed 1 MiB file, close -> committed, median"
    unit = "ms"
    more_is_better = False
    target = Target(20, of_raw=False)
    records_only = True
    counts = (30, 30, 3)
    changed = MIB  # bytes

    def setup(self, place: Path, peer: Peer) -> None:
        (place / "file").write_bytes(_noise(MIB, seed=4))

    def run(self, place: Path, peer: Peer) -> float:
        with peer.history.open() as store:
            taken = []
            for index in range(self.count):
                before = peer.history.flush()
                data = _noise(self.changed, seed=5 + index)
                fd = os.open(place / "file", os.O_WRONLY)
                os.pwrite(fd, data, (MIB - self.changed) // 2)
                with Stopwatch() as watch:
                    os.close(fd)
                    _await(store, before)
                taken.append(watch.s * 1000)
        return median(taken)


class CaptureOfPart(Capture):
    name = "capture-1m-64k"
    title = "64 KiB of a 1 MiB file changed, close -> committed, median"
    changed = 64 * KIB


def _await(store: Store, before: Seq) -> None:
    """Wait until *store* has more than version *before*."""
    deadline_s = time.monotonic() + 30
    while True:
        with store.read() as reader:
            if reader.last > before:
                return
        if time.monotonic() > deadline_s:
            raise BenchError("a closed file was not recorded within 30 s")
        time.sleep(0.0002)
