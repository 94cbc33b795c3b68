"""What people write to name a version, a place in it, or a range; and what a tag may be called.

A version is a number, `latest`, a tag or a time, tried in this order, so a number is never a tag and a tag
is found before a time that a later dkfs may learn to read.  `~N` behind it goes N versions back.
A time means the last version recorded up to it.  Only versions that are there count: one that was forgotten is an
error that names its neighbours, and neither a time nor `~N` ever leads to it.
"""

import re
from itertools import islice

from dkfs.core.times import format_time, is_time, parse_time
from dkfs.errors import NotFoundError, UsageError
from dkfs.history.tree import clean_path
from dkfs.model.ids import Seq
from dkfs.store import Reader

LATEST = "latest"

_NUMBER = re.compile(r"[0-9]+")
_BACK = re.compile(r"(?P<base>[^~]+)~(?P<steps>[0-9]*)", re.DOTALL)
_TAG_MAX = 255  # bytes: a tag is a file name in .dkfs/tags
_DIGITS_MAX = 19  # of a number that a log position can have
_TIME_MAX = 64  # characters; where a time ends in VERSION:PATH is sought no further


def parse_version(reader: Reader, text: str, *, now_ns: int, utc_offset_s: int = 0) -> Seq:
    """Return the version that *text* names; 0 is the empty tree before the first one.

    Raises NotFoundError for what the store does not have, UsageError for what no store could have.
    """
    if not text:
        raise UsageError("empty version: expected a number, latest, a tag or a time")
    if match := _BACK.fullmatch(text):
        base = parse_version(reader, match["base"], now_ns=now_ns, utc_offset_s=utc_offset_s)
        return _back(reader, base, _number(match["steps"] or "1"), text)
    if _NUMBER.fullmatch(text):
        return _existing(reader, text)
    if text == LATEST:
        if reader.last == 0:
            raise NotFoundError("there is no latest version: the store has none yet")
        return reader.last
    tag = reader.tag(text) if _may_be_tag(text) else None
    if tag is not None:
        return tag.seq
    if not is_time(text):
        raise NotFoundError(
            f"no version {text!r}: expected a number up to {reader.last}, latest, latest~N, a tag,"
            " or a time such as 2026-11-22T10:14:03Z, 10m or yesterday"
        )
    return _at_time(reader, parse_time(text, now_ns=now_ns, utc_offset_s=utc_offset_s))


def parse_place(
    reader: Reader, text: str, *, now_ns: int, utc_offset_s: int = 0
) -> tuple[Seq, bytes]:
    """Return the version and the path of "VERSION:PATH"; without ":PATH" the path is b"", the root.

    The path may hold colons.  So may the version, if it is a time: the longest beginning that is a time and
    ends at a colon or at the end is the version; else the version ends at the first colon.
    """
    version, path = _split_place(text)
    seq = parse_version(reader, version, now_ns=now_ns, utc_offset_s=utc_offset_s)
    return seq, clean_path(path.encode("utf-8", "surrogateescape"))


def parse_range(
    reader: Reader, text: str, *, now_ns: int, utc_offset_s: int = 0
) -> tuple[Seq, Seq]:
    """Return both ends of "A..B", also with A after B; "A" and "A.." end at the latest version.

    "..B" begins before the first version.
    """
    first, _, second = text.partition("..")
    if not first and not second:
        raise UsageError(f"empty range {text!r}: expected A..B, A or ..B")
    a = Seq(0)
    if first:
        a = parse_version(reader, first, now_ns=now_ns, utc_offset_s=utc_offset_s)
    b = parse_version(reader, second or LATEST, now_ns=now_ns, utc_offset_s=utc_offset_s)
    return a, b


def parse_since(reader: Reader, text: str, *, now_ns: int, utc_offset_s: int = 0) -> Seq:
    """Return the first version of "since *text*": the one named, or the first made at that time or later.

    For a time after all versions that is one that does not exist yet.
    """
    if _is_time_here(reader, text):
        time_ns = parse_time(text, now_ns=now_ns, utc_offset_s=utc_offset_s)
        before = reader.version_at(max(time_ns - 1, 0))
        return reader.next_version(before) or Seq(reader.last + 1)
    return parse_version(reader, text, now_ns=now_ns, utc_offset_s=utc_offset_s)


