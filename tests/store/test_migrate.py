"""Making a store of format 1 one of format 2."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from dkfs.core.location import decode_blob_location
from dkfs.errors import CorruptError, StoreBusyError, StoreError, StoreFormatError
from dkfs.model.ids import ROOT, BlobId, NodeId, Seq
from dkfs.store import Reader, Store
from dkfs.store.check import check
from dkfs.store.index import INDEX_NAME, TABLES
from dkfs.store.lock import StoreLock
from dkfs.store.migrate import NEW_NAME, Migration, migrate, survey
from dkfs.store.rows import unseal
from tests.mounting import CHECKOUT
from tests.store.making import TIME_NS, append, file_state, journals

GOLDEN = Path(__file__).parent.parent / "golden"
WHOLE = Migration(old_format=1, versions=9, blobs=7, segments=3)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Copy the store of format 1."""
    return Path(shutil.copytree(GOLDEN / "store-v1", tmp_path / "store"))


def quiet(done: int, total: int) -> None:
    assert 0 < done <= total


def snapshot(path: Path) -> object:
    """Return everything that the history of the store at *path* says."""
    with Store.open(path, writable=False) as store, store.read() as reader:
        return (store.uuid, store.hash_algo, list(facts(reader)))


def facts(reader: Reader) -> Iterator[object]:
    yield reader.last
    yield list(reader.log(Seq(1), reader.last))
    yield list(reader.tags())
    yield list(reader.moves())
    yield (reader.next_node(), reader.clean())
    for seq in range(reader.last + 1):
        yield dict(reader.children(ROOT, Seq(seq)))
        for node in range(1, reader.next_node() + 1):
            yield reader.node(NodeId(node), Seq(seq))
    for key, value in reader.rows("blobs"):
        location = decode_blob_location(unseal("blobs", key, value))
        yield (location, reader.blob(BlobId(key), strict=True))


def format_of(path: Path) -> int:
    with Store.open(path, writable=False) as store, store.read() as reader:
        return reader.format


def files(path: Path) -> dict[str, bytes]:
    return {
        str(each.relative_to(path)): each.read_bytes()
        for each in path.rglob("*")
        if each.is_file() and not each.name.endswith("-lock") and each.name != "LOCK"
    }


def test_a_migrated_store_says_the_same(old: Path) -> None:
    before = snapshot(old)

    assert migrate(old, on_progress=quiet) == WHOLE

    assert snapshot(old) == before
    assert format_of(old) == 2
    with Store.open(old, writable=False) as store:
        assert list(check(store, read_data=True)) == []


def test_a_migrated_store_is_written_on(old: Path) -> None:
    migrate(old, on_progress=quiet)

    with Store.open(old, writable=True) as store:
        with store.write() as writer:
            assert writer.next_node() == 6
            blob = writer.put_blob(b"new").blob
            state = file_state(b"new", size=3, content=blob)
            assert append(writer, {6: state}, {(ROOT, b"new"): 6}, time_ns=TIME_NS + 90) == 10
        with store.read() as reader:
            assert reader.blob(blob) == b"new"
            assert dict(reader.children(ROOT, Seq(10)))[b"new"] == 6
        assert list(check(store, read_data=True)) == []


def test_segments_are_left_as_they_are_and_every_row_has_the_new_format(old: Path) -> None:
    before = files(old)

    migrate(old, on_progress=quiet)

    after = files(old)
    assert {name: after[name] for name in before if name != INDEX_NAME} == {
        name: data for name, data in before.items() if name != INDEX_NAME
    }
    assert set(after) - set(before) == {"segments/00000004.seg"}
    with Store.open(old, writable=False) as store, store.read() as reader:
        for table in ("log", "nodes", "tags", "blobs"):
            assert {value[0] for _, value in reader.rows(table)} == {2}
        rows = dict(reader.segments())
        assert {number: row.length for number, row in rows.items()} == store.segment_sizes()
        assert {number: row.journal_txn for number, row in rows.items()} == {1: 0, 2: 0, 3: 0, 4: 1}
        assert (reader.tail().segment, reader.tail().txn, reader.checkpoint()) == (4, 1, 1)


def test_the_checkpoint_of_a_migration_holds_every_row(old: Path) -> None:
    migrate(old, on_progress=quiet)

    (part,) = journals(old)
    assert (part.txn, part.is_checkpoint, part.is_last) == (1, True, True)
    with Store.open(old, writable=False) as store, store.read() as reader:
        for table in ("log", "nodes", "names", "tags", "moves"):
            assert {row.key: row.record for row in part.rows if row.table == table} == {
                key: unseal(table, key, value) for key, value in reader.rows(table)
            }


def test_an_empty_store_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "store"
    Store.create(path)
    make_old(path)

    assert migrate(path, on_progress=quiet) == Migration(1, 0, 0, 0)

    with Store.open(path, writable=True) as store:
        with store.write() as writer:
            append(writer)
        assert list(check(store, read_data=True)) == []


def make_old(path: Path) -> None:
    """Turn a store without versions into one of format 1."""
    with lmdb.open(str(path / INDEX_NAME), subdir=False, max_dbs=8, lib_version=0) as env:
        meta = env.open_db(b"meta")
        with env.begin(write=True) as txn:
            txn.put(b"format", (1).to_bytes(4, "big"), db=meta)
            txn.drop(env.open_db(b"segments", txn=txn))


def test_a_survey_changes_nothing(old: Path) -> None:
    before = files(old)

    assert survey(old) == WHOLE

    assert files(old) == before


