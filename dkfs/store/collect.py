"""Collecting: what nothing refers to leaves the store, and its room goes back to the disk.

Rows of dead blobs go first, then segments with much that is dead are given up: what is left of them is copied, its rows
are moved, and when none leads there any more, by a view of its own, the segment ends.  Its file is removed once nobody
reads an older view.  Every transaction is small and complete in itself: a collection may be ended anywhere, also by
a crash, and the next one goes on.
"""

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

from dkfs.errors import StoreError
from dkfs.failpoints import failpoint
from dkfs.model.ids import Seq
from dkfs.store.collect_copy import Copied
from dkfs.store.collect_plan import MAX_UNUSED, Plan, Victim, groups
from dkfs.store.collect_repack import Repacking, note_repacked, repacked
from dkfs.store.collect_survey import CopiedEnd, Findings, Progress
from dkfs.store.collect_sweep import JournalRecord, Kept, Swap, Sweep
from dkfs.store.reserve import Reserve
from dkfs.store.segments import RECORD
from dkfs.store.store import Store

_MARGIN: Final = 1024 * 1024  # bytes of the disk that a copy leaves to others
_PIECE_LEAST: Final = 64 * 1024  # bytes; with less room nothing is moved
_CUT_TRIES: Final = 100  # before it is too long that somebody reads an older view
_WAIT_S: Final = 0.02

T = TypeVar("T")

log = logging.getLogger(__name__)


def _failpoint(step: str) -> None:
    failpoint("gc." + step.replace(" ", "-"))


class Surveyor(Protocol):
    """The reading half of a collection, in this process or in another; see Survey."""

    def look(self, *, max_unused: float, repacking: Repacking | None = None) -> Findings:
        """See Survey."""
        ...

    def refresh(self) -> Seq:
        """See Survey."""
        ...

    def dead(self) -> Iterator[list[Swap]]:
        """See Survey."""
        ...

    def copy(self, number: int, segments: Sequence[int], *, with_journals: bool) -> Copied | None:
        """See Survey."""
        ...

    def copy_end(
        self, number: int, segment: int, *, most: int, with_journals: bool
    ) -> CopiedEnd | None:
        """See Survey."""
        ...

    def moves(self) -> Iterator[list[Swap]]:
        """See Survey."""
        ...

    def checkpoint(self) -> Iterator[JournalRecord]:
        """See Survey."""
        ...


