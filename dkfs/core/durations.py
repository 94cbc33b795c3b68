"""Lengths of time as restic writes them: 1y5m7d2h.  Pure.

    y m w d    years, months, weeks, days by the calendar: 1m before March 31 is the last day of February
    h min s    hours, minutes, seconds of exactly that length

`m` is months, as in restic; minutes are `min`.  (Ages in VERSION, as in `dkfs ls 10m:`, are of core.times and not of
here.)  Each unit once, in any order.
"""

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass

from dkfs.errors import UsageError

NS_PER_S = 1_000_000_000
EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()

_DAY_S = 86_400
_TERM = re.compile(r"(?P<count>[0-9]{1,6})(?P<unit>min|[ymwdhs])", re.ASCII)
_NEVER_NS = 1 << 80  # later than any time that is recorded, and before 1970 earlier
_LAST_DAY = datetime.date.max.toordinal()

Zone = Callable[
    [int], int
]  # seconds that local time is ahead of UTC, at so many seconds since 1970


def utc(_: int) -> int:
    """Return 0: the zone of UTC."""
    return 0


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time; 0 is none at all."""

    months: int = 0  # years are 12
    days: int = 0  # weeks are 7
    seconds: int = 0

    def __str__(self) -> str:
        years, months = divmod(self.months, 12)
        hours, rest = divmod(self.seconds, 3600)
        minutes, seconds = divmod(rest, 60)
        terms = zip(
            (years, months, self.days, hours, minutes, seconds),
            ("y", "m", "d", "h", "min", "s"),
            strict=True,
        )
        return "".join(f"{count}{unit}" for count, unit in terms if count) or "0s"

    def before(self, time_ns: int, zone: Zone = utc) -> int:
        """Return the instant that is this long before *time_ns*, months and days by the calendar of *zone*."""
        return self._moved(time_ns, -1, zone)

    def after(self, time_ns: int, zone: Zone = utc) -> int:
        """Return the instant that is this long after *time_ns*; see before()."""
        return self._moved(time_ns, 1, zone)

    def _moved(self, time_ns: int, sign: int, zone: Zone) -> int:
        moved_ns = time_ns + sign * self.seconds * NS_PER_S
        if not self.months and not self.days:
            return moved_ns
        seconds, fraction = divmod(moved_ns, NS_PER_S)
        day, clock = divmod(seconds + zone(seconds), _DAY_S)
        day = _months_later(day, sign * self.months) + sign * self.days
        if not 1 <= day + EPOCH_DAY <= _LAST_DAY:
            return sign * _NEVER_NS
        local = day * _DAY_S + clock
        # Twice, because the offset then may be another than now: local time stays, as for a calendar.
        then = local - zone(local - zone(seconds))
        return then * NS_PER_S + fraction


def parse(text: str) -> Duration:
    """Return what *text*, such as "1y5m7d2h", says; raises UsageError."""
    counts: dict[str, int] = {}
    at = 0
    while match := _TERM.match(text, at):
        if match["unit"] in counts:
            break
        counts[match["unit"]] = int(match["count"])
        at = match.end()
    if at != len(text) or not any(counts.values()):
        raise UsageError(
            f"{text!r} is not a length of time: expected one such as 1y5m7d2h, 2w, 36h, 30min or 45s"
            " (m is months)"
        )
    return Duration(
        months=counts.get("y", 0) * 12 + counts.get("m", 0),
        days=counts.get("w", 0) * 7 + counts.get("d", 0),
        seconds=counts.get("h", 0) * 3600 + counts.get("min", 0) * 60 + counts.get("s", 0),
    )


def _months_later(day: int, months: int) -> int:
    """Return the *day*, counted from 1970, that is *months* later; one that the month lacks is its last."""
    if not months:
        return day
    date = datetime.date.fromordinal(day + EPOCH_DAY)
    year, month = divmod(date.year * 12 + date.month - 1 + months, 12)
    if not datetime.MINYEAR <= year < datetime.MAXYEAR:
        return _NEVER_NS if months > 0 else -_NEVER_NS
    first = datetime.date(year, month + 1, 1).toordinal()
    following = datetime.date(year + month // 11, (month + 1) % 12 + 1, 1).toordinal()
    return min(first + date.day, following) - 1 - EPOCH_DAY