def test_a_store_of_todays_format_is_left_alone(path: Path) -> None:
    before = files(path)

    assert survey(path) is None
    assert migrate(path, on_progress=quiet) is None

    assert files(path) == before


def test_a_store_of_a_newer_format_is_refused(path: Path) -> None:
    with lmdb.open(str(path / INDEX_NAME), subdir=False, max_dbs=len(TABLES), lib_version=0) as env:
        with env.begin(write=True) as txn:
            txn.put(b"format", (3).to_bytes(4, "big"), db=env.open_db(b"meta", txn=txn))

    for do in (survey, lambda store: migrate(store, on_progress=quiet)):
        with pytest.raises(StoreFormatError, match="has format 3"):
            do(path)


def test_a_store_that_is_in_use_is_refused(old: Path) -> None:
    with StoreLock(old), pytest.raises(StoreBusyError, match=f"process {os.getpid()}"):
        migrate(old, on_progress=quiet)

    assert format_of(old) == 1


def test_who_reads_the_old_index_goes_on(old: Path) -> None:
    with Store.open(old, writable=False) as store, store.read() as reader:
        migrate(old, on_progress=quiet)

        assert reader.last == 9
        with store.read() as another:
            assert another.blob(store.hash(b"last")) == b"last"
    assert format_of(old) == 2


# ---- trouble


def test_damaged_rows_are_taken_over_as_they_are(old: Path) -> None:
    with lmdb.open(str(old / INDEX_NAME), subdir=False, max_dbs=8, lib_version=0) as env:
        with env.begin(write=True) as txn:
            log = env.open_db(b"log", txn=txn)
            key = (3).to_bytes(8, "big")
            value = txn.get(key, db=log)
            assert value is not None
            txn.put(key, value[:-1] + bytes((value[-1] ^ 1,)), db=log)

    done = migrate(old, on_progress=quiet)

    assert done is not None
    assert done.damaged == 1
    with Store.open(old, writable=True) as store:
        with store.read() as reader:
            assert reader.record(Seq(2)) is not None
            with pytest.raises(CorruptError, match="checksum"):
                reader.record(Seq(3))
        assert {damage.seq for damage in check(store, read_data=True)} == {3}


def test_a_full_disk_leaves_the_old_store(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(old)

    real = os.pwrite

    def fail(fd: int, data: bytes, offset: int) -> int:
        if len(data) > 100:  # what is shorter is the pid in the lock
            raise OSError(28, "No space left on device")
        return real(fd, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with pytest.raises(StoreError, match="No space left"):
            migrate(old, on_progress=quiet)

    assert files(old) == before
    assert migrate(old, on_progress=quiet) == WHOLE


def test_what_a_crash_left_behind_the_tail_is_removed(old: Path) -> None:
    with (old / "segments" / "00000003.seg").open("ab") as file:
        file.write(b"torn")
    (old / "segments" / "00000007.seg").write_bytes(b"dkfs-seg")

    migrate(old, on_progress=quiet)

    assert sorted(each.name for each in (old / "segments").iterdir()) == [
        f"{number:08d}.seg" for number in (1, 2, 3, 4)
    ]
    with Store.open(old, writable=False) as store:
        assert list(check(store, read_data=True)) == []


@pytest.mark.expect_logs("blobs are lost")
def test_a_segment_that_is_missing_stays_missing(old: Path) -> None:
    (old / "segments" / "00000001.seg").unlink()
    (old / "segments" / "00000003.seg").unlink()

    migrate(old, on_progress=quiet)

    with Store.open(old, writable=False) as store, store.read() as reader:
        assert reader.segment_numbers() == {1, 2, 3, 4}
        assert any("segment" in damage.message for damage in check(store, read_data=False))


# ---- a kill at every step

# Migrates a store, and dies just before the n-th of the calls that change something on the disk, or just after it.
_WORKER = """
import os, signal, sys
from pathlib import Path
from dkfs.store import migrate as module

path, last, when = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
count = 0

def counted(real):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return real(*args, **kwargs)
        finally:
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
    return call

for name in ("pwrite", "fdatasync", "fsync", "rename", "unlink", "truncate", "ftruncate"):
    setattr(os, name, counted(getattr(os, name)))
module._Target._commit = counted(module._Target._commit)
module._Target.put = counted(module._Target.put) if when == "before" else module._Target.put
module.migrate(path, on_progress=lambda done, total: None)
print(count)
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_step_leaves_the_old_store_or_the_new(tmp_path: Path, when: str) -> None:
    expected = snapshot(shutil.copytree(GOLDEN / "store-v1", tmp_path / "unchanged"))
    formats = []
    for last in steps():
        path = tmp_path / f"store{last}"
        shutil.copytree(GOLDEN / "store-v1", path)
        run = subprocess.run(
            [sys.executable, "-c", _WORKER, str(path), str(last), when],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGKILL, run.stderr
        formats.append(format_of(path))
        assert snapshot(path) == expected

        # Going on completes it, whatever was left.
        assert migrate(path, on_progress=quiet) == (WHOLE if formats[-1] == 1 else None)
        assert snapshot(path) == expected
        with Store.open(path, writable=True) as store:
            with store.write() as writer:
                append(writer, time_ns=TIME_NS + 90)
            assert list(check(store, read_data=True)) == []
        assert not (path / NEW_NAME).exists()
        shutil.rmtree(path)
    assert formats == sorted(formats)
    assert set(formats) == {1, 2}
    assert len(formats) > 12


def steps() -> Iterator[int]:
    """Yield every number of a call for the first forty, then each seventh: the rows are many, and alike."""
    yield from range(1, 41)
    yield from range(41, 400, 7)
