"""Which paths of a tree are meant: glob patterns, as restic understands them.  Pure.

`*` and `?` match within one name, `[a-z]` and `[!a-z]` one character, `**` any number of names, `\\` takes the next
character as it is.  A pattern that begins with "/" counts from the top, any other may begin at every name.  What lies
below a match is meant too.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from dkfs.errors import UsageError

_ANY = "**"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a selection says of one path."""

    is_in: bool  # the path itself is meant
    may_hold: bool  # something below it may be meant


class Pattern:
    """One glob."""

    def __init__(self, text: bytes, *, ignore_case: bool = False) -> None:
        """Raise UsageError if *text* can match nothing."""
        shown = _text(text)
        if "\0" in shown:
            raise UsageError(f"pattern {shown!r} holds a NUL: no path does")
        parts = [part for part in shown.split("/") if part not in ("", ".")]
        if not parts or ".." in parts:
            raise UsageError(f"pattern {shown!r} names no path below the top")
        if any(pair == (_ANY, _ANY) for pair in pairwise(parts)):
            parts = [
                p
                for p, after in zip(parts, [*parts[1:], ""], strict=True)
                if (p, after) != (_ANY, _ANY)
            ]
        flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
        self._is_anchored = shown.startswith("/")
        start = "" if self._is_anchored else "(?:.*/)?"
        self._whole = _compiled(start + _joined(parts), flags, shown)
        known = parts[: parts.index(_ANY)] if _ANY in parts else parts
        self._is_open = _ANY in parts
        self._parts = [_compiled(_part(part), flags, shown) for part in known]

    def matches(self, path: bytes) -> bool:
        """Return whether *path* itself, not only what is above it, is a match."""
        return self._whole.fullmatch(_text(path)) is not None

    def may_match_below(self, path: bytes) -> bool:
        """Return whether something below *path* could be a match."""
        if not self._is_anchored or not path:
            return True
        names = _text(path).split("/")
        if len(names) >= len(self._parts) and not self._is_open:
            return False
        return all(part.fullmatch(name) for part, name in zip(self._parts, names, strict=False))


class Selection:
    """What one run means: all that *include* matches, everything if it is empty, less what *exclude* matches."""

    def __init__(self, include: Sequence[Pattern] = (), exclude: Sequence[Pattern] = ()) -> None:
        self._include = tuple(include)
        self._exclude = tuple(exclude)

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return not self._include and not self._exclude

    @property
    def top(self) -> Chosen:
        """What it says of the top."""
        return Chosen(is_in=not self._include, may_hold=True)

    def choose(self, path: bytes, above: Chosen) -> Chosen:
        """Return what it says of *path*, given what it says of the directory *above* it."""
        if any(pattern.matches(path) for pattern in self._exclude):
            return Chosen(is_in=False, may_hold=False)
        if above.is_in or any(pattern.matches(path) for pattern in self._include):
            return Chosen(is_in=True, may_hold=True)
        may_hold = any(pattern.may_match_below(path) for pattern in self._include)
        return Chosen(is_in=False, may_hold=may_hold)


EVERYTHING = Selection()


def _text(path: bytes) -> str:
    """Return *path* as text, so that `?` is a character and case is that of letters."""
    return path.decode("utf-8", "surrogateescape")


def _compiled(expression: str, flags: int, shown: str) -> re.Pattern[str]:
    try:
        return re.compile(expression, flags)
    except re.error as exc:
        raise UsageError(f"pattern {shown!r}: {exc}") from None


def _joined(parts: Sequence[str]) -> str:
    """Return the expression for *parts*, each but the last with its slash."""
    pieces = []
    last = len(parts) - 1
    for index, part in enumerate(parts):
        if part == _ANY:
            pieces.append(".+" if index == last else "(?:[^/]+/)*")
        else:
            pieces.append(_part(part) + ("" if index == last else "/"))
    return "".join(pieces)


def _part(part: str) -> str:
    """Return the expression for one name."""
    out: list[str] = []
    at = 0
    while at < len(part):
        char = part[at]
        at += 1
        if char == "*":
            if not out or out[-1] != "[^/]*":  # "**" within a name is "*"
                out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[" and (end := _class_end(part, at)) >= 0:
            out.append(_class(part[at:end]))
            at = end + 1
        elif char == "\\" and at < len(part):
            out.append(re.escape(part[at]))
            at += 1
        else:
            out.append(re.escape(char))
    return "".join(out)


def _class_end(part: str, at: int) -> int:
    """Return where the "]" of a class is whose "[" stands before *at*, -1 if there is none."""
    start = at + 1 if part[at : at + 1] in ("!", "^") else at
    return part.find("]", start + 1)  # the first character may be a "]"


def _class(body: str) -> str:
    is_negated = body[:1] in ("!", "^")
    body = body[1:] if is_negated else body
    out = []
    at = 0
    while at < len(body):
        if body[at + 1 : at + 2] == "-" and at + 2 < len(body):
            out.append(f"{re.escape(body[at])}-{re.escape(body[at + 2])}")
            at += 3
        else:
            out.append(re.escape(body[at]))
            at += 1
    return f"(?!/)[{'^' if is_negated else ''}{''.join(out)}]"
