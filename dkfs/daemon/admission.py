"""What keeps recording from outrunning a budget: a transaction waits while a collection may make room for it.

Only the recorder waits: applications go on until its queue is full, as if the disk were slow.  It never waits for
what waits for it: not while the loop stands still, which the collection needs, not while a rollback keeps the
collection out, not when the mount ends.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from dkfs.errors import DkfsError

_PATIENCE_S: Final = 30.0  # for one transaction
_BEAT_S: Final = 0.05
_DEAD_S: Final = 0.3  # without a beat of the loop
_ROUNDS: Final = 2  # tries to make room: what one transaction needs is there then, or never will be
_SHARE: Final = (
    4  # a transaction waits for room for all of it, but for no more than this part of the limit
)


class Admission:
    """Lets the recorder's transactions through."""

    def __init__(
        self,
        limit: int,
        *,
        size: Callable[[], int],
        wake: Callable[[], None],
        now: Callable[[], bool],
    ) -> None:
        """Keep *size* below *limit*, in bytes; *wake*, called in the loop, has room made soon.

        *now* tells whether making room may help just now.
        """
        self._limit = limit
        self._size = size
        self._wake = wake
        self._may_help = now
        self._rounds = 0
        self._is_held_up = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._beaten_s = 0.0
        self._condition = threading.Condition()

    def open(self, token: trio.lowlevel.TrioToken) -> None:
        """Begin to make transactions wait; *token* is the loop's."""
        self._token = token

    def close(self) -> None:
        """Let everything through from now on."""
        with self._condition:
            self._token = None
            self._condition.notify_all()

    def wake(self) -> None:
        """Have the size looked at; for any thread."""
        token = self._token
        if token is not None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._wake, idempotent=True)

    @property
    def is_held_up(self) -> bool:
        """Whether a transaction waits, or the last one went although there was no room for it."""
        return self._is_held_up

    def made_room(self) -> None:
        """Hear that another try to make room has ended."""
        with self._condition:
            self._rounds += 1
            self._condition.notify_all()

    def admit(self, least: int) -> int:
        """Return how many bytes may be stored now, waiting until there is room for *least*; see the module."""
        need = min(least, self._limit // _SHARE)
        started = self._beaten_s = time.monotonic()
        with self._condition:
            rounds = self._rounds + _ROUNDS
            while True:
                try:
                    room = max(0, self._limit - self._size())
                except DkfsError:  # who stores something will hear of it
                    return least
                self._is_held_up = room <= need
                if not self._is_held_up or self._rounds >= rounds or not self._is_worth(started):
                    return room
                self._condition.wait(_BEAT_S)

    def _is_worth(self, started: float) -> bool:
        """Return whether to wait on; asks for room to be made, and whether the loop is alive."""
        token, now = self._token, time.monotonic()
        if token is None or not self._may_help() or now - started > _PATIENCE_S:
            return False
        try:
            token.run_sync_soon(self._beat, idempotent=True)
        except trio.RunFinishedError:
            return False
        return now - self._beaten_s < _DEAD_S

    def _beat(self) -> None:
        self._beaten_s = time.monotonic()
        self._wake()
