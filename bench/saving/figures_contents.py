"""Figures of contents: cutting, deltas, looking up, restoring, replaying."""

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import zstandard

from bench.peers import DkfsKernel
from bench.saving.figure import Figure
from bench.saving.keepers import tree_bytes
from bench.workload import Stopwatch, median, require
from dkfs.core.chunking import Chunking, cut
from dkfs.core.delta import Copy
from dkfs.history.replay import reconcile
from dkfs.history.restore import restore
from dkfs.overlay.backing import identity
from dkfs.store import Store
from dkfs.store.encoders import ENCODERS, Contents, decode_delta

MIB = 1024 * 1024
_WINDOW = 104_857  # bytes: 10 % of 1 MiB, as the seed's recipe has it
_START = 100_000
_REPETITIONS = 15


def _times(work: Callable[[], object], repetitions: int = _REPETITIONS) -> list[float]:
    taken = []
    for _ in range(repetitions):
        with Stopwatch() as watch:
            work()
        taken.append(watch.s * 1000)
    return taken


class _Delta(Figure):
    unit = "ms"
    seed_says = "18.4 ms"
    library = ""

    def find(self) -> float:
        """See Figure."""
        old = random.Random(1).randbytes(MIB)
        new = old[:_START] + random.Random(2).randbytes(_WINDOW) + old[_START + _WINDOW :]
        encoder = ENCODERS[self.library]  # type: ignore[index]  # the two below are names of encoders
        made: list[bytes | None] = []
        taken = _times(
            lambda: made.append(encoder.encode(Contents(new, lambda: old, self.known())))
        )
        payload = made[-1]
        require(payload is not None, f"a delta of {self.library}")
        assert payload is not None
        require(decode_delta(encoder.code, payload, old, MIB) == new, "the same bytes again")
        self.beside = {
            "delta bytes": float(len(payload)),
            "decoding ms": median(_times(lambda: decode_delta(encoder.code, payload, old, MIB))),
            "zstd of the whole, bytes": float(len(zstandard.ZstdCompressor(level=3).compress(new))),
        }
        return median(taken)

    def known(self) -> tuple[Copy, ...] | None:
        """Return what is known of the new bytes."""
        return None


class DeltaExtents(_Delta):
    name = "delta-extents"
    title = "delta of 1 MiB, 10 % changed, by known extents"
    says = "Random(1), 104,857 bytes at 100,000 replaced by Random(2); median of 15"
    bound = 1.5
    library = "extents"

    def known(self) -> tuple[Copy, ...]:
        """See _Delta."""
        end = _START + _WINDOW
        return (Copy(0, 0, _START), Copy(end, end, MIB - end))


class DeltaZstd(_Delta):
    name = "delta-zstd"
    title = "the same by zstd, nothing known"
    says = DeltaExtents.says
    bound = 6
    library = "zstd"


