"""Maintenance under a live mount: collecting, and forgetting to stay below a budget.

Reading is done by another process, writing by a thread in slices so short that the mount goes on answering.  There is
one maintenance at a time.  It ends at once when the mount does, or when who asked for it goes away; what is left is
for the next one.
"""

import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import trio

from dkfs.core.retention import Rules
from dkfs.daemon.control import Message
from dkfs.daemon.courtesy import Courtesy
from dkfs.daemon.listener import Say
from dkfs.daemon.surveying import RemoteSurvey
from dkfs.errors import StoreBusyError, UsageError
from dkfs.history import forget as forgetting
from dkfs.history.pruning import Wish, local_zone
from dkfs.history.retain import Row
from dkfs.store import Store
from dkfs.store.collect import Collection, Pace, Report
from dkfs.store.collect_plan import MAX_UNUSED
from dkfs.store.collect_repack import Repacking
from dkfs.store.collect_survey import Findings
from dkfs.store.reserve import Reserve

# A transaction keeps the recorder waiting; its Python keeps requests waiting for a part of that only (see Courtesy).
_SLICE_S: Final = 0.016  # of a collection; while the mount is busy most of it is waited for others
_FOLD_S: Final = 0.016  # of forgetting
_REST: Final = 3  # times as long as was worked, the commit included
_REST_LEAST_S: Final = 0.005
_REST_MOST_S: Final = 0.05  # a slow disk is mostly waited for
_TELL_S: Final = 0.2

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Totals:
    """What maintenance did since the mount began; for metrics."""

    runs: int = 0
    failures: int = 0
    freed_bytes: int = 0
    forgotten: int = 0  # versions, to stay below a budget
    findings: Findings | None = None  # the newest


class Maintenance:
    """Keeps one store small while it is being written."""

    def __init__(self, store: Store, reserve: Reserve, courtesy: Courtesy, *, depth: int) -> None:
        """*depth*: of differences to differences, at most, where blobs are encoded again."""
        self.totals = Totals()
        self.slices = threading.Lock()  # held by whoever changes what exists: a slice, a rollback
        self._store = store
        self._reserve = reserve
        self._courtesy = courtesy
        self._depth = depth
        self._doing = ""
        self._is_quiet = False
        self._paused = 0
        self._busy = trio.Lock()

    @asynccontextmanager
    async def alone(self, doing: str, *, is_quiet: bool = False) -> AsyncIterator[None]:
        """For the length of the block nobody else maintains the store; raises StoreBusyError.

        What *is_quiet* nobody asked for: who asks for something waits until it is done.
        """
        if self._is_quiet and not is_quiet:
            await self._busy.acquire()
        else:
            try:
                self._busy.acquire_nowait()
            except trio.WouldBlock:
                raise StoreBusyError(
                    f"{self._doing} of store {self._store.path} is under way, expected none"
                ) from None
        self._doing, self._is_quiet = doing, is_quiet
        try:
            yield
        finally:
            self._is_quiet = False
            self._busy.release()

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """For the length of the block no slice of a maintenance runs."""
        self._paused += 1
        try:
            await trio.to_thread.run_sync(self.slices.acquire)
            try:
                yield
            finally:
                self.slices.release()
        finally:
            self._paused -= 1

    @property
    def is_paused(self) -> bool:
        """Whether somebody keeps maintenance out, or wants to."""
        return self._paused > 0

    async def bury(self) -> None:
        """Remove segments that nobody reads any more, if there are some; take the reserve if it is time."""
        with suppress(StoreBusyError):  # who is at work does it too
            async with self.alone("burying", is_quiet=True):
                await trio.to_thread.run_sync(self._bury)

    def _bury(self) -> None:
        self._store.bury_quietly()
        self._reserve.keep()

    async def forget(self, work: Callable[[forgetting.Pace], T], say: Say) -> T:
        """Do *work*, which forgets versions or contents at the pace that it is given."""
        async with self.alone("forgetting"):
            return await trio.to_thread.run_sync(self.forget_slowly, work, Rest(say))

    def forget_slowly(self, work: Callable[[forgetting.Pace], T], rest: "Rest") -> T:
        """Do *work* in this thread, one of trio's; who calls it is alone()."""
        self._courtesy.is_hurried = rest.is_hurried
        with self.slices, self._reserve.spending():
            return self._reserve.attempt(lambda: work(rest.within(self.slices, self._courtesy)))

    async def gc(self, request: Message, say: Say) -> Message:
        """Collect; the command of this name."""
        max_unused = request.get("max_unused", MAX_UNUSED)
        if not isinstance(max_unused, int | float) or not 0 <= max_unused <= 1:
            raise UsageError('control request: "max_unused" is not a number from 0 to 1')
        repacking = self._repacking(request)
        async with self.alone("a collection"):
            return described(
                await self.collect(Rest(say), max_unused=max_unused, repacking=repacking)
            )

    def _repacking(self, request: Message) -> Repacking | None:
        rate = request.get("throttle")
        if rate is not None and not (isinstance(rate, int) and rate > 0):
            raise UsageError('control request: "throttle" is not a number above 0')
        if request.get("repack") is not True:
            return None
        return Repacking(depth=self._depth, rate=rate)

    async def collect(
        self, rest: "Rest", *, max_unused: float, repacking: Repacking | None = None
    ) -> Report:
        """Collect; who calls it is alone()."""
        try:
            report = await trio.to_thread.run_sync(self._collect, rest, max_unused, repacking)
        except BaseException:
            self.totals.failures += 1
            raise
        self.totals.runs += 1
        self.totals.freed_bytes += max(report.freed, 0)
        self.totals.findings = report.findings
        return report

    async def forget_by(self, rules: Rules, rest: "Rest") -> int:
        """Forget what *rules* do not keep; return how many versions. Who calls it is alone()."""
        count = await trio.to_thread.run_sync(self._forget_by, rules, rest)
        self.totals.forgotten += count
        return count

    def _forget_by(self, rules: Rules, rest: "Rest") -> int:
        store, now_ns = self._store, time.time_ns()
        wish = Wish(rules, now_ns, local_zone)
        with RemoteSurvey(store.path, limit=store.segment_limit, say=rest.say) as survey:
            intent = survey.intend(wish)
            done = self.forget_slowly(
                lambda pace: forgetting.forget(
                    store, intent.ranges, tags=intent.tags, now_ns=now_ns, pace=pace
                ),
                rest,
            )
            if rules.paths:
                for rows in survey.contents(wish):
                    self.forget_slowly(partial(_forget_contents, store, rows), rest)
        return done.forgotten

    def _collect(self, rest: "Rest", max_unused: float, repacking: Repacking | None) -> Report:
        limit = self._store.segment_limit
        self._courtesy.is_hurried = rest.is_hurried
        with RemoteSurvey(self._store.path, limit=limit, say=rest.say) as survey:
            return Collection(
                self._store,
                survey,
                reserve=self._reserve,
                pace=Pace(
                    slice_s=_SLICE_S,
                    pause=partial(self._pause, rest),
                    breathe=self._courtesy.breathe,
                ),
                say=rest.say,
                exclusive=self.slices,
            ).run(max_unused=max_unused, repacking=repacking)

    def _pause(self, rest: "Rest", seconds: float) -> None:
        rest.pause(seconds, waited_s=self._courtesy.waited_s())


