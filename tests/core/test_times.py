import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.times import format_time, is_time, parse_duration, parse_time
from dkfs.errors import UsageError

S = 1_000_000_000
DAY = 86_400 * S
NOW = 1_795_342_443 * S + 500_000_000  # 2026-11-22T10:14:03.5Z, a Sunday


def at(text: str) -> int:
    """Return the time of an ISO text by the standard library."""
    return round(datetime.datetime.fromisoformat(text).timestamp()) * S


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T10:14:03Z", at("2026-11-22T10:14:03+00:00")),
        ("2026-11-22t10:14:03z", at("2026-11-22T10:14:03+00:00")),
        ("2026-11-22 10:14:03", at("2026-11-22T10:14:03+00:00")),
        ("2026-11-22T10:14", at("2026-11-22T10:14:00+00:00")),
        ("2026-11-22T10:14:03.5Z", at("2026-11-22T10:14:03+00:00") + S // 2),
        ("2026-11-22T10:14:03,000000001Z", at("2026-11-22T10:14:03+00:00") + 1),
        ("2026-11-22T10:14:03+05:30", at("2026-11-22T10:14:03+05:30")),
        ("2026-11-22T10:14:03 -0800", at("2026-11-22T10:14:03-08:00")),
        ("2026-11-22", at("2026-11-22T00:00:00+00:00")),
        ("2024-02-29", at("2024-02-29T00:00:00+00:00")),
        ("1969-12-31T23:59:59Z", -S),
        ("2016-12-31T23:59:60Z", at("2017-01-01T00:00:00+00:00")),
        ("@1763806443", 1_763_806_443 * S),
        ("@0.000000001", 1),
        ("now", NOW),
        (" Now ", NOW),
        ("10m", NOW - 600 * S),
        ("10M", NOW - 600 * S),
        ("1h30m", NOW - 5400 * S),
        ("1h 30m ago", NOW - 5400 * S),
        ("1.5h", NOW - 5400 * S),
        ("250ms", NOW - S // 4),
        ("90s", NOW - 90 * S),
        ("2d", NOW - 2 * DAY),
        ("1w", NOW - 7 * DAY),
        ("5 minutes ago", NOW - 300 * S),
        ("1 minute", NOW - 60 * S),
        ("an hour ago", NOW - 3600 * S),
        ("a day, 2 hours and one second ago", NOW - DAY - 7201 * S),
        ("0s", NOW),
        ("1mo", at("2026-10-22T10:14:03+00:00") + S // 2),
        ("9 months ago", at("2026-02-22T10:14:03+00:00") + S // 2),
        ("1y", at("2025-11-22T10:14:03+00:00") + S // 2),
        ("1y 11mo", at("2024-12-22T10:14:03+00:00") + S // 2),
        ("yesterday", NOW - DAY),
        ("yesterday 14:30", at("2026-11-21T14:30:00+00:00")),
        ("Yesterday at 14:30:05.25", at("2026-11-21T14:30:05+00:00") + S // 4),
        ("today", at("2026-11-22T00:00:00+00:00")),
        ("today 09:00", at("2026-11-22T09:00:00+00:00")),
    ],
)
def test_every_way_to_write_a_time(text: str, expected: int) -> None:
    assert parse_time(text, now_ns=NOW) == expected
    assert is_time(text)


def test_a_month_back_from_a_day_that_the_month_lacks_is_its_last_day() -> None:
    now = at("2026-03-31T12:00:00+00:00")

    assert parse_time("1 month ago", now_ns=now) == at("2026-02-28T12:00:00+00:00")
    assert parse_time("2y1mo", now_ns=now) == at("2024-02-29T12:00:00+00:00")


def test_local_times_are_those_of_the_offset() -> None:
    for text, expected in [
        ("2026-11-22T10:14:03", "2026-11-22T10:14:03+05:30"),
        ("2026-11-22", "2026-11-22T00:00:00+05:30"),
        ("2026-11-22T10:14:03Z", "2026-11-22T10:14:03+00:00"),
        ("today", "2026-11-22T00:00:00+05:30"),
        ("yesterday 14:30", "2026-11-21T14:30:00+05:30"),
    ]:
        assert parse_time(text, now_ns=NOW, utc_offset_s=19_800) == at(expected)


def test_the_day_is_that_of_the_offset() -> None:
    evening = at("2026-11-22T22:00:00+00:00")

    today = parse_time("today", now_ns=evening, utc_offset_s=3 * 3600)
    assert today == at("2026-11-23T00:00:00+03:00")


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-30",
        "2026-13-01",
        "2026-00-10",
        "0000-01-01",
        "2026-11-22T24:00:00Z",
        "2026-11-22T10:60Z",
        "2026-11-22T10:14:61Z",
        "2026-11-22T10:14+24:00",
        "yesterday 25:00",
        "1.5 months ago",
        "9999y",
    ],
)
def test_an_impossible_time_is_refused_and_still_reads_as_a_time(text: str) -> None:
    with pytest.raises(UsageError):
        parse_time(text, now_ns=NOW)
    assert is_time(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "10",
        "m",
        "ago",
        " ago",
        "10x",
        "10 minutes later",
        "10mm",
        "-10m",
        "1h,",
        "ahour",
        "v1d",
        "tomorrow",
        "2026-11",
        "2026-11-22T",
        "2026-11-22T10",
        "2026-11-22T10:14:03ZZ",
        "2026-11-22T10:14:03.1234567890Z",
        "２０２６-11-22",
        "10m" * 100,
        "1" * 50 + "s",
        "yesterday 9",
        "latest",
    ],
)
def test_anything_else_is_no_time(text: str) -> None:
    assert not is_time(text)
    with pytest.raises(UsageError, match="is not a time"):
        parse_time(text, now_ns=NOW)


@given(
    st.integers(-62_135_596_800 * S, 253_402_300_799 * S),
    st.integers(-23 * 60, 23 * 60).map(lambda minutes: minutes * 60),
)
def test_a_printed_time_reads_back(time_ns: int, offset_s: int) -> None:
    for offset in (0, offset_s):
        try:
            text = format_time(time_ns, utc_offset_s=offset)
        except UsageError:
            continue
        assert parse_time(text, now_ns=0) == time_ns


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_is_refused(text: str) -> None:
    try:
        parse_time(text, now_ns=NOW)
    except UsageError:
        return
    assert is_time(text)


def test_a_time_is_printed_with_as_many_digits_as_asked() -> None:
    assert format_time(NOW) == "2026-11-22T10:14:03.500000000Z"
    assert format_time(NOW, digits=3) == "2026-11-22T10:14:03.500Z"
    assert format_time(NOW, digits=0) == "2026-11-22T10:14:03Z"
    assert format_time(NOW, utc_offset_s=-34_200, digits=0) == "2026-11-22T00:44:03-09:30"
    assert format_time(-1, digits=9) == "1969-12-31T23:59:59.999999999Z"


def test_a_time_outside_the_calendar_is_refused() -> None:
    with pytest.raises(UsageError, match="1 to 9999"):
        format_time(10**21)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10m", 600 * S), ("1h30m", 5400 * S), ("500ms", S // 2), ("2 days", 2 * DAY), ("0s", 0)],
)
def test_every_way_to_write_a_duration(text: str, expected: int) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "10", "1mo", "1y", "yesterday", "-5s", "m"])
def test_what_has_no_fixed_length_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        parse_duration(text)