class _Memory:
    """Bytes to cut."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        """See chunking.Source."""
        return self.data[offset : offset + length]

    def hole_end(self, offset: int) -> int:
        """See chunking.Source."""
        return offset


class Cutting(Figure):
    name = "chunking"
    title = "cutting 10 MiB into chunks"
    says = "Random(5).randbytes(10 MiB), default sizes; median of 15"
    unit = "ms"
    bound = 15
    seed_says = "46.2 ms"

    def find(self) -> float:
        """See Figure."""
        source = _Memory(random.Random(5).randbytes(10 * MIB))
        chunks = list(cut(source, 0, Chunking()))
        require(b"".join(c.data or b"" for c in chunks) == source.data, "all bytes in the chunks")
        ramp = _Memory(bytes(range(256)) * (10 * MIB // 256))
        self.beside = {
            "chunks": float(len(chunks)),
            "the seed's ramp ms": median(_times(lambda: list(cut(ramp, 0, Chunking())))),
        }
        return median(_times(lambda: list(cut(source, 0, Chunking()))))


def take_in(store_path: Path, directory: Path) -> None:
    """Make the last version of the store, made if missing, the same as *directory*, or the other way about."""
    if not store_path.exists():
        Store.create(store_path)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with Store.open(store_path, writable=True) as store:
            reconcile(store, fd, prefer="newer", clock_ns=time.time_ns, identity=identity(fd))
    finally:
        os.close(fd)


class Restoring(Figure):
    name = "restore-10m"
    title = "restoring 10 MiB, every byte verified"
    says = "one file of Random(5).randbytes(10 MiB), restored into a new directory; median of 15"
    unit = "ms"
    bound = 11
    seed_says = "11.5 ms"

    def find(self) -> float:
        """See Figure."""
        directory = self.base / "data"
        directory.mkdir()
        data = random.Random(5).randbytes(10 * MIB)
        (directory / "file").write_bytes(data)
        take_in(self.base / "store", directory)
        taken, copied, synced = [], [], []
        with Store.open(self.base / "store", writable=False) as store:
            for number in range(_REPETITIONS):
                target = self.base / f"target{number}"
                with Stopwatch() as watch, store.read() as reader:
                    restore(reader, reader.last, b"", target)
                taken.append(watch.s * 1000)
                require((target / "file").read_bytes() == data, "the same bytes")
                with Stopwatch() as syncing, open(target / "file", "rb") as file:
                    os.fsync(file.fileno())
                synced.append(syncing.s * 1000)
                shutil.rmtree(target)
                with Stopwatch() as watch:
                    shutil.copyfile(directory / "file", self.base / "copy")
                copied.append(watch.s * 1000)
        self.beside = {
            "best ms": min(taken),
            "fsync afterwards ms": median(synced),
            "a plain copy of the file ms": median(copied),
        }
        return median(taken)


class Chain(Figure):
    name = "chain-25"
    title = "restoring the last of 25 versions of a text, and every one of them"
    says = (
        'version n = "Version n" and the lines "Line j of version n" for j < n, rewritten on a mount;'
        " restored into a new directory; median of 15"
    )
    unit = "ms"
    bound = 1.5
    seed_says = "1.55 ms"

    def find(self) -> float:
        """See Figure."""
        texts = []
        with DkfsKernel(self.base / "mount") as mount:
            versions = []
            for number in range(1, 26):
                lines = (f"Line {j} of version {number}\n" for j in range(number))
                texts.append(f"Version {number}\n" + "".join(lines))
                (mount.directory / "file").write_text(texts[-1])
                versions.append(mount.history.flush())
        taken = []
        with Store.open(mount.store, writable=False) as store:
            for seq, text in zip(versions, texts, strict=True):
                with store.read() as reader:
                    restore(reader, seq, b"file", self.base / f"v{seq}")
                require((self.base / f"v{seq}" / "file").read_text() == text, "the same text")
            for number in range(_REPETITIONS):
                with Stopwatch() as watch, store.read() as reader:
                    restore(reader, versions[-1], b"file", self.base / f"t{number}")
                taken.append(watch.s * 1000)
        self.beside = {"best ms": min(taken), "store bytes": float(tree_bytes(mount.store))}
        return median(taken)


class Replaying(Figure):
    name = "replay-61"
    title = "replay of 61 small files into an empty directory"
    says = '61 files file_NN.txt, "Content for file N"; the directory lost; median of 15'
    unit = "ms"
    bound = 40
    seed_says = "170 ms"

    def find(self) -> float:
        """See Figure."""
        directory = self.base / "data"
        directory.mkdir()
        for number in range(1, 62):
            (directory / f"file_{number:02}.txt").write_text(f"Content for file {number}")
        take_in(self.base / "store", directory)
        taken = []
        for number in range(_REPETITIONS):
            lost = self.base / f"lost{number}"
            lost.mkdir()
            fd = os.open(lost, os.O_RDONLY | os.O_DIRECTORY)
            with Store.open(self.base / "store", writable=True) as store:
                with Stopwatch() as watch:
                    reconcile(
                        store, fd, prefer="store", clock_ns=time.time_ns, identity=identity(fd)
                    )
            os.close(fd)
            taken.append(watch.s * 1000)
            require(len(os.listdir(lost)) == 61, "61 files")
        self.beside = {"best ms": min(taken)}
        return median(taken)


class LookUp(Figure):
    name = "blob-lookup"
    title = "looking up a blob of 4 KiB, read and verified"
    says = "1,000 blobs of Random(n).randbytes(4096), in random order; mean"
    unit = "us"
    bound = 30
    seed_says = "134 us for 42 bytes"

    def find(self) -> float:
        """See Figure."""
        Store.create(self.base / "store")
        with Store.open(self.base / "store", writable=True) as store:
            sizes = {"42 B": 42, "4 KiB": 4096, "1 MiB": MIB}
            found = {
                name: self._mean_us(store, size, 16 if size == MIB else 1000)
                for name, size in sizes.items()
            }
        self.beside = {f"{name} us": value for name, value in found.items()}
        return found["4 KiB"]

    @staticmethod
    def _mean_us(store: Store, size: int, count: int) -> float:
        with store.write() as writer:
            blobs = [writer.put_blob(random.Random(n).randbytes(size)).blob for n in range(count)]
        random.Random(0).shuffle(blobs)
        with store.read() as reader:
            for blob in blobs:
                reader.blob(blob)
            with Stopwatch() as watch:
                for blob in blobs:
                    reader.blob(blob)
        return watch.s / count * 1e6


class TwoFiles(Figure):
    name = "two-files"
    title = "two identical files of 8 MiB: copies of the data in the store"
    says = "Random(6).randbytes(8 MiB), written as two files on a mount"
    unit = "copies"
    bound = 1.05
    seed_says = "50 % saved"

    def find(self) -> float:
        """See Figure."""
        data = random.Random(6).randbytes(8 * MIB)
        with DkfsKernel(self.base / "mount") as mount:
            for name in ("one", "two"):
                (mount.directory / name).write_bytes(data)
            mount.history.flush()
        stored = tree_bytes(mount.store)
        self.beside = {"store bytes": float(stored), "zstd of both, bytes": 2.0 * len(data)}
        return stored / len(data)


FIGURES: tuple[type[Figure], ...] = (
    DeltaExtents,
    DeltaZstd,
    Cutting,
    Restoring,
    Chain,
    Replaying,
    LookUp,
    TwoFiles,
)
