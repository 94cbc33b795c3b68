"""Policies as people write them: the flags of `dkfs forget`, and the table [retention] of a configuration file.

    [retention]
    keep-last = 100
    keep-within-hourly = "7d"
    keep-daily = "all"
    keep-tag = ["v1", "v2"]
    min-age = "1h"

    [[retention.paths]]
    pattern = "cache/**"
    keep-within = "1d"

Keys may be written with "_" too, as the other settings are.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from dkfs.config.sources import read_table
from dkfs.config.values import Given
from dkfs.core.durations import Duration
from dkfs.core.durations import parse as parse_duration
from dkfs.core.patterns import Pattern
from dkfs.core.retention import UNLIMITED, PathRule, Period, Policy, Rules, parse_count
from dkfs.errors import UsageError

TABLE: Final = "retention"
COUNTS: Final = {f"keep_{period}": period for period in Period}
WITHINS: Final = {
    "keep_within" if period is Period.LAST else f"keep_within_{period}": period for period in Period
}
TAGS: Final = "keep_tag"
MIN_AGE: Final = "min_age"
KEYS: Final = (*COUNTS, *WITHINS, TAGS, MIN_AGE)
_PATHS: Final = "paths"
_PATTERN: Final = "pattern"

GivenKeys = Mapping[str, tuple[Given, ...]]  # by key; more than one for tags only


def policy_of(given: GivenKeys) -> Policy:
    """Return the policy that *given* says; raises UsageError. It may be empty."""
    counts = {period: _count(each) for period, each in _chosen(COUNTS, given)}
    within = {period: _duration(each) for period, each in _chosen(WITHINS, given)}
    ages = given.get(MIN_AGE)
    return Policy(
        counts=counts,
        within=within,
        tags=tuple(each.text for each in given.get(TAGS, ())),
        min_age=_duration(ages[-1]) if ages else None,
    )


def keys_in_file(file: Path) -> tuple[GivenKeys, tuple[PathRule, ...]]:
    """Return the keys of the table [retention] of *file* and its rules for paths; raises UsageError."""
    table = read_table(file).get(TABLE, {})
    if not isinstance(table, dict):
        raise UsageError(f"{TABLE} in {file}: expected a table")
    rest = dict(table)
    rules = rest.pop(_PATHS, [])
    if not isinstance(rules, list):
        raise UsageError(f"{TABLE}.{_PATHS} in {file}: expected tables, [[{TABLE}.{_PATHS}]]")
    paths = tuple(_path_rule(rule, f"{TABLE}.{_PATHS} in {file}") for rule in rules)
    return _keys(rest, f"{TABLE} in {file}"), paths


def rules_of(given: GivenKeys, paths: tuple[PathRule, ...]) -> Rules:
    """Return the rules of *given* and *paths*; where only paths have any, all versions are kept. Raises UsageError."""
    if paths and not given:
        return Rules(Policy({Period.LAST: UNLIMITED}), paths)
    return Rules(policy_of(given), paths)


def rules_in_file(file: Path) -> Rules | None:
    """Return what the table [retention] of *file* says, None if there is none; raises UsageError."""
    given, paths = keys_in_file(file)
    return rules_of(given, paths) if given or paths else None


def _path_rule(table: object, where: str) -> PathRule:
    if not isinstance(table, dict):
        raise UsageError(f"{where}: expected a table")
    rest = dict(table)
    pattern = rest.pop(_PATTERN, None)
    if not isinstance(pattern, str):
        raise UsageError(f"{where}: expected a text as {_PATTERN}")
    where = f"{where} ({pattern})"
    policy = policy_of(_keys(rest, where))
    if policy.is_empty:
        raise UsageError(f"{where}: the policy keeps nothing, expected keep-last, keep-within, ...")
    try:
        return PathRule(Pattern(pattern.encode()), policy)
    except UsageError as exc:
        raise UsageError(f"{where}: {exc}") from None


def _keys(table: Mapping[str, object], where: str) -> GivenKeys:
    found: dict[str, tuple[Given, ...]] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in KEYS:
            shown = ", ".join(each.replace("_", "-") for each in KEYS)
            raise UsageError(f"{key} of {where}: no such key, expected one of {shown}")
        values = value if name == TAGS and isinstance(value, list) else [value]
        found[name] = tuple(_texts(values, f"{key} of {where}"))
    return found


def _texts(values: Iterable[object], where: str) -> Iterable[Given]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise UsageError(f"{where}: expected a text or a whole number")
        yield Given(str(value), where)


def _chosen(keys: Mapping[str, Period], given: GivenKeys) -> Iterable[tuple[Period, Given]]:
    for key, period in keys.items():
        if given.get(key):
            yield period, given[key][-1]


def _count(given: Given) -> int:
    try:
        return parse_count(given.text)
    except UsageError as exc:
        raise UsageError(f"{given.where}: {exc}") from None


def _duration(given: Given) -> Duration:
    try:
        return parse_duration(given.text)
    except UsageError as exc:
        raise UsageError(f"{given.where}: {exc}") from None
