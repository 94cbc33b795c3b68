"""Which versions a policy keeps: examples, the plainest model, and a year of work."""

import datetime
import random
import time
from collections.abc import Sequence
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.durations import NS_PER_S, Duration, parse
from dkfs.core.retention import (
    UNLIMITED,
    Decision,
    Period,
    Policy,
    Version,
    apply,
    parse_count,
)
from dkfs.errors import UsageError
from dkfs.model.ids import Seq

NOW = datetime.datetime(2026, 11, 22, 10, 14, 3, tzinfo=datetime.UTC)
HOUR_NS = 3600 * NS_PER_S
FORMATS = {
    Period.HOURLY: "%Y-%m-%dT%H",
    Period.DAILY: "%Y-%m-%d",
    Period.WEEKLY: "%G-W%V",
    Period.MONTHLY: "%Y-%m",
    Period.YEARLY: "%Y",
}


def ns(moment: datetime.datetime) -> int:
    return int(moment.timestamp()) * NS_PER_S


def every(step_ns: int, count: int) -> list[Version]:
    """Return *count* versions, the newest of now first."""
    return [Version(Seq(count - i), ns(NOW) - i * step_ns) for i in range(count)]


def kept(policy: Policy, versions: Sequence[Version]) -> dict[int, tuple[str, ...]]:
    decisions = list(apply(policy, versions, now_ns=ns(NOW)))
    assert [decision.seq for decision in decisions] == [version.seq for version in versions]
    return {decision.seq: decision.reasons for decision in decisions if decision.is_kept}


def test_last_keeps_the_newest_and_numbers_them() -> None:
    assert kept(Policy({Period.LAST: 3}), every(HOUR_NS, 5)) == {
        5: ("newest", "last 1"),
        4: ("last 2",),
        3: ("last 3",),
    }


def test_daily_keeps_the_newest_of_each_day_and_the_oldest_while_days_are_wanted() -> None:
    versions = every(8 * HOUR_NS, 6)  # 10:14, 02:14, 18:14 the day before, 10:14, 02:14, 18:14

    assert kept(Policy({Period.DAILY: 2}), versions) == {
        6: ("newest", "daily 2026-11-22"),
        4: ("daily 2026-11-21",),
    }
    assert kept(Policy({Period.DAILY: 9}), versions[:5]) == {
        6: ("newest", "daily 2026-11-22"),
        4: ("daily 2026-11-21",),
        2: ("oldest daily 2026-11-21",),
    }


def test_within_counts_from_the_newest_version_and_not_from_now() -> None:
    versions = [Version(v.seq, v.time_ns - 1000 * HOUR_NS) for v in every(HOUR_NS, 5)]

    assert kept(Policy(within={Period.LAST: parse("2h")}), versions) == {
        5: ("newest", "within 2h"),
        4: ("within 2h",),
    }


