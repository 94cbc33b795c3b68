"""What a peer is: it offers a directory to work in, and takes it away again."""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

from bench.history import History

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
    needs: ClassVar[str | None] = None  # a program; without it the peer is left out
    usual: ClassVar[bool] = True  # measured without being asked for
    records: ClassVar[bool] = False  # whether there is a history, to be complete
    keeps_times: ClassVar[bool] = True  # mtimes are what an application set

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
        while is_mount_point(self.directory):
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.umount2(os.fsencode(self.directory), _MNT_DETACH):
                subprocess.run(["fusermount3", "-u", "-z", self.directory], check=True)
        if self._pid is not None and not _ended(self._pid, within_s=5.0):
            os.kill(self._pid, signal.SIGKILL)
            _ended(self._pid, within_s=_PATIENCE_S)
        self._pid = None


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


def _mount_points() -> list[Path]:
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    escaped = (line.split(b" ")[4] for line in lines)
    return [Path(os.fsdecode(p.decode("unicode_escape").encode("latin-1"))) for p in escaped]


def is_mount_point(directory: Path) -> bool:
    """Return whether something is mounted there; ismount() fails where the daemon is dead."""
    return directory in _mount_points()


def _ended(pid: int, *, within_s: float) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], within_s)[0])
    finally:
        os.close(pidfd)
