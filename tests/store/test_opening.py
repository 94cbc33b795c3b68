"""What is refused when a store is opened, before it is made worse."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from dkfs.errors import CorruptError
from dkfs.store import Store
from dkfs.store.check import check
from dkfs.store.rows import FORGOTTEN_KEY, NEXT_NODE_KEY, SEQ, TAIL_KEY, seal
from tests.store.making import add_file


def add(path: Path, *names: bytes) -> None:
    with Store.open(path, writable=True, segment_limit=300) as store:
        for name in names:
            add_file(store, name, name * 40)


def change(path: Path, do: Callable[[lmdb.Transaction, lmdb._Database], object]) -> None:
    """Change the table meta behind the store's back."""
    with lmdb.open(str(path / "index.lmdb"), subdir=False, max_dbs=9, map_size=1 << 30) as env:
        table = env.open_db(b"meta", create=False)
        with env.begin(write=True) as txn:
            do(txn, table)


def test_an_index_that_is_older_than_its_segments_is_refused(path: Path) -> None:
    add(path, b"a")
    shutil.copy(path / "index.lmdb", path / "old")
    add(path, b"b", b"c", b"d")
    os.replace(path / "old", path / "index.lmdb")
    sizes = {p.name: p.stat().st_size for p in (path / "segments").iterdir()}

    message = (
        r"is of transaction 1, older than segment \d, which holds transaction [34]: `dkfs check"
    )
    for writable in (True, False):
        with pytest.raises(CorruptError, match=message):
            Store.open(path, writable=writable)

    assert {p.name: p.stat().st_size for p in (path / "segments").iterdir()} == sizes


def test_one_transaction_behind_the_end_is_what_a_crash_leaves(path: Path) -> None:
    add(path, b"a")
    shutil.copy(path / "index.lmdb", path / "old")
    add(path, b"b")
    os.replace(path / "old", path / "index.lmdb")

    with Store.open(path, writable=True) as store:
        assert list(check(store, read_data=True)) == []
        assert add_file(store, b"c", b"c")[0] == 2


@pytest.mark.expect_logs("is of another store and left alone")
def test_a_segment_of_another_store_is_none_of_its_business(path: Path, tmp_path: Path) -> None:
    Store.create(tmp_path / "other")
    add(tmp_path / "other", *(b"%d" % number for number in range(20)))
    add(path, b"a")
    newest = max((tmp_path / "other" / "segments").iterdir())
    shutil.copy(newest, path / "segments")

    add(path, b"b")

    with Store.open(path, writable=False) as store:
        assert list(check(store, read_data=True)) == []


@pytest.mark.parametrize(
    ("key", "record", "message"),
    [
        (NEXT_NODE_KEY, SEQ.pack(2), "next node is 2, used is 3"),
        (FORGOTTEN_KEY, SEQ.pack(1), "2 versions up to 2 are in the log and 1 were forgotten"),
        (TAIL_KEY, None, "the end of the segments is not known"),
        (NEXT_NODE_KEY, None, "next node is 1, used is 3"),
    ],
)
def test_counters_that_do_not_agree_with_the_rows_are_refused_by_a_writer(
    path: Path, key: bytes, record: bytes | None, message: str
) -> None:
    add(path, b"a", b"b")
    if record is None:
        change(path, lambda txn, table: txn.delete(key, db=table))
    else:
        value = seal(key, record)
        change(path, lambda txn, table: txn.put(key, value, db=table))

    with pytest.raises(CorruptError, match=message):
        Store.open(path, writable=True)

    with Store.open(path, writable=False) as store, store.read() as reader:
        assert reader.blob(store.hash(b"b" * 40)) == b"b" * 40


def test_a_damaged_page_of_the_index_is_refused(path: Path) -> None:
    add(path, *(b"%d" % number for number in range(30)))
    data = bytearray((path / "index.lmdb").read_bytes())
    for page in range(2, 10):  # some of them are free
        data[page * 4096 : page * 4096 + 16] = bytes(16)
    (path / "index.lmdb").write_bytes(data)

    for writable in (True, False):
        with pytest.raises(CorruptError, match=r"page \d.*`dkfs check --repair` makes it anew"):
            Store.open(path, writable=writable)


def test_an_index_of_another_store_is_refused(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Store.create(other)
    add(path, b"a", b"b")
    add(other, b"a")
    shutil.copy(other / "index.lmdb", path)
    before = {p.name: p.read_bytes() for p in (path / "segments").iterdir()}

    for writable in (True, False):
        with pytest.raises(CorruptError, match="is of another store than the segments beside it"):
            Store.open(path, writable=writable)

    assert {p.name: p.read_bytes() for p in (path / "segments").iterdir()} == before


def test_a_segment_of_another_store_is_not_written_on(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Store.create(other)
    add(path, *(b"%d" % number for number in range(10)))
    add(other, *(b"%d" % number for number in range(10)))
    newest = max(path.glob("segments/*"))
    shutil.copy(other / "segments" / newest.name, newest)

    with pytest.raises(CorruptError, match="which is to be written on, is of another store"):
        Store.open(path, writable=True)

    with Store.open(path, writable=False) as store:
        damages = list(check(store, read_data=True))
    assert any(f"header of segment {int(newest.stem)}" in damage.message for damage in damages)


def test_the_path_of_a_store_may_be_no_utf_8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff store")
    Store.create(path)
    add(path, b"a")

    with Store.open(path, writable=False) as store:
        assert list(check(store, read_data=True)) == []