def test_hourly_within_keeps_one_of_each_hour_of_that_time() -> None:
    versions = every(HOUR_NS // 2, 8)

    assert kept(Policy(within={Period.HOURLY: parse("2h")}), versions) == {
        8: ("newest", "hourly 2026-11-22T10 within 2h"),
        7: ("hourly 2026-11-22T09 within 2h",),
        5: ("hourly 2026-11-22T08 within 2h",),
    }


def test_tags_and_holds_keep_and_say_so() -> None:
    newest, *rest = every(HOUR_NS, 5)
    versions = [
        newest,
        rest[0]._replace(tags=("other",)),
        rest[1]._replace(tags=("v1", "v2")),
        rest[2]._replace(tags=("release-7",), holds=("release-7",)),
        rest[3],
    ]

    assert kept(Policy(tags=("v1", "v9")), versions) == {
        5: ("newest",),
        3: ("tag v1",),
        2: ("hold release-7",),
    }


def test_nothing_younger_than_the_min_age_is_forgotten() -> None:
    policy = Policy({Period.LAST: 1}, min_age=parse("2h"))

    assert kept(policy, every(HOUR_NS, 5)) == {
        5: ("newest", "last 1", "younger than min age"),
        4: ("younger than min age",),
    }


def test_the_newest_is_kept_whatever_the_policy() -> None:
    assert kept(Policy(tags=("nowhere",)), every(HOUR_NS, 3)) == {3: ("newest",)}


def test_days_are_those_of_the_zone() -> None:
    zone = ZoneInfo("Pacific/Auckland")

    def offset(seconds: int) -> int:
        delta = datetime.datetime.fromtimestamp(seconds, zone).utcoffset()
        assert delta is not None
        return int(delta.total_seconds())

    versions = every(HOUR_NS, 3)  # 23:14, 22:14, 21:14 there
    (first, *_) = apply(Policy({Period.HOURLY: 1}), versions, now_ns=ns(NOW), zone=offset)

    assert first.reasons == ("newest", "hourly 2026-11-22T23")


@pytest.mark.parametrize(
    "policy", [Policy(), Policy({Period.DAILY: 0, Period.LAST: 0}), Policy(min_age=parse("1d"))]
)
def test_a_policy_that_says_nothing_is_refused_before_anything_is_read(policy: Policy) -> None:
    def never() -> Version:
        raise AssertionError("read")

    with pytest.raises(UsageError, match="the policy keeps nothing"):
        apply(policy, iter(never, None), now_ns=0)


def test_without_versions_there_is_nothing_to_decide() -> None:
    assert list(apply(Policy({Period.LAST: 1}), (), now_ns=0)) == []


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("17", 17), ("-1", -1), ("all", -1), ("unlimited", -1)]
)
def test_a_number_of_versions_is_read(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "-2", "many", "1.5", "9" * 19, "²"])
def test_what_is_no_number_of_versions_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a number of versions"):
        parse_count(text)


def test_a_policy_is_shown_as_it_would_be_said() -> None:
    policy = Policy(
        {Period.LAST: 10, Period.DAILY: UNLIMITED, Period.WEEKLY: 0},
        {Period.LAST: parse("120min"), Period.YEARLY: parse("18m")},
        ("v1",),
        parse("1d"),
    )

    assert str(policy) == ("last 10, daily all, within 2h, yearly within 1y6m, tag v1, min age 1d")
    assert str(Policy()) == "nothing"


# ---- against the plainest model


def model(policy: Policy, versions: list[Version]) -> set[int]:
    """Return what is kept, each rule by itself over all versions, sorted and grouped anew."""
    found: set[int] = {versions[0].seq}
    for version in versions:
        if set(version.tags) & set(policy.tags) or version.holds:
            found.add(version.seq)
        if policy.min_age and version.time_ns > policy.min_age.before(ns(NOW)):
            found.add(version.seq)
    for period, count in policy.counts.items():
        firsts = newest_of_each(period, versions)
        most = len(firsts) if count == UNLIMITED else count
        found.update(firsts[:most])
        if count == UNLIMITED or count > len(firsts):
            found.add(versions[-1].seq)
    for period, duration in policy.within.items():
        after = duration.before(versions[0].time_ns)
        young = [version for version in versions if version.time_ns > after]
        found.update(newest_of_each(period, young))
        if len(young) == len(versions):
            found.add(versions[-1].seq)
    return found


