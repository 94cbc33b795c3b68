"""`dkfs run`: a program on a directory that comes back, with nothing left behind however it ends."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dkfs.daemon import control
from dkfs.history.tree import Tree
from dkfs.store import Store
from tests import leftovers
from tests.mounting import CHECKOUT, Mounted, mounts_below, wait_for_end

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]


def words(place: Mounted, *program: str) -> list[str]:
    flags = ["--state-dir", str(place.state_dir), "--store", str(place.store)]
    return [sys.executable, "-m", "dkfs", "run", *flags, "--metrics-addr", "", "--", *program]


def environment() -> dict[str, str]:
    return dict(os.environ, PYTHONPATH=str(CHECKOUT))


def run(
    place: Mounted,
    *program: str,
    stdin: str = "",
    cwd: Path | None = None,
    before: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """Run *program* under dkfs to its end."""
    return subprocess.run(
        [*before, *words(place, *program)],
        input=stdin,
        cwd=cwd or place.base,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_it_returns_when_the_daemon_has_ended(
    unmounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DKFS_FAILPOINTS", "compact.copied=sleep(0.7)")

    program = ("sh", "-c", "for n in $(seq 50); do echo $n >file; sync file; done")
    # No pipe, which the daemon too would hold open.
    with (unmounted.base / "said").open("w") as said:
        done = subprocess.run(
            words(unmounted, *program),
            cwd=unmounted.state_dir,
            env=environment(),
            stderr=said,
            check=False,
            timeout=120,
        )

    assert leftovers.processes_of(unmounted.base) == []
    assert done.returncode == 0
    assert not (unmounted.store / "index.lmdb.new").exists()


@contextmanager
def running(place: Mounted, *program: str) -> Iterator[subprocess.Popen[str]]:
    """Start *program* under dkfs and wait until it says "ready"; it is gone at the end."""
    process = subprocess.Popen(
        words(place, *program),
        cwd=place.base,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -9 $$", 128 + 9),
        ("kill -TERM $$", 128 + 15),
    ],
)
def test_the_status_is_that_of_the_program(unmounted: Mounted, script: str, status: int) -> None:
    assert run(unmounted, "sh", "-c", script).returncode == status
    assert mounts_below(unmounted.base) == []


def test_what_cannot_be_run_says_so_as_a_shell_does(unmounted: Mounted) -> None:
    (unmounted.state_dir / "data").write_text("no program")
    (unmounted.base / "data").write_text("no program")
    assert run(unmounted, "no-such-command").returncode == 127
    assert run(unmounted, str(unmounted.base / "none")).returncode == 127
    assert run(unmounted, str(unmounted.base / "data")).returncode == 126
    # Whether these are there is known only after the replay.
    assert run(unmounted, str(unmounted.state_dir / "none")).returncode == 127
    assert run(unmounted, str(unmounted.state_dir / "data")).returncode == 126
    assert mounts_below(unmounted.base) == []


def test_a_program_in_the_state_directory_can_be_run_after_the_loss(unmounted: Mounted) -> None:
    program = unmounted.state_dir / "program"
    run(unmounted, "sh", "-c", f"printf '#!/bin/sh\nexit 5\n' >{program}; chmod 755 {program}")
    shutil.rmtree(unmounted.state_dir)

    assert run(unmounted, str(program)).returncode == 5


def test_input_and_both_outputs_are_the_programs(unmounted: Mounted) -> None:
    done = run(unmounted, "sh", "-c", "tr a-z A-Z; echo trouble >&2", stdin="words\n")

    assert (done.stdout, done.stderr) == ("WORDS\n", "trouble\n")


def test_arguments_and_environment_reach_the_program(unmounted: Mounted) -> None:
    done = run(unmounted, "sh", "-c", 'echo "$0|$1|$HOME"', "zero", "--store=mine -o x")

    assert done.stdout == f"zero|--store=mine -o x|{os.environ['HOME']}\n"


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "WINCH", "CONT"])
def test_signals_reach_the_program(unmounted: Mounted, name: str) -> None:
    script = f'trap "echo got {name}; exit 3" {name}; echo ready; while :; do sleep 0.05; done'
    with running(unmounted, "bash", "-c", script) as process:
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert said(process) == f"got {name}"
        assert process.wait(timeout=60) == 3
    assert mounts_below(unmounted.base) == []


def test_a_program_that_a_signal_ends_has_everything_recorded(unmounted: Mounted) -> None:
    script = f"cd {unmounted.state_dir}; echo data >file; echo ready; exec sleep 1000"
    with running(unmounted, "sh", "-c", script) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + 15
    assert unmounted.dkfs("cat", "latest:file").stdout == "data\n"


def test_as_process_one_it_reaps_what_the_program_leaves_behind(unmounted: Mounted) -> None:
    script = (
        "[ $(ps -o comm= -p 1 | wc -l) = 1 ] && "
        "orphan=$(sh -c 'sleep 0.1 >/dev/null & echo $!'); "
        "while [ -e /proc/$orphan ]; do :; done; "
        f"echo reaped; echo x >{unmounted.state_dir}/file; exit 9"
    )
    inside = ("unshare", "--fork", "--pid", "--mount-proc")
    done = run(unmounted, "sh", "-c", script, before=inside)

    assert (done.stdout, done.stderr, done.returncode) == ("reaped\n", "", 9)
    assert unmounted.dkfs("cat", "latest:file").stdout == "x\n"


def daemon_of(place: Mounted) -> int:
    pid = control.request(place.store, {"command": "status"})["pid"]
    assert isinstance(pid, int)
    return pid


def test_killing_it_leaves_neither_program_nor_mount(unmounted: Mounted) -> None:
    script = (
        f"cd {unmounted.state_dir}; sleep 1000 & one=$!; (sleep 1000; :) & two=$!; "
        "setsid sleep 1000 & three=$!; set -m; sleep 1000 & four=$!; "
        "echo ready; echo $$ $one $two $three $four; wait"
    )
    with running(unmounted, "bash", "-c", script) as process:
        pids = [int(word) for word in said(process).split()]
        assert len(pids) == 5
        daemon = daemon_of(unmounted)
        process.kill()
        process.wait()
        for pid in [*pids, daemon]:
            assert wait_for_end(pid), f"process {pid} of {pids}, daemon {daemon}"
    assert mounts_below(unmounted.base) == []
    assert unmounted.mount().returncode == 0


def test_when_the_daemon_dies_the_program_is_ended(unmounted: Mounted) -> None:
    script = (
        f"cd {unmounted.state_dir}; setsid sleep 1000 >/dev/null 2>&1 & "
        "echo ready; echo $$ $!; while :; do sleep 0.05; done"
    )
    with running(unmounted, "bash", "-c", script) as process:
        pids = [int(word) for word in said(process).split()]
        os.kill(daemon_of(unmounted), signal.SIGKILL)
        _, complaint = process.communicate(timeout=60)
        assert [pid for pid in pids if not wait_for_end(pid)] == []
    assert process.returncode == 1
    assert "dkfs: the daemon ended, the application cannot go on\n" in complaint
    assert mounts_below(unmounted.base) == []


def test_started_inside_the_state_directory_it_runs_on_the_mount(unmounted: Mounted) -> None:
    inside = unmounted.state_dir / "sub"
    inside.mkdir()
    (inside / "file").write_text("there\n")
    script = "pwd; cat file; echo new >made; stat --file-system --format %T ."
    done = run(unmounted, "sh", "-c", script, cwd=inside)

    assert done.stdout.splitlines() == [str(inside), "there", "fuseblk"]
    assert unmounted.dkfs("cat", "latest:sub/made").stdout == "new\n"


def test_a_burst_of_files_right_before_the_end_is_recorded(unmounted: Mounted) -> None:
    program = (
        "import os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "for n in range(1000):\n"
        "    with open(f'f{n:04}', 'w') as file: file.write(f'{n}' * 100)\n"
        "os._exit(0)\n"
    )
    done = run(unmounted, sys.executable, "-c", program, str(unmounted.state_dir))
    assert (done.returncode, done.stderr) == (0, "")
    with Store.open(unmounted.store, writable=False) as store, store.read() as reader:
        found = [(p, s.attr.size) for p, _, s in Tree(reader, reader.last).walk()][1:]
    assert found == [(b"f%04d" % n, 100 * len(str(n))) for n in range(1000)]
    shutil.rmtree(unmounted.state_dir)
    count = run(unmounted, "sh", "-c", f"ls {unmounted.state_dir} | wc -l; cat f0999", cwd=None)

    assert count.stdout.split()[0] == "1000"


def test_files_that_the_program_left_open_are_recorded(unmounted: Mounted) -> None:
    script = f"exec 3>{unmounted.state_dir}/file; echo open >&3; kill -9 $$"
    assert run(unmounted, "bash", "-c", script).returncode == 128 + 9

    assert unmounted.dkfs("cat", "latest:file").stdout == "open\n"


def test_what_was_lost_is_back_before_the_program_starts(unmounted: Mounted) -> None:
    top = unmounted.state_dir
    run(
        unmounted,
        "sh",
        "-c",
        f"cd {top}; mkdir d; echo 1 >d/file; ln d/file d/link; chmod 600 d/file",
    )
    shutil.rmtree(top)
    done = run(unmounted, "sh", "-c", f"cd {top}/d; cat link; stat --format '%h %a' file")

    assert done.stdout == "1\n2 600\n"
