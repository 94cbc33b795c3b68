"""Many clients at once; and one whose call is stuck keeps nobody else waiting."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from bench.building import built
from tests.mount.engines import STRICT, each_engine, each_way
from tests.mount.mixed_work import SLOT
from tests.mounting import CHECKOUT, Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

PATIENCE_S = 60.0


# ---- many


def _tree(top: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        contents: object = path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(top))] = (contents, status.st_mode, status.st_mtime_ns)
    return found


def _work(top: Path, *, processes: int, threads: int, rounds: int) -> int:
    """Have so many clients work in *top*; return how often they raised the counter."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.mount.mixed_work", top, *map(str, (n, threads, rounds))],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(processes)
    ]
    said = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * processes, said
    return sum(int(out) for out, _ in said)


@each_way
@pytest.mark.parametrize(("processes", "threads", "rounds"), [(8, 2, 12), (1, 64, 5)])
def test_many_clients_at_once_find_what_they_left(
    mounted: Mounted, processes: int, threads: int, rounds: int
) -> None:
    top = mounted.mountpoint
    (top / "shared").mkdir()
    (top / "slots").write_bytes(bytes(SLOT * processes * threads))
    (top / "counter").write_bytes(b"%020d" % 0)

    raised = _work(top, processes=processes, threads=threads, rounds=rounds)

    assert int((top / "counter").read_text()) == raised
    through, backing = _tree(top), _tree(mounted.state_dir)
    assert through == backing
    mounted.flush()
    mounted.dkfs("restore", "latest", "--target", mounted.base / "out")
    assert _tree(mounted.base / "out") == backing
    mounted.dkfs("check", "--read-data")


@pytest.mark.torture
@pytest.mark.timeout(900)
@each_way
def test_eight_processes_of_eight_threads_for_minutes(mounted: Mounted) -> None:
    top = mounted.mountpoint
    (top / "shared").mkdir()
    (top / "slots").write_bytes(bytes(SLOT * 64))
    (top / "counter").write_bytes(b"%020d" % 0)

    raised = _work(top, processes=8, threads=8, rounds=400)

    assert int((top / "counter").read_text()) == raised
    assert _tree(top) == _tree(mounted.state_dir)
    mounted.flush()
    mounted.dkfs("restore", "latest", "--target", mounted.base / "out")
    assert _tree(mounted.base / "out") == _tree(mounted.state_dir)


# ---- stuck


