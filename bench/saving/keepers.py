"""Who keeps versions: dkfs, and what people use today; each with its defaults and no encryption that can be left out.

To add one: subclass Keeper, add it to KEEPERS.
"""

import os
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

import zstandard

from bench.peer import BenchError
from bench.peers import DkfsKernel
from bench.saving.recipes import NAME
from bench.workload import Stopwatch
from dkfs.model.ids import ROOT
from dkfs.store import Store

_SETTLE_S = 30.0


class Keeper(ABC):
    """Keeps every version of what is in a directory."""

    name: ClassVar[str]
    program: ClassVar[str | None] = None  # what has to be installed

    def __init__(self, base: Path) -> None:
        """Use *base*, a new directory of its own, for everything."""
        self.base = base
        self.directory = base / "data"  # where the recipe works
        self.directory.mkdir(parents=True)
        self.store = base / "store"

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027 - most need nothing
        """Leave nothing mounted or running."""

    @classmethod
    def is_there(cls) -> bool:
        """Return whether its program is installed."""
        return cls.program is None or shutil.which(cls.program) is not None

    def begin(self) -> None:  # noqa: B027 - not all need it
        """Make the store."""

    @abstractmethod
    def keep(self, number: int) -> float:
        """Keep what is there as version *number*; return the seconds that it took."""

    @abstractmethod
    def restore(self, number: int, target: Path) -> None:
        """Write version *number* of the file below *target*, a new directory."""

    def stored_bytes(self) -> int:
        """Return what all of the store takes on the disk, by the sizes of its files."""
        return tree_bytes(self.store)

    def finish(self) -> None:  # noqa: B027 - most have nothing to do
        """Do what its users do after some versions to make it small; not timed."""

    def _run(self, *words: str | Path, cwd: Path | None = None) -> float:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.fspath(self.base),
            "LC_ALL": "C",
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "RESTIC_PASSWORD": "bench",
            "BUP_DIR": os.fspath(self.store),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        with Stopwatch() as watch:
            done = subprocess.run(
                words,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            raise BenchError(f"{words[0]}: status {done.returncode}: {done.stderr.strip()}")
        return watch.s


class DkfsKeeper(Keeper):
    """A mount of dkfs: a version is kept when it is committed, nobody asks for it."""

    name = "dkfs"

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self._peer = DkfsKernel(base / "mount")
        self._versions: dict[int, int] = {}
        self._reading: Store | None = None

    def __enter__(self) -> Self:
        self._peer.__enter__()
        self.directory = self._peer.directory
        self.store = self._peer.store
        self._reading = Store.open(self.store, writable=False)
        self._seen = self._last()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._reading is not None:
            self._reading.close()
        self._peer.__exit__(*exc)

    def keep(self, number: int) -> float:
        """See Keeper: from the return of close, or of rename, until the version is on the disk."""
        started = time.perf_counter()
        wanted = os.stat(self.directory / NAME).st_mtime_ns
        while not self._is_recorded(wanted):
            if time.perf_counter() - started > _SETTLE_S:
                raise BenchError("dkfs: a closed file was not recorded within 30 s")
            time.sleep(0.0002)
        taken = time.perf_counter() - started
        self._versions[number] = self._last()
        return taken

    def restore(self, number: int, target: Path) -> None:
        """See Keeper."""
        shutil.copy(self.directory / ".dkfs/versions" / str(self._versions[number]) / NAME, target)

    def _last(self) -> int:
        assert self._reading is not None
        with self._reading.read() as reader:
            return reader.last

    def _is_recorded(self, mtime_ns: int) -> bool:
        assert self._reading is not None
        with self._reading.read() as reader:
            root = reader.child(ROOT, os.fsencode(NAME), reader.last)
            state = reader.node(root, reader.last) if root else None
            return state is not None and state.attr.mtime_ns == mtime_ns and state.attr.size > 0


class ZstdCopies(Keeper):
    """The trivial baseline: every full version as one zstd frame of level 3."""

    name = "zstd copies"

    def begin(self) -> None:
        """See Keeper."""
        self.store.mkdir()

    def keep(self, number: int) -> float:
        """See Keeper."""
        with Stopwatch() as watch:
            data = (self.directory / NAME).read_bytes()
            path = self.store / str(number)
            path.write_bytes(zstandard.ZstdCompressor(level=3).compress(data))
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        return watch.s

    def restore(self, number: int, target: Path) -> None:
        """See Keeper."""
        data = (self.store / str(number)).read_bytes()
        (target / NAME).write_bytes(zstandard.ZstdDecompressor().decompress(data))


class Borg(Keeper):
    """borg create, its default compression (lz4) and chunker, without encryption."""

    name = "borg"
    program = "borg"

    def begin(self) -> None:
        """See Keeper."""
        self._run("borg", "init", "--encryption=none", self.store)

    def keep(self, number: int) -> float:
        """See Keeper."""
        return self._run("borg", "create", f"{self.store}::v{number}", ".", cwd=self.directory)

    def restore(self, number: int, target: Path) -> None:
        """See Keeper."""
        self._run("borg", "extract", f"{self.store}::v{number}", cwd=target)


class Restic(Keeper):
    """restic backup with its defaults; it cannot do without encryption."""

    name = "restic"
    program = "restic"

    def begin(self) -> None:
        """See Keeper."""
        self._run("restic", "-q", "-r", self.store, "init")

    def keep(self, number: int) -> float:
        """See Keeper."""
        return self._run(
            *("restic", "-q", "-r", self.store, "backup", "--tag", f"v{number}", "."),
            cwd=self.directory,
        )

    def restore(self, number: int, target: Path) -> None:
        """See Keeper."""
        self._run(
            *("restic", "-q", "-r", self.store, "restore", "latest"),
            *("--tag", f"v{number}", "--target", target),
        )


class Bup(Keeper):
    """bup index and save."""

    name = "bup"
    program = "bup"

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self._commits: dict[int, str] = {}

    def begin(self) -> None:
        """See Keeper."""
        self._run("bup", "init")

    def keep(self, number: int) -> float:
        """See Keeper."""
        taken = self._run("bup", "index", self.directory)
        # A branch for each version: bup names saves by seconds.
        return taken + self._run("bup", "save", "-q", "-n", f"v{number}", self.directory)

    def restore(self, number: int, target: Path) -> None:
        """See Keeper."""
        source = f"/v{number}/latest{self.directory}/."
        self._run("bup", "restore", "-q", "-C", target, source)


class RdiffBackup(Keeper):
    """rdiff-backup: the newest version in full, older ones as differences."""

    name = "rdiff-backup"
    program = "rdiff-backup"

    def begin(self) -> None:
        """See Keeper."""
        self.store.mkdir()

    def keep(self, number: int) -> float:
        """See Keeper: versions are named by the second, so each has one of its own."""
        at = 1_700_000_000 + number
        os.utime(self.directory / NAME, (at, at))  # a change within a second is not seen
        return self._run(
            *("rdiff-backup", "--current-time", str(at), "--no-fsync", self.directory, self.store)
        )

    def restore(self, number: int, target: Path) -> None:
        """See Keeper."""
        at = str(1_700_000_000 + number)
        self._run("rdiff-backup", "--restore-as-of", at, self.store, target / "out")


class Git(Keeper):
    """A commit for each version, and git gc at the end."""

    name = "git"
    program = "git"

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self._newest = 0

    def begin(self) -> None:
        """See Keeper."""
        self._git("init", "-q", "-b", "main")
        for name, value in (("name", "bench"), ("email", "bench@localhost")):
            self._git("config", f"user.{name}", value)
        self._git("config", "gc.auto", "0")

    def keep(self, number: int) -> float:
        """See Keeper."""
        self._newest = number
        return self._git("add", "-A") + self._git("commit", "-q", "-m", str(number))

    def restore(self, number: int, target: Path) -> None:
        """See Keeper."""
        commit = f"main~{self._newest - number}"
        self._git(f"--work-tree={target}", "checkout", "-f", commit, "--", NAME)

    def finish(self) -> None:
        """See Keeper."""
        self._git("gc", "-q", "--aggressive", "--prune=now")

    def _git(self, *words: str) -> float:
        where = (f"--git-dir={self.store}", f"--work-tree={self.directory}")
        return self._run("git", *where, *words, cwd=self.directory)


KEEPERS: tuple[type[Keeper], ...] = (
    DkfsKeeper,
    ZstdCopies,
    Borg,
    Restic,
    Bup,
    RdiffBackup,
    Git,
)


def tree_bytes(top: Path) -> int:
    """Return the sizes of all files below *top*, what is not on the disk left out."""
    return sum(
        min(status.st_size, status.st_blocks * 512)
        for directory, _, names in os.walk(top)
        for status in (os.lstat(os.path.join(directory, name)) for name in names)
    )
