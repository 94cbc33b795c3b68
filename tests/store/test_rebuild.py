"""An index that is lost is made again from the segments."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dkfs.errors import StoreError
from dkfs.model.ids import ROOT
from dkfs.store import Store
from dkfs.store.check import check
from dkfs.store.rebuild import REBUILT_NAME, Rebuilt, discard, rebuild, replace_index
from dkfs.store.salvage import Gap, Record, Salvage
from dkfs.store.segments import HEADER_SIZE, RECORD
from tests.containment import make, truth
from tests.store.making import add_file, append, file_state

TABLES = ("log", "nodes", "names", "blobs", "tags", "moves")


def silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


def rows_of(path: Path) -> dict[str, dict[bytes, bytes]]:
    with Store.open(path, writable=False) as store, store.read() as reader:
        return {table: dict(reader.rows(table)) for table in TABLES}


def rebuild_in_place(path: Path) -> Rebuilt:
    rebuilt = rebuild(path, path / REBUILT_NAME, on_progress=silent)
    replace_index(path)
    return rebuilt


def damages(path: Path) -> list[str]:
    with Store.open(path, writable=False) as store:
        return [damage.message for damage in check(store, read_data=True)]


@pytest.mark.parametrize("seed", range(3))
def test_every_row_comes_back_and_every_version_reads_the_same(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "store"
    make(path, seed)
    before, right = rows_of(path), truth(path)
    (path / "index.lmdb").unlink()

    rebuilt = rebuild_in_place(path)

    assert rows_of(path) == before
    assert truth(path) == right
    assert rebuilt.versions == len(before["log"])
    assert rebuilt.unused == ()
    assert rebuilt.problems == ()
    assert damages(path) == []


def test_a_store_goes_on_after_its_index_was_rebuilt(tmp_path: Path) -> None:
    path = tmp_path / "store"
    make(path, 1)
    with Store.open(path, writable=False) as store, store.read() as reader:
        last, node = reader.last, reader.next_node()
    rebuild_in_place(path)

    with Store.open(path, writable=True) as store:
        with store.write() as writer:
            content = writer.put_blob(b"more").blob
            state = file_state(b"more", size=4, content=content)
            seq = append(writer, {node: state}, {(ROOT, b"more"): node}, time_ns=1 << 61)

        assert seq == last + 1
        assert list(check(store, read_data=True)) == []
    rebuild_in_place(path)
    assert damages(path) == []


def test_the_index_that_was_there_is_kept_under_another_name(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        add_file(store, b"f", b"data")
    was = (path / "index.lmdb").read_bytes()
    for number in (1, 2):
        rebuild(path, path / REBUILT_NAME, on_progress=silent)

        assert replace_index(path) == path / f"index.lmdb.damaged-{number}"
    assert (path / "index.lmdb.damaged-1").read_bytes() == was
    assert sorted(p.name for p in path.iterdir()) == [
        "LOCK",
        "index.lmdb",
        "index.lmdb-lock",
        "index.lmdb.damaged-1",
        "index.lmdb.damaged-2",
        "segments",
    ]


def test_a_checkpoint_is_enough_with_what_came_after_it(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        add_file(store, b"a", b"a")
        with store.write() as writer:
            writer.put_checkpoint()
        add_file(store, b"b", b"b")
    before = rows_of(path)
    wipe_journal(path, 0)  # of the first version: the checkpoint has it too

    rebuild_in_place(path)

    assert rows_of(path) == before
    assert damages(path) == []


def wipe_journal(path: Path, number: int) -> None:
    """Flip a byte in the journal that is the *number*th record of encoding 16."""
    segment = path / "segments" / "00000001.seg"
    with Salvage(segment, 1) as salvage:
        journals = [r for r in salvage.records() if isinstance(r, Record) and r.encoding == 16]
    data = bytearray(segment.read_bytes())
    data[journals[number].offset + RECORD.size + 5] ^= 1
    segment.write_bytes(data)


def test_history_ends_before_the_first_transaction_that_is_lost(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        for name in (b"a", b"b", b"c", b"d"):
            add_file(store, name, name)
    wipe_journal(path, 2)

    rebuilt = rebuild_in_place(path)

    assert (rebuilt.versions, rebuilt.last, rebuilt.unused) == (2, 2, (4,))
    assert rebuilt.problems != ()
    with Store.open(path, writable=False) as store, store.read() as reader:
        assert reader.last == 2
        assert reader.blob(store.hash(b"d")) == b"d"


def test_a_transaction_that_never_ended_is_left_out(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        add_file(store, b"a", b"a")
        with store.write() as writer:
            writer.put_blob(os.urandom(5000))
            writer._side.output.flush()
            writer._side.output.sync()
            kept = (path / "segments" / "00000001.seg").read_bytes()
            writer.close()
    (path / "segments" / "00000001.seg").write_bytes(kept[:-100])

    rebuilt = rebuild_in_place(path)

    assert (rebuilt.versions, rebuilt.problems) == (1, ())
    assert damages(path) == []


def test_a_segment_of_another_store_is_left_out(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Store.create(other)
    for each, names in ((path, b"abc"), (other, b"abcdef")):
        with Store.open(each, writable=True, segment_limit=100) as store:
            for name in names:
                add_file(store, b"%d" % name, b"%d" % name * 50)
    before = rows_of(path)
    number = max(int(found.stem) for found in (path / "segments").iterdir()) + 1
    (other / "segments" / f"{number:08d}.seg").rename(path / "segments" / f"{number:08d}.seg")

    rebuilt = rebuild_in_place(path)

    assert rebuilt.problems == (f"segment {number} belongs to another store",)
    assert rows_of(path) == before


def test_without_segments_there_is_nothing_to_rebuild_from(path: Path) -> None:
    with pytest.raises(StoreError, match="holds no segment of a store"):
        rebuild(path, path / REBUILT_NAME, on_progress=silent)


_REBUILD = """
import os, signal, sys
from pathlib import Path
from dkfs.store import rebuild as module
from dkfs.store.rebuild import REBUILT_NAME, discard, rebuild, replace_index
path, moment = Path(sys.argv[1]), sys.argv[2]
count = 0
def progress(what, done, total):
    global count
    count += 1
    if moment == str(count):
        os.kill(os.getpid(), signal.SIGKILL)