class Pace:
    """How much is done at once: all that fits into a slice, and then a pause."""

    def __init__(
        self,
        *,
        slice_s: float,
        pause: Callable[[float], None],
        breathe: Callable[[], None] = lambda: None,
    ) -> None:
        """Work for *slice_s* seconds at most in one transaction, its commit not counted.

        *pause* hears how long a transaction took with its commit; *breathe* is called after each row.
        """
        self.breathe = breathe
        self._slice_s = slice_s
        self._pause = pause
        self._rows = 64

    @property
    def rows(self) -> int:
        """How many rows a transaction may change."""
        return self._rows

    def wait(self) -> None:
        """Wait for somebody else."""
        self._pause(_WAIT_S)

    def took(self, rows: int, seconds: float, *, in_all: float) -> None:
        """Hear that *rows* rows took so long, and so long *in_all*, and rest."""
        if rows and seconds > self._slice_s:
            self._rows = max(self._rows // 2, 8)
        elif rows == self._rows and seconds < self._slice_s / 2:
            self._rows = min(self._rows * 2, 16384)
        self._pause(in_all)


@dataclass(slots=True)
class Report:
    """What a collection did; sizes in bytes."""

    findings: Findings
    dead_blobs: int = 0  # that were removed
    freed: int = 0  # that the disk has back, less what was written
    pending: int = 0  # of segments that ended and are still being read by somebody
    skipped: tuple[int, ...] = ()  # segments that could not be given up
    seconds: float = 0.0


class Collection:
    """One collection of a store that is open for writing."""

    def __init__(
        self,
        store: Store,
        surveyor: Surveyor,
        *,
        reserve: Reserve,
        pace: Pace,
        say: Progress,
        at: Callable[[str], None] = _failpoint,
        exclusive: AbstractContextManager[object] | None = None,
    ) -> None:
        """Collect *store* with the help of *surveyor*.

        *at* hears of every step that was taken; *exclusive* is entered for each transaction.
        """
        self._store = store
        self._surveyor = surveyor
        self._reserve = reserve
        self._pace = pace
        self._say = say
        self._at = at
        self._exclusive = nullcontext() if exclusive is None else exclusive
        self._kept = Kept()
        self._made: set[int] = set()  # segments
        self._number = 0  # of the next segment to be made, 0: it has none yet
        self._seen = Seq(0)  # everything up to this version is marked

    def run(self, *, max_unused: float = MAX_UNUSED, repacking: Repacking | None = None) -> Report:
        """Do it; raises CorruptError if what is alive cannot be told, StoreError."""
        started = time.monotonic()
        with self._store.collecting(), self._reserve.spending():
            freed = self._bury()
            self._store.trim()
            findings = self._surveyor.look(max_unused=max_unused, repacking=repacking)
            self._seen = self._surveyor.refresh()
            self._at("looked")
            report = Report(findings, freed=freed)
            report.dead_blobs = self._remove_dead(findings.dead_blobs)
            self._give_up(findings, report)
            if repacking is not None:
                done = repacked(self._store.path, repacking.level)
                there = self._store.segment_sizes().keys()
                note_repacked(self._store.path, repacking.level, (done | self._made) & there)
            with self._store.read() as reader:
                report.pending = sum(row.length for _, row in reader.segments() if row.is_dead)
        report.seconds = time.monotonic() - started
        return report

    def _remove_dead(self, total: int) -> int:
        """Remove the rows of dead blobs; return how many."""
        count = 0
        is_done = False
        while not is_done:
            is_done = True
            for batch in self._surveyor.dead():
                removed = self._swap(batch)
                if removed is None:
                    # A rollback may have brought back what was dead when it was looked at.
                    self._seen = self._surveyor.refresh()
                    is_done = False
                    break
                count += removed
                self._say("removing", count, total)
                self._at("dead rows removed")
        return count

    def _give_up(self, findings: Findings, report: Report) -> None:
        """Give up the segments of the plan, group by group, so that room comes back as early as it can."""
        victims = findings.plan.victims
        if not victims:
            return
        with self._store.read() as reader:
            newest = reader.tail().segment
        if any(victim.number == newest for victim in victims):
            self._write(Sweep.roll)
            self._at("rolled")
        if findings.plan.is_checkpoint:
            report.freed -= self._make_checkpoint()
        skipped: list[int] = []
        total = sum(victim.size for victim in victims)
        done = 0
        for group in groups(victims, limit=self._store.segment_limit):
            try:
                report.freed += self._empty(group, with_journals=not findings.plan.is_checkpoint)
            except StoreError as exc:
                # A disk that is full, or a segment that is damaged: what stays loses nothing.
                numbers = [victim.number for victim in group]
                if exc.errno == errno.ENOSPC:
                    log.info("segments %s are given up by pieces: %s", numbers, exc)
                    skipped += self._empty_by_pieces(group, report, findings.plan)
                else:
                    log.warning("segments %s are not given up: %s", numbers, exc)
                    skipped += numbers
            done += sum(victim.size for victim in group)
            self._say("giving up segments", done, total)
        report.skipped = tuple(skipped)

    def _empty(self, group: Sequence[Victim], *, with_journals: bool) -> int:
        """Move everything out of the segments of *group*, and end them; return the bytes gained."""
        numbers = [victim.number for victim in group]
        written = 0
        while True:
            self._check_room(sum(victim.kept for victim in group) - written)
            copied = self._reserve.attempt(
                partial(self._surveyor.copy, self._allocate(), numbers, with_journals=with_journals)
            )
            if copied is None:
                break
            with_journals = False
            written += copied.length
            self._move_to(copied)
        self._write(partial(Sweep.end_segments, numbers=numbers))
        self._at("ended")
        return self._bury() - written

    def _empty_by_pieces(
        self, group: Sequence[Victim], report: Report, plan: Plan
    ) -> Iterator[int]:
        """Give up the segments of *group* from their ends, with little room; yield those that could not be."""
        for victim in group:
            try:
                for gained in self._pieces(victim, with_journals=not plan.is_checkpoint):
                    report.freed += gained
            except StoreError as exc:
                log.warning("segment %d is not given up: %s", victim.number, exc)
                yield victim.number

    def _pieces(self, victim: Victim, *, with_journals: bool) -> Iterator[int]:
        """Move what is at the end of a segment and cut the file, until nothing is left; yield the bytes gained."""
        number, length = victim.number, victim.size
        while True:
            self._reserve.give_up()
            most = (
                _room(self._store.path) // 3
            )  # what is copied, rows of the index, and some for others
            if most < _PIECE_LEAST:
                raise _full(f"{most} bytes are left for a piece of a segment, need {_PIECE_LEAST}")
            found = self._surveyor.copy_end(
                self._allocate(), number, most=most, with_journals=with_journals
            )
            if found is None:
                break
            self._move_to(found.copied)
            txn = self._write(
                partial(
                    Sweep.shorten,
                    number=number,
                    length=found.start,
                    journal_bytes=found.journal_bytes,
                )
            )
            self._at("shortened")
            if not any(self._cut(number, found.start, txn) for _ in range(_CUT_TRIES)):
                raise _full(f"somebody reads an older view of segment {number}")
            self._at("cut")
            yield length - found.start - found.copied.length
            length = found.start
        self._write(partial(Sweep.end_segments, numbers=[number]))
        yield self._bury()

    def _cut(self, number: int, length: int, txn: int) -> bool:
        if self._store.cut(number, length, txn):
            return True
        self._pace.wait()
        return False

    def _allocate(self) -> int:
        if not self._number:
            self._number = self._write(Sweep.allocate)
        return self._number

    def _move_to(self, copied: Copied) -> None:
        """Make *copied*, the last copy, part of the store, and let the rows lead there."""
        self._made.add(copied.number)
        self._number = 0
        self._at("copied")
        try:
            self._write(partial(Sweep.adopt, copied=copied))
        except StoreError:
            copied.vanish()
            raise
        self._at("adopted")
        for batch in self._surveyor.moves():
            while self._swap(batch) is None:
                self._seen = self._surveyor.refresh()  # a rollback came between
            self._at("rows moved")

    def _make_checkpoint(self) -> int:
        """Write a checkpoint; return how many bytes it takes."""
        written = 0
        for record in self._surveyor.checkpoint():
            self._write(partial(Sweep.add_journal, record=record))
            written += RECORD.size + len(record.stored)
            self._at("checkpoint written" if record.is_last else "part of a checkpoint written")
        return written

    def _bury(self) -> int:
        return self._reserve.attempt(partial(self._store.bury, at=self._at))

    def _swap(self, swaps: Sequence[Swap]) -> int | None:
        """Change rows in as many transactions as the pace wants; return how many, None if it must be looked again."""
        count = done = 0
        while done < len(swaps):
            part = swaps[done : done + self._pace.rows]
            changed = self._write(partial(self._swap_part, swaps=part), rows=len(part))
            if changed is None:
                return None
            done += len(part)
            count += changed
        return count

    def _swap_part(self, sweep: Sweep, swaps: Sequence[Swap]) -> int | None:
        if sweep.last_move() > self._seen:
            return None
        sweep.take_touched(self._kept)
        return sweep.swap(swaps, self._kept, self._pace.breathe)

    def _write(self, work: Callable[[Sweep], T], *, rows: int = 0) -> T:
        """Do *work* in a transaction of its own, with the reserve if it must be."""

        worked = 0.0

        def transaction() -> T:
            nonlocal worked
            with self._exclusive, self._store.sweep() as sweep:
                began = time.monotonic()
                result = work(sweep)
                worked = time.monotonic() - began
            return result

        started = time.monotonic()
        result = self._reserve.attempt(transaction)
        self._pace.took(rows, worked, in_all=time.monotonic() - started)
        return result

    def _check_room(self, need: int) -> None:
        """Raise StoreError (ENOSPC) rather than fill the disk, which others use too."""
        if need <= 0:
            return
        room = _room(self._store.path)
        if room < need + _MARGIN and room + self._reserve.held >= need + _MARGIN:
            self._reserve.give_up()
            room = _room(self._store.path)
        if room < need:
            raise _full(f"{room} bytes are left on the disk of {self._store.path}, need {need}")


def _full(message: str) -> StoreError:
    error = StoreError(message)
    error.errno = errno.ENOSPC
    return error


def _room(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
