"""`dkfs run --txn`: what a program did is taken back if it fails; `dkfs tag --freeze`: a version of one instant."""

import mmap
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.mounting import CHECKOUT, Mounted, mounts_below

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]


def run(place: Mounted, *program: str, words: tuple[str, ...] = ()) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "dkfs", "run", "--txn", *words, "--", *program],
        cwd=place.base,
        env=dict(
            os.environ,
            PYTHONPATH=str(CHECKOUT),
            DKFS_METRICS_ADDR="",
            DKFS_STORE=str(place.store),
        ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stderr


def holds(place: Mounted) -> list[str]:
    return place.dkfs("tag").stdout.splitlines()


CHANGE = "echo new > file; echo more > other; mkdir d; exit "


def test_a_program_that_fails_on_a_mount_has_changed_nothing(mounted: Mounted) -> None:
    file = mounted.mountpoint / "file"
    file.write_text("old\n")
    status, said = run(mounted, "sh", "-c", f"cd {mounted.mountpoint}; {CHANGE} 7")

    assert status == 7
    assert "rolled back to what was before" in said
    assert file.read_text() == "old\n"
    assert os.listdir(mounted.mountpoint) == ["file"]
    assert holds(mounted) == []
    mounted.dkfs("undo")
    assert sorted(os.listdir(mounted.mountpoint)) == ["d", "file", "other"]


def test_what_a_program_did_that_ends_well_stays(mounted: Mounted) -> None:
    status, said = run(mounted, "sh", "-c", f"cd {mounted.mountpoint}; {CHANGE} 0")

    assert (status, said) == (0, "")
    assert sorted(os.listdir(mounted.mountpoint)) == ["d", "file", "other"]
    assert holds(mounted) == []


def test_a_program_that_a_signal_ends_has_failed(mounted: Mounted) -> None:
    status, _ = run(mounted, "sh", "-c", f"cd {mounted.mountpoint}; echo x > x; kill -9 $$")

    assert status == 128 + signal.SIGKILL
    assert os.listdir(mounted.mountpoint) == []


def killed_in_a_run(place: Mounted) -> None:
    """Begin a run, and kill it, not its program, while it holds a version."""
    said = place.base / "said"
    program = ["sh", "-c", f"echo begun > {said}; read line"]
    with subprocess.Popen(
        [sys.executable, "-m", "dkfs", "run", "--txn", "--", *program],
        cwd=place.base,
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT), DKFS_STORE=str(place.store)),
        stdin=subprocess.PIPE,
    ) as process:
        while not said.exists():
            assert process.poll() is None
            os.sched_yield()
        assert len(holds(place)) == 1
        process.kill()


def test_the_hold_of_a_run_that_was_killed_goes_with_the_next_run(mounted: Mounted) -> None:
    killed_in_a_run(mounted)
    assert len(holds(mounted)) == 1
    status, _ = run(mounted, "sh", "-c", f"echo x > {mounted.mountpoint}/x; exit 3")

    assert status == 3
    assert holds(mounted) == []
    assert [path.name for path in mounted.store.glob("txn-*")] == []


def test_the_hold_of_a_run_that_was_killed_goes_with_the_next_mount(mounted: Mounted) -> None:
    killed_in_a_run(mounted)
    mounted.dkfs("hold", "txn-mine")
    mounted.umount()
    mounted.mount()

    assert [line.split()[0] for line in holds(mounted)] == ["txn-mine"]
    assert [path.name for path in mounted.store.glob("txn-*")] == []


def test_the_hold_of_a_run_whose_program_runs_stays(mounted: Mounted) -> None:
    inside = mounted.base / "inside"
    program = f"{sys.executable} -m dkfs run --txn -- true; {sys.executable} -m dkfs tag > {inside}"
    status, _ = run(mounted, "sh", "-c", program)

    assert status == 0
    assert len(inside.read_text().splitlines()) == 1
    assert holds(mounted) == []


def test_a_program_that_is_not_there_leaves_no_hold(mounted: Mounted) -> None:
    assert run(mounted, "no-such-program")[0] == 127
    assert holds(mounted) == []


@pytest.mark.parametrize(("status", "names"), [(3, ["file"]), (0, ["d", "file", "other"])])
def test_without_a_mount_one_is_made_for_it(
    unmounted: Mounted, status: int, names: list[str]
) -> None:
    (unmounted.state_dir / "file").write_text("old\n")
    flags = ("--state-dir", str(unmounted.state_dir), "--store", str(unmounted.store))
    code, said = run(
        unmounted, "sh", "-c", f"cd {unmounted.state_dir}; {CHANGE} {status}", words=flags
    )

    assert code == status
    assert ("rolled back" in said) == bool(status)
    assert sorted(os.listdir(unmounted.state_dir)) == names
    assert mounts_below(unmounted.base) == []


def test_a_frozen_tag_has_what_a_map_has_stored(mounted: Mounted) -> None:
    path = mounted.mountpoint / "file"
    path.write_bytes(bytes(8192))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[5000:5006] = b"stored"
        mounted.dkfs("tag", "--freeze", "stored")
        view[5000:5006] = b"later."

        assert mounted.dkfs("cat", "stored:file").stdout[5000:5006] == "stored"


def write_pairs(top: Path, stop: threading.Event) -> None:
    """Write one number after the other, first into a, then into b; both stay open."""
    fds = [os.open(top / name, os.O_CREAT | os.O_WRONLY) for name in "ab"]
    number = 0
    while not stop.is_set():
        number += 1
        for fd in fds:
            os.pwrite(fd, b"%08d" % number, 0)
    for fd in fds:
        os.close(fd)


def test_files_that_belong_together_are_named_together(mounted: Mounted) -> None:
    stop = threading.Event()
    writer = threading.Thread(target=write_pairs, args=(mounted.mountpoint, stop))
    writer.start()
    try:
        for n in range(5):
            mounted.dkfs("tag", f"t{n}", *(("--freeze",) if n % 2 else ()))
    finally:
        stop.set()
        writer.join()

    for n in range(5):
        a, b = (int(mounted.dkfs("cat", f"t{n}:{name}").stdout or 0) for name in "ab")
        assert a - b in {0, 1}


def test_a_frozen_tag_names_nothing_but_the_present(mounted: Mounted) -> None:
    done = mounted.dkfs("tag", "--freeze", "name", "latest", check=False)

    assert done.returncode == 2
    assert "no VERSION" in done.stderr
