"""Forgetting under a live mount: the mount goes on answering, and what is kept stays what it was."""

import errno
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dkfs.store import Store
from dkfs.store.check import check
from tests.history.forgetting import Picture, picture
from tests.mounting import CHECKOUT, PATIENCE_S, Mounted, dkfs, wait_for_end

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def work(place: Path, rounds: int) -> None:
    """Make, write, rename and remove files, the same names again and again."""
    for i in range(rounds):
        directory = place / f"d{i % 7}"
        directory.mkdir(exist_ok=True)
        (directory / f"f{i % 5}").write_text(f"contents {i}\n" * (i % 50))
        (directory / "tmp").write_text(f"saved {i}")
        (directory / "tmp").rename(directory / "saved")
        if i % 3 == 0:
            (directory / f"f{i % 5}").unlink()


def pictures(store: Path, kept: list[int]) -> dict[int, Picture]:
    with Store.open(store, writable=False) as opened, opened.read() as reader:
        return {seq: picture(reader, seq) for seq in kept}


def versions(store: Path) -> list[int]:
    with Store.open(store, writable=False) as opened, opened.read() as reader:
        return [seq for seq, _ in reader.versions()]


def assert_sound(store: Path) -> None:
    with Store.open(store, writable=True) as opened:
        assert list(check(opened, read_data=True)) == []


def test_what_is_kept_stays_and_the_mount_goes_on(mounted: Mounted) -> None:
    work(mounted.mountpoint, 100)
    held = json.loads(mounted.dkfs("hold", "here", "--json").stdout)["version"]
    work(mounted.mountpoint, 50)
    mounted.flush()
    last = versions(mounted.store)[-1]
    kept = [held, *range(last - 4, last + 1)]
    before = pictures(mounted.store, kept)
    ended = threading.Event()

    def write_on() -> None:
        while not ended.is_set():
            work(mounted.mountpoint, 3)

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        result = mounted.dkfs("forget", "--keep-last", "5")
    finally:
        ended.set()
        writer.join()

    assert "forgot " in result.stdout
    left = versions(mounted.store)
    assert held in left
    assert [seq for seq in left if seq < last - 200] == [seq for seq in (held,) if seq < last - 200]
    still = [seq for seq in kept if seq in left]
    assert {seq: before[seq] for seq in still} == pictures(mounted.store, still)
    assert mounted.dkfs("cat", f"{held}:d0/saved").stdout.startswith("saved ")
    mounted.umount()
    assert_sound(mounted.store)


def test_holds_are_made_and_released_on_a_mount(mounted: Mounted) -> None:
    (mounted.mountpoint / "a").write_text("one")
    mounted.dkfs("hold", "release-7", "--expires", "90d")
    tags = mounted.mountpoint / ".dkfs" / "tags"

    assert os.listdir(tags) == ["release-7"]
    with pytest.raises(OSError) as raised:
        (tags / "release-7").rmdir()
    assert raised.value.errno == errno.EACCES
    refused = mounted.dkfs("tag", "--delete", "release-7", check=False)
    assert (refused.returncode, refused.stderr) == (
        1,
        "dkfs: release-7 is a hold: expected `dkfs release`\n",
    )
    assert "hold until" in mounted.dkfs("tag").stdout
    mounted.dkfs("release", "release-7")
    assert os.listdir(tags) == []
    mounted.umount()
    assert_sound(mounted.store)


def test_a_forgotten_version_is_gone_from_the_mount_and_stale_where_it_is_open(
    mounted: Mounted,
) -> None:
    (mounted.mountpoint / "a").write_text("one")
    mounted.flush()
    first = versions(mounted.store)[-1]
    (mounted.mountpoint / "a").write_text("two")
    (mounted.mountpoint / "b").write_text("two")
    mounted.flush()
    tree = mounted.mountpoint / ".dkfs" / "versions" / str(first)
    assert (tree / "a").read_text() == "one"
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        mounted.dkfs("forget", "--keep-last", "1")

        assert not tree.exists()
        with pytest.raises(OSError) as raised:
            os.listdir(fd)
        assert raised.value.errno == errno.ESTALE
    finally:
        os.close(fd)
    refused = mounted.dkfs("rollback", str(first), check=False)
    assert refused.returncode == 3
    assert f"version {first} was forgotten" in refused.stderr
    assert (mounted.mountpoint / "a").read_text() == "two"


