"""dkfs hold, release and tag on a store that nobody serves."""

from pathlib import Path

import pytest

from dkfs.store import Store
from tests.cli.conftest import Dkfs
from tests.history.model_history import ModelHistory


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """Make a store of 3 versions."""
    path = tmp_path / "store"
    with ModelHistory(path) as made:
        made.create(b"a", b"one")
        made.create(b"b", b"one")
    return path


def last(path: Path) -> int:
    with Store.open(path, writable=False) as store, store.read() as reader:
        return reader.last


def test_a_hold_keeps_its_version_until_it_is_released(dkfs: Dkfs, closed: Path) -> None:
    made = dkfs("hold", "release-7", "2", "--store", closed)  # 4
    dkfs("forget", "--keep-last", "1", "--store", closed)
    kept = dkfs("cat", "release-7:a", "--store", closed)
    released = dkfs("release", "release-7", "--store", closed)  # 5
    dkfs("forget", "--keep-last", "1", "--store", closed)

    assert made.lines == ["holding version 2 as release-7"]
    assert kept.status == 0
    assert released.lines == ["released release-7, version 2"]
    assert dkfs("ls", "2", "--store", closed).status == 3


def test_a_hold_is_listed_with_its_end_and_so_are_tags(dkfs: Dkfs, closed: Path) -> None:
    dkfs("hold", "for-ever", "2", "--store", closed)
    dkfs("hold", "for-a-while", "2", "--expires", "90d", "--store", closed)
    dkfs("tag", "mine", "3", "--store", closed)

    tags = dkfs("tag", "--store", closed).lines
    holds = dkfs("hold", "--store", closed).lines
    messages = dkfs("hold", "--list", "--json", "--store", closed).messages

    assert [line.split()[0] for line in tags] == ["for-a-while", "for-ever", "mine"]
    assert "hold until 20" in holds[0]
    assert holds[1].endswith("  hold")
    assert [(m["name"], m["version"], m["hold"]) for m in messages] == [
        ("for-a-while", 2, True),
        ("for-ever", 2, True),
    ]
    assert [("expires" in message) for message in messages] == [True, False]


def test_a_hold_that_has_expired_says_so_and_keeps_nothing(
    dkfs: Dkfs, closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dkfs("hold", "short", "2", "--expires", "1s", "--store", closed)
    monkeypatch.setattr("time.time_ns", lambda: 1 << 62)

    assert dkfs("hold", "--store", closed).lines[0].endswith(", expired")
    dkfs("forget", "--keep-last", "1", "--store", closed)
    assert dkfs("hold", "--store", closed).lines == []


def test_each_kind_is_removed_by_its_own_command(dkfs: Dkfs, closed: Path) -> None:
    dkfs("hold", "held", "2", "--store", closed)
    dkfs("tag", "mine", "2", "--store", closed)

    for dry_run in ((), ("-n",)):
        one = dkfs("tag", "--delete", "held", *dry_run, "--store", closed)
        other = dkfs("release", "mine", *dry_run, "--store", closed)
        assert (one.status, one.err) == (1, "dkfs: held is a hold: expected `dkfs release`\n")
        assert (other.status, other.err) == (
            1,
            "dkfs: mine is a tag: expected `dkfs tag --delete`\n",
        )
    assert (
        dkfs("release", "nothing", "--store", closed).err == "dkfs: hold nothing does not exist\n"
    )
    assert dkfs("tag", "-d", "nothing", "--store", closed).status == 3


def test_a_name_is_taken_once(dkfs: Dkfs, closed: Path) -> None:
    dkfs("hold", "held", "2", "--store", closed)

    for words in (("tag", "held"), ("hold", "held"), ("hold", "held", "-n")):
        result = dkfs(*words, "--store", closed)
        assert (result.status, result.err) == (
            1,
            "dkfs: hold held exists already, of version 2\n",
        )


def test_a_dry_run_makes_and_removes_nothing(dkfs: Dkfs, closed: Path) -> None:
    would = dkfs("hold", "held", "2", "-n", "--store", closed)
    dkfs("hold", "real", "2", "--store", closed)
    before = last(closed)

    assert would.lines == ["would hold version 2 as held"]
    assert dkfs("release", "real", "-n", "--store", closed).lines == [
        "would release real, version 2"
    ]
    assert last(closed) == before
    assert dkfs("hold", "--store", closed).lines[0].startswith("real ")


def test_a_forgotten_version_can_have_no_name(dkfs: Dkfs, closed: Path) -> None:
    dkfs("forget", "--keep-last", "1", "--store", closed)

    for command in ("tag", "hold"):
        result = dkfs(command, "name", "2", "--store", closed)
        assert (result.status, result.err) == (
            3,
            "dkfs: version 2 was forgotten: 3 is the oldest that is kept\n",
        )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--expires", "1d"), "hold: expected NAME"),
        (("name", "--list"), "hold: expected NAME"),
        (("name", "--expires", "soon"), "'soon' is not a length of time"),
        (("name", "--expires", "5000y"), "--expires 5000y: expected less"),
        (("latest",), "'latest' cannot be a tag"),
        (("10m",), "'10m' cannot be a tag"),
    ],
)
def test_what_is_no_hold_is_refused(
    dkfs: Dkfs, closed: Path, words: tuple[str, ...], said: str
) -> None:
    result = dkfs("hold", *words, "--store", closed)

    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"dkfs: {said}")


def test_completion_offers_tags_to_tag_and_holds_to_release(dkfs: Dkfs, closed: Path) -> None:
    dkfs("hold", "held", "2", "--store", closed)
    dkfs("tag", "mine", "2", "--store", closed)

    assert dkfs("__complete", "holds", "", "--store", closed).lines == ["held"]
    assert dkfs("__complete", "tags", "", "--store", closed).lines == ["mine"]
    assert dkfs("__complete", "versions", "", "--store", closed).lines == ["latest", "held", "mine"]


def test_options_may_stand_between_name_and_version(dkfs: Dkfs, closed: Path) -> None:
    result = dkfs("hold", "audit", "--expires", "1y", "2", "--store", closed)

    assert (result.status, result.out) == (0, "holding version 2 as audit\n")
    assert dkfs("hold", "more", "--expires", "1y", "2", "3", "--store", closed).status == 2
