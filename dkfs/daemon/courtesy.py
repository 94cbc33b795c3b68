"""Courtesy: who maintains the store in a thread of the daemon goes out of the way of requests, row by row.

A thread that goes to and fro between Python and LMDB has the interpreter back before one that serves has woken up to
take it: a request that comes meanwhile waits at each of its system calls.  So every fraction of a millisecond the work
stops, and goes on when no request is there (docs/decisions/0020).
"""

import time
from collections.abc import Callable
from typing import Final

WORK_S: Final = 0.0001  # at a time: a request waits for it at most once
_BREATH_S: Final = 0.0001  # about as long as a request takes
_MOST_S: Final = 0.002  # so long at most, however many requests there are: the work ends, too
_CALM_S: Final = 0.05  # after the last request, until which the next one is expected


class Courtesy:
    """When to stop, and for how long; for one thread at a time."""

    def __init__(
        self,
        turn: Callable[[], int],
        *,
        clock_s: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """*turn* tells a number that grows at the beginning and at the end of each request: odd within one."""
        self._turn = turn
        self._clock_s = clock_s
        self._sleep = sleep
        self._seen = turn()
        self._calm_s = 0.0  # from then on no request is expected
        self._until_s = 0.0
        self._waited_s = 0.0
        self.is_hurried: Callable[[], bool] = lambda: False  # more wait for the end of the work

    def waited_s(self) -> float:
        """Return how long it was waited for others since this was asked last."""
        waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s

    def breathe(self) -> None:
        """Let requests go first, if it is time; to be called after each row."""
        now_s = self._clock_s()
        if now_s < self._until_s:
            return
        self._look(now_s)
        if now_s < self._calm_s and not self.is_hurried():
            began_s, now_s = now_s, self._step_aside(now_s)
            self._waited_s += now_s - began_s
        self._until_s = now_s + WORK_S

    def _step_aside(self, now_s: float) -> float:
        """Wait until no request is there; return the time."""
        end_s = now_s + _MOST_S
        while True:
            self._sleep(_BREATH_S)
            now_s = self._clock_s()
            if not self._look(now_s) or now_s >= end_s:
                return now_s

    def _look(self, now_s: float) -> bool:
        """Return whether a request is there, or was since the last look."""
        turn = self._turn()
        if turn == self._seen and not turn & 1:
            return False
        self._seen = turn
        self._calm_s = now_s + _CALM_S
        return True
