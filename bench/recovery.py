"""How long until work goes on after a crash, and how long a lost directory takes to come back: `python -m bench.recovery DIR`.

DIR is on the disk that is to be measured; what is made there is taken away.  Two figures, each the median of some rounds:

- the daemon of a mount of 100,000 files with 1 GiB of history is killed while it is written to; from the start of `dkfs mount` until
  stat(2) of a file answers, and until a new file is written;
- `dkfs replay` of 10,000 files, 200 MiB, to an empty directory, and `tar x` of the same tree right after it.
"""

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench import machine
from bench.peer import CHECKOUT

_DIRECTORIES: Final = 1000
_DKFS: Final = (sys.executable, "-m", "dkfs")
_A_MINUTE_S: Final = 61
MOUNTED_MOST_S: Final = 1.5
REPLAYED_MOST: Final = 4.0  # times tar


def dkfs(base: Path, *words: str | Path) -> None:
    """Run a command of dkfs; raises SystemExit if it fails.

    Its modules are compiled once, to *base*: an installation has them compiled, which is 0.2 s of each start.
    """
    env = dict(os.environ, PYTHONPATH=str(CHECKOUT), PYTHONPYCACHEPREFIX=str(base / "modules"))
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    said = subprocess.run([*_DKFS, *words], env=env, capture_output=True, text=True, check=False)
    if said.returncode:
        raise SystemExit(f"dkfs {words[0]} ended with {said.returncode}: {said.stderr}")


def populate(top: Path, files: int, size: int) -> None:
    """Make *files* files of *size* bytes of noise in 1,000 directories."""
    rng = random.Random(5)
    for number in range(files):
        directory = top / f"d{number % _DIRECTORIES:03}"
        if number < _DIRECTORIES:
            directory.mkdir(parents=True)
        (directory / f"f{number}").write_bytes(rng.randbytes(size))


def seconds(work: Callable[[], object]) -> float:
    """Return how long *work* takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def settle(place: Path) -> None:
    """Let the disk of *place* do what it has to for the work before, which is not to be measured."""
    subprocess.run(["sync", "--file-system", place], check=True)


def medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the medians of the first and of the second of *pairs*."""
    return statistics.median(one for one, _ in pairs), statistics.median(two for _, two in pairs)


class Recovery:
    """The first figure; *base* is an empty directory."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._state, self._top, self._store = base / "state", base / "mnt", base / "store"
        self._log = base / "log"
        self._top.mkdir()
        self._populated_s = 0.0

    def prepare(self, files: int, size: int) -> None:
        """Make the files and their history."""
        populate(self._state, files, size)
        self._populated_s = time.monotonic()
        dkfs(
            self._base,
            "replay",
            "--state-dir",
            self._state,
            "--store",
            self._store,
            "--prefer",
            "dir",
        )
        self._mount()

    def _mount(self) -> None:
        where = ("--store", self._store, "--log-file", self._log, "--metrics-addr", "")
        dkfs(self._base, "mount", self._state, self._top, *where)

    def measure(self) -> tuple[float, float]:
        """Kill the daemon while it is written to; return the seconds to an answer, and to a write."""
        # A start reads what was changed in the last minute before the crash: not everything is, as a rule.
        time.sleep(max(0, self._populated_s + _A_MINUTE_S - time.monotonic()))
        self._work()
        os.kill(daemon_of(self._top), signal.SIGKILL)
        settle(self._state)
        began = time.perf_counter()
        self._mount()
        os.stat(self._top / "d005" / "f5")
        answered = time.perf_counter() - began
        (self._top / "d007" / "after").write_bytes(b"written")
        return answered, time.perf_counter() - began

    def _work(self) -> None:
        for number in range(1000):
            with (self._top / f"d{number:03}" / "new").open("ab") as file:
                file.write(b"x" * 4096)
                file.flush()
                if number % 10 == 0:
                    os.fsync(file.fileno())

    def close(self) -> None:
        """Take the mount away."""
        if os.path.ismount(self._top):
            dkfs(self._base, "umount", self._top)


def daemon_of(top: Path) -> int:
    """Return the pid of the daemon of the mount *top*; raises SystemExit if there is none."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"mount" in words and os.fsencode(top) in words:
            return int(path.parent.name)
    raise SystemExit(f"no daemon of {top}")


class Replay:
    """The second figure; *base* is an empty directory."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._store, self._archive, self._to = base / "store", base / "a.tar", base / "to"

    def prepare(self, files: int, size: int) -> None:
        """Make the tree, its archive and its history."""
        source = self._base / "from"
        populate(source, files, size)
        subprocess.run(["tar", "-C", source, "-cf", self._archive, "."], check=True)
        dkfs(self._base, "replay", "--state-dir", source, "--store", self._store, "--prefer", "dir")
        shutil.rmtree(source)

    def measure(self) -> tuple[float, float]:
        """Return the seconds that replay takes, and tar."""
        by_dkfs = self._timed(
            lambda: dkfs(self._base, "replay", "--state-dir", self._to, "--store", self._store)
        )
        tar = ["tar", "-C", str(self._to), "-xf", str(self._archive)]
        return by_dkfs, self._timed(lambda: subprocess.run(tar, check=True))

    def _timed(self, work: Callable[[], object]) -> float:
        self._to.mkdir()
        settle(self._to)
        took = seconds(work)
        assert sum(len(files) for _, _, files in os.walk(self._to)) > 0
        shutil.rmtree(self._to)
        return took


def main() -> int:
    """Measure, and print what came out; return 1 if an aim was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.recovery")
    parser.add_argument("where", type=Path, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", choices=("both", "mount", "replay"), default="both")
    parser.add_argument("--small", action="store_true", help="a hundredth of it, to try this")
    args = parser.parse_args()
    part = 100 if args.small else 1
    is_reached = True
    with tempfile.TemporaryDirectory(dir=args.where) as base:
        if args.part != "replay":
            is_reached &= _mounting(Path(base) / "m", part, args.rounds)
        if args.part != "mount":
            is_reached &= _replaying(Path(base) / "r", part, args.rounds)
    return 0 if is_reached else 1


def _mounting(base: Path, part: int, rounds: int) -> bool:
    base.mkdir()
    recovery = Recovery(base)
    try:
        recovery.prepare(max(100_000 // part, _DIRECTORIES), 10_737)
        _caution(base)
        found = [recovery.measure() for _ in range(rounds)]
    finally:
        recovery.close()
    stat, write = medians(found)
    worst = max(write for _, write in found)
    print(
        f"mount after a kill: stat answers after {stat:.2f} s, a file is written after {write:.2f} s"
        f" (worst {worst:.2f} s; aim {MOUNTED_MOST_S} s)"
    )
    return write <= MOUNTED_MOST_S


def _replaying(base: Path, part: int, rounds: int) -> bool:
    base.mkdir()
    replay = Replay(base)
    replay.prepare(max(10_000 // part, _DIRECTORIES), 20_972)
    _caution(base)
    found = [replay.measure() for _ in range(rounds)]
    by_dkfs, by_tar = medians(found)
    ratio = max(dkfs_s / tar_s for dkfs_s, tar_s in found)
    print(
        f"replay: {by_dkfs:.2f} s, tar x: {by_tar:.2f} s; at worst {ratio:.1f} times"
        f" in one round (aim {REPLAYED_MOST})"
    )
    return ratio <= REPLAYED_MOST


def _caution(place: Path) -> None:
    for each in machine.doubts(machine.machine(place)):
        print(f"caution: {each}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
