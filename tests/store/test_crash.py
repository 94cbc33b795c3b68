"""What a kill -9, or an error of the disk, leaves at every system call of a commit that changes the disk."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dkfs.store import Store
from dkfs.store.check import check
from tests.store.making import add_file

# Commits versions of one file each, and kills itself at the chosen moment of the fourth.
_VICTIM = """
import os, signal, sys
from pathlib import Path
from dkfs.store import Store
from dkfs.store import writer as writer_module
from tests.store.making import add_file

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

moment = sys.argv[2]
with Store.open(Path(sys.argv[1]), writable=True, segment_limit=300) as store:
    for i in range(3):
        add_file(store, b"f%d" % i, b"%d" % i * 200)
    print(3, flush=True)
    with store.write() as writer:
        for i in range(5):
            writer.put_blob(b"lost %d" % i * 50)
        if moment == "before the sync":
            writer._side.output.flush()
            die()
        writer._side.output.sync()
        if moment == "between sync and commit":
            die()
    add_file(store, b"f3", b"3" * 200)
    print(4, flush=True)
    if moment == "after the commit":
        die()
    store._index.cover = die
    add_file(store, b"f4", b"4" * 200)
"""


@pytest.mark.parametrize(
    ("moment", "committed"),
    [
        ("before the sync", 3),
        ("between sync and commit", 3),
        ("after the commit", 4),
        ("before the index is made as long as it says", 5),
    ],
)
def test_a_killed_writer_leaves_exactly_what_it_committed(
    path: Path, moment: str, committed: int
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _VICTIM, str(path), moment],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert run.returncode == -signal.SIGKILL

    with Store.open(path, writable=True) as store:
        with store.read() as reader:
            assert reader.last == committed
            for i in range(committed):
                assert reader.blob(store.hash(b"%d" % i * 200)) == b"%d" % i * 200
            tail = reader.tail()
        assert max(store.segment_sizes()) == tail.segment
        assert store.segment_sizes()[tail.segment] == tail.length
        assert list(check(store, read_data=True)) == []
        assert add_file(store, b"next", b"next")[0] == committed + 1


# Commits so many versions, or until it is killed; a number is printed when its version is durable.
_WORKER = """
import sys
from pathlib import Path
from dkfs.store import Store
from tests.store.making import add_file

with Store.open(Path(sys.argv[1]), writable=True, segment_limit=2000) as store:
    for _ in range(int(sys.argv[2])):
        with store.read() as reader:
            last = reader.last
        add_file(store, b"f%d" % last, b"%d" % last * 300)
        print(last + 1, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync", "ftruncate", "fsync"])
def test_killed_at_any_system_call_a_store_has_every_version_that_was_acknowledged(
    path: Path, call: str
) -> None:
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    acknowledged = killed = 0
    for n in range(1, 14):
        run = subprocess.run(
            [
                *("strace", "-f", "-o", "/dev/null", "-e", f"trace={call}"),
                *("-e", f"inject={call}:signal=SIGKILL:when={n}"),
                *(sys.executable, "-c", _WORKER, str(path), "40"),
            ],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        killed += run.returncode == -signal.SIGKILL
        acknowledged = max([acknowledged, *map(int, run.stdout.split())])

        with Store.open(path, writable=True) as store:
            with store.read() as reader:
                assert reader.last >= acknowledged
                tail = reader.tail()
            assert store.segment_sizes().get(tail.segment, 0) == tail.length
            assert list(check(store, read_data=True)) == []
    assert acknowledged > 0
    assert killed > 1


# Commits versions and goes on after an error; a number is printed when its version is durable.
_STUBBORN = """
import logging, sys
from pathlib import Path
from dkfs.errors import StoreError
from dkfs.store import Store
from tests.store.making import add_file

logging.basicConfig(stream=sys.stderr)
with Store.open(Path(sys.argv[1]), writable=True, segment_limit=2000) as store:
    for attempt in range(12):
        try:
            add_file(store, b"f%d" % attempt, b"%d" % attempt * 300)
        except StoreError as exc:
            print("failed", exc, file=sys.stderr)
            continue
        with store.read() as reader:
            print(reader.last, attempt, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_when_any_system_call_fails_the_store_stays_usable(
    tmp_path: Path, call: str, error: str
) -> None:
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    failed = 0
    for n in range(2, 12):  # the first pwrite puts the pid into the lock
        path = tmp_path / f"store{n}"
        Store.create(path)
        run = subprocess.run(
            [
                *("strace", "-f", "-o", "/dev/null", "-e", f"trace={call}"),
                *("-e", f"inject={call}:error={error}:when={n}"),
                *(sys.executable, "-c", _STUBBORN, str(path)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        failed += run.stderr.count("failed index") + run.stderr.count("failed segment")
        done = [tuple(map(int, line.split())) for line in run.stdout.splitlines()]
        assert len(done) >= 11
        assert done[-1][1] == 11

        with Store.open(path, writable=False) as store:
            with store.read() as reader:
                assert reader.last >= done[-1][0]
                for _, attempt in done:
                    data = b"%d" % attempt * 300
                    assert reader.blob(store.hash(data)) == data
            assert list(check(store, read_data=True)) == []
    assert failed > 5
