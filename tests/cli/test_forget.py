"""dkfs forget, on a store that nobody serves and through a daemon."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.store import Store
from dkfs.store.check import check
from tests.cli.conftest import Dkfs
from tests.history.model_history import ModelHistory

POLICY = """
[retention]
keep-last = 3

[[retention.paths]]
pattern = "cache/**"
keep-last = 1
"""


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """Make a store of 10 versions, one second apart; it is checked when the test is over."""
    path = tmp_path / "store"
    with ModelHistory(path) as made:
        made.mkdir(b"cache")  # 2
        made.create(b"cache/a", b"one")  # 3
        made.create(b"b", b"one" * 10_000)  # 4
        made.write(b"b", b"two" * 10_000)  # 5
        made.write(b"b", b"three")  # 6
        made.write(b"cache/a", b"two")  # 7
        made.write(b"cache/a", b"three")  # 8
        made.write(b"cache/a", b"four")  # 9
        made.chmod(b"b", 0o600)  # 10
    yield path
    with Store.open(path, writable=True) as store:
        assert list(check(store, read_data=True)) == []


def left(path: Path) -> list[int]:
    with Store.open(path, writable=False) as store, store.read() as reader:
        return [seq for seq, _ in reader.versions()]


def test_what_the_policy_does_not_keep_is_forgotten_and_first_said(
    dkfs: Dkfs, closed: Path
) -> None:
    result = dkfs("forget", "--keep-last", "2", "--store", closed)

    first, second = result.lines
    assert first == (
        "forgetting 8 of 10 versions; next to nothing comes back to the disk with `dkfs gc`"
    )
    assert second.startswith("forgot 8 versions in ")
    assert left(closed) == [9, 10]
    assert dkfs("cat", "5:b", "--store", closed).err == (
        "dkfs: version 5 was forgotten: 9 is the oldest that is kept\n"
    )


def test_a_dry_run_says_the_same_and_changes_nothing(dkfs: Dkfs, closed: Path) -> None:
    result = dkfs("forget", "-l", "2", "-n", "--store", closed)

    assert (result.status, len(result.lines)) == (0, 1)
    assert result.lines[0].startswith("would forget 8 of 10 versions; ")
    assert left(closed) == [*range(1, 11)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no policy, nothing is forgotten: expected --keep-last, --keep-daily, "),
        (("--min-age", "1d"), "no policy, nothing is forgotten"),
        (("--keep-last", "0"), "no policy, nothing is forgotten"),
        (("--keep-last", "some"), "--keep-last: 'some' is not a number of versions"),
        (("--keep-within", "5"), "--keep-within: '5' is not a length of time"),
        (("--policy",), "--policy: expected --config FILE, or DKFS_CONFIG"),
        (("--keep-tag", "nmae"), "no version is tagged nmae: the policy keeps nothing"),
        (("--keep-last", "1", "extra"), "unrecognized arguments: extra"),
    ],
)
def test_an_empty_or_wrong_policy_changes_nothing(
    dkfs: Dkfs, closed: Path, words: tuple[str, ...], said: str
) -> None:
    result = dkfs("forget", *words, "--store", closed)

    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"dkfs: {said}")
    assert left(closed) == [*range(1, 11)]


def test_where_all_is_kept_there_is_nothing_to_forget(dkfs: Dkfs, closed: Path) -> None:
    result = dkfs("forget", "--keep-last", "-1", "--store", closed)

    assert result.lines == ["nothing to forget: all 10 versions are kept"]


def test_explain_says_why_each_version_is_kept(dkfs: Dkfs, closed: Path) -> None:
    dkfs("hold", "release-7", "6", "--store", closed)  # 11
    result = dkfs("forget", "--keep-last", "1", "--explain", "-n", "--store", closed)

    newest, *rest = result.lines
    assert newest.startswith("11  20")
    assert newest.endswith("  keep    newest, last 1")
    assert rest[:3] == [
        "10  2023-11-14T22:13:30.000+00:00  forget  and all down to 7: 4 versions",
        " 6  2023-11-14T22:13:26.000+00:00  keep    hold release-7",
        " 5  2023-11-14T22:13:25.000+00:00  forget  and all down to 1: 5 versions",
    ]


def test_explain_as_json_has_a_line_for_every_version(dkfs: Dkfs, closed: Path) -> None:
    *versions, plan, summary = dkfs(
        "forget", "--keep-last", "9", "--explain", "--json", "--store", closed
    ).messages

    assert [message["version"] for message in versions] == [*range(10, 0, -1)]
    assert versions[0] == {
        "message_type": "version",
        "version": 10,
        "time": "2023-11-14T22:13:30.000000000Z",
        "time_ns": 1_700_000_010_000_000_000,
        "kept": True,
        "reasons": ["newest", "last 1"],
    }
    assert (versions[-1]["kept"], versions[-1]["reasons"]) == (False, [])
    assert plan["bytes"] == 0 or isinstance(plan["bytes"], int)
    assert {key: plan[key] for key in ("versions", "kept", "forgotten", "contents", "tags")} == {
        "versions": 10,
        "kept": 9,
        "forgotten": 1,
        "contents": 0,
        "tags": [],
    }
    assert (summary["message_type"], summary["versions"], summary["stayed"]) == ("summary", 1, 0)


def test_tags_of_what_is_forgotten_are_named_and_go(dkfs: Dkfs, closed: Path) -> None:
    dkfs("tag", "mine", "3", "--store", closed)  # 11
    dkfs("tag", "other", "4", "--store", closed)  # 12

    result = dkfs("forget", "--keep-last", "1", "--keep-tag", "mine", "--store", closed)

    assert result.lines[1] == "tags that go with their versions: other"
    assert left(closed) == [3, 12]
    (line,) = dkfs("tag", "--store", closed).lines
    assert line.split()[:2] == ["mine", "3"]


def test_min_age_keeps_what_is_young_whatever_the_rules_say(dkfs: Dkfs, closed: Path) -> None:
    dkfs("tag", "one", "--store", closed)  # 11, of this moment
    dkfs("tag", "too", "--store", closed)  # 12

    dkfs("forget", "--keep-last", "1", "--min-age", "1h", "--store", closed)

    assert left(closed) == [11, 12]


def test_the_policy_of_a_file_is_for_versions_and_for_contents_of_paths(
    dkfs: Dkfs, closed: Path, tmp_path: Path
) -> None:
    config = tmp_path / "dkfs.toml"
    config.write_text(POLICY)

    result = dkfs("forget", "--policy", "--config", config, "--store", closed)

    assert result.lines[0].startswith("forgetting 7 of 10 versions and the contents of 1 state; ")
    assert result.lines[1].startswith("forgot 7 versions and the contents of 1 state in ")
    assert left(closed) == [8, 9, 10]
    assert dkfs("cat", "10:cache/a", "--store", closed).status == 0
    gone = dkfs("cat", "8:cache/a", "--store", closed)
    assert (gone.status, "were forgotten" in gone.err) == (3, True)
    assert dkfs("ls", "8:cache", "--store", closed).status == 0
    again = dkfs("forget", "--policy", "--config", config, "--store", closed)
    assert again.lines == ["nothing to forget: all 3 versions are kept"]


def test_the_files_that_lose_their_contents_are_named_with_their_versions(
    dkfs: Dkfs, closed: Path, tmp_path: Path
) -> None:
    config = tmp_path / "dkfs.toml"
    config.write_text(POLICY)
    words = ("forget", "--policy", "--config", config, "--explain", "-n", "--store", closed)

    said = dkfs(*words).lines
    told = [message for message in dkfs(*words, "--json").messages if "path" in message]

    assert [line for line in said if line.startswith("forget the contents")] == [
        "forget the contents of cache/a at version 8"
    ]
    assert told == [
        {"message_type": "contents", "path": "cache/a", "first": 8, "last": 8, "kept": False}
    ]


def test_flags_come_before_the_policy_of_the_file(
    dkfs: Dkfs, closed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "dkfs.toml"
    config.write_text(POLICY)
    monkeypatch.setenv("DKFS_CONFIG", str(config))

    dkfs("forget", "--policy", "--keep-last", "5", "--store", closed)

    assert left(closed) == [6, 7, 8, 9, 10]


def test_rules_for_paths_alone_keep_every_version(dkfs: Dkfs, closed: Path, tmp_path: Path) -> None:
    config = tmp_path / "dkfs.toml"
    config.write_text('[[retention.paths]]\npattern = "cache"\nkeep-last = 2\n')

    dkfs("forget", "--policy", "--config", config, "--store", closed)

    assert left(closed) == [*range(1, 11)]
    shown = [
        line for line in dkfs("history", "cache/a", "--store", closed).lines if "contents" in line
    ]
    assert shown
    assert all(line.endswith("contents forgotten") for line in shown)
    assert dkfs("cat", "7:cache/a", "--store", closed).status == 3
    assert dkfs("cat", "9:cache/a", "--store", closed).status == 0


def test_a_store_that_somebody_writes_to_is_named(
    dkfs: Dkfs, history: ModelHistory, store: Path
) -> None:
    result = dkfs("forget", "--keep-last", "2", "--store", store)

    assert result.status == 4
    assert str(store) in result.err


def test_days_are_those_of_the_local_zone(
    dkfs: Dkfs, closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")  # 14 hours ahead
    import time  # noqa: PLC0415 - the zone is for this test only

    time.tzset()
    try:
        result = dkfs("forget", "--keep-daily", "1", "--explain", "-n", "--store", closed)
    finally:
        monkeypatch.setenv("TZ", "UTC")
        time.tzset()

    assert "daily 2023-11-15" in result.lines[0]
