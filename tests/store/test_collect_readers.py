"""Collections beside others: who reads finds everything, who writes loses nothing."""

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dkfs.model.ids import Seq
from dkfs.store import Store
from dkfs.store.check import check
from tests.store.collecting import SEGMENT_LIMIT, collect, contents, expect, fill, lose

# Reads the newest versions, each in a view of its own, until it is told to end; ends with 1 at the first error.
_READER = """
import random, sys
from pathlib import Path
from dkfs.model.ids import Seq
from dkfs.store import Store
from tests.store.collecting import contents

rounds = 0
with Store.open(Path(sys.argv[1]), writable=False) as store:
    print("reading", flush=True)
    while rounds < 5 or not Path(sys.argv[2]).exists():
        with store.read() as reader:
            for version in range(reader.last, max(reader.last - 40, 0), -1):
                record = reader.record(Seq(version))
                if record is None:
                    continue
                state = reader.node(record.nodes[0], record.seq)
                assert reader.blob(state.content) == contents(version)
        rounds += 1
print(rounds)
"""

# Holds a view until it hears a line.
_HOLDER = """
import sys
from pathlib import Path
from dkfs.store import Store

with Store.open(Path(sys.argv[1]), writable=False) as store, store.read() as reader:
    print(reader.last, flush=True)
    sys.stdin.readline()
"""


def test_a_view_keeps_what_it_can_see_until_it_ends(path: Path) -> None:
    with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as store:
        fill(store, range(1, 101))
        lose(store, 1, 50)
        with store.read() as reader:
            report = collect(store, max_unused=0)

            assert report.pending > 100_000
            for version in range(51, 101):
                assert reader.blob(store.hash(contents(version))) == contents(version)
            assert store.bury() == 0

        assert store.bury() == report.pending
        expect(store, range(51, 101))
        assert list(check(store, read_data=True)) == []


def test_a_view_of_another_process_keeps_what_it_can_see(path: Path) -> None:
    with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as store:
        fill(store, range(1, 101))
        lose(store, 1, 50)
        holder = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _HOLDER,
                path,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"100\n"

        pending = collect(store, max_unused=0).pending

        assert pending > 100_000
        assert store.bury() == 0
        holder.communicate(b"\n", timeout=120)
        assert store.bury() == pending


def test_a_reader_that_was_killed_keeps_nothing(path: Path) -> None:
    with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as store:
        fill(store, range(1, 101))
        lose(store, 1, 50)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        store = Store.open(path, writable=False)
        reader = store.read()
        os.write(writing, b"%d" % reader.last)
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert os.read(reading, 10) == b"100"
    os.close(reading)
    os.close(writing)

    with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as store:
        assert collect(store, max_unused=0).pending == 0


def test_segments_that_ended_are_removed_by_the_next_opening_for_writing(path: Path) -> None:
    with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as store:
        fill(store, range(1, 101))
        lose(store, 1, 50)
        with store.read():
            assert collect(store, max_unused=0).pending
        before = len(store.segment_sizes())

    with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as store:
        assert len(store.segment_sizes()) < before
        with store.read() as reader:
            assert not any(row.is_dead for _, row in reader.segments())
        expect(store, range(51, 101))


def lose_and_collect(store: Store, *, seconds: float) -> tuple[int, int]:
    """Forget and collect for so long, until something was done; return how many blobs were removed, and how often."""
    removed = rounds = 0
    least_s = time.monotonic() + seconds
    while time.monotonic() < least_s or (
        (removed <= 50 or rounds <= 3) and time.monotonic() < least_s + 100
    ):
        with store.read() as reader:
            last = reader.last
            first = int(reader.next_version(0) or 1)
        start = random.Random(rounds).randrange(first, max(last - 60, first + 1))
        lose(store, start, max(last - 50, start))
        removed += collect(store, max_unused=random.Random(rounds).choice([0, 0.1])).dead_blobs
        rounds += 1
    return removed, rounds


@pytest.mark.slow
def test_beside_a_writer_and_readers_nothing_is_lost_and_no_read_fails(
    path: Path, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    failures: list[BaseException] = []
    with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as store:
        fill(store, range(1, 201))
        readers = [
            subprocess.Popen(
                [sys.executable, "-c", _READER, path, end],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for each in readers:
            assert each.stdout is not None
            assert each.stdout.readline() == "reading\n"

        def record() -> None:
            version = 201
            try:
                while not end.exists():
                    fill(store, [version])
                    version += 1
            except BaseException as exc:  # noqa: BLE001 - seen by the test itself
                failures.append(exc)

        writer = threading.Thread(target=record)
        writer.start()
        removed, rounds = lose_and_collect(store, seconds=4)
        end.touch()
        writer.join()
        results = [each.communicate(timeout=120) for each in readers]

        assert failures == []
        assert [each.returncode for each in readers] == [0, 0], results
        assert rounds > 3
        assert removed > 50
        assert all(int(out) > 3 for out, _ in results)
        assert list(check(store, read_data=True)) == []
        with store.read() as reader:
            kept = [
                record.seq
                for record in reader.log(Seq(1), reader.last)
                if not record.folded_nodes or record.nodes
            ]
        expect(store, [int(seq) for seq in kept[-40:]])
