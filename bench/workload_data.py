"""Workloads of file contents: writes, warm reads, fsync, and how soon a change is in the history."""

# ruff: noqa: ARG002 - the arguments are those of Workload, not every workload needs all

import os
import random
import time
from pathlib import Path

from bench.peer import BenchError, Peer
from bench.workload import (
    CHECKPOINT,
    HYBRID,
    KERNEL,
    KERNELS,
    PYFUSE3,
    Level,
    Stopwatch,
    Workload,
    absolute,
    hammer,
    median,
    of_c,
    of_raw,
    require,
)
from dkfs.model.ids import Seq
from dkfs.store import Store

KIB = 1024
MIB = 1024 * KIB
_NOISE = 16 * MIB


def _noise(size: int, seed: int) -> bytes:
    """Return bytes that neither compress nor repeat."""
    return random.Random(seed).randbytes(size)


def _noise_file(materials: Path) -> Path:
    """Return a file of 16 MiB that hammer takes blocks from."""
    path = materials / "noise"
    if not path.exists():
        path.write_bytes(_noise(_NOISE, seed=0))
    return path


class _Writes(Workload):
    """Writes blocks into one file, closing included."""

    block: int
    order = "seq"

    def __init__(self, level: Level, materials: Path) -> None:
        super().__init__(level, materials)
        self._noise = _noise_file(materials)

    def setup(self, place: Path, peer: Peer) -> None:
        """Have memory at hand for what will be written.

        A virtual machine gives free memory back to its host: to have it again took ten times as long as the writing
        itself, in whichever repetition came to it.
        """
        warm = peer.base / "warm"
        hammer("write", warm, MIB, -(-2 * self.count * self.block // MIB), "seq", self._noise)
        warm.unlink()

    def _write(self, place: Path) -> float:
        return hammer("write", place / "file", self.block, self.count, self.order, self._noise)

    def verify(self, place: Path, peer: Peer) -> None:
        noise = self._noise.read_bytes()
        blocks = {noise[at : at + self.block] for at in range(0, _NOISE, self.block)}
        with open(place / "file", "rb", buffering=0) as file:
            require(os.fstat(file.fileno()).st_size == self.count * self.block, "the whole file")
            for index in range(0, self.count, max(1, self.count // 4096)):
                offset = index * self.block
                if self.order == "seq":
                    at = offset % _NOISE
                    expected = noise[at : at + self.block]
                    same = os.pread(file.fileno(), self.block, offset) == expected
                else:
                    same = os.pread(file.fileno(), self.block, offset) in blocks
                require(same, f"what was written at {offset}")


class SequentialWrites4K(_Writes):
    name = "write-seq-4k"
    title = "4 KiB sequential writes"
    unit = "writes/s"
    targets = (
        absolute(15_000, PYFUSE3),
        absolute(40_000, KERNEL),
        of_c(0.55, KERNEL),
        of_raw(0.80, CHECKPOINT),
    )
    block = 4 * KIB
    counts = (32_768, 8_192, 32)

    def run(self, place: Path, peer: Peer) -> float:
        return self.count / self._write(place)


class SequentialWrites1M(_Writes):
    name = "write-seq-1m"
    title = "1 MiB sequential writes"
    unit = "MiB/s"
    targets = (of_raw(0.25, PYFUSE3), of_c(0.90, KERNEL), of_raw(0.85, CHECKPOINT))
    block = MIB
    counts = (256, 64, 2)

    def run(self, place: Path, peer: Peer) -> float:
        return self.count / self._write(place)


class RandomWrites4K(_Writes):
    name = "write-rand-4k"
    title = "4 KiB random writes"
    unit = "writes/s"
    targets = (absolute(15_000, PYFUSE3, KERNEL),)
    block = 4 * KIB
    order = "rand"
    counts = (32_768, 8_192, 32)

    def setup(self, place: Path, peer: Peer) -> None:
        super().setup(place, peer)
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
    """Reads a file whose pages the kernel has.

    It was written in whole MiB that begin with a page of memory, as cp does: what writes come in decides how
    large the folios of the page cache are, and so how fast they are read and mapped (decisions/0015).
    """

    changes = False
    size_mib = (128, 64, 1)

    def setup(self, place: Path, peer: Peer) -> None:
        noise = _noise_file(self.materials)
        hammer("write", place / "file", MIB, self.size_mib[self.level], "seq", noise)
        if peer.records:
            peer.history.flush()
        with open(place / "file", "rb", buffering=0) as file:
            while file.read(MIB):
                pass


class RandomReads4K(_WarmReads):
    name = "read-rand-4k"
    title = "4 KiB random reads, warm"
    unit = "reads/s"
    targets = (of_raw(0.70, KERNEL), of_raw(0.75, HYBRID, CHECKPOINT))
    counts = (400_000, 100_000, 32)

    def run(self, place: Path, peer: Peer) -> float:
        return self.count / hammer("read", place / "file", 4 * KIB, self.count, "rand")


class SequentialReads1M(_WarmReads):
    name = "read-seq-1m"
    title = "1 MiB sequential reads, warm"
    unit = "MiB/s"
    targets = (of_raw(0.35, KERNEL), of_raw(0.90, HYBRID, CHECKPOINT))
    counts = (8_192, 512, 1)

    def run(self, place: Path, peer: Peer) -> float:
        return self.count / hammer("read", place / "file", MIB, self.count, "seq")


class MappedReads(_WarmReads):
    name = "read-mmap"
    title = "a byte of each page of a new map, warm"
    unit = "pages/s"
    targets = (of_raw(0.90, HYBRID, CHECKPOINT),)
    counts = (300, 10, 1)  # times through the file

    def run(self, place: Path, peer: Peer) -> float:
        pages = self.count * self.size_mib[self.level] * MIB // (4 * KIB)
        return pages / hammer("map", place / "file", self.count)


class Capture(Workload):
    """From close() to the moment when a reader of the store sees the version."""

    name = "capture-1m"
    title = "changed 1 MiB file, close -> committed, median"
    unit = "ms"
    more_is_better = False
    targets = (absolute(20, PYFUSE3, *KERNELS),)
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
