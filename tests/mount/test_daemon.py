"""The daemon of a mount: what may not end it, what must, and what it leaves behind."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from dkfs.daemon.control import address
from tests.mounting import CHECKOUT, PATIENCE_S, Mounted, mounts_below, wait_for_end

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]


@contextmanager
def foreground(place: Mounted) -> Iterator[subprocess.Popen[bytes]]:
    """Mount by a daemon whose end can be looked at; it is gone at the end."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "dkfs", "mount", "--foreground", "--metrics-addr", ""),
            *(str(place.state_dir), str(place.mountpoint), "--store", str(place.store)),
        ],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while not (place.mounted and (place.store / "control").exists()):
            assert time.monotonic() < deadline_s
            assert process.poll() is None
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_control_request_that_is_too_long_is_refused_and_ends_nothing(mounted: Mounted) -> None:
    with socket.socket(socket.AF_UNIX) as client, address(mounted.store) as path:
        client.connect(path)
        client.sendall(b'{"command": "' + b"x" * (16 * 1024 * 1024) + b'"}\n')
        answer = client.recv(4096)

    assert b"control request of more than 16777216 bytes" in answer
    assert mounted.dkfs("status").returncode == 0


def test_directories_above_a_new_store_are_not_open_to_all(unmounted: Mounted) -> None:
    above = unmounted.base / "new" / "er"
    unmounted.dkfs("mount", unmounted.state_dir, unmounted.mountpoint, "--store", above / "store")
    try:
        for directory in (above, above.parent):
            assert stat.S_IMODE(directory.stat().st_mode) & 0o022 == 0
    finally:
        unmounted.umount()


def test_being_told_twice_to_end_is_being_told_once(unmounted: Mounted) -> None:
    data = os.urandom(64 * 1024 * 1024)
    with foreground(unmounted) as daemon:
        fd = os.open(unmounted.mountpoint / "big", os.O_CREAT | os.O_WRONLY)
        assert os.write(fd, data) == len(data)
        daemon.send_signal(signal.SIGTERM)
        while daemon.poll() is None and (unmounted.store / "control").exists():
            daemon.send_signal(signal.SIGTERM)  # as a service manager and `dkfs run` both do
            time.sleep(0.02)
        assert daemon.wait(timeout=PATIENCE_S) == 0
        with pytest.raises(OSError, match="not connected"):
            os.pwrite(fd, b"more", 0)
        with suppress(OSError):  # if the kernel was to tell that it is closed, it cannot
            os.close(fd)
    assert unmounted.dkfs("restore", "latest", "--target", unmounted.base / "back").returncode == 0
    assert (unmounted.base / "back" / "big").read_bytes() == data


def test_a_mount_that_another_namespace_still_has_ends_when_told_to(unmounted: Mounted) -> None:
    with foreground(unmounted) as daemon:
        other = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 1000"],
            stdout=subprocess.PIPE,
        )
        try:
            assert other.stdout is not None
            other.stdout.readline()
            daemon.send_signal(signal.SIGTERM)
            assert wait_for_end(daemon.pid)
            assert daemon.wait() == 0
        finally:
            other.kill()
            other.communicate()
    assert mounts_below(unmounted.base) == []


def test_umount_ends_a_mount_that_another_namespace_still_has(unmounted: Mounted) -> None:
    with foreground(unmounted) as daemon:
        other = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 1000"],
            stdout=subprocess.PIPE,
        )
        try:
            assert other.stdout is not None
            other.stdout.readline()
            unmounted.umount()
            assert wait_for_end(daemon.pid)
        finally:
            other.kill()
            other.communicate()


def test_a_mount_that_ends_packs_a_small_index(mounted: Mounted) -> None:
    for step in range(200):
        with (mounted.mountpoint / f"f{step % 20}").open("w") as file:
            file.write(f"{step}\n" * 20)
            file.flush()
            os.fsync(file.fileno())  # a transaction for each
    while_mounted = (mounted.store / "index.lmdb").stat().st_size

    mounted.dkfs("umount", mounted.mountpoint)

    assert (mounted.store / "index.lmdb").stat().st_size < while_mounted * 0.8
    assert mounted.dkfs("check", "--read-data").returncode == 0


def test_a_mount_in_the_background_logs_in_its_store(unmounted: Mounted) -> None:
    config = unmounted.base / "dkfs.toml"
    config.write_text('budget = "1M"\n[retention]\nkeep-last = 1000\n')
    words = ("mount", unmounted.state_dir, unmounted.mountpoint, "--store", unmounted.store)
    unmounted.dkfs(*words, "--config", config)
    (unmounted.mountpoint / "file").write_bytes(os.urandom(3 << 20))
    log = unmounted.store / "daemon.log"
    deadline_s = time.monotonic() + PATIENCE_S
    while not log.exists() or "the policy keeps all that is left" not in log.read_text():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)

    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_log_in_a_store_is_bounded(unmounted: Mounted) -> None:
    unmounted.store.mkdir()
    script = (
        "import logging, sys\n"
        "from pathlib import Path\n"
        "from dkfs.daemon.logfile import log_in\n"
        "log_in(Path(sys.argv[1]), logging.WARNING)\n"
        "for number in range(30_000):\n"
        "    logging.warning('%0100d', number)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, unmounted.store],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        capture_output=True,
        check=False,
    )

    assert done.stderr == b""
    files = sorted(unmounted.store.iterdir())
    assert [file.name for file in files] == ["daemon.log", "daemon.log.1"]
    assert sum(file.stat().st_size for file in files) < 2 << 20
    assert files[0].read_text().endswith("29999\n")
