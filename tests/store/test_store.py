import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from dkfs.errors import (
    CorruptError,
    DkfsError,
    ExistsError,
    StoreBusyError,
    StoreError,
    StoreFormatError,
)
from dkfs.model.ids import Seq
from dkfs.store import Store, index, is_absent
from dkfs.store import store as store_module
from dkfs.store.check import check
from tests.store.making import add_file, append


def modes(path: Path) -> dict[str, str]:
    found = [path, *sorted(path.rglob("*"))]
    return {str(p.relative_to(path)): oct(stat.S_IMODE(p.lstat().st_mode)) for p in found}


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()
    }


# ---- making one


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    old = os.umask(request.param)
    yield
    os.umask(old)


@pytest.mark.root  # others could not enter what a umask of 0777 makes
def test_a_store_is_private_whatever_the_umask(tmp_path: Path, umask: None) -> None:
    path = tmp_path / "store"

    Store.create(path)
    with Store.open(path, writable=True) as store:
        add_file(store, b"f", b"data")

    assert modes(path) == {
        ".": "0o700",
        "LOCK": "0o600",
        "index.lmdb": "0o600",
        "index.lmdb-lock": "0o600",
        "segments": "0o700",
        "segments/00000001.seg": "0o600",
    }


def test_a_store_is_made_with_the_directories_above_it(tmp_path: Path) -> None:
    Store.create(tmp_path / "a" / "b" / "store")

    with (
        Store.open(tmp_path / "a" / "b" / "store", writable=False) as store,
        store.read() as reader,
    ):
        assert reader.last == 0


def test_a_new_store_is_durable_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(store_module, "sync_directory", synced.append)

    Store.create(tmp_path / "store")

    assert synced == [tmp_path / "store", tmp_path]


def test_the_index_that_makes_it_a_store_appears_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: list[os.stat_result] = []

    def look(name: str) -> None:
        if name == "store.index-rename":
            assert not (tmp_path / "s" / "index.lmdb").exists()
            whole.append((tmp_path / "s" / "index.lmdb.new").stat())

    monkeypatch.setattr(index, "failpoint", look)
    Store.create(tmp_path / "s")

    made = (tmp_path / "s" / "index.lmdb").stat()
    assert [(each.st_ino, each.st_size) for each in whole] == [(made.st_ino, made.st_size)]


