"""The budget of a store: when it is above, versions are forgotten by policy, and their room goes back to the disk.

A disk that is full is dealt with in the same way, by whatever policy there is.
"""

import errno
import logging
import time
from typing import Final

import trio

from dkfs.config.settings import MountSettings
from dkfs.core.durations import Duration
from dkfs.core.retention import Period, Policy, Rules
from dkfs.daemon.maintenance import Maintenance, Rest
from dkfs.errors import DkfsError, StoreBusyError
from dkfs.history.recorder import Recorder
from dkfs.metrics.upkeep import Upkeep
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
_AGAIN_S: Final = (
    60.0  # before the next try, and the next line in the log, when a try was not enough
)
_BELOW: Final = 0.9  # of the budget: what a try wants to reach

log = logging.getLogger(__name__)


class Budget:
    """Watches one store."""

    def __init__(
        self, settings: MountSettings, store: Store, maintenance: Maintenance, recorder: Recorder
    ) -> None:
        self._limit = settings.budget
        self._rules = settings.retention
        if self._rules is None and self._limit is not None:
            self._rules = DEFAULT_RULES
        self._store = store
        self._maintenance = maintenance
        self._recorder = recorder
        self._not_before_s = 0.0
        self._is_over = False

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
            is_over=self._is_over,
        )

    async def watch(self) -> None:
        """Keep the store below its budget, until the mount ends."""
        while True:
            await trio.sleep(_LOOK_S)
            try:
                await self._maintenance.bury()
                if self._disk_is_full() or self._size() > (self._limit or float("inf")):
                    await self._shrink()
                else:
                    self._is_over = False
            except StoreBusyError:
                continue  # somebody asked for a maintenance: this comes after it
            except (DkfsError, OSError) as exc:  # the mount goes on without
                self._not_before_s = time.monotonic() + _AGAIN_S
                log.warning("the store cannot be made smaller: %s", exc)
            except Exception:  # the edge: an error here would end the mount for everybody
                self._not_before_s = time.monotonic() + _AGAIN_S
                log.exception("the store cannot be made smaller, by an internal error")

    async def _shrink(self) -> None:
        """Forget what may be forgotten, and collect; say so if that is not enough."""
        if time.monotonic() < self._not_before_s:
            return
        async with self._maintenance.alone("the keeping small", is_quiet=True):
            rest = Rest()
            forgotten = 0
            if self._rules is not None:
                forgotten = await self._maintenance.forget_by(self._rules, rest)
            report = await self._maintenance.collect(rest, max_unused=MAX_UNUSED)
            freed = report.freed
            if self._limit is not None and self._size() > self._limit * _BELOW:
                freed += (await self._maintenance.collect(rest, max_unused=0)).freed
        log.info("forgot %d versions, %d bytes came back to the disk", forgotten, freed)
        is_over = self._limit is not None and self._size() > self._limit
        # If something was forgotten, what was recorded meanwhile may be forgotten at the next look.
        self._is_over = is_over and not forgotten
        if self._is_over or (self._disk_is_full() and not forgotten):
            self._not_before_s = time.monotonic() + _AGAIN_S
            log.warning(
                "store %s has %d bytes, its budget is %s: the policy keeps all that is left",
                self._store.path,
                self._size(),
                "the disk" if self._limit is None else self._limit,
            )

    def _size(self) -> int:
        size = self._store.size()
        return size.index_bytes + size.segment_bytes

    def _disk_is_full(self) -> bool:
        failure = self._recorder.failure
        if failure is None:
            return False
        # LMDB takes a write that is cut short for an error of the disk.
        return failure.errno == errno.ENOSPC or is_full(self._store.path)
