"""Policies in a configuration file, and as flags give them."""

from pathlib import Path

import pytest

import dkfs
from dkfs.config.retention import policy_of, rules_in_file
from dkfs.config.sources import from_file
from dkfs.config.values import Given
from dkfs.core.durations import parse
from dkfs.core.retention import UNLIMITED, Period, Policy
from dkfs.errors import UsageError

FILE = """
store = "/deltas/db"

[retention]
keep-last = 100
keep_hourly = "all"
keep-within = "2h"
keep-within-daily = "1m"
keep-tag = ["v1", "v2"]
min-age = "30min"

[[retention.paths]]
pattern = "cache/**"
keep-within = "1d"

[[retention.paths]]
pattern = "*.log"
keep-daily = 7
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "dkfs.toml"
    path.write_text(FILE)
    return path


def test_the_table_of_a_file_says_a_policy_and_one_for_some_paths(file: Path) -> None:
    rules = rules_in_file(file)

    assert rules is not None
    assert rules.policy == Policy(
        {Period.LAST: 100, Period.HOURLY: UNLIMITED},
        {Period.LAST: parse("2h"), Period.DAILY: parse("1m")},
        ("v1", "v2"),
        parse("30min"),
    )
    caches, logs = rules.paths
    assert caches.policy == Policy(within={Period.LAST: parse("1d")})
    assert [caches.matches(path) for path in (b"cache/a", b"src/cache/a/b", b"cached")] == [
        True,
        True,
        False,
    ]
    assert logs.matches(b"var/x.log/rotated")


def test_the_settings_beside_the_table_are_read_as_ever(file: Path) -> None:
    assert from_file(file) == {"store": Given("/deltas/db", f"store in {file}")}


def test_a_file_without_the_table_has_no_rules(tmp_path: Path) -> None:
    path = tmp_path / "dkfs.toml"
    path.write_text('store = "/deltas/db"\n')

    assert rules_in_file(path) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[retention]\nkeep-forever = 1", "keep-forever of retention in {}: no such key, expected"),
        ("[retention]\nkeep-last = true", "keep-last of retention in {}: expected a text or a"),
        ("[retention]\nkeep-last = 1.5", "keep-last of retention in {}: expected a text or a"),
        ("[retention]\nkeep-last = 'x'", "keep-last of retention in {}: 'x' is not a number"),
        ("[retention]\nmin-age = '3'", "min-age of retention in {}: '3' is not a length of time"),
        ("retention = 1", "retention in {}: expected a table"),
        ("[retention]\npaths = 1", "retention.paths in {}: expected tables"),
        ("[retention]\npaths = [1]", "retention.paths in {}: expected a table"),
        ("[[retention.paths]]\nkeep-last = 1", "retention.paths in {}: expected a text as pattern"),
        (
            "[[retention.paths]]\npattern = 'a'",
            "retention.paths in {} (a): the policy keeps nothing",
        ),
        (
            "[[retention.paths]]\npattern = '..'\nkeep-last = 1",
            "retention.paths in {} (..): pattern '..' names no path",
        ),
        ("[retention", "configuration file {} is not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "dkfs.toml"
    path.write_text(text)

    with pytest.raises(UsageError) as raised:
        rules_in_file(path)

    assert str(raised.value).startswith(message.format(path))


def test_a_table_of_another_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dkfs.toml"
    path.write_text("[retention]\nkeep-last = 1\n[other]\nx = 1\n")

    with pytest.raises(UsageError, match=r"other in .*: no such setting"):
        from_file(path)


def test_flags_say_where_they_are_wrong() -> None:
    with pytest.raises(UsageError, match="--keep-daily: 'some' is not a number of versions"):
        policy_of({"keep_daily": (Given("some", "--keep-daily"),)})


def test_the_last_of_equal_flags_counts_but_all_tags() -> None:
    flags = {
        "keep_last": (Given("1", "--keep-last"), Given("2", "--keep-last")),
        "keep_tag": (Given("a", "--keep-tag"), Given("b", "--keep-tag")),
    }

    assert policy_of(flags) == Policy({Period.LAST: 2}, tags=("a", "b"))


def test_the_example_of_the_documentation_is_a_policy(tmp_path: Path) -> None:
    page = (Path(dkfs.__file__).parent / "docs" / "retention.md").read_text()
    _, _, after = page.partition("    [retention]\n")
    block = "    [retention]\n" + after.partition("\n\nA rule for paths")[0]
    path = tmp_path / "dkfs.toml"
    path.write_text(block.replace("\n    ", "\n").removeprefix("    "))

    rules = rules_in_file(path)

    assert rules is not None
    assert str(rules.policy) == "daily 14, monthly all, within 2d, min age 1h"
    assert [str(rule.policy) for rule in rules.paths] == ["within 1d"]
