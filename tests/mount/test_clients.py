"""Many clients at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.engines import each_way
from tests.mount.mixed_work import SLOT
from tests.mount.trees import tree_of
from tests.mounting import CHECKOUT, Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

PATIENCE_S = 60.0


# ---- many


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
    through, backing = tree_of(top), tree_of(mounted.state_dir)
    assert through == backing
    mounted.flush()
    mounted.dkfs("restore", "latest", "--target", mounted.base / "out")
    assert tree_of(mounted.base / "out") == backing
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
    assert tree_of(top) == tree_of(mounted.state_dir)
    mounted.flush()
    mounted.dkfs("restore", "latest", "--target", mounted.base / "out")
    assert tree_of(mounted.base / "out") == tree_of(mounted.state_dir)
