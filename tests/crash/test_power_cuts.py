"""The power is cut: what was acknowledged is there, whichever disk has forgotten what was not flushed.

The disk is nbdkit's cache filter: it forgets, when it is killed, all that was written and not flushed.  The store lies on
it, or the state directory, or both.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dkfs.history.content import read
from dkfs.history.recovery import open_store
from dkfs.history.tree import Tree
from dkfs.store import Store
from dkfs.store.check import check
from tests.mount.workloads import Workload
from tests.mounting import PATIENCE_S, Mounted, wait_for_end

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

# Saves file after file as careful programs do, writes down in another that it did, and says how many are safe.
_SAVER = """
import os, sys
top = sys.argv[1]
directory = os.open(top, os.O_RDONLY)
done = os.open(f"{top}/done", os.O_RDWR | os.O_CREAT)
for n in range(1, 100000):
    name = f"{top}/f{n % 7}"
    with open(name + ".new", "wb") as file:
        file.write(b"%d " % n * (n * 37 % 4000 + 1))
        file.flush()
        os.fsync(file.fileno())
    os.rename(name + ".new", name)
    os.fsync(directory)
    os.pwrite(done, b"%8d" % n * 600, 0)
    os.fsync(done)
    print(n, flush=True)
"""


_MOST = 1 << 20  # bytes of a file, and more


class Disk:
    """An ext4 or xfs whose unflushed writes can be lost."""

    def __init__(self, top: Path, kind: str) -> None:
        for program, package in (
            ("nbdkit", "nbdkit"),
            ("nbdfuse", "libnbd-bin"),
            ("mkfs.xfs", "xfsprogs"),
        ):
            if shutil.which(program) is None:
                pytest.skip(f"needs {program} (Debian: {package})")
        self.image, self.point, self._nbd = top / "image", top / "point", top / "nbd"
        for directory in (top, self.point, self._nbd):
            directory.mkdir()
        with self.image.open("wb") as file:
            file.truncate((64 if kind == "ext4" else 320) << 20)
        force = "-F" if kind == "ext4" else "-f"
        subprocess.run([f"mkfs.{kind}", "-q", force, str(self.image)], check=True)
        self._socket = top / "socket"
        self._children: list[subprocess.Popen[bytes]] = []
        self._loop = ""

    def start(self) -> None:
        """Mount it over a cache that is in memory."""
        self._socket.unlink(missing_ok=True)
        cache = ("--filter=cache", "file", str(self.image), "cache=writeback")
        self._run("nbdkit", "-f", "-U", str(self._socket), *cache, "cache-max-size=2G")
        _until(self._socket.exists)
        fuse = self._run("nbdfuse", str(self._nbd), f"nbd+unix:///?socket={self._socket}")

        def is_there() -> bool:
            nonlocal fuse
            if fuse.poll() is not None:  # the socket has its name before it is listened to
                self._children.remove(fuse)
                fuse = self._run("nbdfuse", str(self._nbd), f"nbd+unix:///?socket={self._socket}")
            return (self._nbd / "nbd").exists()

        _until(is_there)
        made = ["losetup", "-f", "--show", str(self._nbd / "nbd")]
        self._loop = subprocess.run(made, check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run(["mount", self._loop, str(self.point)], check=True)

    def _run(self, *words: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        self._children.append(child)
        return child

    def cut(self) -> None:
        """Lose what was not flushed, and let go of it."""
        for child in self._children[:1]:
            child.kill()
        self._let_go()

    def _let_go(self) -> None:
        quiet = subprocess.DEVNULL
        subprocess.run(["umount", "--lazy", str(self.point)], check=False, stderr=quiet)
        if self._loop:
            subprocess.run(["losetup", "-d", self._loop], check=False, stderr=quiet)
            self._loop = ""
        subprocess.run(["umount", "--lazy", str(self._nbd)], check=False, stderr=quiet)
        for child in self._children:
            child.kill()
            child.wait()
        self._children = []

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Mount what is left, for the length of the block."""
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.point)], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", str(self.point)], check=True)

    def close(self) -> None:
        """Leave nothing."""
        self._let_go()


