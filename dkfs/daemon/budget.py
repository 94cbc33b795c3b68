"""The budget of a store: before it is above, versions are forgotten by policy, and their room goes back to the disk.

Its size is looked at every two seconds while something happens, and whenever what was recorded since has used up half
of the room that was left.  While a collection may help, recording does not pass the limit (see admission); if the policy keeps more than the
budget, it does.  A disk that is full is dealt with in the same way, by whatever policy there is.
"""

import errno
import logging
import os
import time
from typing import Final

import trio

from dkfs.config.settings import MountSettings
from dkfs.core.durations import Duration
from dkfs.core.retention import Period, Policy, Rules
from dkfs.daemon.admission import Admission
from dkfs.daemon.maintenance import Maintenance, Rest
from dkfs.daemon.stillness import Stillness
from dkfs.errors import DkfsError, StoreBusyError
from dkfs.history.recorder import Recorder
from dkfs.metrics.upkeep import Over, Upkeep
from dkfs.store import Store
from dkfs.store.collect_plan import MAX_UNUSED
from dkfs.store.reserve import is_full

# What is kept if there is a budget and nobody said what to keep.
DEFAULT_RULES: Final = Rules(
    Policy(
        counts={Period.HOURLY: 24, Period.DAILY: 7, Period.WEEKLY: 4, Period.MONTHLY: 12},
        within={Period.LAST: Duration(seconds=3600)},
    )
)

_LOOK_S: Final = 2.0  # between two looks at the size
_STILL_S: Final = 30.0  # the same, at most, while nothing happens
_FILLS: Final = 2 << 30  # bytes a second, by others, see store.reserve.PLENTY
_AGAIN_S: Final = (
    60.0  # before the next try, and the next line in the log, when a try was not enough
)
_SOON_S: Final = 0.25  # before the next try when one brought next to nothing
_LITTLE: Final = 0.02  # of the budget: next to nothing
_START: Final = 0.75  # of the budget: from here on it is kept small
_BELOW: Final = 0.9  # of that: what a try wants to reach
_GATE: Final = (
    15 / 16
)  # of the budget: where recording waits; a collection copies before it removes
_VERSION_BYTES: Final = 500  # that a version takes in the index while a mount records

log = logging.getLogger(__name__)


