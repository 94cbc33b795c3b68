"""Which versions a policy keeps, and why.  Pure.

The rules are restic's: versions are looked at from the newest to the oldest, and a version is kept if any rule wants it.

    last N               the N newest versions
    hourly N, daily N …  the newest version of each of the N newest hours, days, ... that have one; while such a rule
                         has not found all it wants, the oldest version of all is kept too
    within D             everything that is younger than D; hourly within D: the newest of each hour of these, ...
    tags                 what has one of these tags
    min age              nothing is forgotten that is younger, by the clock

"Within" counts from the newest version, as in restic, so that a directory at rest loses nothing by resting.  "Min age"
counts from now.  Holds keep whatever the rules say, and the newest version is always kept.  Hours and days are those of
the zone that is given.
"""

import datetime
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from dkfs.core.durations import EPOCH_DAY, NS_PER_S, Duration, Zone, utc
from dkfs.core.patterns import Pattern
from dkfs.errors import UsageError
from dkfs.model.ids import Seq

UNLIMITED: Final = -1
_SLOT_S: Final = (
    900  # zones change at whole quarters of an hour, so within one all labels are the same
)
_UNLIMITED_WORDS: Final = frozenset(("-1", "all", "unlimited"))
_DIGITS_MOST: Final = 18


class Period(StrEnum):
    """What one version of each is kept of; LAST: each version for itself."""

    LAST = "last"
    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    YEARLY = "yearly"


class Version(NamedTuple):
    """What there is to know of one version."""

    seq: Seq
    time_ns: int
    tags: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()  # those that have not expired


class Decision(NamedTuple):
    """What is to become of one version."""

    seq: Seq
    time_ns: int
    reasons: tuple[str, ...]  # why it is kept; none: it is to be forgotten

    @property
    def is_kept(self) -> bool:
        """Whether anything keeps it."""
        return bool(self.reasons)


@dataclass(frozen=True, slots=True)
class Policy:
    """What is to be kept."""

    counts: Mapping[Period, int] = field(default_factory=dict)  # how many; UNLIMITED: all
    within: Mapping[Period, Duration] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    min_age: Duration | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no rule says what to keep; a min age alone does not."""
        return not (any(self.counts.values()) or self.within or self.tags)

    @property
    def is_of_tags(self) -> bool:
        """Whether tags are all that says what to keep."""
        return bool(self.tags) and not (any(self.counts.values()) or self.within)

    def __str__(self) -> str:
        rules = [
            f"{period} {'all' if count == UNLIMITED else count}"
            for period, count in self.counts.items()
            if count
        ]
        for period, duration in self.within.items():
            rules.append(f"{_within(period)} {duration}")
        rules += [f"tag {tag}" for tag in self.tags]
        if self.min_age is not None:
            rules.append(f"min age {self.min_age}")
        return ", ".join(rules) or "nothing"


@dataclass(frozen=True, slots=True)
class PathRule:
    """A policy for the contents of some files, narrower than that for versions."""

    pattern: Pattern
    policy: Policy

    def matches(self, path: bytes) -> bool:
        """Return whether *path*, or a directory above it, is meant."""
        names = path.split(b"/")
        return any(self.pattern.matches(b"/".join(names[:end])) for end in range(len(names), 0, -1))


@dataclass(frozen=True, slots=True)
class Rules:
    """All that says what is kept."""

    policy: Policy
    paths: tuple[PathRule, ...] = ()  # the first whose pattern matches decides


def parse_count(text: str) -> int:
    """Return how many *text* says: a number, or UNLIMITED for -1, all and unlimited; raises UsageError."""
    if text in _UNLIMITED_WORDS:
        return UNLIMITED
    if text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MOST:
        return int(text)
    raise UsageError(f"{text!r} is not a number of versions: expected 0, 1, 2, ... or all")


def apply(
    policy: Policy, versions: Iterable[Version], *, now_ns: int, zone: Zone = utc
) -> Iterator[Decision]:
    """Return what becomes of each of *versions*, which come newest first, in their order.

    Lazily and in bounded memory.  Raises UsageError if the policy is empty.
    """
    if policy.is_empty:
        raise UsageError(
            "the policy keeps nothing: expected at least one of last, hourly, daily, weekly, monthly,"
            " yearly, within or tag"
        )
    return _decisions(policy, versions, now_ns, zone)


def _decisions(
    policy: Policy, versions: Iterable[Version], now_ns: int, zone: Zone
) -> Iterator[Decision]:
    coming = iter(versions)
    version = next(coming, None)
    if version is None:
        return
    labels = _Labels(zone)
    rules = _rules(policy, labels, version.time_ns, zone)
    tags = frozenset(policy.tags)
    young_ns = None if policy.min_age is None else policy.min_age.before(now_ns, zone)
    first: tuple[str, ...] = ("newest",)
    while version is not None:
        following = next(coming, None)
        reasons = [*first]
        for rule in rules:
            reason = rule.reason(version.time_ns, is_oldest=following is None)
            if reason is not None:
                reasons.append(reason)
        if version.tags:
            reasons += [f"tag {tag}" for tag in version.tags if tag in tags]
        if version.holds:
            reasons += [f"hold {hold}" for hold in version.holds]
        if young_ns is not None and version.time_ns > young_ns:
            reasons.append("younger than min age")
        yield Decision(version.seq, version.time_ns, tuple(reasons))
        first = ()
        version = following


class _Labels:
    """The names of the hour, day, ... that a time lies in; cheap for times in order."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._slot: int | None = None
        self._labels: dict[Period, str] = {}

    def get(self, period: Period, time_ns: int) -> str:
        """Return the name of the *period* of *time_ns*."""
        seconds = time_ns // NS_PER_S
        slot = seconds // _SLOT_S
        if slot != self._slot:
            self._slot = slot
            self._labels = _labels(seconds + self._zone(seconds))
        return self._labels[period]


