import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dkfs.errors import StoreBusyError, StoreError
from dkfs.store import Store
from dkfs.store.check import check
from dkfs.store.lock import LOCK_NAME, StoreLock, is_held
from tests.store.making import add_file, append

# Holds the store given as its argument: says so, then does what it is told, line by line.
_HOLDER = """
import sys
from pathlib import Path
from dkfs.store import Store
from tests.store.making import add_file

with Store.open(Path(sys.argv[1]), writable=sys.argv[2] == "write") as store:
    print("open", flush=True)
    for line in sys.stdin:
        if line == "add\\n":
            add_file(store, b"theirs", b"their data")
        with store.read() as reader:
            print(reader.last, flush=True)
            if line == "stay\\n":
                sys.stdin.readline()
"""


class Holder:
    """Another process that has the store open."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.pid = process.pid

    def ask(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextmanager
def holder(path: Path, mode: str) -> Iterator[Holder]:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield Holder(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def test_a_store_that_another_process_writes_is_busy_and_the_process_named(path: Path) -> None:
    with holder(path, "write") as other:
        with pytest.raises(StoreBusyError, match=f"in use by process {other.pid}$"):
            Store.open(path, writable=True)

    with Store.open(path, writable=True) as store:
        add_file(store, b"f", b"data")


def test_a_store_is_read_beside_a_writer_in_another_process(path: Path) -> None:
    with holder(path, "write") as other, Store.open(path, writable=False) as store:
        for expected in (1, 2, 3):
            assert other.ask("add") == str(expected)

            with store.read() as reader:
                assert reader.last == expected
                assert reader.blob(store.hash(b"their data")) == b"their data"


def test_a_store_is_written_beside_a_reader_in_another_process(path: Path) -> None:
    with holder(path, "read") as other, Store.open(path, writable=True) as store:
        assert other.ask("last") == "0"
        with store.write() as writer:
            append(writer)
        assert other.ask("last") == "1"


def test_no_lock_stays_when_the_writer_is_killed(path: Path) -> None:
    with holder(path, "write") as other:
        other.ask("add")
        os.kill(other.pid, signal.SIGKILL)
        other.process.wait()

        with Store.open(path, writable=True) as store:
            assert add_file(store, b"mine", b"data")[0] == 2
            assert list(check(store, read_data=True)) == []


def test_a_reader_that_was_killed_is_forgotten(path: Path) -> None:
    with holder(path, "read"), holder(path, "read") as other:  # one stays, or LMDB starts anew
        other.ask("stay")
        os.kill(other.pid, signal.SIGKILL)
        other.process.wait()

        with Store.open(path, writable=True) as store:
            assert str(other.pid) not in store._index._env.readers()


def test_the_lock_holds_the_pid_while_it_is_held(path: Path) -> None:
    with StoreLock(path):
        assert (path / "LOCK").read_text() == f"{os.getpid()}\n"

    assert (path / "LOCK").read_text() == ""


def test_a_lock_whose_pid_is_not_known_is_still_busy(path: Path) -> None:
    with StoreLock(path):
        (path / "LOCK").write_text("")

        with pytest.raises(StoreBusyError, match=r"in use by process \(not known\)"):
            StoreLock(path)


def test_a_lock_that_is_a_symbolic_link_is_refused(path: Path, tmp_path: Path) -> None:
    (path / "LOCK").unlink()
    (path / "LOCK").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StoreError, match="cannot be written"):
        StoreLock(path)

    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_is_held_for_a_moment_only_is_waited_for(path: Path) -> None:
    brief = StoreLock(path, is_brief=True)
    threading.Timer(0.02, brief.close).start()

    with StoreLock(path):
        assert (path / "LOCK").read_text() == f"{os.getpid()}\n"
        with pytest.raises(StoreBusyError, match=f"in use by process {os.getpid()}$"):
            StoreLock(path, is_brief=True)


def test_who_only_looks_whether_a_store_is_written_keeps_no_writer_out(path: Path) -> None:
    looking = os.open(path / LOCK_NAME, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)  # as is_held() does for a moment
    threading.Timer(0.02, os.close, (looking,)).start()

    with StoreLock(path):
        assert is_held(path)