def parse_until(reader: Reader, text: str, *, now_ns: int, utc_offset_s: int = 0) -> Seq:
    """Return the last version of "until *text*": the one named, or the last made up to that time, or 0."""
    if _is_time_here(reader, text):
        time_ns = parse_time(text, now_ns=now_ns, utc_offset_s=utc_offset_s)
        return reader.version_at(max(time_ns, 0))
    return parse_version(reader, text, now_ns=now_ns, utc_offset_s=utc_offset_s)


def check_there(reader: Reader, seq: Seq) -> None:
    """Raise NotFoundError unless version *seq* is in the log; what it says names the versions next to it."""
    if not 0 < seq <= reader.last:
        raise NotFoundError(f"no version {seq}: the last is {reader.last}")
    before = reader.version(seq)
    if before != seq:
        after = reader.next_version(seq)
        kept = f"{before} and {after} are kept" if before else f"{after} is the oldest that is kept"
        raise NotFoundError(f"version {seq} was forgotten: {kept}")


def check_tag_name(name: str) -> None:
    """Raise UsageError if *name* could be taken for another version, a range, a place or a path."""
    reason = _tag_fault(name)
    if reason is not None:
        raise UsageError(f"{name!r} cannot be a tag: {reason}")


def _tag_fault(name: str) -> str | None:
    if not name:
        return "it is empty"
    if not _may_be_tag(name):
        return f"expected at most {_TAG_MAX} bytes of UTF-8"
    if _NUMBER.fullmatch(name) or name == LATEST:
        return "it is the name of a version already"
    if is_time(name) or is_time(f"{name}:00"):  # the second: where "NAME:00" would be split
        return "it reads as a time"
    if name[0] in ".-@" or name[0].isspace() or name[-1].isspace():
        return "it may not begin with '.', '-', '@' or a space, nor end with a space"
    if ".." in name or any(c in "/:~" or not c.isprintable() for c in name):
        return "it may not hold '/', ':', '~', '..' or anything that is not printable"
    return None


def _may_be_tag(text: str) -> bool:
    try:
        return len(text.encode()) <= _TAG_MAX
    except UnicodeEncodeError:
        return False


def _is_time_here(reader: Reader, text: str) -> bool:
    """Return whether parse_version takes *text* for a time."""
    return is_time(text) and not (_may_be_tag(text) and reader.tag(text) is not None)


def _number(digits: str) -> int:
    """Return the value of *digits*; of too many for a version, one that is larger than any."""
    return int(digits) if len(digits) <= _DIGITS_MAX else 10**_DIGITS_MAX


def _existing(reader: Reader, digits: str) -> Seq:
    number = _number(digits)
    if number > reader.last:
        raise NotFoundError(f"no version {digits[:40]}: the last is {reader.last}")
    if number:
        check_there(reader, Seq(number))
    return Seq(number)


def _back(reader: Reader, base: Seq, steps: int, text: str) -> Seq:
    """Return the version that is so many *steps* before *base*, of those that are there; 0 before the first."""
    if steps > base:
        name = text.rpartition("~")[0]
        raise NotFoundError(f"{text} is before the first version: {name} is {base}")
    if not reader.forgotten():
        return Seq(base - steps)
    kept = [seq for seq, _ in islice(reader.versions(last=base, reverse=True), steps + 1)]
    if len(kept) > steps:
        return kept[-1]
    if len(kept) == steps and kept[-1] == 1:
        return Seq(0)
    raise NotFoundError(f"{text} is before the oldest version that is kept: {kept[-1]}")


def _at_time(reader: Reader, time_ns: int) -> Seq:
    seq = reader.version_at(max(time_ns, 0))
    if seq == 0:
        oldest = next(reader.versions(), None)
        when = "there is none yet" if oldest is None else format_time(oldest[1])
        what = "oldest that is kept" if oldest is not None and oldest[0] > 1 else "first"
        raise NotFoundError(f"no version at {format_time(time_ns)} or before: the {what} is {when}")
    return seq


def _split_place(text: str) -> tuple[str, str]:
    ends = [i for i, c in enumerate(text[: _TIME_MAX + 1]) if c == ":"]
    if len(text) <= _TIME_MAX:
        ends.append(len(text))
    for end in reversed(ends):
        if is_time(text[:end]):
            return text[:end], text[end + 1 :]
    version, _, path = text.partition(":")
    return version, path
