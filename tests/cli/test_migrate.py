"""dkfs migrate."""

import shutil
from pathlib import Path

import lmdb
import pytest

from dkfs.store.lock import StoreLock
from tests.cli.conftest import Dkfs

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Copy the store of format 1."""
    return Path(shutil.copytree(GOLDEN / "store-v1", tmp_path / "old"))


def test_a_store_is_migrated_once(dkfs: Dkfs, old: Path) -> None:
    before = dkfs("log", "--store", old, "--json").out

    first = dkfs("migrate", "--store", old)
    second = dkfs("migrate", "--store", old)

    assert (first.status, first.err) == (0, "")
    assert first.out == (
        f"migrated store {old} from format 1 to 2: versions 9, blobs 7, segments 3\n"
    )
    assert (second.status, second.err) == (0, "")
    assert second.out == f"store {old} has this dkfs's format, there is nothing to do\n"
    assert dkfs("log", "--store", old, "--json").out == before


def test_a_dry_run_says_what_would_be_done(dkfs: Dkfs, old: Path) -> None:
    before = (old / "index.lmdb").read_bytes()

    result = dkfs("migrate", "-n", "--store", old)

    assert result.status == 0
    assert result.out == (
        f"would migrate store {old} from format 1 to 2: versions 9, blobs 7, segments 3\n"
    )
    assert (old / "index.lmdb").read_bytes() == before


def test_programs_are_told_the_same(dkfs: Dkfs, old: Path) -> None:
    numbers = {"from_format": 1, "to_format": 2, "versions": 9, "blobs": 7, "segments": 3}
    told = {"message_type": "migrate", "store": str(old)}

    planned, done, nothing = (
        dkfs("migrate", *more, "--json", "--store", old).messages for more in (["-n"], [], [])
    )

    assert planned == [{**told, **numbers, "damaged_rows": 0, "changed": True, "dry_run": True}]
    assert done == [{**told, **numbers, "damaged_rows": 0, "changed": True, "dry_run": False}]
    assert nothing == [{**told, "changed": False, "dry_run": False}]


def test_a_store_of_a_newer_dkfs_is_store_trouble(dkfs: Dkfs, old: Path) -> None:
    with lmdb.open(str(old / "index.lmdb"), subdir=False, max_dbs=8, lib_version=0) as env:
        with env.begin(write=True) as txn:
            txn.put(b"format", (3).to_bytes(4, "big"), db=env.open_db(b"meta", txn=txn))

    for words in (["migrate"], ["migrate", "-n"]):
        result = dkfs(*words, "--store", old)
        assert (result.status, result.out) == (4, "")
        assert "has format 3, this dkfs reads 1 and 2" in result.err


def test_a_store_that_is_being_recorded_into_is_store_trouble(dkfs: Dkfs, old: Path) -> None:
    with StoreLock(old):
        result = dkfs("migrate", "--store", old)

    assert result.status == 4
    assert "is in use by process" in result.err


def test_damage_is_taken_over_and_told(dkfs: Dkfs, old: Path) -> None:
    with lmdb.open(str(old / "index.lmdb"), subdir=False, max_dbs=8, lib_version=0) as env:
        with env.begin(write=True) as txn:
            txn.put(bytes(8), b"nonsense", db=env.open_db(b"tags", txn=txn))

    result = dkfs("migrate", "--store", old)

    assert result.status == 5
    assert "migrated store" in result.out
    assert "taken over as they are: 1 (dkfs check)" in result.err


@pytest.mark.parametrize(
    "words", [("forget", "-l", "1"), ("prune", "-l", "1"), ("prune", "-l", "1", "-n"), ("gc", "-n")]
)
def test_what_needs_the_migration_says_so(dkfs: Dkfs, old: Path, words: tuple[str, ...]) -> None:
    result = dkfs(*words, "--store", old)

    assert (result.status, result.out) == (4, "")
    assert result.err == (
        f"dkfs: store {old} has format 1: run `dkfs migrate --store {old}` first\n"
    )
