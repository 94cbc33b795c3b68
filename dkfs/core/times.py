"""Times as people write them, read and printed: pure, the clock and the zone are parameters.

    2026-11-22T10:14:03Z   RFC 3339; the fraction, the seconds and the offset may be left out, the T may be a space
    2026-11-22             midnight, local
    10m  1h30m  2 days     so long ago; ms s m(in) h d w mo y, or the words; "ago" may follow; m is minutes
    an hour ago            a, an and one count as 1
    yesterday              24 hours ago; "yesterday 14:30" is that clock time of the day before
    today                  this day's midnight, local; "today 14:30"
    now   @1763806443.5    this instant; seconds since 1970

A time is an instant: 10:14:03 is 10:14:03.000000000.  Local means *utc_offset_s*, the same for every date.
"""

import datetime
import re
from fractions import Fraction

from dkfs.errors import UsageError

NS_PER_S = 1_000_000_000
_DAY_S = 86_400
_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()

_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?)?"
_INSTANT = re.compile(
    rf"(?P<year>\d{{4}})-(?P<month>\d\d)-(?P<day>\d\d)(?:[T ]{_CLOCK} ?(?P<zone>Z|[+-]\d\d:?\d\d)?)?",
    re.ASCII | re.IGNORECASE,
)
_EPOCH = re.compile(r"@(\d{1,11})(?:\.(\d{1,9}))?", re.ASCII)
_DAY = re.compile(rf"(?P<word>today|yesterday)(?: (?:at )?{_CLOCK})?", re.ASCII | re.IGNORECASE)
_UNIT = (
    r"(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?"
    r"|d|days?|w|weeks?|mo|months?|y|yrs?|years?)"
)
_TERM = re.compile(
    rf"(\d{{1,9}}(?:\.\d{{1,9}})?|an?\b|one\b) ?{_UNIT}(?![a-z])", re.ASCII | re.IGNORECASE
)
_BETWEEN = re.compile(r"(?:,| and|) ?", re.ASCII | re.IGNORECASE)
_LONGEST = 100  # characters; no way to write a time needs more

_UNIT_NS = {
    "ms": NS_PER_S // 1000,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
    "d": _DAY_S * NS_PER_S,
    "w": 7 * _DAY_S * NS_PER_S,
}


def parse_time(text: str, *, now_ns: int, utc_offset_s: int = 0) -> int:
    """Return the instant that *text* names, in ns since 1970; raises UsageError."""
    time_ns = _parse(text, now_ns, utc_offset_s)
    if time_ns is None:
        raise UsageError(
            f"{text!r} is not a time: expected 2026-11-22T10:14:03Z, 10m, '5 minutes ago' or yesterday"
        )
    return time_ns


def is_time(text: str) -> bool:
    """Return whether *text* is written as a time, even if as an impossible one (February 30)."""
    try:
        return _parse(text, NS_PER_S * _DAY_S * 20_000, 0) is not None
    except UsageError:
        return True


def parse_duration(text: str) -> int:
    """Return the length of *text* ("10m", "1h30m", "2 days") in ns; raises UsageError.

    A month or a year has no fixed length and is refused.
    """
    terms = _terms(text.strip())
    if terms is None or any(unit in ("mo", "y") for _, unit in terms):
        raise UsageError(f"{text!r} is not a duration: expected 500ms, 90s, 10m, 1h30m, 2d or 1w")
    return sum(int(count * _UNIT_NS[unit]) for count, unit in terms)


def format_time(time_ns: int, *, utc_offset_s: int = 0, digits: int = 9) -> str:
    """Return *time_ns* in RFC 3339 with so many *digits* of the second (cut, not rounded)."""
    seconds, fraction = divmod(time_ns, NS_PER_S)
    day, second = divmod(seconds + utc_offset_s, _DAY_S)
    date = _date(day, "time to print").isoformat()
    clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    point = f".{fraction:09}"[: digits + 1] if digits else ""
    if utc_offset_s == 0:
        return f"{date}T{clock}{point}Z"
    sign = "-" if utc_offset_s < 0 else "+"
    minutes = abs(utc_offset_s) // 60
    return f"{date}T{clock}{point}{sign}{minutes // 60:02}:{minutes % 60:02}"


