"""dkfs gc and dkfs prune on a store that is not mounted."""

from pathlib import Path

import pytest

from dkfs.store import Store
from dkfs.store.check import check
from tests.cli.conftest import Dkfs
from tests.store.collecting import SEGMENT_LIMIT, expect, fill, lose, segment_bytes


@pytest.fixture
def lean(tmp_path: Path) -> Path:
    """Make a store of 500 versions of four files, the first 300 forgotten."""
    path = tmp_path / "lean"
    Store.create(path)
    with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as store:
        fill(store, range(1, 501))
        lose(store, 1, 300)
    return path


def size(path: Path) -> int:
    return segment_bytes(path) + (path / "index.lmdb").stat().st_size


def sound(path: Path) -> bool:
    with Store.open(path, writable=True) as store:
        return not list(check(store, read_data=True))


def test_a_dry_run_says_what_comes_back_and_changes_nothing(dkfs: Dkfs, lean: Path) -> None:
    before = size(lean)

    told = dkfs("gc", "-n", "--json", "--store", lean)
    said = told.messages[0]["bytes"]
    assert size(lean) == before

    done = dkfs("gc", "--json", "--store", lean)
    back = before - size(lean)
    assert (told.status, done.status) == (0, 0)
    assert isinstance(said, int)
    assert abs(back - said) < said * 0.1
    assert done.messages[0]["freed"] == pytest.approx(back, rel=0.01)
    assert done.messages[0]["dead_blobs"] == 297
    assert sound(lean)


def test_people_are_told_in_words(dkfs: Dkfs, lean: Path) -> None:
    told = dkfs("gc", "-n", "--store", lean)
    done = dkfs("gc", "--store", lean)
    again = dkfs("gc", "--store", lean)

    assert told.lines[0] == "297 of 500 blobs are of no use"
    assert told.lines[1].endswith("would come back to the disk")
    assert done.out.startswith("removed 297 blobs, ")
    assert again.out == "removed 0 blobs, 0 B came back to the disk\n"


def test_repacking_keeps_every_version(dkfs: Dkfs, lean: Path) -> None:
    assert dkfs("gc", "--repack", "--throttle", "100M", "--store", lean).status == 0

    with Store.open(lean, writable=False) as store:
        expect(store, range(301, 501))
    assert sound(lean)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max-unused", "101"), "--max-unused: '101', expected a percentage from 0 to 100"),
        (("--max-unused", "some"), "--max-unused: 'some', expected a percentage from 0 to 100"),
        (("--throttle", "1M"), "--throttle: expected --repack, and a size above 0 for each second"),
        (("--repack", "--throttle", "0"), "--throttle: expected --repack, and a size above 0"),
    ],
)
def test_nonsense_is_refused(dkfs: Dkfs, lean: Path, words: tuple[str, ...], message: str) -> None:
    before = size(lean)

    outcome = dkfs("gc", *words, "--store", lean)

    assert outcome.status == 2
    assert message in outcome.err
    assert size(lean) == before


def test_prune_forgets_and_collects(dkfs: Dkfs, lean: Path) -> None:
    before = size(lean)

    outcome = dkfs("prune", "--keep-last", "50", "--store", lean)

    assert outcome.status == 0
    assert "forgot 150 versions" in outcome.out
    assert "came back to the disk" in outcome.out
    assert before - size(lean) > 400 * 2000
    with Store.open(lean, writable=False) as store:
        expect(store, range(451, 501))
    assert sound(lean)


def test_prune_without_flags_takes_the_policy_of_the_file(
    dkfs: Dkfs, lean: Path, tmp_path: Path
) -> None:
    config = tmp_path / "dkfs.toml"
    config.write_text("[retention]\nkeep-last = 10\n")

    assert dkfs("prune", "--store", lean).status == 2
    assert dkfs("prune", "--config", config, "--store", lean).status == 0

    with Store.open(lean, writable=False) as store, store.read() as reader:
        assert reader.count("log") == 10


def test_a_store_that_is_in_use_is_not_collected(dkfs: Dkfs, lean: Path) -> None:
    holder = Store.open(lean, writable=True)
    try:
        outcome = dkfs("gc", "--store", lean)
    finally:
        holder.close()

    assert outcome.status == 4
    assert "is in use by process" in outcome.err


def test_prune_without_a_policy_names_its_own_ways_to_say_one(dkfs: Dkfs, lean: Path) -> None:
    result = dkfs("prune", "--store", lean)

    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("dkfs: no policy, nothing is forgotten: expected --keep-last")
    assert "--config" in result.err


def test_prune_says_what_comes_back_also_if_nothing_is_forgotten(dkfs: Dkfs, lean: Path) -> None:
    assert dkfs("forget", "--keep-last", "50", "--store", lean).status == 0

    (first, second) = dkfs("prune", "--keep-last", "50", "-n", "--store", lean).lines

    assert first == "nothing to forget: all 50 versions are kept"
    assert second.endswith(" of no use already would come back to the disk")
    assert not second.startswith("0 B")


def test_prune_does_not_advise_what_it_does_itself(dkfs: Dkfs, lean: Path) -> None:
    first = dkfs("prune", "--keep-last", "50", "-n", "--store", lean).lines[0]

    assert first.endswith(" come back to the disk")