def forgetting(place: Mounted) -> subprocess.Popen[bytes]:
    """Have all versions but ten forgotten; return when some are, and the rest are being."""
    many = len(versions(place.store))
    client = subprocess.Popen(
        [sys.executable, "-m", "dkfs", "forget", "--keep-last", "10", "--store", place.store],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(versions(place.store)) == many:
        assert client.poll() is None
        time.sleep(0.005)
    return client


def test_a_daemon_that_is_killed_while_it_forgets_leaves_a_sound_store(
    unmounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("DKFS_FAILPOINTS", "forget.fold=3*off->sleep(100)")
        unmounted.mount()
    work(unmounted.mountpoint, 300)
    unmounted.flush()
    last = versions(unmounted.store)[-1]
    kept = list(range(last - 9, last + 1))
    before = pictures(unmounted.store, kept)
    client = forgetting(unmounted)
    pid = unmounted.daemon_pid
    os.kill(pid, signal.SIGKILL)
    assert wait_for_end(pid)
    assert client.wait(PATIENCE_S) != 0
    unmounted.dkfs("umount", unmounted.mountpoint)

    assert_sound(unmounted.store)
    assert pictures(unmounted.store, kept) == before
    unmounted.mount()
    unmounted.dkfs("forget", "--keep-last", "10")
    left = versions(unmounted.store)
    assert len([seq for seq in left if seq <= last]) <= 10
    unmounted.umount()
    assert_sound(unmounted.store)


def test_the_mount_ends_at_once_though_versions_are_being_forgotten(
    unmounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DKFS_FAILPOINTS", "forget.fold=3*off->sleep(0.3)")  # minutes in all
    unmounted.mount()
    work(unmounted.mountpoint, 300)
    unmounted.flush()
    client = forgetting(unmounted)

    unmounted.umount()

    client.wait(PATIENCE_S)
    assert len(versions(unmounted.store)) > 10
    assert_sound(unmounted.store)


@pytest.mark.alone
def test_writes_are_answered_while_versions_are_forgotten(
    unmounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DKFS_FAILPOINTS", "forget.fold=8*sleep(0.3)->off")
    unmounted.mount()
    work(unmounted.mountpoint, 400)
    unmounted.flush()
    probe = unmounted.mountpoint / "probe"
    idle = _latencies_s(probe, until=time.monotonic() + 1)
    started = time.monotonic()
    client = forgetting(unmounted)
    busy: list[float] = []
    while client.poll() is None:
        busy += _latencies_s(probe, until=time.monotonic() + 0.1)
    seconds = time.monotonic() - started

    assert client.returncode == 0
    # The bounds are wide: the machine that runs the tests has other things to do. See bench/ for the number.
    assert statistics.median(busy) < max(20 * statistics.median(idle), 0.05)
    assert max(busy) < seconds / 2


def _latencies_s(path: Path, *, until: float) -> list[float]:
    """Return how long writes of 4 KiB took, one after the other with pauses."""
    found = []
    data = b"x" * 4096
    with path.open("wb", buffering=0) as file:
        while time.monotonic() < until:
            started = time.perf_counter()
            os.pwrite(file.fileno(), data, 0)
            found.append(time.perf_counter() - started)
            time.sleep(0.0005)
    return found


def test_without_a_mount_the_command_forgets_by_itself(mounted: Mounted) -> None:
    work(mounted.mountpoint, 20)
    mounted.umount()

    result = dkfs("forget", "--keep-last", "3", "--prune", "--store", mounted.store)

    assert "forgot " in result.stdout
    assert len(versions(mounted.store)) == 3
    mounted.mount()
    assert (mounted.mountpoint / "d0" / "saved").read_text().startswith("saved")
    mounted.umount()
    assert len(versions(mounted.store)) == 3, "the next mount found something to record"
