"""LMDB maps an index into so many bytes of address space: one that fills them gets more by itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dkfs.errors import IndexFullError
from dkfs.history.recorder import Recorder
from dkfs.model.ids import ROOT
from dkfs.model.operation import NOBODY, Operation, OpKind
from dkfs.store import Store, Writer, index
from dkfs.store.check import check
from tests.store.making import append

SMALL = 1 << 20  # bytes
ROWS = 3000  # of 500 bytes: more than a small map holds


def put_much(writer: Writer) -> None:
    for number in range(ROWS):
        writer.put_meta(b"%d" % number, bytes(500))


def test_an_index_that_fills_its_map_gets_a_greater_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_MAP_USUAL", SMALL)
    with Store.open(path, writable=True) as store:
        with store.write() as writer:
            append(writer)
        with pytest.raises(IndexFullError, match="MDB_MAP_FULL"), store.write() as writer:
            put_much(writer)
        with store.write() as writer:
            put_much(writer)
            append(writer)

        with store.read() as reader:
            assert reader.last == 2
            assert reader.meta(b"%d" % (ROWS - 1)) == bytes(500)
        assert list(check(store, read_data=True)) == []
    with Store.open(path, writable=True) as store, store.read() as reader:
        assert reader.meta(b"0") == bytes(500)


# Reads with a map of so many bytes: says what the newest version is, for each line that it is given.
_READ = """
import sys
from pathlib import Path
from dkfs.store import Store, index
index._MAP_USUAL = int(sys.argv[2])
with Store.open(Path(sys.argv[1]), writable=False) as store:
    print("open", flush=True)
    for line in sys.stdin:
        with store.read() as reader:
            print(reader.last, len(reader.meta(b"0") or b""), flush=True)
"""


def test_who_reads_meanwhile_gets_one_too(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _READ, str(path), str(SMALL)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reading:
        assert reading.stdin is not None
        assert reading.stdout is not None
        assert reading.stdout.readline() == "open\n"
        with Store.open(path, writable=True) as store, store.write() as writer:
            put_much(writer)
            append(writer)
        reading.stdin.write("\n")
        reading.stdin.close()

        assert reading.stdout.readline() == "1 500\n"
    assert reading.returncode == 0


@pytest.mark.expect_logs("the store failed, versions are not recorded: index: .*MDB_MAP_FULL")
def test_the_recorder_goes_on_by_itself_and_loses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_MAP_USUAL", SMALL)
    dropped: list[int] = []
    with Store.open(path, writable=True) as store:
        recorder = Recorder(
            store, clock_ns=lambda: 1, on_commit=lambda _: None, on_drop=dropped.append
        )
        count = 0
        while store.size().index_bytes < 2 * SMALL:
            name = b"%d" % count * 40
            recorder.append(
                Operation(OpKind.SETATTR, recorder.now_ns(), NOBODY, ROOT, ROOT, name[:250]), ()
            )
            count += 1
            if not count % 500:
                while not recorder.flush():
                    os.sched_yield()
        assert recorder.close()

        with store.read() as reader:
            assert reader.last == count
        assert dropped == []
        assert list(check(store, read_data=True)) == []
