"""Figures of long histories and large files, all on a mount: what a write costs, what looking costs, what prune gives."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import ClassVar

from bench.peer import CHECKOUT, BenchError
from bench.peers import DkfsKernel
from bench.saving.figure import Figure
from bench.saving.keepers import tree_bytes
from bench.workload import Stopwatch, median
from dkfs.history.log import file_history, log
from dkfs.store import Store

KIB, MIB, GIB = 1024, 1024**2, 1024**3
_FILES = 1000


def peak_mib(pid: int | None) -> float:
    """Return the largest resident memory that the process *pid* ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise BenchError(f"process {pid} has no memory")


def _fill(path: Path, size: int, seed: int) -> None:
    made = random.Random(seed)
    with open(path, "wb") as file:
        file.writelines(made.randbytes(MIB) for _ in range(size // MIB))


class LargeFile(Figure):
    name = "large-1g"
    title = "1 GiB, 1 % of its 4 KiB blocks rewritten, 10 versions: saved of 10 more copies"
    says = (
        "Random(7) bytes written on the mount; each version rewrites 2,621 blocks of 4 KiB that"
        " Random(70+n).sample chose, by Random(70+n).randbytes; close, committed"
    )
    unit = "%"
    bound = 98.0
    more_is_better = True
    seed_says = "80-90 %, estimated"
    also: ClassVar[dict[str, float]] = {"peak memory MiB": 200}

    def find(self) -> float:
        """See Figure."""
        size = 64 * MIB if self.quick else GIB
        blocks = size // (4 * KIB)
        with DkfsKernel(self.base / "mount") as mount:
            _fill(mount.directory / "file", size, 7)
            mount.history.flush()
            first = tree_bytes(mount.store)
            taken = []
            for number in range(1, 11):
                made = random.Random(70 + number)
                chosen = made.sample(range(blocks), blocks // 100)
                fd = os.open(mount.directory / "file", os.O_WRONLY)
                for block in chosen:
                    os.pwrite(fd, made.randbytes(4 * KIB), block * 4 * KIB)
                with Stopwatch() as watch:
                    os.close(fd)
                    mount.history.flush()
                taken.append(watch.s)
            added = tree_bytes(mount.store) - first
            peak = peak_mib(mount.pid)
        self.beside = {
            "bytes added": float(added),
            "bytes written": 10.0 * (blocks // 100) * 4 * KIB,
            "peak memory MiB": peak,
            "close to committed s": median(taken),
            "zstd of 10 full versions, bytes": 10.0 * size,
        }
        return 100 * (1 - added / (10 * size))


class Dirty(Figure):
    name = "dirty-10g"
    title = "4 KiB into 10 GiB beside 4 KiB into 10 MiB: time, close to committed"
    says = (
        "one file of Random(8) bytes each, recorded before; 40 writes of 4 KiB at places of Random(9),"
        " each closed and committed before the next; medians"
    )
    unit = "x"
    bound = 3.0

    def find(self) -> float:
        """See Figure."""
        large = GIB if self.quick else 10 * GIB
        found = {
            name: self._one(name, size) for name, size in (("small", 10 * MIB), ("large", large))
        }
        small_ms, small_bytes, small_mib = found["small"]
        large_ms, large_bytes, large_mib = found["large"]
        self.beside = {
            "10 MiB ms": small_ms,
            "10 GiB ms": large_ms,
            "10 MiB store bytes a write": small_bytes,
            "10 GiB store bytes a write": large_bytes,
            "bytes x": large_bytes / small_bytes,
            "10 MiB daemon MiB more": small_mib,
            "10 GiB daemon MiB more": large_mib,
        }
        return max(large_ms / small_ms, large_bytes / small_bytes)

    def _one(self, name: str, size: int) -> tuple[float, float, float]:
        mount = DkfsKernel(self.base / name)
        _fill(mount.backing / "file", size, 8)
        with mount:
            made = random.Random(9)
            mount.history.flush()
            before, memory = tree_bytes(mount.store), mount.rss_mib()
            taken = []
            for _ in range(40):
                fd = os.open(mount.directory / "file", os.O_WRONLY)
                os.pwrite(fd, made.randbytes(4 * KIB), made.randrange(size // 4096) * 4096)
                with Stopwatch() as watch:
                    os.close(fd)
                    mount.history.flush()
                taken.append(watch.s * 1000)
            added = tree_bytes(mount.store) - before
            grown = mount.rss_mib() - memory
        return median(taken), added / 40, grown


def make_versions(mount: DkfsKernel, count: int) -> None:
    """Record *count* versions of 1,000 files: each rewrites one file of 317 bytes."""
    made = random.Random(10)
    for number in range(count):
        name = f"file{number % _FILES:04}"
        text = f"version {number:8}\n" + "".join(f"{made.random():.12f}\n" for _ in range(20))
        fd = os.open(mount.directory / name, os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(fd, text.encode(), 0)  # ext4 starts to write at once what follows O_TRUNC
        os.close(fd)
    mount.history.flush()


class _Long(Figure):
    says = (
        "1,000 files of 317 bytes on a mount, rewritten in place in turn until there are 100,000 versions of"
        " contents"
    )

    def versions(self) -> int:
        """Return how many to make."""
        return 5000 if self.quick else 100_000


class Looking(_Long):
    name = "versions-100k"
    title = "100,000 versions: the slowest of log (50 lines), history FILE, .dkfs/at/TIME/FILE"
    unit = "ms"
    bound = 50
    also: ClassVar[dict[str, float]] = {"index bytes a version": 400}

    def find(self) -> float:
        """See Figure."""
        with DkfsKernel(self.base / "mount") as mount:
            with Stopwatch() as making:
                make_versions(mount, self.versions())
            with Store.open(mount.store, writable=False) as store, store.read() as reader:
                times = [t for _, t in reader.versions()]
                last = int(reader.last)
                looks = {
                    "log": _median_ms(lambda: list(islice(log(reader), 50))),
                    "history FILE": _median_ms(lambda: list(file_history(reader, b"file0500"))),
                }
            ways = iter(random.Random(11).sample(times, 15))
            looks[".dkfs/at"] = _median_ms(lambda: self._look_at(mount, next(ways)))
            size = (mount.store / "index.lmdb").stat().st_size
        self.beside = {f"{name} ms": value for name, value in looks.items()}
        self.beside |= {
            "versions in the log": float(last),
            "index bytes a version": size / last,
            "store bytes a version": tree_bytes(mount.store) / last,
            "making them s": making.s,
        }
        return max(looks.values())

    @staticmethod
    def _look_at(mount: DkfsKernel, time_ns: int) -> None:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_ns // 10**9))
        instant = f"{text}.{time_ns % 10**9:09}Z"
        (mount.directory / ".dkfs/at" / instant / "file0000").read_bytes()


class Pruning(_Long):
    name = "prune-half"
    title = "prune of half of 100,000 versions: bytes back on the disk, of what -n said"
    unit = "%"
    bound = 90.0
    more_is_better = True
    also: ClassVar[dict[str, float]] = {"write p99 x idle": 3}

    def find(self) -> float:
        """See Figure."""
        with DkfsKernel(self.base / "mount") as mount:
            make_versions(mount, self.versions())
            keep = str(mount.history.flush() // 2)
            (mount.directory / "probe").write_bytes(bytes(4 * KIB))
            mount.history.flush()
            idle = _write_latencies_ms(mount.directory / "probe", until_s=5.0)
            mount.history.flush()
            said = _prune(mount, "--keep-last", keep, "-n")
            before = tree_bytes(mount.store)
            busy: list[float] = []
            done = threading.Event()
            writer = threading.Thread(
                target=lambda: busy.extend(
                    _write_latencies_ms(mount.directory / "probe", done=done)
                )
            )
            writer.start()
            try:
                with Stopwatch() as watch:
                    _prune(mount, "--keep-last", keep)
            finally:
                done.set()
                writer.join()
            mount.history.flush()
            back = before - tree_bytes(mount.store)
        p99_idle, p99_busy = _percentile(idle, 0.99), _percentile(busy, 0.99)
        self.beside = {
            "bytes said": float(said),
            "bytes back": float(back),
            "seconds": watch.s,
            "write p99 idle ms": p99_idle,
            "write p99 meanwhile ms": p99_busy,
            "write p99 x idle": p99_busy / p99_idle,
            "writes meanwhile": float(len(busy)),
        }
        return 100 * back / said if said else 0.0


def _write_latencies_ms(
    path: Path, *, until_s: float | None = None, done: threading.Event | None = None
) -> list[float]:
    """Write 4 KiB over and over, with a millisecond between; return how long each write took."""
    taken = []
    data = os.urandom(4 * KIB)
    started = time.perf_counter()
    fd = os.open(path, os.O_WRONLY)
    try:
        while until_s is None or time.perf_counter() - started < until_s:
            if done is not None and done.is_set():
                break
            with Stopwatch() as watch:
                os.pwrite(fd, data, 0)
            taken.append(watch.s * 1000)
            time.sleep(0.001)
    finally:
        os.close(fd)
    return taken


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _median_ms(work: Callable[[], object], repetitions: int = 9) -> float:
    taken = []
    for _ in range(repetitions):
        with Stopwatch() as watch:
            work()
        taken.append(watch.s * 1000)
    return median(taken)


def _prune(mount: DkfsKernel, *words: str) -> int:
    """Run dkfs prune; return the bytes that it says come back."""
    done = subprocess.run(
        [sys.executable, "-m", "dkfs", "prune", *words, "--json", "--store", str(mount.store)],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"dkfs prune: {done.stderr.strip()}")
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    return max((int(m.get("bytes", 0)) for m in messages), default=0)


FIGURES: tuple[type[Figure], ...] = (LargeFile, Dirty, Looking, Pruning)