def newest_of_each(period: Period, versions: list[Version]) -> list[int]:
    if period is Period.LAST:
        return [version.seq for version in versions]
    groups: dict[str, list[int]] = {}
    for version in versions:
        moment = datetime.datetime.fromtimestamp(version.time_ns // NS_PER_S, datetime.UTC)
        groups.setdefault(moment.strftime(FORMATS[period]), []).append(version.seq)
    return [max(group) for group in groups.values()]


policies = st.builds(
    Policy,
    st.dictionaries(st.sampled_from(Period), st.integers(-1, 6)),
    st.dictionaries(
        st.sampled_from(Period),
        st.builds(Duration, st.integers(0, 14), st.integers(0, 40), st.integers(1, 90_000)),
    ),
    st.sampled_from(((), ("a",), ("a", "b"))),
    st.none() | st.builds(Duration, st.just(0), st.integers(0, 40), st.integers(1, 90_000)),
).filter(lambda policy: not policy.is_empty)
gaps = st.lists(
    st.sampled_from((0, 1, 600, 3599, 3600, 40_000, 86_400, 500_000, 3_000_000, 40_000_000)),
    min_size=1,
    max_size=60,
)


@given(policies, gaps, st.randoms(use_true_random=False))
def test_every_rule_keeps_what_the_plainest_model_keeps(
    policy: Policy, steps: list[int], rng: random.Random
) -> None:
    time_ns, versions = ns(NOW), []
    for i, step in enumerate(steps):
        tags = tuple(tag for tag in ("a", "b", "c") if rng.random() < 0.05)
        holds = ("h",) if rng.random() < 0.03 else ()
        versions.append(Version(Seq(3 * (len(steps) - i)), time_ns, tags, holds))
        time_ns -= step * NS_PER_S

    assert set(kept(policy, versions)) == model(policy, versions)


@given(policies, gaps)
def test_what_was_kept_is_kept_again_if_nothing_happened(policy: Policy, steps: list[int]) -> None:
    versions = []
    time_ns = ns(NOW)
    for i, step in enumerate(steps):
        versions.append(Version(Seq(len(steps) - i), time_ns))
        time_ns -= step * NS_PER_S
    once = kept(policy, versions)
    left = [version for version in versions if version.seq in once]

    assert set(kept(policy, left)) == set(once)


# ---- a year


def test_a_year_of_forgetting_every_night_keeps_what_the_policy_promises() -> None:
    policy = Policy(
        {
            Period.LAST: 10,
            Period.HOURLY: 24,
            Period.DAILY: 7,
            Period.WEEKLY: 4,
            Period.MONTHLY: UNLIMITED,
        }
    )
    rng = random.Random(11)
    now = datetime.datetime(2026, 1, 1, 6, tzinfo=datetime.UTC)
    ever: list[Version] = []
    left: list[Version] = []  # oldest first
    for day in range(365):
        for minute in sorted(rng.sample(range(1440), rng.choice((0, 1, 40, 200)))):
            moment = now + datetime.timedelta(days=day, minutes=minute)
            version = Version(Seq(len(ever) + 1), ns(moment))
            ever.append(version)
            left.append(version)
        decisions = apply(policy, reversed(left), now_ns=ns(now + datetime.timedelta(days=day + 1)))
        wanted = {decision.seq for decision in decisions if decision.is_kept}
        left = [version for version in left if version.seq in wanted]

        assert len(left) <= 10 + 24 + 7 + 4 + 13
        assert not ever or left[-1] == ever[-1]

    rules = policy.counts.items()
    for period, count in rules:
        newest = newest_of_each(period, ever[::-1])
        most = len(newest) if count == UNLIMITED else count
        assert set(newest[:most]) <= {version.seq for version in left}, period
    assert left[0] == ever[0]
    assert all(a.seq < b.seq for a, b in pairwise(left))


@pytest.mark.slow
def test_a_million_versions_take_seconds_and_no_memory() -> None:
    count = 1_000_000
    policy = Policy(
        {Period.LAST: 10, Period.HOURLY: 48, Period.DAILY: 30, Period.MONTHLY: UNLIMITED},
        {Period.LAST: parse("2h"), Period.HOURLY: parse("7d")},
    )
    versions = (Version(Seq(count - i), ns(NOW) - i * 31 * NS_PER_S) for i in range(count))

    started = time.process_time()
    held: list[Decision] = [
        decision for decision in apply(policy, versions, now_ns=ns(NOW)) if decision.is_kept
    ]
    seconds = time.process_time() - started

    assert len(held) < 600
    assert seconds < 20
