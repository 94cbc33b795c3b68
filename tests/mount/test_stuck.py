"""A call on the backing directory that is stuck keeps nobody waiting but those who ask the same device."""

import errno
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.mount.engines import HYBRID, STRICT, each_engine
from tests.mount.mixed_work import SLOT
from tests.mount.slow import PATIENCE_S, Slow, Stuck, slow_mount, soon
from tests.mount.trees import tree_of
from tests.mounting import CHECKOUT, Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]


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
    with slow_mount(behind, point) as slow:
        unmounted.mount()
        yield slow
        slow.go_on()
        unmounted.dkfs("umount", "--force", unmounted.mountpoint)


_KINDS: dict[str, Callable[[Path, int], object]] = {
    "look a name up": lambda top, _: os.stat(top / "slow" / "unknown").st_size,
    "list": lambda top, _: len(os.listdir(top / "slow")),
    "read": lambda _, fd: os.pread(fd, 4, 0),
}


@pytest.mark.parametrize(
    "mount_options", [pytest.param(way.options, id=way.name) for way in (STRICT, HYBRID)]
)
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
        soon((top / "one").read_text),
        soon(lambda: os.stat(top / "two").st_size),
        soon(lambda: sorted(os.listdir(top))),
        soon(lambda: os.path.exists(top / "no such name")),
    ]
    was_stuck = stuck.is_alive()
    slow.go_on()
    stuck.join(PATIENCE_S)
    os.close(fd)

    assert was_stuck
    assert others == ["one", 3, ["one", "slow", "two"], False]
    assert stuck.result in (7, 4, b"read")