class Budget:
    """Watches one store."""

    def __init__(
        self,
        settings: MountSettings,
        store: Store,
        maintenance: Maintenance,
        recorder: Recorder,
        stillness: Stillness,
    ) -> None:
        self._limit = settings.budget
        self._rules = settings.retention
        if self._rules is None and self._limit is not None:
            self._rules = DEFAULT_RULES
        self._store = store
        self._maintenance = maintenance
        self._recorder = recorder
        self._stillness = stillness
        self._not_before_s = 0.0
        self._start = (self._limit or 0) * _START  # bytes: from here on a try is made
        self._gate = int((self._limit or 0) * _GATE)  # bytes: no more, if it can be helped
        self._keeps_too_much = False  # the policy does
        self._stored = 0  # bytes since the last look; by the recorder's thread
        self._next_look = self._start / 2  # of them
        self._seen = 0  # bytes of the store, when it was looked at last
        self._wanted = trio.Event()
        self._admission: Admission | None = None
        if self._limit is not None:
            self._admission = Admission(
                self._gate, size=self._size, wake=self._wake, now=self._may_help
            )
            recorder.ask_first(self._admission.admit)

    def upkeep(self) -> Upkeep:
        """Return what the metrics tell."""
        totals = self._maintenance.totals
        findings = totals.findings
        return Upkeep(
            runs=totals.runs,
            failures=totals.failures,
            freed_bytes=totals.freed_bytes,
            forgotten=totals.forgotten,
            live_bytes=findings.live_bytes if findings else None,
            dead_bytes=findings.dead_bytes if findings else None,
            budget_bytes=self._limit,
            over=self.over(),
        )

    def over(self) -> Over:
        """Return why the store is above its budget: "" if it is not."""
        if self._limit is None or self._size() <= self._limit:
            return ""
        return "policy" if self._keeps_too_much else "writing"

    def members(self) -> dict[str, object]:
        """Return what is told of it in the status."""
        if self._limit is None:
            return {}
        over = self.over()
        told: dict[str, object] = {"budget_bytes": self._limit, "over_budget": bool(over)}
        return {**told, "over_budget_reason": over} if over else told

    @property
    def is_pressed(self) -> bool:
        """Whether there is so little room left that versions nobody asked for should be few."""
        return self._limit is not None and self._size() > self._start

    def stored(self, size: int, versions: int) -> None:
        """Hear of a transaction; in the recorder's thread."""
        self._stored += size + versions * _VERSION_BYTES
        if self._admission is not None and self._stored > self._next_look:
            self._admission.wake()

    async def watch(self) -> None:
        """Keep the store below its budget, until the mount ends."""
        if self._admission is not None:
            self._admission.open(trio.lowlevel.current_trio_token())
        while True:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pause)
                await self._wanted.wait()
                nursery.cancel_scope.cancel()
            self._wanted = trio.Event()
            await self._look()

    async def _pause(self) -> None:
        """Make a look wanted when it is due: while nothing happens, before others can have filled the disk."""
        try:
            disk = os.statvfs(self._store.path)
        except OSError:
            most_s = 0.0  # the look will say so
        else:
            most_s = min(_STILL_S, disk.f_bavail * disk.f_frsize / _FILLS)
        await self._stillness.sleep(_LOOK_S, most_s=most_s)
        self._wake()

    def let_through(self) -> None:
        """Have nothing wait for room any more: the mount ends."""
        if self._admission is not None:
            self._admission.close()

    async def _look(self) -> None:
        try:
            await self._maintenance.bury()
            if self._disk_is_full() or self._is_due():
                await self._shrink()
            else:
                self._keeps_too_much = False
        except StoreBusyError:
            await trio.sleep(_LOOK_S)  # somebody asked for a maintenance: this comes after it
            return
        except (DkfsError, OSError) as exc:  # the mount goes on without
            self._not_before_s = time.monotonic() + _AGAIN_S
            self._tried()
            log.warning("the store cannot be made smaller: %s", exc)
        except Exception:  # the edge: an error here would end the mount for everybody
            self._not_before_s = time.monotonic() + _AGAIN_S
            self._tried()
            log.exception("the store cannot be made smaller, by an internal error")
        self._stored = 0
        self._next_look = max(0, (self._limit or 0) - self._size()) / 2

    def _is_due(self) -> bool:
        return self._is_held_up() or (self._limit is not None and self._size() > self._start)

    def _is_held_up(self) -> bool:
        return self._admission is not None and self._admission.is_held_up

    async def _shrink(self) -> None:
        """Forget what may be forgotten, and collect; say so if that is not enough."""
        if time.monotonic() < self._not_before_s:
            return
        before, self._stored = self._size(), 0
        forgotten, freed = await self._make_room()
        after = self._size()
        self._tried()
        log.info("forgot %d versions, %d bytes came back to the disk", forgotten, freed)
        limit = self._limit
        # What was recorded meanwhile may be forgotten by the next try.
        self._keeps_too_much = limit is not None and after - self._stored > self._gate
        if self._keeps_too_much or (self._disk_is_full() and not forgotten):
            self._not_before_s = time.monotonic() + _AGAIN_S
            log.warning(
                "store %s has %d bytes, its budget is %s: the policy keeps all that is left",
                self._store.path,
                after,
                "the disk" if limit is None else limit,
            )
        elif limit is not None:
            self._start = max(_START * limit, after + (self._gate - after) / 2)
            if before - after < _LITTLE * limit:
                self._not_before_s = time.monotonic() + _SOON_S

    async def _make_room(self) -> tuple[int, int]:
        """Forget and collect; return how many versions went, and how many bytes came back."""
        async with self._maintenance.alone("the keeping small", is_quiet=True):
            rest = Rest(is_hurried=self._is_held_up)
            forgotten = 0
            if self._rules is not None:
                forgotten = await self._maintenance.forget_by(self._rules, rest)
            report = await self._maintenance.collect(rest, max_unused=MAX_UNUSED)
            freed = report.freed
            if self._limit is not None and self._size() > self._limit * _START * _BELOW:
                freed += (await self._maintenance.collect(rest, max_unused=0)).freed
        return forgotten, freed

    def _tried(self) -> None:
        if self._admission is not None:
            self._admission.made_room()

    def _may_help(self) -> bool:
        """Return whether to wait for room: not if the policy keeps all that is left, or nothing can be forgotten now."""
        if self._keeps_too_much or self._maintenance.is_paused:
            return False
        return self._recorder.failure is None and time.monotonic() + _SOON_S >= self._not_before_s

    def _wake(self) -> None:
        self._wanted.set()

    def _size(self) -> int:
        try:
            size = self._store.size()
        except DkfsError:  # it is gone, or its disk is: the recorder says so
            return self._seen
        self._seen = size.index_bytes + size.segment_bytes
        return self._seen

    def _disk_is_full(self) -> bool:
        failure = self._recorder.failure
        if failure is None:
            return False
        # LMDB takes a write that is cut short for an error of the disk.
        return failure.errno == errno.ENOSPC or is_full(self._store.path)
