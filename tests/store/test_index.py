import os
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from dkfs.errors import CorruptError
from dkfs.store import Store
from dkfs.store.check import check
from dkfs.store.index import close_index, open_index
from dkfs.store.pages import check_length, verify_pages
from tests.store.making import add_file, append, file_state

PAGE = 4096


@pytest.fixture
def filled(path: Path) -> Path:
    """Make a store with an index of some 60 pages."""
    with Store.open(path, writable=True) as store:
        for start in (1, 301):
            with store.write() as writer:
                states = {node: file_state(b"f%d" % node) for node in range(start, start + 300)}
                append(writer, states, {(1, b"f%d" % node): node for node in states})
    return path


def read_everything(path: Path) -> None:
    with Store.open(path, writable=False) as store:
        list(check(store, read_data=True))


# ---- a file that was cut


def test_an_index_cut_at_any_page_is_corrupt_or_whole(filled: Path) -> None:
    index = filled / "index.lmdb"
    size = index.stat().st_size
    corrupt = 0
    for length in range(size - PAGE, 0, -PAGE):
        os.truncate(index, length)
        try:
            read_everything(filled)  # a missing page would end the process with SIGBUS
        except CorruptError as exc:
            corrupt += "need" in str(exc) or "less than its two meta pages" in str(exc)

    assert corrupt > size / PAGE / 2


def test_an_index_cut_inside_a_page_is_corrupt(filled: Path) -> None:
    index = filled / "index.lmdb"
    os.truncate(index, index.stat().st_size // 2 + 100)

    for writable in (True, False):
        with pytest.raises(CorruptError, match=rf"index {index} is \d+ bytes, need \d+"):
            Store.open(filled, writable=writable)


def free_last_page(path: Path) -> None:
    """Leave an index whose last pages were taken and freed in one transaction, as LMDB leaves it."""
    for attempt in range(200):
        with lmdb.open(str(path), subdir=False, max_dbs=9, map_size=1 << 30, sync=False) as env:
            table = env.open_db(b"spare%d" % (attempt % 2))
            with env.begin(write=True) as txn:
                for i in range(40):
                    txn.put(b"%d" % i, b"x" * 3000 * (attempt % 5 + 1), db=table)
                for i in range(0, 40, attempt % 3 + 1):
                    txn.delete(b"%d" % i, db=table)
            need = (env.info()["last_pgno"] + 1) * PAGE
        if path.stat().st_size < need:
            return
    raise AssertionError("LMDB wrote every page")


def test_an_index_that_is_short_but_whole_is_opened(filled: Path) -> None:
    index = filled / "index.lmdb"
    free_last_page(index)

    check_length(index)
    with Store.open(filled, writable=True) as store:
        add_file(store, b"f", b"data")

        assert store.verify_index() == []


def test_a_commit_leaves_the_index_as_long_as_its_last_page(filled: Path) -> None:
    free_last_page(filled / "index.lmdb")

    with Store.open(filled, writable=True) as store:
        add_file(store, b"f", b"data")

    with lmdb.open(str(filled / "index.lmdb"), subdir=False, readonly=True) as env:
        need = (env.info()["last_pgno"] + 1) * PAGE
    assert (filled / "index.lmdb").stat().st_size >= need


def test_pages_that_are_damaged_are_named_without_lmdb(filled: Path) -> None:
    index = filled / "index.lmdb"
    data = bytearray(index.read_bytes())
    data[10 * PAGE : 11 * PAGE] = b"\xff" * PAGE
    index.write_bytes(data)

    assert any("page 10" in problem for problem in verify_pages(index))


# ---- damage inside


# Changes one byte of the index after another, each read by a process of its own: LMDB may abort on what it finds.
_MUTATE = """
import os, sys
from pathlib import Path
from dkfs.errors import DkfsError
from dkfs.model.ids import ROOT, Seq
from dkfs.store import Store
from dkfs.store.check import check

path, index = Path(sys.argv[1]), Path(sys.argv[1]) / "index.lmdb"
good = index.read_bytes()

def tree():
    with Store.open(path, writable=False) as store, store.read() as reader:
        return [
            (seq, name, node, reader.node(node, Seq(seq)))
            for seq in range(3) for name, node in reader.children(ROOT, Seq(seq))
        ]

def verdict():
    try:
        found = tree()
    except DkfsError:
        return "refused"
    if found == right:
        return "right"
    with Store.open(path, writable=False) as store:
        return "found by check" if any(check(store, read_data=False)) else "wrong"

right = tree()
for offset in range(2 * 4096, len(good), 1009):
    index.write_bytes(good[:offset] + bytes((good[offset] ^ 0x20,)) + good[offset + 1 :])
    pid = os.fork()
    if not pid:
        os.write(1, f"{offset} {verdict()}\\n".encode())
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status:
        print(offset, "signal", os.WTERMSIG(status), flush=True)
"""


@pytest.mark.slow
def test_an_index_with_any_byte_changed_is_right_or_refused(filled: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _MUTATE, str(filled)], capture_output=True, text=True, check=True
    )

    verdicts = [line.split(maxsplit=1)[1] for line in run.stdout.splitlines()]
    assert len(verdicts) > 100
    assert set(verdicts) == {"right", "refused"}


# ---- the environment


def test_stores_of_one_process_share_the_environment(path: Path) -> None:
    one = open_index(path / "index.lmdb", writable=False)
    other = open_index(path / "index.lmdb", writable=False)

    assert one is other
    close_index(one)
    assert other.meta(b"uuid") is not None
    close_index(other)


def test_little_address_space_is_enough(path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from dkfs.store import Store
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
with Store.open(Path(sys.argv[1]), writable=True) as store, store.write() as writer:
    writer.set_clean(True)
print("written")
"""
    run = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
    )

    assert run.stdout == "written\n", run.stderr


@pytest.mark.expect_logs("opened again")
def test_a_panic_of_lmdb_is_healed_by_opening_again(store: Store) -> None:
    add_file(store, b"f", b"data")
    environment = store._index._env

    class PanickedEnvironment:
        """An environment as LMDB leaves it when the write of a meta page has failed."""

        def begin(self, *, write: bool) -> object:
            raise lmdb.PanicError("mdb_txn_begin", -30795)

        def close(self) -> None:
            environment.close()

    vars(store._index)["_env"] = PanickedEnvironment()

    assert add_file(store, b"g", b"more")[0] == 2
    assert store._index._env is not environment