discard(path)
rebuild(path, path / REBUILT_NAME, on_progress=progress)
real = module.sync_directory
def die(directory):
    real(directory)
    if moment in ("before", "after"):
        if moment == "before" or progress.done:
            os.kill(os.getpid(), signal.SIGKILL)
        progress.done = True
progress.done = False
module.sync_directory = die
replace_index(path)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["1", "40", "150", "before", "after", "never"])
def test_killed_at_any_moment_it_is_begun_again(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "store"
    make(path, 2)
    right = truth(path)
    (path / "index.lmdb").write_bytes(b"junk" * 10_000)

    run = subprocess.run(
        [sys.executable, "-c", _REBUILD, str(path), moment],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
        check=False,
    )
    assert run.returncode == (0 if moment == "never" else -signal.SIGKILL)
    if moment not in ("after", "never"):
        assert (path / "index.lmdb").read_bytes() == b"junk" * 10_000
        discard(path)
        rebuild_in_place(path)

    assert truth(path) == right
    assert damages(path) == []


# ---- records past damage


@pytest.mark.parametrize("seed", range(4))
def test_all_records_that_are_whole_are_found_past_any_damage(tmp_path: Path, seed: int) -> None:
    make(tmp_path / "store", seed)
    segment = tmp_path / "store" / "segments" / "00000001.seg"
    data = bytearray(segment.read_bytes())
    with Salvage(segment, 1) as salvage:
        sound = [r for r in salvage.records() if isinstance(r, Record)]
    rng = random.Random(seed)
    hit = set()
    for _ in range(8):
        offset, length = rng.randrange(HEADER_SIZE, len(data)), rng.choice((1, 30, 700))
        data[offset : offset + length] = rng.randbytes(len(data[offset : offset + length]))
        hit |= {r.offset for r in sound if r.offset < offset + length and offset < r.end}
    segment.write_bytes(data)

    with Salvage(segment, 1) as salvage:
        found = list(salvage.records())

    whole = [r.offset for r in sound if r.offset not in hit]
    assert [r.offset for r in found if isinstance(r, Record)] == whole
    assert any(isinstance(r, Gap) for r in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "junk",
    [
        bytes(1 << 20),
        b"\xff" * (1 << 20),
        random.Random(3).randbytes(1 << 20),
        b"\0\0\x10\0aaaa\0\0\0\x10\0" * 80_000,  # looks like a plain record at every 13th byte
        b"\0\0\0\x09aaaa\x01\0\0\0\x09" * 80_000,
    ],
    ids=["zeros", "ones", "random", "plain", "zstd"],
)
def test_a_long_stretch_of_anything_is_passed(path: Path, junk: bytes) -> None:
    with Store.open(path, writable=True) as store:
        for name in (b"a", b"b", b"c"):
            add_file(store, name, name * 100)
    segment = path / "segments" / "00000001.seg"
    data = segment.read_bytes()
    with Salvage(segment, 1) as salvage:
        sound = [record.blob for record in salvage.records() if isinstance(record, Record)]

    segment.write_bytes(data[:HEADER_SIZE] + junk + data[HEADER_SIZE:])

    with Salvage(segment, 1) as salvage:
        gap, *found = salvage.records()
    assert gap == Gap(HEADER_SIZE, HEADER_SIZE + len(junk))
    assert [record.blob for record in found if isinstance(record, Record)] == sound


@pytest.mark.slow
def test_a_segment_made_to_be_searched_for_ever_is_given_up(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        add_file(store, b"a", b"a" * 100)
    segment = path / "segments" / "00000001.seg"
    data = segment.read_bytes()
    # Each of these claims to be a record of 256 KiB, which would have to be compared with its checksum.
    junk = b"\0\4\0\0aaaa\0\0\4\0\0" * 80_000

    segment.write_bytes(data[:HEADER_SIZE] + junk + data[HEADER_SIZE:])

    with Salvage(segment, 1) as salvage:
        assert list(salvage.records()) == [Gap(HEADER_SIZE, salvage.size)]
