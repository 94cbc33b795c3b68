"""Random workloads of several processes on a mount whose daemon is killed: see life.py and oracle.py for what must hold.

A failure names its seed; `python -m tests.crash --seeds SEED-SEED --kills N --engine E --io I` leads that life again.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mounting import CHECKOUT

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

KILLS = 13  # in one life
LONG = [
    *(("kernel", "strict", n) for n in range(12)),
    *(("kernel", "checkpoint", n) for n in range(4)),
    *(("kernel", "hybrid", n) for n in range(2)),
    *(("pyfuse3", "strict", n) for n in range(4)),
]


def lead(tmp_path: Path, *, engine: str, io: str, lives: int, kills: int) -> None:
    seed = int(os.environ.get("DKFS_TEST_SEED") or random.SystemRandom().randrange(1, 10**9))
    print(f"DKFS_TEST_SEED={seed}")
    seeds = f"{seed}-{seed + lives - 1}"
    words = ("--seeds", seeds, "--kills", str(kills), "--engine", engine, "--io", io)
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash", *words, "--base", tmp_path],
        cwd=CHECKOUT,
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    print(done.stdout)


@pytest.mark.parametrize(
    ("engine", "io", "kills"),
    [
        ("kernel", "strict", 2 * KILLS),
        ("kernel", "checkpoint", KILLS),
        ("pyfuse3", "strict", KILLS),
    ],
)
def test_what_a_kill_leaves_is_a_beginning_of_what_was_done_with_all_that_was_synced(
    tmp_path: Path, engine: str, io: str, kills: int
) -> None:
    lead(tmp_path, engine=engine, io=io, lives=1, kills=kills)


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize(("engine", "io", "part"), LONG)
def test_many_lives_with_many_kills_each(tmp_path: Path, engine: str, io: str, part: int) -> None:
    lead(tmp_path, engine=engine, io=io, lives=4, kills=KILLS)
