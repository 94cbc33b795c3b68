"""Running a check and printing what it finds; what `dkfs check` and `dkfs scrub` share."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dkfs.cli.output import emit, json_path, printable, size_text
from dkfs.cli.progress import Progress
from dkfs.errors import CorruptError, StoreFormatError
from dkfs.history.damage import Affected, affected
from dkfs.history.recovery import verify
from dkfs.store import Store
from dkfs.store.check import Check, Counts, Damage, DamageKind
from dkfs.store.intent import list_set_aside
from dkfs.store.segments import SEGMENTS_NAME, list_segments
from dkfs.store.selection import Selection
from dkfs.store.verified import START, Place

GoesOn = Callable[[int], bool]
OnProgress = Callable[[str, int, int], None]

# That are printed for people; programs get all of them.
_DAMAGES_SHOWN: Final = 100
_PATHS_SHOWN: Final = 1000


@dataclass(slots=True)
class Found:
    """What a check found."""

    damages: list[Damage] = field(default_factory=list)
    paths: int = 0  # that are affected, each counted once
    counts: Counts = field(default_factory=Counts)
    is_usable: bool = True  # False: the index could not be opened
    is_structure_checked: bool = False
    promised: int = 0  # versions that are in the intent log only
    at: Place | None = None  # where the reading of data stopped; None: it came to the end

    @property
    def known(self) -> int:
        """How many damages a repair has given up before."""
        return sum(damage.kind is DamageKind.LOST for damage in self.damages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be checked."""

    read: Selection | None = None  # None: no data
    start: Place = START
    goes_on: GoesOn | None = None
    on_progress: OnProgress | None = None  # hears of it beside the terminal
    on_check: Callable[[Check, Found], None] | None = None  # hears of the check as it begins
    from_disk: bool = False
    is_alone: bool = False  # the caller has the lock of the store