def test_an_existing_store_is_not_made_again(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        add_file(store, b"f", b"data")
    before = contents(path)

    with pytest.raises(ExistsError, match="exists already"):
        Store.create(path)

    assert contents(path) == before


def test_a_directory_with_something_in_it_does_not_become_a_store(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_bytes(b"mine")

    with pytest.raises(ExistsError, match=r"not empty \(thesis.txt is in it\)"):
        Store.create(tmp_path)

    assert contents(tmp_path) == {"thesis.txt": b"mine"}


def test_a_creation_that_was_interrupted_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "segments").mkdir()
    (tmp_path / "LOCK").touch()
    (tmp_path / "index.lmdb.new").write_bytes(b"half")
    assert is_absent(tmp_path)
    with pytest.raises(StoreFormatError, match=r"not a dkfs store: no index\.lmdb"):
        Store.open(tmp_path, writable=True)

    Store.create(tmp_path)

    with Store.open(tmp_path, writable=True) as store:
        add_file(store, b"f", b"data")
    assert not (tmp_path / "index.lmdb.new").exists()


def test_a_store_that_lost_its_index_is_not_made_again(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        add_file(store, b"f", b"data")
    (path / "index.lmdb").unlink()

    assert not is_absent(path)
    with pytest.raises(ExistsError, match=r"not empty \(segments is in it\)"):
        Store.create(path)


def test_a_store_cannot_be_made_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match="cannot be made: Not a directory"):
        Store.create(tmp_path / "file" / "store")


def test_two_stores_have_two_uuids(path: Path, tmp_path: Path) -> None:
    Store.create(tmp_path / "other")

    with (
        Store.open(path, writable=False) as one,
        Store.open(tmp_path / "other", writable=False) as other,
    ):
        assert one.uuid != other.uuid


def test_the_hash_is_the_one_that_was_chosen(tmp_path: Path) -> None:
    Store.create(tmp_path / "sha", hash_algo="sha256")

    with Store.open(tmp_path / "sha", writable=True) as store:
        _, _, blob = add_file(store, b"f", b"data")
        assert store.hash_algo == "sha256"
        assert blob == store.hash(b"data") == hashlib.sha256(b"data").digest()
        assert list(check(store, read_data=True)) == []


def test_blake3_is_the_default(store: Store) -> None:
    assert store.hash_algo == "blake3"
    assert store.hash(b"").hex() == (
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    )


# ---- opening one


def test_a_store_that_was_closed_is_as_it_was(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        _, node, blob = add_file(store, b"f", b"data")
        uuid = store.uuid

    with Store.open(path, writable=True) as store, store.read() as reader:
        assert store.uuid == uuid
        assert reader.last == 1
        assert [child for _, child in reader.children(reader.next_node(), Seq(1))] == []
        assert reader.node(node, Seq(1)) is not None
        assert reader.blob(blob) == b"data"


def test_opening_for_reading_changes_nothing(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        add_file(store, b"f", b"data")
    (path / "LOCK").unlink()
    with (path / "segments" / "00000001.seg").open("ab") as file:
        file.write(b"torn")
    before = contents(path)

    with Store.open(path, writable=False) as store, store.read() as reader:
        assert reader.last == 1

    after = contents(path)
    assert {k: v for k, v in after.items() if k != "index.lmdb-lock"} == {
        k: v for k, v in before.items() if k != "index.lmdb-lock"
    }


@pytest.mark.parametrize("writable", [True, False])
def test_a_store_that_is_not_there_is_refused(tmp_path: Path, *, writable: bool) -> None:
    with pytest.raises(StoreError, match=r"store /.*/nowhere does not exist"):
        Store.open(tmp_path / "nowhere", writable=writable)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("writable", [True, False])
def test_what_is_no_store_is_refused_and_left_as_it_is(tmp_path: Path, *, writable: bool) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "empty").mkdir()

    with pytest.raises(StoreFormatError, match="not a dkfs store: not a directory"):
        Store.open(tmp_path / "file", writable=writable)
    with pytest.raises(StoreFormatError, match=r"not a dkfs store: no index\.lmdb in it"):
        Store.open(tmp_path / "empty", writable=writable)

    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize(
    "data", [b"", b"x", b"text\n" * 100, bytes(8192), b"\xde\xc0\xef\xbe" * 4096]
)
def test_an_index_that_is_no_lmdb_file_is_refused(
    path: Path, data: bytes, *, writable: bool
) -> None:
    (path / "index.lmdb").write_bytes(data)

    with pytest.raises((StoreFormatError, CorruptError), match=r"index /.*/index\.lmdb is "):
        Store.open(path, writable=writable)


def test_another_programs_database_is_refused(path: Path) -> None:
    (path / "index.lmdb").unlink()
    with lmdb.open(str(path / "index.lmdb"), subdir=False, max_dbs=2) as env:
        env.open_db(b"theirs")

    with pytest.raises(StoreFormatError, match="not that of a dkfs store"):
        Store.open(path, writable=True)


def set_meta(path: Path, key: bytes, value: bytes) -> None:
    with lmdb.open(str(path / "index.lmdb"), subdir=False, max_dbs=9) as env:
        with env.begin(write=True) as txn:
            txn.put(key, value, db=env.open_db(b"meta", txn=txn))


@pytest.mark.parametrize("writable", [True, False])
def test_a_newer_format_is_refused(path: Path, *, writable: bool) -> None:
    set_meta(path, b"format", (3).to_bytes(4, "big"))

    with pytest.raises(StoreFormatError, match=r"has format 3, this dkfs reads 1 and 2"):
        Store.open(path, writable=writable)


def test_a_damaged_uuid_is_corrupt(path: Path) -> None:
    set_meta(path, b"uuid", b"u" * 20)

    with pytest.raises(CorruptError, match="meta row"):
        Store.open(path, writable=True)


def test_a_store_that_was_refused_is_not_held(path: Path) -> None:
    good = (path / "index.lmdb").read_bytes()
    (path / "index.lmdb").write_bytes(b"x" * len(good))
    with pytest.raises(DkfsError):
        Store.open(path, writable=True)
    (path / "index.lmdb").write_bytes(good)

    with Store.open(path, writable=True) as store:
        add_file(store, b"f", b"data")


def test_an_index_that_is_a_symbolic_link_is_refused(path: Path, tmp_path: Path) -> None:
    (path / "index.lmdb").rename(tmp_path / "elsewhere")
    (path / "index.lmdb").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StoreFormatError, match="not a regular file"):
        Store.open(path, writable=False)


def test_a_store_that_may_not_be_read_is_refused(open_dir: Path, needs_root: None) -> None:
    Store.create(open_dir / "store")

    script = (
        "import os, sys; os.setuid(65534); from pathlib import Path; from dkfs.store import Store\n"
    )
    script += "from dkfs.errors import StoreError\n"
    script += "try: Store.open(Path(sys.argv[1]), writable=False)\n"
    script += "except StoreError as exc: print(exc)"
    run = subprocess.run(
        [sys.executable, "-c", script, str(open_dir / "store")],
        capture_output=True,
        text=True,
        check=True,
    )

    assert run.stdout == f"store {open_dir}/store cannot be read: Permission denied\n"


# ---- size


def test_size_is_that_of_the_files(store: Store) -> None:
    add_file(store, b"f", os.urandom(100_000))

    size = store.size()

    assert size.index_bytes == (store.path / "index.lmdb").stat().st_size
    assert size.segment_bytes == (store.path / "segments" / "00000001.seg").stat().st_size
    assert size.segment_bytes > 100_000


# ---- several in one process


def test_a_second_writer_in_the_process_is_refused(store: Store) -> None:
    with pytest.raises(StoreBusyError, match=f"in use by process {os.getpid()}"):
        Store.open(store.path, writable=True)


def test_a_reader_may_be_opened_beside_a_writer_in_the_process(store: Store) -> None:
    with Store.open(store.path, writable=False) as beside:
        seq, _, blob = add_file(store, b"f", b"data")

        with beside.read() as reader:
            assert reader.last == seq
            assert reader.blob(blob) == b"data"


def test_a_reader_goes_on_when_the_writer_of_the_process_closes(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        add_file(store, b"f", b"data")
        beside = Store.open(path, writable=False)

    with beside, beside.read() as reader:
        assert reader.last == 1
        with pytest.raises(StoreError, match="not open for writing"):
            beside.write()


def test_a_writer_is_refused_while_the_process_reads(path: Path) -> None:
    with Store.open(path, writable=False):
        with pytest.raises(StoreBusyError, match="open for reading in this process"):
            Store.open(path, writable=True)

    with Store.open(path, writable=True) as store, store.write() as writer:
        append(writer)


def test_the_index_is_opened_again_with_all_that_is_in_it(store: Store) -> None:
    _, _, blob = add_file(store, b"f", b"data")
    store.reopen_index()
    seq, _, _ = add_file(store, b"g", b"more")

    with store.read() as reader:
        assert reader.last == seq
        assert reader.blob(blob) == b"data"
