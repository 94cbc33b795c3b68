"""Collecting, pruning and the budget under a mount that is used: nothing is lost, nobody waits, room comes back."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dkfs.daemon import control
from dkfs.errors import StoreBusyError
from tests.mount.engines import each_engine
from tests.mounting import CHECKOUT, PATIENCE_S, Mounted, wait_for_no_mount

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

SIZE = 20_000  # bytes of a version of a file


def contents(number: int) -> bytes:
    return random.Random(number).randbytes(SIZE)


def write(place: Mounted, numbers: range, *, files: int = 5) -> None:
    """Give one file after the other the contents of *numbers*, each a version."""
    for number in numbers:
        (place.mountpoint / f"f{number % files}").write_bytes(contents(number))
    place.flush()


def segment_bytes(place: Mounted) -> int:
    return _bytes_of((place.store / "segments").iterdir())


def _bytes_of(files: Iterable[Path]) -> int:
    found = 0
    for file in files:
        with suppress(FileNotFoundError):  # it went meanwhile
            found += file.lstat().st_size
    return found


def shown(place: Mounted, name: str) -> list[bytes]:
    """Return the contents of every version of the file *name* that is there."""
    directory = place.mountpoint / ".dkfs" / "files" / name
    return [(directory / entry).read_bytes() for entry in sorted(os.listdir(directory), key=int)]


def child_of(pid: int) -> int | None:
    """Return the process that looks through the store for the daemon *pid*."""
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdecimal() or b"__survey" not in (entry / "cmdline").read_bytes():
                continue
            if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                return int(entry.name)
        except OSError:
            continue  # it has ended
    return None


def start(place: Mounted, *words: str) -> subprocess.Popen[str]:
    """Run dkfs without waiting for it."""
    return subprocess.Popen(
        [sys.executable, "-m", "dkfs", *words],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT), DKFS_STORE=str(place.store)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop_child(place: Mounted) -> int:
    """Stop the process that looks through the store, so that it is there for as long as the test wants."""
    daemon = place.daemon_pid
    deadline = time.monotonic() + PATIENCE_S
    while (child := child_of(daemon)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(child, signal.SIGSTOP)
    return child


def test_what_was_pruned_comes_back_under_the_mount(mounted: Mounted) -> None:
    write(mounted, range(200))
    before = segment_bytes(mounted)

    said = mounted.dkfs("prune", "--keep-last", "50", "-n").stdout
    done = mounted.dkfs("prune", "--keep-last", "50").stdout

    assert "come back to the disk" in said
    assert "came back to the disk" in done
    assert before - segment_bytes(mounted) > 130 * SIZE
    for name in range(5):
        versions = shown(mounted, f"f{name}")
        assert versions[-10:] == [contents(n) for n in range(150 + name, 200, 5)]
    assert mounted.dkfs("check").returncode == 0


def test_what_is_written_meanwhile_is_recorded(mounted: Mounted) -> None:
    write(mounted, range(200))
    mounted.dkfs("forget", "--keep-last", "20")
    stop = threading.Event()
    written: list[int] = []

    def work() -> None:
        number = 1000
        while not stop.is_set():
            (mounted.mountpoint / f"f{number % 5}").write_bytes(contents(number))
            written.append(number)
            number += 1

    worker = threading.Thread(target=work)
    worker.start()
    for _ in range(3):
        mounted.dkfs("gc", "--max-unused", "0")
        mounted.dkfs("forget", "--keep-last", "100")
    stop.set()
    worker.join()
    mounted.flush()

    for name in range(5):
        last = [n for n in written if n % 5 == name][-15:]
        assert shown(mounted, f"f{name}")[-15:] == [contents(n) for n in last]
    mounted.umount()
    assert mounted.dkfs("check", "--read-data").returncode == 0


@each_engine
def test_maintenance_ends_however_busy_the_mount_is(
    unmounted: Mounted, mount_options: tuple[str, ...]
) -> None:
    unmounted.mount(*mount_options)
    write(unmounted, range(100))
    stop = threading.Event()

    def work() -> None:
        with open(unmounted.mountpoint / "busy", "wb", buffering=0) as file:
            while not stop.is_set():
                os.pwrite(file.fileno(), bytes(4096), 0)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        done = [
            unmounted.dkfs(*words).returncode
            for words in (
                ("prune", "--keep-last", "20"),
                ("gc", "--max-unused", "0"),
                ("gc", "--repack"),
            )
        ]
    finally:
        stop.set()
        worker.join()

    assert done == [0, 0, 0]
    assert segment_bytes(unmounted) < 60 * SIZE


def test_if_the_process_that_reads_is_killed_the_mount_goes_on(mounted: Mounted) -> None:
    write(mounted, range(100))
    mounted.dkfs("forget", "--keep-last", "20")
    collection = start(mounted, "gc")

    os.kill(stop_child(mounted), signal.SIGKILL)
    _, said = collection.communicate(timeout=PATIENCE_S)

    assert collection.returncode == 4
    assert "the process that looks through the store has ended" in said
    write(mounted, range(100, 120))
    assert "came back" in mounted.dkfs("gc").stdout
    assert shown(mounted, "f1")[-1] == contents(116)


def test_who_asked_and_went_away_leaves_nothing_running(mounted: Mounted) -> None:
    write(mounted, range(100))
    mounted.dkfs("forget", "--keep-last", "20")
    collection = start(mounted, "gc")
    child = stop_child(mounted)
    collection.kill()
    collection.communicate()
    os.kill(child, signal.SIGCONT)

    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            control.request(mounted.store, {"command": "gc"})
            break
        except StoreBusyError:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    assert child_of(mounted.daemon_pid) is None


def test_there_is_one_maintenance_at_a_time(mounted: Mounted) -> None:
    write(mounted, range(50))
    collection = start(mounted, "gc")
    child = stop_child(mounted)

    with pytest.raises(StoreBusyError, match=r"a collection of store .* is under way"):
        control.request(mounted.store, {"command": "gc"})

    os.kill(child, signal.SIGCONT)
    collection.communicate(timeout=PATIENCE_S)
    assert collection.returncode == 0


def test_a_collection_ends_with_the_mount(mounted: Mounted) -> None:
    write(mounted, range(200))
    mounted.dkfs("forget", "--keep-last", "20")
    collection = start(mounted, "gc")
    child = stop_child(mounted)

    ending = start(mounted, "umount", str(mounted.mountpoint))
    assert wait_for_no_mount(mounted.mountpoint, seconds=PATIENCE_S)
    os.kill(child, signal.SIGCONT)

    assert ending.wait(PATIENCE_S) == 0
    ending.communicate()
    collection.communicate(timeout=PATIENCE_S)
    assert mounted.dkfs("check", "--read-data").returncode == 0
    assert "came back" in mounted.dkfs("gc").stdout
    assert mounted.dkfs("check", "--read-data").returncode == 0


def test_without_a_mount_the_index_gives_its_room_back_too(mounted: Mounted) -> None:
    write(mounted, range(300))
    mounted.dkfs("forget", "--keep-last", "20")
    assert "of the index are free too" in mounted.dkfs("gc", "-n").stdout
    before = (mounted.store / "index.lmdb").stat().st_size
    mounted.umount()  # which packs it, but not what the collection leaves

    mounted.dkfs("gc")

    assert (mounted.store / "index.lmdb").stat().st_size < before / 2
    mounted.mount()
    assert shown(mounted, "f4")[-1] == contents(299)


def test_a_budget_is_kept(unmounted: Mounted) -> None:
    config = unmounted.base / "dkfs.toml"
    config.write_text("budget = 1_500_000\n[retention]\nkeep-last = 20\n")
    words = ("mount", unmounted.state_dir, unmounted.mountpoint, "--store", unmounted.store)
    unmounted.dkfs(*words, "--config", config)

    number = most = 0
    while number < 300:
        write(unmounted, range(number, number + 10))
        number += 10
        most = max(most, segment_bytes(unmounted))
        time.sleep(0.1)
    deadline = time.monotonic() + PATIENCE_S
    while segment_bytes(unmounted) > 1_500_000:
        assert time.monotonic() < deadline
        time.sleep(0.1)

    assert most > 1_000_000
    assert shown(unmounted, "f1")[-1] == contents(number - 4)
    unmounted.umount()
    checked = unmounted.dkfs("check", "--read-data", check=False)
    assert checked.returncode == 0, checked.stdout


def with_budget(place: Mounted, budget: str, policy: str) -> None:
    config = place.base / "dkfs.toml"
    config.write_text(f'budget = "{budget}"\n[retention]\n{policy}\n')
    words = ("mount", place.state_dir, place.mountpoint, "--store", place.store)
    place.dkfs(*words, "--config", config, "--log-file", place.base / "log")


def store_bytes(place: Mounted) -> int:
    """Return the bytes of all files of the store that count against its budget."""
    return _bytes_of(file for file in place.store.rglob("*") if file.name != "reserve")


def test_recording_does_not_pass_the_budget_however_fast_is_written(unmounted: Mounted) -> None:
    with_budget(unmounted, "16M", "keep-last = 3")
    stop = threading.Event()
    sizes: list[int] = []
    data = b""

    def watch() -> None:
        while not stop.wait(0.01):
            sizes.append(store_bytes(unmounted))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(40):  # as fast as it goes: 2.5 times the budget
            data = random.Random(number).randbytes(1 << 20)
            (unmounted.mountpoint / f"f{number % 2}").write_bytes(data)
        unmounted.umount()
    finally:
        stop.set()
        watcher.join()

    assert max(sizes) <= 16 << 20
    log = unmounted.dkfs("log", "--json").stdout.splitlines()
    assert '"version": ' + str(40 * 2) not in log[-1]  # the oldest went
    unmounted.mount()
    assert (unmounted.mountpoint / "f1").read_bytes() == data
    assert unmounted.dkfs("check", "--read-data").returncode == 0


def test_what_waits_for_the_recorder_while_it_waits_for_room_is_done(unmounted: Mounted) -> None:
    with_budget(unmounted, "4M", "keep-last = 2")
    for number in range(12):
        data = random.Random(number).randbytes(1 << 20)
        (unmounted.mountpoint / "file").write_bytes(data)
        if number % 3 == 0:
            (unmounted.mountpoint / ".dkfs" / "tags" / f"t{number}").mkdir()
        elif number % 3 == 1:
            unmounted.dkfs("rollback", "latest")
        else:
            fd = os.open(unmounted.mountpoint / "file", os.O_WRONLY)
            os.truncate(fd, 100)
            os.fsync(fd)
            os.close(fd)

    assert unmounted.dkfs("status").returncode == 0


def test_a_policy_that_keeps_more_than_the_budget_is_told_and_recording_goes_on(
    unmounted: Mounted,
) -> None:
    with_budget(unmounted, "2M", "keep-last = 1000")
    write(unmounted, range(200))
    deadline = time.monotonic() + PATIENCE_S
    told: dict[str, object] = {}
    while told.get("over_budget_reason") != "policy":
        assert time.monotonic() < deadline, told
        write(unmounted, range(200, 210))
        told = json.loads(unmounted.dkfs("status", "--json").stdout)

    assert told["over_budget"] is True
    assert told["budget_bytes"] == 2 << 20
    assert "2.0 MiB, EXCEEDED: the policy keeps more" in unmounted.dkfs("status").stdout
    assert "the policy keeps all that is left" in (unmounted.base / "log").read_text()
    write(unmounted, range(300, 305))
    assert shown(unmounted, "f4")[-1] == contents(304)


@pytest.fixture
def full(unmounted: Mounted) -> Iterator[Mounted]:
    """Mount with the store on a small disk of its own."""
    unmounted.store.mkdir()
    disk = ("mount", "-t", "tmpfs", "-o", "size=16m", "dkfs-test", unmounted.store)
    subprocess.run(disk, check=True)
    try:
        unmounted.mount("reserve=2M")
        yield unmounted
        unmounted.umount()
    finally:
        subprocess.run(["umount", "--lazy", unmounted.store], check=True)


def test_on_a_full_disk_pruning_makes_room_and_recording_goes_on(full: Mounted) -> None:
    number = 0
    while full.dkfs("status", check=False).returncode == 0 and number < 2000:
        for _ in range(50):
            (full.mountpoint / f"f{number % 5}").write_bytes(contents(number))
            number += 1
        time.sleep(0.1)
    assert number < 2000, "the disk was to become full"

    full.dkfs("prune", "--keep-last", "100")
    deadline = time.monotonic() + PATIENCE_S
    while full.dkfs("status", check=False).returncode != 0:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    write(full, range(number, number + 20))

    assert shown(full, "f0")[-1] in {contents(n) for n in range(number + 15, number + 20)}
    # Where what waited filled the disk again before the prune had ended, the reserve is taken when it is looked at next.
    deadline = time.monotonic() + PATIENCE_S
    while (full.store / "reserve").stat().st_size != 2 << 20:
        assert time.monotonic() < deadline
        time.sleep(0.2)