class Printer:
    """Prints damages and what they reach, for people or for programs."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._as_json = "json" in args
        self._damages = 0
        self._paths = 0

    def damage(self, damage: Damage) -> None:
        """Print one damage."""
        if self._as_json:
            emit("damage", _members(damage), message=damage.message, kind=damage.kind.value)
        else:
            where = "" if damage.seq is None else f" (version {damage.seq})"
            self._damages += 1
            self._line(
                f"damaged: {printable(damage.message)}{where}", self._damages, _DAMAGES_SHOWN
            )

    def affected(self, found: Affected) -> None:
        """Print one path with the versions in which it is damaged."""
        damage = found.damage
        if self._as_json:
            members = json_path(found.path) | _members(damage)
            emit("affected", members, first=found.first, last=found.last, message=damage.message)
            return
        versions = f"version {found.first}"
        if found.last > found.first:
            versions = f"versions {found.first} to {found.last}"
        why = f" (blob {damage.blob.hex()[:16]})" if damage.blob is not None else ""
        self._paths += 1
        text = f"affected: {printable(found.path) or '/'}, {versions}{why}"
        self._line(text, self._paths, _PATHS_SHOWN)

    def _line(self, text: str, number: int, limit: int) -> None:
        if number <= limit:
            print(text)
        elif number == limit + 1:
            print("... and more, which --json tells")


def _members(damage: Damage) -> dict[str, object]:
    members: dict[str, object] = {}
    if damage.seq is not None:
        members["version"] = damage.seq
    if damage.node is not None:
        members["node"] = damage.node
    if damage.blob is not None:
        members["blob"] = damage.blob.hex()
    if damage.segment is not None:
        members["segment"] = damage.segment
    return members


def look(store: Path, request: Request, printer: Printer) -> Found:
    """Check *store* and print what is found; raises StoreError if it is none, or cannot be read."""
    found = Found()
    with Progress("checking") as progress:
        try:
            with _opened(store) as opened:
                check = Check(
                    opened,
                    read=request.read,
                    start=request.start,
                    goes_on=request.goes_on or _always,
                    on_progress=_both(progress.tell, request.on_progress),
                    from_disk=request.from_disk,
                )
                if request.on_check is not None:
                    request.on_check(check, found)
                for damage in check.run():
                    found.damages.append(damage)
                    printer.damage(damage)
                found.counts, found.at = check.counts, check.at
                found.is_structure_checked = check.is_structure_checked
                if found.is_structure_checked:
                    for damage in _intents(opened, found, is_alone=request.is_alone):
                        found.damages.append(damage)
                        printer.damage(damage)
                if not any(damage.kind is DamageKind.INDEX for damage in found.damages):
                    found.paths = _print_affected(opened, found.damages, printer)
        except CorruptError as exc:
            found.is_usable = False
            damage = Damage(str(exc), kind=DamageKind.INDEX)
            found.damages.append(damage)
            printer.damage(damage)
    return found


def _intents(store: Store, found: Found, *, is_alone: bool) -> Iterator[Damage]:
    """Yield what is wrong with what was promised last; count what is sound."""
    try:
        found.promised = verify(store, is_alone=is_alone)
    except CorruptError as exc:
        yield Damage(f"intent log: {exc}", kind=DamageKind.INTENT)
    for path in list_set_aside(store.path):
        message = f"{path.name} is an intent log that could not be taken in"
        yield Damage(message, kind=DamageKind.LOST)


@contextmanager
def _opened(path: Path) -> Iterator[Store]:
    """Open the store; an index that is none, beside segments, is one that is damaged."""
    try:
        store = Store.open(path, writable=False)
    except StoreFormatError as exc:
        if not _has_segments(path) or "has format" in str(exc):
            raise
        raise CorruptError(str(exc)) from exc
    with store:
        yield store


def _has_segments(path: Path) -> bool:
    try:
        return bool(list_segments(path / SEGMENTS_NAME))
    except OSError:
        return False


def _print_affected(store: Store, damages: list[Damage], printer: Printer) -> int:
    paths: set[bytes] = set()
    with store.read() as reader:
        for found in affected(reader, damages):
            paths.add(found.path)
            printer.affected(found)
    return len(paths)


def _both(first: OnProgress, second: OnProgress | None) -> OnProgress:
    if second is None:
        return first

    def tell(what: str, done: int, total: int) -> None:
        first(what, done, total)
        second(what, done, total)

    return tell


def _always(passed: int) -> bool:  # noqa: ARG001 - see Check
    return True


def summary_members(found: Found) -> dict[str, object]:
    """Return what a program may want to know of *found* in all."""
    counts = found.counts
    return {
        "damages": len(found.damages),
        "known_lost": found.known,
        "affected_paths": found.paths,
        "versions": counts.versions,
        "states": counts.states,
        "names": counts.names,
        "promised_versions": found.promised,
        "segments": counts.segments,
        "blobs": counts.blobs,
        "stored_bytes": counts.stored_bytes,
        "read_blobs": counts.read_blobs,
        "read_bytes": counts.read_bytes,
        "complete": found.is_structure_checked and found.at is None,
    }


def summary_text(found: Found) -> str:
    """Return one line for people."""
    counts = found.counts
    if not found.is_usable:
        return "the index cannot be used: `dkfs check --repair` makes it anew from the segments"
    looked = (
        f"{_many(counts.versions, 'version')}, {_many(counts.states, 'state')},"
        f" {_many(counts.blobs, 'blob')} in {_many(counts.segments, 'segment')}"
    )
    if found.promised:
        looked += f", {_many(found.promised, 'more version')} in the intent log"
    is_complete = found.is_structure_checked and found.at is None
    if counts.read_blobs or (found.is_structure_checked and found.at is not None):
        looked += f", {size_text(counts.read_bytes)} of {size_text(counts.stored_bytes)} read"
    if not found.damages:
        return (
            f"{looked}: no damage" if is_complete else f"{looked}, then stopped: no damage so far"
        )
    known = f", {found.known} of them known to be lost" if found.known else ""
    reach = f"; {_many(found.paths, 'path')} affected"
    return f"{looked}: {_many(len(found.damages), 'damage')}{known}{reach}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
