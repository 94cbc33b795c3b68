"""What is compared, side by side: the directory itself, file systems that record nothing, and dkfs.

To add one: subclass Foreground or Mounted, say how it is mounted, add it to PEERS.
"""

import os
import subprocess
import sys
import time
from abc import abstractmethod
from pathlib import Path

from bench.building import built
from bench.history import History
from bench.peer import CHECKOUT, BenchError, Mounted, Peer, Raw, is_mount_point
from dkfs.daemon import control

_PATIENCE_S = 20.0


class Foreground(Mounted):
    """A daemon that stays in the foreground, and ends when it is unmounted."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str | Path]:
        """Return what to run."""

    def _mount(self) -> int:
        with open(self.base / "log", "wb") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=CHECKOUT,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # ^C is for the bench, which unmounts it
            )
        deadline_s = time.monotonic() + _PATIENCE_S
        while not is_mount_point(self.directory):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise BenchError(f"{self.name}: {(self.base / 'log').read_text().strip()}")
            time.sleep(0.005)
        os.listdir(self.directory)  # it answers
        return self._process.pid

    def _unmount(self) -> None:
        subprocess.run(["fusermount3", "-u", self.directory], check=True)

    def _take_away(self) -> None:
        super()._take_away()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class PassthroughC(Foreground):
    """passthrough.c: the ceiling for a file system that sees every operation."""

    name = "passthrough-c"
    engine = "C"
    io = "cached"

    def command(self) -> list[str | Path]:
        """See Foreground."""
        return [built("passthrough"), self.backing, self.directory]


class Bindfs(Foreground):
    """Debian's bindfs, as it is without options."""

    name = "bindfs"
    needs = "bindfs"
    engine = "libfuse"
    io = "cached"
    # Tested: 1.14.7 with libfuse 2.  An mtime alone, as tar sets it (atime UTIME_OMIT), is answered with 0 and not set.
    keeps_times = False

    def command(self) -> list[str | Path]:
        """See Foreground."""
        return ["bindfs", "-f", self.backing, self.directory]


class FuseOverlayfs(Foreground):
    """Debian's fuse-overlayfs: an empty lower directory, the backing directory above it."""

    name = "fuse-overlayfs"
    needs = "fuse-overlayfs"
    engine = "libfuse"
    io = "cached"

    def command(self) -> list[str | Path]:
        """See Foreground."""
        lower, work = self.base / "lower", self.base / "work"
        lower.mkdir()
        work.mkdir()
        options = f"lowerdir={lower},upperdir={self.backing},workdir={work},allow_other"
        return ["fuse-overlayfs", "-f", "-o", options, self.directory]


class Passthrough(Foreground):
    """passthrough.py: a plain pass-through of pyfuse3; only when it is asked for."""

    name = "passthrough"
    engine = "pyfuse3"
    io = "cached"
    usual = False

    def command(self) -> list[str | Path]:
        """See Foreground."""
        return [sys.executable, "-m", "bench.passthrough", self.backing, self.directory]


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
        status = control.request(self.store, {"command": "status"})
        for word in ("engine", "io"):
            if status.get(word, getattr(self, word)) != getattr(self, word):
                raise BenchError(f"{self.name}: {word} is {status[word]}: {log.read_text()}")
        pid = status["pid"]
        assert isinstance(pid, int)
        return pid

    def _unmount(self) -> None:
        _dkfs("umount", self.directory)


class DkfsKernel(Dkfs):
    """dkfs with its own engine."""

    name = "dkfs-kernel"
    engine = "kernel"


class DkfsHybrid(DkfsKernel):
    """The same, what is only read by kernel passthrough."""

    name = "dkfs-hybrid"
    io = "hybrid"


class DkfsCheckpoint(DkfsKernel):
    """The same, reads and writes by kernel passthrough."""

    name = "dkfs-checkpoint"
    io = "checkpoint"


PEERS: tuple[type[Peer], ...] = (
    *(Raw, PassthroughC, Bindfs, FuseOverlayfs, Passthrough),
    *(Dkfs, DkfsKernel, DkfsHybrid, DkfsCheckpoint),
)


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
