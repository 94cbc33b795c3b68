"""The bench runs, in miniature, and what it keeps can be read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import present
from bench.peer import Raw
from bench.peers import PEERS, Bindfs, Dkfs, DkfsKernel, PassthroughC
from bench.results import Measured, Sample, table, verdict_table
from bench.workload_data import SequentialWrites1M, SequentialWrites4K
from bench.workload_programs import Untar
from bench.workload_syncs import FsyncLatency
from bench.workloads import WORKLOADS

CHECKOUT = Path(__file__).resolve().parent.parent.parent
# What takes long even in miniature, because real programs are started, is left to a run by hand.
LONG = {"untar", "untar-xz", "git-clone", "npm-install"}
QUICK = ",".join(kind.name for kind in WORKLOADS if kind.name not in LONG)


def _bench(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *words],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _samples(*values: float) -> list[Sample]:
    return [Sample(value=v, wall_s=1.0, settle_s=0.0, daemon_cpu_s=0.0) for v in values]


def test_names_of_workloads_and_peers_are_unique() -> None:
    assert len({kind.name for kind in WORKLOADS}) == len(WORKLOADS)
    assert len({peer.name for peer in PEERS}) == len(PEERS)


def test_every_target_of_the_project_belongs_to_a_workload() -> None:
    targets = {kind.name for kind in WORKLOADS if kind.targets}

    assert targets == {
        *("write-seq-4k", "write-seq-1m", "write-rand-4k", "read-rand-4k", "read-seq-1m"),
        *("read-mmap", "stat-hot", "lookup", "lookup-negative", "create-4k", "open-close"),
        *("rename", "unlink", "untar", "untar-xz", "git-clone", "make", "npm-install"),
        *("sqlite-wal", "sqlite-delete", "find-size", "capture-1m", "capture-1m-64k"),
        *("fsync", "fsync-together", "idle-cpu", "memory-100k", "memory-1m"),
    }


def _verdicts(measured: Measured) -> dict[tuple[str, str | None], bool]:
    return {(v.peer, v.target.of): v.reached for v in measured.verdicts()}


def test_median_best_and_share_are_of_the_samples() -> None:
    measured = Measured(SequentialWrites1M, (Raw, Dkfs))
    measured.samples = {"raw": _samples(100, 400, 200), "dkfs": _samples(30, 90, 50)}

    assert (measured.median("dkfs"), measured.best("dkfs")) == (50, 90)
    assert measured.of_raw("dkfs") == 0.25
    assert _verdicts(measured) == {("dkfs", "raw"): True}


def test_best_of_a_time_is_the_shortest_and_its_target_is_a_most() -> None:
    measured = Measured(Untar, (Raw, Dkfs))
    measured.samples = {"raw": _samples(1, 2), "dkfs": _samples(4, 5.5)}

    assert (measured.median("dkfs"), measured.best("dkfs")) == (4.75, 4)
    assert _verdicts(measured) == {("dkfs", "raw"): False}


def test_absolute_target_is_not_about_the_raw_directory() -> None:
    measured = Measured(SequentialWrites4K, (Dkfs,))
    measured.samples = {"dkfs": _samples(15_000)}

    assert measured.of_raw("dkfs") is None
    assert _verdicts(measured) == {("dkfs", None): True}


def test_target_is_not_reached_by_a_peer_that_failed_once() -> None:
    measured = Measured(SequentialWrites4K, (Dkfs,))
    measured.samples = {"dkfs": _samples(99_000)}
    measured.errors = {"dkfs": ["IncompleteError: nothing was recorded"]}

    assert _verdicts(measured) == {("dkfs", None): False}
    assert "FAILED" in table([measured], [Dkfs])
    assert "NOT REACHED" in verdict_table([measured])


def test_each_peer_is_judged_by_its_own_targets_and_against_what_they_are_a_share_of() -> None:
    measured = Measured(SequentialWrites4K, (PassthroughC, Bindfs, Dkfs, DkfsKernel))
    measured.samples = {
        "passthrough-c": _samples(80_000),
        "bindfs": _samples(46_000),
        "dkfs": _samples(14_000),
        "dkfs-kernel": _samples(45_000),
    }

    assert _verdicts(measured) == {
        ("dkfs", None): False,
        ("dkfs-kernel", None): True,
        ("dkfs-kernel", "passthrough-c"): True,
        ("dkfs-kernel", "bindfs"): False,
    }
    assert ">= 55% of passthrough-c" in verdict_table([measured])


def test_table_names_engine_and_io_mode_of_every_peer() -> None:
    measured = Measured(FsyncLatency, (Raw, Dkfs))
    measured.samples = {"raw": _samples(1), "dkfs": _samples(2)}

    header = table([measured], [Raw, Dkfs]).splitlines()[0]

    assert "raw (none, direct)" in header
    assert "dkfs (pyfuse3, strict)" in header


def test_pattern_that_names_no_workload_is_refused() -> None:
    done = _bench("--only", "no-such-*")

    assert done.returncode == 2
    assert "nothing is called that" in done.stderr


def test_what_needs_a_program_that_is_not_installed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert present([Raw, Bindfs, DkfsKernel]) == [Raw, DkfsKernel]
    assert capsys.readouterr().err == "bindfs is left out: bindfs is not installed\n"


@pytest.mark.slow
@pytest.mark.mount
@pytest.mark.root
def test_every_workload_runs_in_miniature_and_its_results_are_kept(tmp_path: Path) -> None:
    done = _bench(
        *("--tiny", "--repetitions", "1", "--only", QUICK),
        *("--peers", "raw,passthrough-c,dkfs-kernel"),
        *("--dir", tmp_path, "--results", tmp_path, "--name", "tiny"),
    )

    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "tiny.json").read_text())
    assert {"format", "name", "commit", "machine", "versions", "level", "workloads"} <= kept.keys()
    assert {workload["name"] for workload in kept["workloads"]} == set(QUICK.split(","))
    for workload in kept["workloads"]:
        for peer in workload["peers"]:
            assert peer["engine"]
            assert peer["io"]
            assert len(peer["samples"]) == 1
            assert not peer["errors"]
            assert peer["samples"][0]["value"] > 0 or workload["name"] == "idle-cpu"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.json"]


@pytest.mark.slow
@pytest.mark.mount
@pytest.mark.root
def test_terminated_bench_leaves_nothing_mounted_and_no_files(tmp_path: Path) -> None:
    words = ["--quick", "--only", "write-seq-4k", "--peers", "dkfs,passthrough*"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", *words, "--dir", tmp_path, "--results", tmp_path],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("write-seq-4k: dkfs"):
            break
    process.terminate()
    process.communicate()

    assert process.returncode == 143
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