def _changes(top: Path) -> None:
    """Change whatever can be changed of names, contents and attributes."""
    (top / "dir").mkdir()
    (top / "dir" / "file").write_text("written meanwhile")
    with open(top / "dir" / "file", "a") as file:
        file.write(", and appended")
        file.flush()
        os.fsync(file.fileno())
    os.link(top / "dir" / "file", top / "link")
    os.symlink("link", top / "symlink")
    os.rename(top / "one", top / "dir" / "moved")
    os.truncate(top / "two", 1)
    os.chmod(top / "two", 0o640)
    os.utime(top / "two", (1, 2))
    os.setxattr(top / "two", "user.name", b"value")
    os.mkfifo(top / "fifo")
    os.unlink(top / "fifo")
    (top / "gone").mkdir()
    (top / "gone").rmdir()
    directory = os.open(top / "dir", os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def _close_after(path: Path, work: Callable[[int], object]) -> object:
    fd = os.open(path, os.O_RDWR)
    try:
        return work(fd)
    finally:
        os.close(fd)


_STUCK: dict[str, Callable[[Path, int], object]] = {
    **_KINDS,
    "write": lambda _, fd: os.pwrite(fd, b"new", 0),
    "sync": lambda _, fd: os.fsync(fd),
    "truncate": lambda _, fd: os.ftruncate(fd, 2),
    "create": lambda top, _: (top / "slow" / "new").write_text("new"),
    "open to write": lambda top, _: _close_after(top / "slow" / "known", lambda _: 0),
    "rename": lambda top, _: os.rename(top / "slow" / "known", top / "slow" / "renamed"),
    "replace": lambda top, _: os.rename(top / "slow" / "known", top / "slow" / "unknown"),
    "link": lambda top, _: os.link(top / "slow" / "known", top / "slow" / "second"),
    "unlink": lambda top, _: os.unlink(top / "slow" / "known"),
    "mkdir": lambda top, _: os.mkdir(top / "slow" / "directory"),
    "chmod": lambda top, _: os.chmod(top / "slow" / "known", 0o600),
    "set times": lambda top, _: os.utime(top / "slow" / "known", (1, 2)),
    "setxattr": lambda _, fd: os.setxattr(fd, "user.name", b"value"),
}


@pytest.mark.parametrize("mount_options", [pytest.param(STRICT.options, id=STRICT.name)])
def test_who_moves_things_between_file_systems_is_refused_whether_one_is_stuck_or_not(
    unmounted: Mounted, slow: Slow
) -> None:
    top = unmounted.mountpoint
    assert os.stat(top / "slow" / "known").st_size == 5
    assert os.stat(top / "slow" / "read").st_size == 4
    attempts: tuple[Callable[[], object], ...] = (
        lambda: os.rename(top / "slow" / "known", top / "away"),
        lambda: os.rename(top / "one", top / "slow" / "read"),
        lambda: os.link(top / "slow" / "known", top / "away"),
    )
    for stop in (False, True):
        if stop:
            slow.stop()
        for attempt in attempts:
            refused = Stuck(attempt)
            refused.join(PATIENCE_S)
            assert isinstance(refused.result, OSError)
            assert refused.result.errno == errno.EXDEV


@pytest.mark.parametrize(
    "mount_options",
    [pytest.param((*way.options, "capture_interval=1s"), id=way.name) for way in (STRICT, HYBRID)],
)
@pytest.mark.parametrize("kind", [*_STUCK, "capture"])
def test_who_changes_things_is_not_kept_by_somebody_who_is_stuck(
    unmounted: Mounted, slow: Slow, kind: str
) -> None:
    top = unmounted.mountpoint
    fd = os.open(top / "slow" / "read", os.O_RDWR)
    assert os.stat(top / "slow" / "known").st_size == 5
    if kind == "capture":  # of the timer
        os.pwrite(fd, b"R", 0)
    slow.stop()

    stuck = [] if kind == "capture" else [Stuck(lambda: _STUCK[kind](top, fd))]
    time.sleep(2.0 if kind == "capture" else 0.3)  # it has reached the daemon, or the timer has
    stuck += [
        Stuck(lambda: os.pwrite(fd, b"late", 0)),
        Stuck(lambda: (top / "slow" / "late").write_text("late")),
    ]
    time.sleep(0.1)
    soon(lambda: _changes(top))
    were_stuck = [each.is_alive() for each in stuck]
    slow.go_on()
    for each in stuck:
        each.join(PATIENCE_S)
    results = [each.result for each in stuck]
    os.close(fd)

    assert all(were_stuck)
    assert results[-2:] == [4, 4]
    assert [str(each) for each in results if isinstance(each, Exception)] == []
    assert tree_of(top) == tree_of(unmounted.state_dir)
    unmounted.flush()
    unmounted.dkfs("restore", "latest", "--target", unmounted.base / "out")
    recorded = tree_of(unmounted.base / "out")
    of_the_root = {name: each for name, each in tree_of(top).items() if not name.startswith("slow")}
    assert {name: recorded[name] for name in of_the_root} == of_the_root
    assert recorded["slow/late"] == tree_of(top)["slow/late"]  # of the rest nothing was asked
    unmounted.dkfs("check", "--read-data")


_WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, b"W", 0)
print("written", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("mount_options", [pytest.param(STRICT.options, id=STRICT.name)])
def test_who_only_looks_is_not_kept_by_a_command_that_is_stuck(
    unmounted: Mounted, slow: Slow
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
        tag = Stuck(lambda: unmounted.dkfs("tag", "x"))
        waiting: list[Stuck] = []
        try:
            was_stuck, others = _stick(top, waiting)
        finally:
            slow.go_on()
            for each in (tag, *waiting):
                each.join(PATIENCE_S)
            writer.communicate()

    assert was_stuck
    assert others == ["one", False]
    assert waiting[-1].result == 3  # it is about everything: who changes things has waited


def _stick(top: Path, waiting: list[Stuck]) -> tuple[bool, list[object]]:
    """Whether somebody who changes something came to wait, and what others saw meanwhile."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        waiting.append(Stuck(partial((top / "new").write_text, "new")))
        waiting[-1].join(1)
        if waiting[-1].is_alive():
            others = [
                soon((top / "one").read_text),
                soon(lambda: os.path.exists(top / "no such name")),
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
    with slow_mount(behind, point) as below:
        below.kill()
        top = unmounted.mountpoint / "dir"
        with os.scandir(top) as found:
            kinds = {each.name: each.is_dir(follow_symlinks=False) for each in found}
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            os.stat(top / "dead")
    again = os.stat(top / "dead").st_ino

    assert kinds == {"before": False, "later": False, "dead": True}
    assert again == point.stat().st_ino


@pytest.mark.parametrize("mount_options", [pytest.param(STRICT.options, id=STRICT.name)])
def test_many_work_on_three_file_systems_two_of_which_stop_and_go_on(unmounted: Mounted) -> None:
    """Whoever changes things at once with others leaves what is right in the directory and in the store."""
    _stop_and_go(unmounted, rounds=250)


@pytest.mark.torture
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mount_options", [pytest.param(STRICT.options, id=STRICT.name)])
@pytest.mark.parametrize("_", range(10))
def test_many_work_while_file_systems_stop_and_go_on_for_minutes(
    unmounted: Mounted, _: int
) -> None:
    _stop_and_go(unmounted, rounds=600)


@pytest.mark.parametrize("mount_options", [pytest.param(STRICT.options, id=STRICT.name)])
def test_who_changes_things_is_kept_by_neither_of_two_that_are_stuck(unmounted: Mounted) -> None:
    state, top = unmounted.state_dir, unmounted.mountpoint
    names = ("slow1", "slow2")
    for each in names:
        (state / each).mkdir()
        (unmounted.base / each).mkdir()
    for each in ("one", "two"):
        (state / each).write_text(each)
    with (
        slow_mount(unmounted.base / "slow1", state / "slow1") as one,
        slow_mount(unmounted.base / "slow2", state / "slow2") as two,
    ):
        unmounted.mount()
        files = [os.open(top / each / "file", os.O_RDWR | os.O_CREAT) for each in names]
        one.stop()
        two.stop()
        stuck = [Stuck(partial(os.pwrite, fd, b"stuck", 0)) for fd in files]
        time.sleep(0.5)
        soon(lambda: _changes(top))
        one.go_on()
        stuck[0].join(PATIENCE_S)
        soon(partial(os.pwrite, files[0], b"goes", 0))
        was_stuck = stuck[1].is_alive()
        two.go_on()
        stuck[1].join(PATIENCE_S)
        for fd in files:
            os.close(fd)

        assert was_stuck
        assert [each.result for each in stuck] == [5, 5]
        assert (state / "slow1" / "file").read_bytes() == b"goesk"
        unmounted.dkfs("umount", top)


def _stop_and_go(unmounted: Mounted, *, rounds: int) -> None:
    state, top, seed = unmounted.state_dir, unmounted.mountpoint, random.randrange(1 << 30)
    print("seed", seed)
    places = [Path("."), Path("slow1"), Path("slow2")]
    for each in places[1:]:
        (state / each).mkdir()
        (unmounted.base / each).mkdir()
    with (
        slow_mount(unmounted.base / "slow1", state / "slow1") as one,
        slow_mount(unmounted.base / "slow2", state / "slow2") as two,
    ):
        unmounted.mount()
        for each in places:
            (top / each / "shared").mkdir()
            (top / each / "slots").write_bytes(bytes(SLOT * 2))
            (top / each / "counter").write_bytes(b"%020d" % 0)
        over = threading.Event()
        chaos = Stuck(lambda: _stop_at_random((one, two), over, random.Random(seed)))
        try:
            raised = _work([top / each for each in places], rounds)
        finally:
            over.set()
            chaos.join(PATIENCE_S)

        assert raised == [int((top / each / "counter").read_text()) for each in places]
        assert isinstance(chaos.result, int)
        assert chaos.result > 1  # times that one was stopped
        unmounted.flush()
        tree = tree_of(top)
        assert tree == tree_of(state)
        unmounted.dkfs("restore", "latest", "--target", unmounted.base / "out")
        out = tree_of(unmounted.base / "out")
        for mount in ("slow1", "slow2"):  # when it was found, it was another's
            tree.pop(mount), out.pop(mount)
        assert out == tree
        unmounted.dkfs("check", "--read-data")
        unmounted.dkfs("umount", top)


def _stop_at_random(all_of: tuple[Slow, ...], over: threading.Event, rng: random.Random) -> int:
    """Stop one, or both, for a moment, again and again; return how often."""
    count = 0
    while not over.wait(rng.uniform(0.01, 0.1)):
        chosen = [each for each in all_of if rng.random() < 0.6]
        for each in chosen:
            each.stop()
            over.wait(rng.uniform(0.0, 0.3))
        for each in chosen:
            each.go_on()
        count += len(chosen)
    return count


def _work(tops: list[Path], rounds: int) -> list[int]:
    """Have two clients work in each of *tops*; return how often each raised its counter."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.mount.mixed_work", top, "0", "2", str(rounds)],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for top in tops
    ]
    said = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * len(tops), said
    return [int(out) for out, _ in said]
