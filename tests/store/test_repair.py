"""What a repair brings back, and from where; and what it says of the rest."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from dkfs.core.location import LOST
from dkfs.errors import CorruptError, StoreError
from dkfs.model.ids import BlobId
from dkfs.store import Store
from dkfs.store.check import Damage, DamageKind, check
from dkfs.store.damage import Step
from dkfs.store.lock import StoreLock
from dkfs.store.repair import OtherStore, Source, repair_contents
from dkfs.store.repair_index import repair_index
from dkfs.store.rows import CLEAN_KEY, NODE_KEY, SEQ, name_key
from dkfs.store.segments import RECORD, segment_path
from tests.containment import make, truth
from tests.store.making import add_file
from tests.store.test_opening import change
from tests.store.test_rebuild import rows_of, silent, wipe_journal


def damages(path: Path) -> list[Damage]:
    with Store.open(path, writable=False) as store:
        return list(check(store, read_data=True))


def flip(path: Path, segment: int, offset: int) -> None:
    """Flip a bit of a segment."""
    file = segment_path(path / "segments", segment)
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)


def place(path: Path, blob: BlobId) -> tuple[int, int]:
    with Store.open(path, writable=False) as store, store.read() as reader:
        location = reader.location(blob)
    assert location is not None
    return location.segment, location.offset


def repair(path: Path, *sources: Source) -> list[Step]:
    """Repair everything, as the command does."""
    found = damages(path)
    steps = []
    if any(damage.kind in {DamageKind.INDEX, DamageKind.ROW} for damage in found):
        with StoreLock(path):
            steps += list(repair_index(path, found, scratch=None, on_progress=silent))
        found = damages(path)
    with Store.open(path, writable=True) as store:
        steps += list(repair_contents(store, found, sources, dry_run=False))
    return steps


@pytest.fixture
def pair(path: Path, tmp_path: Path) -> tuple[Path, Path, BlobId]:
    """Make a store with a damaged blob, and a copy from before the damage."""
    with Store.open(path, writable=True) as store:
        _, _, blob = add_file(store, b"f", b"precious" * 50)
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    segment, offset = place(path, blob)
    flip(path, segment, offset + RECORD.size + 10)
    return path, copy, blob


def test_a_blob_comes_back_from_another_store(pair: tuple[Path, Path, BlobId]) -> None:
    path, copy, blob = pair

    steps = repair(path, OtherStore(copy))

    assert steps == [Step(f"blob {blob.hex()}", f"from store {copy}", blob=blob)]
    assert damages(path) == []


def test_what_is_found_nowhere_is_lost_at_once_and_known_to_be(
    pair: tuple[Path, Path, BlobId],
) -> None:
    path, _, blob = pair

    (step,) = repair(path)

    assert (step.blob, step.is_done) == (blob, False)
    with Store.open(path, writable=False) as store, store.read() as reader:
        location = reader.location(blob)
        assert location is not None
        assert (location.encoding, location.length) == (LOST, 400)
        with pytest.raises(CorruptError, match="lost"):
            reader.blob(blob)
    assert [(damage.kind, damage.blob) for damage in damages(path)] == [(DamageKind.LOST, blob)]


def test_what_was_lost_is_found_again_later(pair: tuple[Path, Path, BlobId]) -> None:
    path, copy, _ = pair
    repair(path)

    repair(path, OtherStore(copy))

    assert damages(path) == []


def test_what_was_lost_stays_known_when_the_index_is_rebuilt(
    pair: tuple[Path, Path, BlobId],
) -> None:
    path, _, blob = pair
    repair(path)
    with StoreLock(path):
        found = [Damage("a row")]
        list(repair_index(path, found, scratch=None, on_progress=silent))

    assert [(damage.kind, damage.blob) for damage in damages(path)] == [(DamageKind.LOST, blob)]


def test_a_copy_that_lies_about_its_bytes_is_not_believed(
    pair: tuple[Path, Path, BlobId],
) -> None:
    path, _, blob = pair

    class Liar:
        name = "a liar"

        def find(self, reader: object, wanted: object) -> list[bytes]:
            return [b"something else" * 50]

    (step,) = repair(path, Liar())  # type: ignore[arg-type]  # a list is no iterator, but as good

    assert (step.blob, step.is_done) == (blob, False)


def test_a_blob_comes_back_from_another_record_of_it(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        _, _, blob = add_file(store, b"f", b"precious" * 50)
        with store.read() as reader:
            location = reader.location(blob)
            assert location is not None
            stored = reader.stored(location, blob)
        with store.write() as writer:
            writer.put_record(blob, location.encoding, stored, 400)
    segment, offset = place(path, blob)
    flip(path, segment, offset + RECORD.size + 10)

    (step,) = repair(path)

    assert step.how == "from another record in the segments"
    assert damages(path) == []


def test_a_record_whose_checksum_alone_is_damaged_is_written_again(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        _, _, blob = add_file(store, b"f", b"precious" * 50)
    segment, offset = place(path, blob)
    flip(path, segment, offset + 5)

    (step,) = repair(path)

    assert step.how == "from its own record, whose checksum is damaged"
    assert damages(path) == []
    assert place(path, blob) != (segment, offset)


def test_everything_comes_back_when_a_segment_is_gone_but_a_copy_has_it(tmp_path: Path) -> None:
    path, copy = tmp_path / "store", tmp_path / "copy"
    make(path, 3)
    shutil.copytree(path, copy)
    right = truth(path)
    segment_path(path / "segments", 2).unlink()

    steps = repair(path, OtherStore(copy))

    assert all(step.is_done for step in steps)
    assert damages(path) == []
    assert truth(path) == right
    # The journals of that segment are gone too, but the index could be rebuilt all the same.
    (path / "index.lmdb").unlink()
    with StoreLock(path):
        list(repair_index(path, None, scratch=None, on_progress=silent))
    assert truth(path) == right


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: os.truncate(path, 5000),
        lambda path: flip(path.parent.parent, 1, 3),
    ],
    ids=["cut", "header"],
)
def test_a_segment_that_is_damaged_as_a_file_is_given_up(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path, copy = tmp_path / "store", tmp_path / "copy"
    make(path, 4)
    shutil.copytree(path, copy)
    right = truth(path)
    damage(segment_path(path / "segments", 1))

    steps = repair(path, OtherStore(copy))

    assert any(step.what == "segments 1" for step in steps)
    assert damages(path) == []
    assert truth(path) == right
    assert not segment_path(path / "segments", 1).exists()


def test_a_journal_that_is_lost_is_made_up_for_by_a_checkpoint(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        for name in (b"a", b"b", b"c"):
            add_file(store, name, name)
    before = rows_of(path)
    wipe_journal(path, 1)
    assert [damage.kind for damage in damages(path)] == [DamageKind.SEGMENT]

    (step,) = repair(path)

    assert step.what == "journals"
    assert damages(path) == []
    (path / "index.lmdb").unlink()
    with StoreLock(path):
        list(repair_index(path, None, scratch=None, on_progress=silent))
    assert rows_of(path) == before


# ---- rows


def spoil(path: Path, table: str, key: bytes) -> None:
    """Damage the value of a row."""
    with lmdb.open(str(path / "index.lmdb"), subdir=False, max_dbs=9, map_size=1 << 30) as env:
        db = env.open_db(table.encode(), create=False)
        with env.begin(write=True) as txn:
            value = bytearray(txn.get(key, db=db) or b"")
            value[0] ^= 0x40
            txn.put(key, bytes(value), db=db)


ROWS = [
    ("log", SEQ.pack(2)),
    ("nodes", NODE_KEY.pack(3, 2)),
    ("names", name_key(1, b"a", 1)),  # type: ignore[arg-type]
    ("meta", b"next-node"),
    ("meta", b"tail"),
    ("segments", (1).to_bytes(4, "big")),
]


@pytest.mark.parametrize(("table", "key"), ROWS)
def test_a_damaged_row_comes_back(path: Path, table: str, key: bytes) -> None:
    with Store.open(path, writable=True) as store:
        for name in (b"a", b"b", b"c"):
            add_file(store, name, name)
    before = rows_of(path)
    spoil(path, table, key)
    assert damages(path) != []

    steps = repair(path)

    assert steps[0].how.startswith("rebuilt from the segments: 3 versions")
    assert rows_of(path) == before
    assert damages(path) == []


@pytest.mark.parametrize(("table", "key"), ROWS)
def test_a_damaged_row_comes_back_when_an_older_journal_is_lost(
    path: Path, table: str, key: bytes
) -> None:
    with Store.open(path, writable=True) as store:
        for name in (b"z", b"a", b"b", b"c"):
            add_file(store, name, name)
    before = rows_of(path)
    wipe_journal(path, 0)
    spoil(path, table, {name_key(1, b"a", 1): name_key(1, b"a", 2)}.get(key, key))  # type: ignore[arg-type]
    assert damages(path) != []

    steps = repair(path)

    assert all(step.is_done for step in steps)
    assert rows_of(path) == before
    assert damages(path) == []
    assert (path / "index.lmdb.damaged-1").exists()


def test_a_missing_version_comes_back(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        for name in (b"a", b"b", b"c"):
            add_file(store, name, name)
    before = rows_of(path)
    change(path, lambda txn, table: txn.delete(CLEAN_KEY, db=table))
    with Store.open(path, writable=True) as store, store.write() as writer:
        assert writer._txn.delete(SEQ.pack(2), db=writer._tables["log"])

    repair(path)

    assert rows_of(path) == before
    assert damages(path) == []


def test_what_no_one_could_repair_is_left_as_it_is(path: Path) -> None:
    (path / "index.lmdb").write_bytes(b"junk")

    with StoreLock(path), pytest.raises(StoreError, match="nothing to rebuild from"):
        list(repair_index(path, None, scratch=None, on_progress=silent))

    assert (path / "index.lmdb").read_bytes() == b"junk"


# ---- stores that were mixed up


def two_stores(tmp_path: Path) -> tuple[Path, Path]:
    make(tmp_path / "one", 6)
    make(tmp_path / "other", 7)
    return tmp_path / "one", tmp_path / "other"


def test_with_the_index_of_another_store_nothing_is_done_until_it_is_removed(
    tmp_path: Path,
) -> None:
    path, other = two_stores(tmp_path)
    right = truth(path)
    shutil.copy(other / "index.lmdb", path)
    message = "is of another store than the segments beside it: put the right one there"
    with StoreLock(path), pytest.raises(StoreError, match=message):
        list(repair_index(path, None, scratch=None, on_progress=silent))
    (path / "index.lmdb").unlink()

    with StoreLock(path):
        steps = list(repair_index(path, None, scratch=None, on_progress=silent))

    assert steps[0].how.startswith("rebuilt from the segments: 51 versions")
    assert truth(path) == right
    assert damages(path) == []


def test_a_segment_of_another_store_in_the_place_of_ones_own_is_left_there(tmp_path: Path) -> None:
    path, other = two_stores(tmp_path)
    shutil.copytree(path, tmp_path / "copy")
    right = truth(path)
    foreign = (other / "segments" / "00000002.seg").read_bytes()
    (path / "segments" / "00000002.seg").write_bytes(foreign)

    repair(path, OtherStore(tmp_path / "copy"))

    assert truth(path) == right
    assert damages(path) == []
    assert (path / "segments" / "00000002.seg").read_bytes() == foreign


def test_an_index_that_is_older_than_its_segments_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "store"
    Store.create(path)
    with Store.open(path, writable=True) as store:
        add_file(store, b"a", b"a")
    shutil.copy(path / "index.lmdb", tmp_path / "old")
    with Store.open(path, writable=True) as store:
        for name in (b"b", b"c", b"d"):
            add_file(store, name, name)
    before = rows_of(path)
    shutil.copy(tmp_path / "old", path / "index.lmdb")

    with StoreLock(path):
        list(repair_index(path, None, scratch=None, on_progress=silent))

    assert rows_of(path) == before
    assert damages(path) == []