def _parse(text: str, now_ns: int, utc_offset_s: int) -> int | None:
    """Return the instant; None if *text* is not written as one; raises UsageError if it cannot be."""
    text = text.strip()
    if not text or len(text) > _LONGEST:
        return None
    if text.lower() == "now":
        return now_ns
    if match := _INSTANT.fullmatch(text):
        return _instant(match, utc_offset_s)
    if match := _EPOCH.fullmatch(text):
        return int(match[1]) * NS_PER_S + int((match[2] or "").ljust(9, "0"))
    if match := _DAY.fullmatch(text):
        return _day_word(match, now_ns, utc_offset_s)
    terms = _terms(text)
    return None if terms is None else _ago(terms, now_ns, utc_offset_s, text)


def _instant(match: re.Match[str], utc_offset_s: int) -> int:
    try:
        date = datetime.date(int(match["year"]), int(match["month"]), int(match["day"]))
    except ValueError:
        raise UsageError(f"there is no day {match[0][:10]}") from None
    zone_s = utc_offset_s if match["zone"] is None else _zone_s(match["zone"])
    midnight = (date.toordinal() - _EPOCH_DAY) * _DAY_S - zone_s
    return midnight * NS_PER_S + _clock_ns(match)


def _zone_s(zone: str) -> int:
    if zone in "Zz":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    if hours > 23 or minutes > 59:
        raise UsageError(f"there is no UTC offset {zone}")
    return (hours * 3600 + minutes * 60) * (-1 if zone[0] == "-" else 1)


def _clock_ns(match: re.Match[str]) -> int:
    """Return the time since midnight that the groups of _CLOCK say; 0 if there is none."""
    if match["hour"] is None:
        return 0
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"] or 0)
    if hour > 23 or minute > 59 or second > 60:  # 60: a leap second, counted as the next second
        raise UsageError(f"there is no clock time {hour:02}:{minute:02}:{second:02}")
    fraction = int((match["fraction"] or "").ljust(9, "0"))
    return (hour * 3600 + minute * 60 + second) * NS_PER_S + fraction


def _day_word(match: re.Match[str], now_ns: int, utc_offset_s: int) -> int:
    days_back = 1 if match["word"].lower() == "yesterday" else 0
    if days_back and match["hour"] is None:
        return now_ns - _DAY_S * NS_PER_S
    day = (now_ns // NS_PER_S + utc_offset_s) // _DAY_S - days_back
    return (day * _DAY_S - utc_offset_s) * NS_PER_S + _clock_ns(match)


def _terms(text: str) -> list[tuple[Fraction, str]] | None:
    """Return the counts and unit letters of "1h30m", "2 days and an hour ago"; None if it is neither."""
    body = text[:-4].rstrip() if text.lower().endswith(" ago") else text
    terms: list[tuple[Fraction, str]] = []
    position = 0
    while position < len(body):
        if terms:
            gap = _BETWEEN.match(body, position)
            position = gap.end() if gap else position
        match = _TERM.match(body, position)
        if match is None:
            return None
        count = Fraction(match[1]) if match[1][0].isdigit() else Fraction(1)
        terms.append((count, _unit(match[2].lower())))
        position = match.end()
    return terms or None


def _unit(word: str) -> str:
    """Return the letter of a unit's name."""
    if word.startswith("mo"):
        return "mo"
    if word == "ms" or word.startswith("milli"):
        return "ms"
    return word[0]


def _ago(terms: list[tuple[Fraction, str]], now_ns: int, utc_offset_s: int, text: str) -> int:
    """Return now less *terms*: months and years by the calendar, a day that the month lacks is its last."""
    months = 0
    past_ns = 0
    for count, unit in terms:
        if unit in ("mo", "y"):
            if count.denominator != 1:
                raise UsageError(f"{text!r} counts part of a month or year; expected whole ones")
            months += int(count) * (12 if unit == "y" else 1)
        else:
            past_ns += int(count * _UNIT_NS[unit])
    if months:
        now_ns = _months_before(now_ns, months, utc_offset_s, text)
    return now_ns - past_ns


def _months_before(now_ns: int, months: int, utc_offset_s: int, text: str) -> int:
    day = (now_ns // NS_PER_S + utc_offset_s) // _DAY_S
    date = _date(day, text)
    year, month = divmod(date.year * 12 + date.month - 1 - months, 12)
    if year < 1:
        raise UsageError(f"{text!r} is before the year 1")
    month_day = date.day
    while True:
        try:
            moved = datetime.date(year, month + 1, month_day)
        except ValueError:
            month_day -= 1
        else:
            return now_ns - (date - moved).days * _DAY_S * NS_PER_S


def _date(day: int, what: str) -> datetime.date:
    """Return the date of a *day* counted from 1970."""
    try:
        return datetime.date.fromordinal(day + _EPOCH_DAY)
    except (ValueError, OverflowError):
        raise UsageError(f"{what!r} is outside the years 1 to 9999") from None