def _labels(local_s: int) -> dict[Period, str]:
    day, clock = divmod(local_s, 86_400)
    date = datetime.date.fromordinal(day + EPOCH_DAY)
    week = date.isocalendar()
    return {
        Period.HOURLY: f"{date.isoformat()}T{clock // 3600:02}",
        Period.DAILY: date.isoformat(),
        Period.WEEKLY: f"{week.year:04}-W{week.week:02}",
        Period.MONTHLY: f"{date.year:04}-{date.month:02}",
        Period.YEARLY: f"{date.year:04}",
    }


class _Count:
    """The rule that keeps the newest of so many periods."""

    def __init__(self, period: Period, count: int, labels: _Labels) -> None:
        self._period = period
        self._left = count
        self._labels = labels
        self._last = ""
        self._found = 0

    def reason(self, time_ns: int, *, is_oldest: bool) -> str | None:
        """Return why the version is kept; None if this rule does not keep it."""
        if not self._left:
            return None
        oldest = ""
        if self._period is Period.LAST:
            self._found += 1
            label = str(self._found)
        else:
            label = self._labels.get(self._period, time_ns)
            if label == self._last:
                if not is_oldest:
                    return None
                oldest = "oldest "
            self._last = label
        self._left -= self._left > 0
        return f"{oldest}{self._period} {label}"


class _Within:
    """The rule that keeps everything of some time, or the newest of each period of it."""

    def __init__(self, period: Period, after_ns: int, text: str, labels: _Labels) -> None:
        self._period = period
        self._after_ns = after_ns
        self._text = text
        self._labels = labels
        self._last = ""

    def reason(self, time_ns: int, *, is_oldest: bool) -> str | None:
        """Return why the version is kept; None if this rule does not keep it."""
        if time_ns <= self._after_ns:
            return None
        if self._period is Period.LAST:
            return self._text
        label = self._labels.get(self._period, time_ns)
        if label == self._last and not is_oldest:
            return None
        self._last = label
        return f"{self._period} {label} {self._text}"


def _rules(
    policy: Policy, labels: _Labels, newest_ns: int, zone: Zone
) -> tuple[_Count | _Within, ...]:
    rules: list[_Count | _Within] = [
        _Count(period, count, labels) for period, count in policy.counts.items() if count
    ]
    for period, duration in policy.within.items():
        after_ns = duration.before(newest_ns, zone)
        rules.append(_Within(period, after_ns, f"within {duration}", labels))
    return tuple(rules)


def _within(period: Period) -> str:
    return "within" if period is Period.LAST else f"{period} within"