class Slow:
    """A file system within the state directory that can be stopped: whoever asks it then is stuck."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def stop(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it: whoever asks it is refused from then on."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)


@contextmanager
def _slow_mount(behind: Path, point: Path) -> Iterator[Slow]:
    with subprocess.Popen([built("passthrough"), behind, point], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        slow = Slow(process.pid)
        try:
            yield slow
        finally:
            subprocess.run(["umount", "--lazy", point], check=True)
            process.kill()


@pytest.fixture
def slow(unmounted: Mounted) -> Iterator[Slow]:
    """Mount, with a file system in "slow" that can be stopped; some of its files are known."""
    behind, point = unmounted.base / "behind", unmounted.state_dir / "slow"
    behind.mkdir()
    point.mkdir()
    for name in ("known", "unknown", "read", "written"):
        (behind / name).write_text(name)
    for name in ("one", "two"):
        (unmounted.state_dir / name).write_text(name)
    with _slow_mount(behind, point) as slow:
        unmounted.mount()
        yield slow
        slow.go_on()
        unmounted.dkfs("umount", "--force", unmounted.mountpoint)


class Stuck(threading.Thread):
    """Somebody who does something that is stuck."""

    def __init__(self, attempt: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._attempt = attempt
        self.result: object = None
        self.begun = threading.Event()
        self.start()
        assert self.begun.wait(PATIENCE_S)

    def run(self) -> None:
        self.begun.set()
        self.result = self._attempt()


def _soon(attempt: Callable[[], object]) -> object:
    """Return what *attempt* returns; fails if that takes too long."""
    who = Stuck(attempt)
    who.join(PATIENCE_S)
    assert not who.is_alive(), "somebody else is kept waiting"
    return who.result


_KINDS: dict[str, Callable[[Path, int], object]] = {
    "look a name up": lambda top, _: os.stat(top / "slow" / "unknown").st_size,
    "list": lambda top, _: len(os.listdir(top / "slow")),
    "read": lambda _, fd: os.pread(fd, 4, 0),
}


@pytest.mark.parametrize("mount_options", [pytest.param(STRICT.options, id=STRICT.name)])
@pytest.mark.parametrize("kind", _KINDS)
def test_who_only_looks_is_not_kept_by_somebody_who_is_stuck(
    unmounted: Mounted, slow: Slow, kind: str
) -> None:
    top = unmounted.mountpoint
    fd = os.open(top / "slow" / "read", os.O_RDONLY)
    slow.stop()

    stuck = Stuck(lambda: _KINDS[kind](top, fd))
    time.sleep(0.3)  # it has reached the daemon
    others = [
        _soon((top / "one").read_text),
        _soon(lambda: os.stat(top / "two").st_size),
        _soon(lambda: sorted(os.listdir(top))),
        _soon(lambda: os.path.exists(top / "no such name")),
    ]
    was_stuck = stuck.is_alive()
    slow.go_on()
    stuck.join(PATIENCE_S)
    os.close(fd)

    assert was_stuck
    assert others == ["one", 3, ["one", "slow", "two"], False]
    assert stuck.result in (7, 4, b"read")


@pytest.mark.parametrize("mount_options", [pytest.param(STRICT.options, id=STRICT.name)])
@pytest.mark.parametrize("kind", ["read"])
def test_who_changes_things_is_not_kept_by_a_read_that_is_stuck(
    unmounted: Mounted, slow: Slow, kind: str
) -> None:
    top = unmounted.mountpoint
    fd = os.open(top / "slow" / "read", os.O_RDONLY)
    slow.stop()

    stuck = Stuck(lambda: _KINDS[kind](top, fd))
    time.sleep(0.3)
    _soon(lambda: (top / "new").write_text("written meanwhile"))
    _soon(lambda: os.rename(top / "new", top / "newer"))
    was_stuck = stuck.is_alive()
    slow.go_on()
    stuck.join(PATIENCE_S)
    os.close(fd)

    assert was_stuck
    assert (top / "newer").read_text() == "written meanwhile"
    assert stuck.result == b"read"


_WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, b"W", 0)
print("written", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    "mount_options", [pytest.param((*STRICT.options, "capture_interval=1s"), id=STRICT.name)]
)
@pytest.mark.parametrize("how", ["tick", "tag"])
def test_who_only_looks_is_not_kept_by_a_capture_that_is_stuck(
    unmounted: Mounted, slow: Slow, how: str
) -> None:
    top = unmounted.mountpoint
    # In another process: to fork with such a file open, and close it, would stop this one.
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, top / "slow" / "written"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        slow.stop()
        waiting: list[Stuck] = []
        try:
            was_stuck, others = _stick_a_capture(unmounted, how, waiting)
        finally:
            slow.go_on()
            for each in waiting:
                each.join(PATIENCE_S)
            writer.communicate()

    assert was_stuck
    assert others == ["one", False]
    assert waiting[-1].result == 3


def _stick_a_capture(
    unmounted: Mounted, how: str, waiting: list[Stuck]
) -> tuple[bool, list[object]]:
    """Whether somebody who changes something came to wait behind a capture, and what others saw meanwhile."""
    top = unmounted.mountpoint
    if how == "tag":
        waiting.append(Stuck(lambda: unmounted.dkfs("tag", "x")))
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        waiting.append(Stuck(partial((top / "new").write_text, "new")))
        waiting[-1].join(1)
        if waiting[-1].is_alive():
            others = [
                _soon((top / "one").read_text),
                _soon(lambda: os.path.exists(top / "no such name")),
            ]
            if waiting[-1].is_alive():  # and was not only slow
                return True, others
        time.sleep(0.05)
    return False, []


@each_engine
def test_a_listing_shows_what_cannot_be_looked_at(unmounted: Mounted) -> None:
    behind, point = unmounted.base / "behind", unmounted.state_dir / "dir" / "dead"
    behind.mkdir()
    point.mkdir(parents=True)
    for name in ("before", "later"):
        (unmounted.state_dir / "dir" / name).touch()
    unmounted.mount()
    with _slow_mount(behind, point) as below:
        below.kill()
        top = unmounted.mountpoint / "dir"
        with os.scandir(top) as found:
            kinds = {each.name: each.is_dir(follow_symlinks=False) for each in found}
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            os.stat(top / "dead")
    again = os.stat(top / "dead").st_ino

    assert kinds == {"before": False, "later": False, "dead": True}
    assert again == point.stat().st_ino
