"""The clock jumps, back and forth, under a mount: versions stay in order, and nothing is lost."""

import json
import os
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.mount.ladder import RECORDING, Ladder
from tests.mounting import Mounted, wait_for_end

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

_DAYS = 86400  # seconds


class Clock:
    """The clock of who is started with its environment."""

    def __init__(self, directory: Path) -> None:
        compiler = shutil.which("gcc")
        if compiler is None:
            pytest.skip("needs gcc")
        self._file, library = directory / "clock", directory / "clock.so"
        self.jump(0)
        source = Path(__file__).with_name("clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
        self.environment = {"LD_PRELOAD": str(library), "DKFS_TEST_CLOCK": str(self._file)}

    def jump(self, offset_s: int) -> None:
        """Let it be off by so much from now on."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=q", offset_s))


def times_ns(place: Mounted) -> list[int]:
    """Return when the versions were made, the oldest first."""
    lines = [json.loads(line) for line in place.dkfs("log", "--json").stdout.splitlines()]
    return [line["time_ns"] for line in lines if "operation" in line][::-1]


def test_versions_stay_in_order_and_whole_whatever_the_clock_does(unmounted: Mounted) -> None:
    clock = Clock(unmounted.base)
    files = {}
    with patch.dict(os.environ, clock.environment):
        ladder = Ladder(unmounted, unmounted.store)
        began_ns = time.time_ns()
        with ladder:
            for number, days in enumerate((0, 10, -10, 0, 400, -400)):
                clock.jump(days * _DAYS)
                files[f"f{number}"] = files["same"] = os.urandom(3000)
                ladder.write(f"f{number}", files["same"])
                ladder.write("same", files["same"])
            assert ladder.says() == RECORDING
            pid = ladder.place.daemon_pid
            os.kill(pid, signal.SIGKILL)
            assert wait_for_end(pid)
            (unmounted.state_dir / "f1").write_bytes(b"newer")
            files["f1"] = b"newer"
            clock.jump(-20 * _DAYS)
            ladder.mount()
            ladder.write("last", b"last")
            files["last"] = b"last"

            ladder.expect(files)
            made_ns = times_ns(unmounted)
    assert made_ns == sorted(made_ns)
    assert made_ns[-1] - began_ns > 399 * _DAYS * 10**9