def _forget_contents(store: Store, rows: Sequence[Row], pace: forgetting.Pace) -> int:
    return forgetting.forget_contents(store, rows, pace=pace)


class Rest:
    """What happens between two slices, in the thread that works: others go on, and who asked hears how far it is."""

    def __init__(
        self, say: Say | None = None, *, is_hurried: Callable[[], bool] = lambda: False
    ) -> None:
        """*is_hurried* tells whether more wait for the end of it than for a rest."""
        self._say = say
        self.is_hurried = is_hurried
        self._told = self._rested = time.monotonic()

    def pause(self, seconds: float, *, waited_s: float = 0.0) -> None:
        """Rest from a slice that took so long, in which it was waited for others for *waited_s*."""
        trio.from_thread.check_cancelled()  # the mount ends: what is left is for another time
        if not self.is_hurried():
            due_s = _REST * (seconds - waited_s) - waited_s
            time.sleep(min(max(_REST_LEAST_S, due_s), _REST_MOST_S))

    def say(self, what: str, done: int, total: int) -> None:
        """Tell how far *what* is, if that was not told just now."""
        trio.from_thread.check_cancelled()
        now = time.monotonic()
        if self._say is not None and now - self._told > _TELL_S:
            self._told = now
            line: Message = {
                "message_type": "progress",
                "what": what,
                "done": done,
                "total": total,
            }
            # Raises if nobody listens any more: who asked has given up.
            trio.from_thread.run(self._say, line)

    def within(self, slices: threading.Lock, courtesy: Courtesy) -> forgetting.Pace:
        """Return the pace of forgetting that lets go of *slices* between two transactions."""

        def pause(progress: forgetting.Progress) -> None:
            slices.release()
            try:
                self.say("forgetting", progress.forgotten, progress.total)
                worked_s = time.monotonic() - self._rested
                self.pause(worked_s, waited_s=courtesy.waited_s())
            finally:
                slices.acquire()
                self._rested = time.monotonic()

        self._rested = time.monotonic()
        return forgetting.Pace(_FOLD_S, pause, courtesy.breathe)


def described(report: Report) -> Message:
    """Return what *report* says, for the control socket."""
    findings = report.findings
    return {
        "dead_blobs": report.dead_blobs,
        "blobs": findings.blobs - report.dead_blobs,
        "planned": findings.plan.freed,
        "freed": report.freed,
        "pending": report.pending,
        "skipped": list(report.skipped),
        "seconds": round(report.seconds, 3),
    }
