"""How far the data of a store are verified: STORE/verified.json, so that the next run goes on where this one stopped.

A file and not a row of the index: whoever may only read the index, because a mount writes it or because it may be
damaged, can still remember. It is a hint: without it, reading begins at the beginning.
"""

import contextlib
import json
import logging
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple, Self

from dkfs.failpoints import failpoint

FILE_NAME: Final = "verified.json"
SCRUB: Final = "scrub"  # who remembers
_FORMAT: Final = 1

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """A place in the segments."""

    segment: int = 0
    offset: int = 0


START: Final = Place()


@dataclass(frozen=True, slots=True)
class Verified:
    """What is remembered of the passes over the data."""

    begun_ns: int = 0  # when the present pass began, UTC; 0: none is under way
    at: Place = START  # everything before it was read in the present pass
    damage: int = 0  # found in the present pass
    finished_ns: int = 0  # when the last whole pass ended; 0: there was none
    finished_damage: int = 0  # found in it
    since_ns: int = 0  # when the store was first seen by who asks for passes at intervals

    def see(self, now_ns: int) -> Self:
        """Return this with the store seen for the first time."""
        return replace(self, since_ns=now_ns)

    def begin(self, now_ns: int) -> Self:
        """Return this with a new pass begun, if none is under way."""
        return self if self.begun_ns else replace(self, begun_ns=now_ns, at=START, damage=0)

    def reach(self, at: Place, damage: int) -> Self:
        """Return this with everything before *at* read, and so many more damages found."""
        return replace(self, at=at, damage=self.damage + damage)

    def finish(self, now_ns: int) -> Self:
        """Return this with the present pass at its end."""
        return replace(
            self,
            begun_ns=0,
            at=START,
            damage=0,
            finished_ns=now_ns,
            finished_damage=self.damage,
        )


def load(store: Path, who: str) -> Verified:
    """Return what *who* ("check" or "scrub") remembers of *store*; nothing if there is nothing, or nonsense."""
    found = _load(store).get(who)
    if not isinstance(found, dict):
        return Verified()
    try:
        members = {
            name: found[name]
            for name in ("begun_ns", "damage", "finished_ns", "finished_damage", "since_ns")
        }
        segment, offset = found["at"]
        numbers = [*members.values(), segment, offset]
    except (KeyError, TypeError, ValueError):
        return Verified()
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        return Verified()
    return Verified(at=Place(segment, offset), **members)


def save(store: Path, who: str, verified: Verified) -> bool:
    """Remember *verified* for *who*; return False if the store's directory cannot be written."""
    everything = _load(store)
    everything |= {"format": _FORMAT, who: asdict(verified)}
    temporary = store / f"{FILE_NAME}.{os.getpid()}"
    try:
        _tidy(store)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(everything, file)
            file.flush()
            os.fsync(file.fileno())
        failpoint("scrub.note")
        temporary.rename(store / FILE_NAME)
    except OSError as exc:
        log.debug("%s cannot be written: %s", store / FILE_NAME, exc.strerror)
        with contextlib.suppress(OSError):
            temporary.unlink()
        return False
    return True


def _tidy(store: Path) -> None:
    """Remove what processes left that were killed while they saved; raises OSError."""
    for path in store.glob(f"{FILE_NAME}.*"):
        pid = path.suffix[1:]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            path.unlink(missing_ok=True)


def _load(store: Path) -> dict[str, object]:
    try:
        found = json.loads((store / FILE_NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("format") == _FORMAT else {}
