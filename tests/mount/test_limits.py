"""More files than fds: the daemon's fds and memory are bounded, and nobody hears of EMFILE."""

import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.mount.behaviours import tried
from tests.mounting import CHECKOUT, Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

LIMIT = 1024
MANY = [8_000, pytest.param(200_000, marks=[pytest.mark.torture, pytest.mark.timeout(7200)])]


@pytest.fixture
def limited(unmounted: Mounted) -> Mounted:
    """Make the places of a mount whose daemon will have a hard limit of LIMIT fds."""
    return unmounted


def mount(place: Mounted) -> None:
    words = [str(place.state_dir), str(place.mountpoint), "--store", str(place.store)]
    subprocess.run(
        [sys.executable, "-m", "dkfs", "mount", *words, "--metrics-addr", ""],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT)),
        stdin=subprocess.DEVNULL,
        check=True,
    )


def fds(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory(pid: int) -> int:
    """Return the resident memory of *pid* in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024
    raise AssertionError


def fill(top: Path, count: int) -> None:
    for number in range(count):
        if number % 500 == 0:
            (top / f"d{number // 500}").mkdir()
        path = top / f"d{number // 500}" / f"f{number}"
        fd = os.open(path, os.O_CREAT | os.O_WRONLY)
        os.write(fd, b"%d" % number)
        os.close(fd)


def walk(top: Path) -> int:
    """Read and stat every file; return how many there are."""
    count = 0
    for above, _, names in os.walk(top):
        for name in names:
            path = os.path.join(above, name)
            with open(path, "rb") as file:
                data = file.read()
            assert b"f%s" % data == os.fsencode(name)
            assert os.stat(path).st_size == len(data)
            count += 1
    return count


@pytest.mark.parametrize("count", MANY)
def test_many_more_files_than_fds_are_walked_read_and_stated(limited: Mounted, count: int) -> None:
    fill(limited.state_dir, count)
    mount(limited)
    pid = limited.daemon_pid
    for _ in range(2):
        assert walk(limited.mountpoint) == count
        assert fds(pid) < LIMIT
    print(f"{fds(pid)} fds, {memory(pid)} MiB")
    assert memory(pid) < 150 + count * 1.5 // 1000


@pytest.mark.parametrize("count", [2500, pytest.param(100_000, marks=pytest.mark.torture)])
def test_many_more_files_than_fds_are_made_changed_and_removed(
    limited: Mounted, count: int
) -> None:
    mount(limited)
    pid = limited.daemon_pid
    top = limited.mountpoint
    fill(top, count)
    assert fds(pid) < LIMIT
    for directory in sorted(top.iterdir()):
        for path in sorted(directory.iterdir()):
            path.chmod(0o600)
            os.rename(path, path.with_name("x" + path.name))
    assert fds(pid) < LIMIT
    subprocess.run(["rm", "-r", *top.iterdir()], check=True)
    limited.flush()

    assert fds(pid) < LIMIT
    assert os.listdir(limited.state_dir) == []


def test_what_fails_to_go_holds_no_fd(limited: Mounted) -> None:
    mount(limited)
    for number in range(2000):
        (limited.mountpoint / f"d{number}" / "full").mkdir(parents=True)
    for number in range(2000):
        with pytest.raises(OSError, match="not empty"):
            (limited.mountpoint / f"d{number}").rmdir()
    assert fds(limited.daemon_pid) < LIMIT
    (limited.mountpoint / "d0" / "full" / "file").write_text("still works")


def test_a_tree_of_hard_links_can_be_removed(limited: Mounted) -> None:
    """Each file is known by the name that goes, and has another."""
    mount(limited)
    top = limited.mountpoint
    (top / "one").mkdir()
    fill(top / "one", LIMIT + 500)
    subprocess.run(["cp", "--archive", "--link", top / "one", top / "two"], check=True)
    assert walk(top) == 2 * (LIMIT + 500)
    subprocess.run(["rm", "-r", top / "one"], check=True)

    assert fds(limited.daemon_pid) < LIMIT
    assert walk(top) == LIMIT + 500


def test_an_application_holds_many_files_open(limited: Mounted) -> None:
    fill(limited.state_dir, 3000)
    mount(limited)
    top = limited.mountpoint
    held = [open(top / f"d{n // 500}" / f"f{n}", "r+b", buffering=0) for n in range(400)]  # noqa: SIM115
    try:
        assert walk(top) == 3000
        for number, file in enumerate(held):
            file.seek(0)
            assert file.read() == b"%d" % number
            file.write(b"!")
    finally:
        for file in held:
            file.close()
    assert (top / "d0" / "f399").read_bytes() == b"399!"


def test_who_opens_too_many_hears_of_it_and_nobody_else(limited: Mounted) -> None:
    fill(limited.state_dir, 3000)
    mount(limited)
    top = limited.mountpoint
    held: list[int] = []

    def hold(path: Path) -> None:
        held.append(os.open(path, os.O_RDWR))

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        refused = ""
        while not refused and len(held) < 2000:
            path = top / f"d{len(held) // 500}" / f"f{len(held)}"
            refused = tried(partial(hold, path))
        assert refused == "EMFILE"
        assert len(held) > 400
        assert len(list(top.rglob("f*"))) == 3000  # looking is not opening
        os.mkdir(top / "made")
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert walk(top) == 3000
