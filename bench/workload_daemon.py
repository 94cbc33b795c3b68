"""What the daemon takes: memory for the files that it knows, and the processor while nothing happens."""

# ruff: noqa: ARG002 - the arguments are those of Workload, not every workload needs all

import time
from pathlib import Path

from bench.peer import Peer
from bench.workload import (
    CHECKPOINT,
    HYBRID,
    KERNEL,
    KERNELS,
    PYFUSE3,
    Workload,
    absolute,
    program,
    require,
)
from bench.workload_names import create, names

_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
_PATIENCE_S = 30.0


class Memory(Workload):
    name = "memory-100k"
    title = "memory of the daemon, 100,000 files known"
    unit = "MiB"
    more_is_better = False
    targets = (absolute(150, PYFUSE3, *KERNELS),)
    changes = False
    records_only = True
    not_on = frozenset({HYBRID, CHECKPOINT})  # names are served alike
    in_memory = True
    repetitions = 1
    counts = (100_000, 100_000, 100)

    def populate(self, backing: Path) -> None:
        top = backing / "many"
        top.mkdir()
        create(names(top, self.count, "f"), b"")

    def run(self, place: Path, peer: Peer) -> float:
        found = program("find", peer.directory / "many", "-type", "f", "-size", "-1")
        require(found.count("\n") == self.count, f"{self.count} files")
        return peer.rss_mib()


class MemoryOfAMillion(Memory):
    """The same with more files, which are forgotten when the kernel forgets them."""

    name = "memory-1m"
    title = "memory of the daemon, 1,000,000 files known"
    targets = (absolute(400, KERNEL),)
    not_on = frozenset({PYFUSE3, HYBRID, CHECKPOINT})
    counts = (1_000_000, 100_000, 100)

    def verify(self, place: Path, peer: Peer) -> None:
        known = peer.history.known()
        require(known >= self.count, f"{self.count} files known to the daemon, not {known}")
        _DROP_CACHES.write_text("2\n")  # names and inodes
        deadline_s = time.monotonic() + _PATIENCE_S
        while (known := peer.history.known()) > self.count // 10:
            require(time.monotonic() < deadline_s, f"most files forgotten, not {known} known")
            time.sleep(0.1)


class Idle(Workload):
    """After some work was recorded, what the daemon does in seconds without any."""

    name = "idle-cpu"
    title = "processor time of the daemon while nothing happens"
    unit = "%"
    more_is_better = False
    targets = (absolute(0.05, PYFUSE3, *KERNELS),)
    changes = False
    records_only = True
    repetitions = 1
    counts = (30, 5, 1)  # seconds

    def setup(self, place: Path, peer: Peer) -> None:
        create(names(place, 100, "f"), b"x")
        peer.history.flush()
        time.sleep(
            1 + self.count / 2
        )  # what it looks at ever more rarely, it looks at rarely by now

    def run(self, place: Path, peer: Peer) -> float:
        before_ns = _ran_ns(peer)
        time.sleep(self.count)
        return (_ran_ns(peer) - before_ns) / 1e9 / self.count * 100


def _ran_ns(peer: Peer) -> int:
    """Return how long the daemon's threads have run; those that ended do not count."""
    tasks = Path(f"/proc/{peer.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