def _until(what: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def written_down(done: int) -> bytes:
    """Return what says that *done* files are safe."""
    return b"%8d" % done * 600


def expected(last: int, done: int) -> dict[str, bytes]:
    """Return the files when *last* is the last that was saved, and *done* the last that was written down."""
    first = max(1, last - 6)
    saved = {f"f{n % 7}": b"%d " % n * (n * 37 % 4000 + 1) for n in range(first, last + 1)}
    return saved | {"done": written_down(done)}


def after(last: int) -> list[dict[str, bytes]]:
    """Return what there may be when *last* is the last that is known to be safe, and not one more."""
    return [expected(last, last), expected(last + 1, last), expected(last + 1, last + 1)]


def torn(said: int) -> dict[str, bytes]:
    """Return what else there may be in the directory: a signal that kills ends a write between two pages."""
    page = os.sysconf("SC_PAGE_SIZE")
    half = written_down(said + 1)[:page] + written_down(said)[page:]
    return expected(said + 1, said) | {"done": half}


def in_store(store: Store) -> dict[str, bytes]:
    """Return the files of the newest version."""
    with store.read() as reader:
        files = [(path, state) for path, _, state in Tree(reader, reader.last).walk() if path]
        return {os.fsdecode(path): read(reader, state, 0, _MOST) for path, state in files}


def without_new(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return *files* but for the one that is being saved."""
    return {name: data for name, data in files.items() if not name.endswith(".new")}


def summary(files: dict[str, bytes]) -> list[str]:
    """Return what is in each file, for people."""
    return [
        f"{name}: {data[:9]!r} to {data[-9:]!r}, {len(data)} bytes"
        for name, data in sorted(files.items())
    ]


def cut_once(place: Mounted, disk: Disk, count: int) -> None:
    """Save until *count* files are safe, cut the power, and look."""
    if not (disk.point / "state").exists():
        place.state_dir.mkdir(exist_ok=True)
    place.mount()
    workload = Workload(sys.executable, "-c", _SAVER, place.mountpoint, cwd=place.base)
    pid = place.daemon_pid
    try:
        workload.await_count(workload.last + count)
        safe = workload.last
        disk.cut()
        os.kill(pid, signal.SIGKILL)
    finally:
        said = workload.end()
    assert wait_for_end(pid)
    place.detach()
    with disk.again():
        with open_store(place.store, writable=True) as store:
            assert list(check(store, read_data=True)) == []
            # Syncs after the cut were answered although the store failed.
            kept = without_new(in_store(store))
            assert any(kept in after(number) for number in range(safe, said + 1))
        place.mount()
        try:
            found = {path.name: path.read_bytes() for path in place.mountpoint.iterdir()}
            legal = [*after(said), torn(said)]
            assert without_new(found) in legal, f"{summary(found)}, the last said is {said}"
        finally:
            place.umount()


MANY = [pytest.mark.torture, pytest.mark.timeout(0)]


@pytest.mark.parametrize(
    ("where", "kind", "cuts"),
    [
        *[("store", "ext4", 3), ("state", "ext4", 3), ("both", "ext4", 3), ("both", "xfs", 2)],
        *[pytest.param(where, "ext4", 70, marks=MANY) for where in ("store", "state", "both")],
        pytest.param("both", "xfs", 70, marks=MANY),
    ],
)
def test_what_was_acknowledged_survives_power_cuts(
    unmounted: Mounted, where: str, kind: str, cuts: int
) -> None:
    for number in range(cuts):
        disk = Disk(unmounted.base / f"disk{number}", kind)
        try:
            disk.start()
            base = unmounted.base / f"base{number}"
            (base / "mnt").mkdir(parents=True)
            state = (disk.point if where != "store" else base) / "state"
            store = (disk.point if where != "state" else base) / "store"
            state.mkdir()
            cut_once(
                Mounted(unmounted.base, state, base / "mnt", store), disk, 5 + number * 13 % 60
            )
        finally:
            disk.close()
            disk.image.unlink()
