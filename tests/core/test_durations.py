"""Lengths of time as restic writes them."""

import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.durations import NS_PER_S, Duration, parse
from dkfs.errors import UsageError

BERLIN = ZoneInfo("Europe/Berlin")


def berlin(seconds: int) -> int:
    offset = datetime.datetime.fromtimestamp(seconds, BERLIN).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())


def ns(text: str, zone: datetime.tzinfo = datetime.UTC) -> int:
    moment = datetime.datetime.fromisoformat(text).replace(tzinfo=zone)
    return int(moment.timestamp()) * NS_PER_S


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1y5m7d2h", Duration(17, 7, 7200)),
        ("2h", Duration(0, 0, 7200)),
        ("2w", Duration(0, 14, 0)),
        ("30min", Duration(0, 0, 1800)),
        ("45s", Duration(0, 0, 45)),
        ("3m", Duration(3, 0, 0)),
        ("7d2h30min", Duration(0, 7, 9000)),
        ("2h7d", Duration(0, 7, 7200)),
        ("0y1d", Duration(0, 1, 0)),
    ],
)
def test_a_length_of_time_is_read(text: str, expected: Duration) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0d", "1", "d", "-1d", "1d1d", "1x", "1d ", " 1d", "1.5h", "1D", "9999999d", "²d"]
)
def test_what_is_no_length_of_time_is_refused_and_named(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(text)

    assert str(raised.value).startswith(f"{text!r} is not a length of time")


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 10**6))
def test_what_is_printed_is_read_back(months: int, days: int, seconds: int) -> None:
    duration = Duration(months, days, seconds)

    if months or days or seconds:
        assert parse(str(duration)) == duration


@pytest.mark.parametrize(
    ("text", "now", "then"),
    [
        ("1m", "2026-03-31T12:00:00", "2026-02-28T12:00:00"),
        ("1m", "2024-03-31T12:00:00", "2024-02-29T12:00:00"),
        ("1y", "2024-02-29T12:00:00", "2023-02-28T12:00:00"),
        ("12m", "2026-01-01T00:00:00", "2025-01-01T00:00:00"),
        ("1m1d", "2026-03-31T12:00:00", "2026-02-27T12:00:00"),
        ("2d3h4min5s", "2026-11-22T10:14:03", "2026-11-20T07:09:58"),
        ("11m", "2026-12-31T00:00:00", "2026-01-31T00:00:00"),
    ],
)
def test_months_are_those_of_the_calendar(text: str, now: str, then: str) -> None:
    assert parse(text).before(ns(now)) == ns(then)


def test_a_day_before_a_change_of_the_clock_is_at_the_same_local_time() -> None:
    now = ns("2026-03-29T12:00:00", BERLIN)  # summer time began that morning

    assert parse("1d").before(now, berlin) == ns("2026-03-28T12:00:00", BERLIN)
    assert parse("24h").before(now, berlin) == ns("2026-03-28T11:00:00", BERLIN)


def test_longer_than_the_calendar_is_before_everything() -> None:
    assert parse("2026y").before(ns("2026-11-22T00:00:00")) < ns("0001-01-01T00:00:00")
    assert parse("999999y").before(ns("2026-11-22T00:00:00")) < -(1 << 63)
    assert parse("999999d").before(ns("2026-11-22T00:00:00")) < -(1 << 63)


@given(st.integers(0, 2**62), st.integers(0, 240), st.integers(0, 400), st.integers(0, 10**6))
def test_before_is_before(time_ns: int, months: int, days: int, seconds: int) -> None:
    duration = Duration(months, days, seconds)

    assert (duration.before(time_ns) < time_ns) == (duration != Duration())
    assert (duration.after(time_ns) > time_ns) == (duration != Duration())


@pytest.mark.parametrize(
    ("text", "now", "then"),
    [
        ("1m", "2026-01-31T12:00:00", "2026-02-28T12:00:00"),
        ("1y", "2024-02-29T12:00:00", "2025-02-28T12:00:00"),
        ("90d", "2026-11-22T10:14:03", "2027-02-20T10:14:03"),
        ("1m1d1h", "2026-12-31T23:30:00", "2027-02-02T00:30:00"),
        ("12m", "2026-12-01T00:00:00", "2027-12-01T00:00:00"),
    ],
)
def test_after_goes_the_other_way(text: str, now: str, then: str) -> None:
    assert parse(text).after(ns(now)) == ns(then)


def test_what_is_after_the_calendar_is_after_everything() -> None:
    for text in ("9000y", "999999y", "999999y1d"):
        assert parse(text).after(ns("2026-11-22T00:00:00")) > 1 << 63
