"""Who changes much that is not recorded yet waits for the recorder; nobody else does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuse.kernel.test_connection import no_commits
from tests.mount.test_posix import recorded_now
from tests.mounting import PATIENCE_S, Mounted

pytestmark = [pytest.mark.mount, pytest.mark.slow]

SIZE = 12 << 20  # bytes: more than is saved in memory
CHANGES = {
    "open": "os.open(path, os.O_WRONLY | os.O_TRUNC)",
    "truncate": "os.truncate(path, 5)",
    "punch": (
        "import ctypes; libc = ctypes.CDLL(None);"
        "assert not libc.fallocate64(os.open(path, os.O_RDWR), 3,"
        f" ctypes.c_int64(0), ctypes.c_int64({SIZE}))"
    ),
}


def test_changes_of_much_wait_and_nobody_else_does(unmounted: Mounted) -> None:
    unmounted.mount("engine=kernel")
    for name in CHANGES:
        (unmounted.mountpoint / name).write_bytes(b"x")
    unmounted.flush()
    with no_commits(unmounted):
        for name in CHANGES:
            (unmounted.mountpoint / name).write_bytes(b"d" * SIZE)
        started = [changing(unmounted.mountpoint / name) for name in CHANGES]
        for _ in range(20):
            (unmounted.mountpoint / "another").write_bytes(b"at once")
            assert (unmounted.mountpoint / "another").read_bytes() == b"at once"

        assert [process.poll() for process in started] == [None] * len(started)
    for process in started:
        assert process.wait(PATIENCE_S) == 0
    unmounted.flush()

    for name in CHANGES:
        now = (unmounted.state_dir / name).read_bytes()
        assert now.count(b"d") == (5 if name == "truncate" else 0)
        assert recorded_now(unmounted, os.fsencode(name)) == now


def changing(path: Path) -> "subprocess.Popen[bytes]":
    """Start a process that makes the change *path* is named after; return when it is about to."""
    code = f"import os, sys; path = sys.argv[1]; os.write(1, b'x'); {CHANGES[path.name]}"
    process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.read(1)
    return process
