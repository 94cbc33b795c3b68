"""Scrubs of a mount, and a check beside it."""

import os
import random
import signal
import socket
import time
import urllib.request
from pathlib import Path

import pytest

from dkfs.daemon.control import request
from dkfs.store import Store
from dkfs.store.segments import RECORD
from tests.mounting import PATIENCE_S, Mounted

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def scrub(mounted: Mounted, action: str, **members: object) -> dict[str, object]:
    return request(mounted.store, {"command": "scrub", "action": action, **members})


def wait_until_done(mounted: Mounted, seconds: float = PATIENCE_S) -> dict[str, object]:
    """Wait for the scrub that is under way; return what there is to know."""
    until_s = time.monotonic() + seconds
    while (answer := scrub(mounted, "status"))["scrub_running"]:
        assert time.monotonic() < until_s, answer
        time.sleep(0.05)
    return answer


def write(mounted: Mounted, count: int = 20) -> None:
    rng = random.Random(1)
    for number in range(count):
        (mounted.mountpoint / f"f{number}").write_bytes(rng.randbytes(50_000))
    mounted.flush()


def damage(store: Path, data: bytes) -> None:
    """Flip a bit in what is stored of *data*."""
    with Store.open(store, writable=False) as opened, opened.read() as reader:
        at = reader.location(opened.hash(data))
    assert at is not None
    with (store / "segments" / f"{at.segment:08d}.seg").open("r+b") as file:
        file.seek(at.offset + RECORD.size + at.stored_length // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes((byte ^ 1,)))


def test_a_scrub_runs_in_the_background_and_is_remembered(mounted: Mounted) -> None:
    write(mounted)
    before = mounted.dkfs("status", check=False).stdout
    assert before.splitlines()[-1].split() == ["last", "scrub", "never"]

    started = mounted.dkfs("scrub")
    answer = wait_until_done(mounted)

    assert started.stdout.startswith("scrubbing, ")
    assert answer["scrub_damage"] == 0
    assert "no damage" in mounted.dkfs("status").stdout.splitlines()[-1]
    mounted.umount()
    assert "no damage" in mounted.dkfs("scrub", "--status").stdout
    assert "no damage" in mounted.dkfs("status", check=False).stdout


def test_a_scrub_that_is_stopped_goes_on_where_it_was(mounted: Mounted) -> None:
    write(mounted)

    scrub(mounted, "start", rate=100_000)
    while not scrub(mounted, "status")["scrub_done_bytes"]:
        time.sleep(0.05)
    stopped = mounted.dkfs("scrub", "--stop")
    wait_until_done(mounted)
    assert stopped.stdout.startswith("stopping")
    assert scrub(mounted, "status")["scrub_finished"] is None
    again = scrub(mounted, "start", rate=1 << 30)
    assert again["started"] is True

    assert wait_until_done(mounted)["scrub_damage"] == 0


def test_a_second_scrub_is_not_begun(mounted: Mounted) -> None:
    write(mounted)
    scrub(mounted, "start", rate=10_000)

    second = mounted.dkfs("scrub")

    assert second.stdout.startswith("a scrub is under way already")
    scrub(mounted, "stop")


@pytest.mark.parametrize("how", ["umount", "kill"])
def test_a_scrub_ends_with_its_mount(mounted: Mounted, how: str) -> None:
    write(mounted)
    scrub(mounted, "start", rate=10_000)
    while not scrub(mounted, "status")["scrub_doing"]:
        time.sleep(0.05)

    if how == "umount":
        mounted.umount()
    else:
        mounted.kill()

    until_s = time.monotonic() + PATIENCE_S
    while scrubbers(mounted.store):
        assert time.monotonic() < until_s
        time.sleep(0.05)


def scrubbers(store: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"scrub" in words and os.fsencode(store) in words:
                found.append(int(entry.name))
    return found


def test_a_scrub_that_is_killed_is_said_to_be(mounted: Mounted) -> None:
    write(mounted)
    scrub(mounted, "start", rate=10_000)
    while not scrub(mounted, "status")["scrub_doing"]:
        time.sleep(0.05)

    for pid in scrubbers(mounted.store):
        os.kill(pid, signal.SIGKILL)

    assert wait_until_done(mounted)["scrub_finished"] is None
    (mounted.mountpoint / "more").write_bytes(b"the mount goes on")
    mounted.flush()


def test_damage_is_in_the_log_the_status_and_the_metrics(
    unmounted: Mounted, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path / "log"
    unmounted.dkfs(
        *("mount", unmounted.state_dir, unmounted.mountpoint),
        *("--metrics-addr", f"127.0.0.1:{port}", "--log-file", log),
    )
    write(unmounted)
    damage(unmounted.store, random.Random(1).randbytes(50_000))

    scrub(unmounted, "start", rate=1 << 30)
    answer = wait_until_done(unmounted)

    assert answer["scrub_damage"] == 1
    assert unmounted.dkfs("scrub", "--status", check=False).returncode == 5
    assert unmounted.dkfs("status").stdout.splitlines()[-1].endswith(", 1 damage")
    assert "scrub: 1 damages; `dkfs check --read-data` names" in log.read_text()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        metrics = reply.read().decode().splitlines()
    assert "dkfs_damage_found_total 1.0" in metrics
    assert "dkfs_scrub_damage 1.0" in metrics
    (age,) = [line.split()[1] for line in metrics if line.startswith("dkfs_scrub_age_seconds ")]
    assert 0 <= float(age) < 60
    # The rest is as it was, and what is damaged is named.
    assert (unmounted.mountpoint / "f0").read_bytes() == random.Random(1).randbytes(50_000)
    checked = unmounted.dkfs("check", "--read-data", check=False)
    assert checked.returncode == 5
    assert "affected: f0, versions " in checked.stdout


def test_a_scrub_begins_by_itself_when_it_is_time(unmounted: Mounted) -> None:
    unmounted.mount("scrub_interval=1s")
    write(unmounted)
    unmounted.umount()
    time.sleep(1)  # so that it is due at the next mount

    unmounted.mount("scrub_interval=1s")

    until_s = time.monotonic() + PATIENCE_S
    while scrub(unmounted, "status")["scrub_finished"] is None:
        assert time.monotonic() < until_s
        time.sleep(0.05)
    assert scrub(unmounted, "status")["scrub_damage"] == 0


def test_no_scrub_begins_unasked_when_that_is_wanted(unmounted: Mounted) -> None:
    unmounted.mount("scrub_interval=0")
    write(unmounted, 1)

    assert scrub(unmounted, "status")["scrub_running"] is False


def test_a_mount_is_checked_while_it_is_written(mounted: Mounted) -> None:
    for round_ in range(5):
        write(mounted, 5)
        (mounted.mountpoint / "f1").rename(mounted.mountpoint / f"moved{round_}")

        checked = mounted.dkfs("check", "--read-data")

        assert checked.stdout.endswith("no damage\n")
    refused = mounted.dkfs("check", "--repair", check=False)
    assert refused.returncode == 4
    assert "unmount before a repair" in refused.stderr


def test_a_repair_takes_what_is_lost_from_the_state_directory(mounted: Mounted) -> None:
    data = random.Random(2).randbytes(400_000)
    (mounted.mountpoint / "large").write_bytes(data)
    write(mounted, 3)
    mounted.umount()
    (mounted.store / "segments" / "00000001.seg").unlink()

    repaired = mounted.dkfs("check", "--repair", "--state-dir", mounted.state_dir, check=False)

    # The head is back, but for the list of the chunks of a large file.
    assert "from the files in" in repaired.stdout
    mounted.mount()
    assert (mounted.mountpoint / "large").read_bytes() == data
    assert (mounted.mountpoint / "f2").read_bytes() != b""
    mounted.umount()
    last = mounted.dkfs("restore", "latest", "--target", mounted.base / "out")
    assert last.returncode == 0
    assert (mounted.base / "out" / "large").read_bytes() == data
