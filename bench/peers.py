"""What is compared: each peer is a class that offers a directory to work in, and takes it away again.

To add one: subclass Mounted, say how it is mounted in _mount(), add it to PEERS.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

from bench.history import History
from dkfs.daemon import control

CHECKOUT = Path(__file__).resolve().parent.parent
_PATIENCE_S = 60.0
_MNT_DETACH = 2


class BenchError(Exception):
    """The bench cannot go on, or what was measured did not happen."""


class Peer(ABC):
    """A directory to work in."""

    name: ClassVar[str]
    engine: ClassVar[str]
    io: ClassVar[str]  # dkfs's io mode; for others how data goes
    records: ClassVar[bool] = False  # whether there is a history, to be complete

    def __init__(self, base: Path) -> None:
        """Use *base*, a new directory of this peer's own, for everything."""
        self.base = base
        self.backing = base / "backing"
        self.backing.mkdir(parents=True)
        self.directory = self.backing  # where the workload works

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027 - a directory needs nothing
        """Leave nothing mounted or running."""

    @property
    def label(self) -> str:
        """Name, engine and io mode: what a number is to be shown with."""
        return f"{self.name} ({self.engine}, {self.io})"

    @property
    def pid(self) -> int | None:
        """The daemon; None if there is none."""
        return None

    @property
    def history(self) -> History:
        """What the peer recorded; only of one that records."""
        raise BenchError(f"{self.name} records nothing")

    def cpu_s(self) -> float:
        """Return the CPU seconds that the daemon has used."""
        if self.pid is None:
            return 0.0
        fields = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        """Return the resident memory of the daemon."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise BenchError(f"{self.name}: process {self.pid} has no memory")


class Raw(Peer):
    """The directory itself."""

    name = "raw"
    engine = "none"
    io = "direct"


class Mounted(Peer):
    """A FUSE mount of the backing directory."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.directory = base / "mnt"
        self.directory.mkdir()
        self._pid: int | None = None

    @property
    def pid(self) -> int | None:
        """See Peer."""
        return self._pid

    def __enter__(self) -> Self:
        try:
            self._pid = self._mount()
            if not os.path.ismount(self.directory):
                raise BenchError(f"{self.name}: nothing is mounted on {self.directory}")
        except BaseException:
            self._take_away()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._unmount()
        finally:
            self._take_away()

    @abstractmethod
    def _mount(self) -> int:
        """Mount on self.directory; return the pid of the daemon when the mount answers."""

    @abstractmethod
    def _unmount(self) -> None:
        """Unmount as a user would; raises CalledProcessError."""

    def _take_away(self) -> None:
        """Detach the mount and end the daemon, whatever their state."""
        while _is_mount_point(self.directory):
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.umount2(os.fsencode(self.directory), _MNT_DETACH):
                subprocess.run(["fusermount3", "-u", "-z", self.directory], check=True)
        if self._pid is not None and not _ended(self._pid, within_s=5.0):
            os.kill(self._pid, signal.SIGKILL)
            _ended(self._pid, within_s=_PATIENCE_S)
        self._pid = None


class Passthrough(Mounted):
    """bench.passthrough: a plain pass-through of pyfuse3."""

    name = "passthrough"
    engine = "pyfuse3"
    io = "cached"

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self._process: subprocess.Popen[str] | None = None

    def _mount(self) -> int:
        with open(self.base / "log", "w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.passthrough", self.backing, self.directory],
                cwd=CHECKOUT,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._process = process
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            process.wait()
            raise BenchError(f"passthrough: {(self.base / 'log').read_text().strip()}")
        return process.pid

    def _unmount(self) -> None:
        subprocess.run(["fusermount3", "-u", self.directory], check=True)

    def _take_away(self) -> None:
        super()._take_away()
        if self._process is not None:
            self._process.communicate()
            self._process = None


class Dkfs(Mounted):
    """dkfs, recording."""

    name = "dkfs"
    engine = "pyfuse3"
    io = "strict"
    records = True

    @property
    def store(self) -> Path:
        """Where the history is."""
        return self.base / "store"

    @property
    def history(self) -> History:
        """See Peer."""
        return History(self.store)

    def _mount(self) -> int:
        log = self.base / "log"
        _dkfs(
            *("mount", self.backing, self.directory, "--store", self.store),
            *("--engine", self.engine, "--io", self.io),
            *("--metrics-addr", "", "--log-file", log),
            log=log,
        )
        return _number(control.request(self.store, {"command": "status"})["pid"])

    def _unmount(self) -> None:
        _dkfs("umount", self.directory)


PEERS: tuple[type[Peer], ...] = (Raw, Passthrough, Dkfs)


@contextmanager
def workshop(parent: Path | None) -> Iterator[Path]:
    """Make a directory for a run; nothing of it is left afterwards."""
    base = Path(tempfile.mkdtemp(prefix="dkfs-bench-", dir=parent))
    try:
        yield base
    finally:
        if any(point.is_relative_to(base) for point in _mount_points()):
            raise BenchError(f"{base} is kept: something in it is still mounted")
        shutil.rmtree(base)


def _dkfs(*words: str | Path, log: Path | None = None) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dkfs", *words],
        cwd=CHECKOUT,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = log.read_text().strip() if log is not None and log.exists() else ""
        raise BenchError(f"dkfs {words[0]}: {done.stderr.strip()}\n{said}".strip())


def _environment() -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("DKFS_", "DIFFKEEPER_"))}
    return {**own, "PYTHONPATH": os.fspath(CHECKOUT)}


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def _mount_points() -> list[Path]:
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    escaped = (line.split(b" ")[4] for line in lines)
    return [Path(os.fsdecode(p.decode("unicode_escape").encode("latin-1"))) for p in escaped]


def _is_mount_point(directory: Path) -> bool:
    return directory in _mount_points()  # ismount() fails where the daemon is dead


def _ended(pid: int, *, within_s: float) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], within_s)[0])
    finally:
        os.close(pidfd)
