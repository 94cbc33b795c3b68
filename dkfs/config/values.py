"""Texts that users give, turned into values; a bad one is one UsageError that says where it came from."""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from dkfs.core.durations import parse as parse_duration
from dkfs.errors import UsageError

T = TypeVar("T", bound=str)

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_DURATION: Final = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?P<unit>ms|s|m|h|)")
_SIZE: Final = re.compile(r"(?P<number>[0-9]{1,18})(?:(?P<unit>[KMGTkmgt])(?:iB|B)?|B)?")
_SIZE_BITS: Final = {"K": 10, "M": 20, "G": 30, "T": 40}
_DAY_S: Final = 86_400
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Given:
    """A value as somebody wrote it."""

    text: str
    where: str  # for messages: "--store", "-o store", "DKFS_STORE", "store in /etc/dkfs.toml"


def boolean(given: Given) -> bool:
    """Return the truth value of *given*; raises UsageError."""
    text = given.text.lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise UsageError(f"{given.where}: {given.text!r}, expected true or false")


def seconds(given: Given) -> float:
    """Return a positive time in seconds: 2, 0.5, 500ms, 1s, 5m; raises UsageError."""
    match = _DURATION.fullmatch(given.text)
    value = float(match["number"]) * _UNIT_S[match["unit"]] if match else 0.0
    if not 0.0 < value < math.inf:
        raise UsageError(f"{given.where}: {given.text!r}, expected a time such as 0.5, 500ms or 2s")
    return value


def interval(given: Given) -> float | None:
    """Return a time in seconds between two of something: 30d, 12h, 90min; None for 0, never. Raises UsageError."""
    if given.text == "0":
        return None
    try:
        found = parse_duration(given.text)
    except UsageError as exc:
        raise UsageError(f"{given.where}: {exc}; or 0, for never") from None
    return float((found.months * 30 + found.days) * _DAY_S + found.seconds)


def count(given: Given) -> int:
    """Return a whole number of at least 0; raises UsageError."""
    if not (given.text.isascii() and given.text.isdecimal() and len(given.text) <= 18):
        raise UsageError(f"{given.where}: {given.text!r}, expected a whole number")
    return int(given.text)


def size(given: Given, *, unit: int = 1) -> int:
    """Return a number of bytes: 4096, 64K, 1MiB, 2G; without a letter in units of *unit* bytes.

    K, M, G and T are powers of 1024; raises UsageError.
    """
    match = _SIZE.fullmatch(given.text)
    if match is None:
        raise UsageError(f"{given.where}: {given.text!r}, expected a size such as 4096, 64K or 2G")
    number = int(match["number"])
    if match["unit"] is None:
        return number if given.text.endswith("B") else number * unit
    return number << _SIZE_BITS[match["unit"].upper()]


def path(given: Given, *, base: Path) -> Path:
    """Return *given* as an absolute path, relative to *base*, the links of all but its last part resolved.

    The last part stays as it is, so that a link in its place can be seen; raises UsageError.
    """
    if not given.text or "\0" in given.text:
        raise UsageError(f"{given.where}: {given.text!r}, expected a path")
    full = base / given.text
    if full.name in ("", ".."):
        return Path(os.path.realpath(full))
    return Path(os.path.realpath(full.parent), full.name)


def choice(given: Given, allowed: Sequence[T]) -> T:
    """Return the one of *allowed* that *given* names; raises UsageError."""
    for value in allowed:
        if given.text == value:
            return value
    expected = " or ".join(allowed)
    raise UsageError(f"{given.where}: {given.text!r}, expected {expected}")
