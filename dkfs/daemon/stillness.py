"""Stillness: nothing has happened for a while.  Then what looks at things by the clock wakes up for next to nothing."""

from collections.abc import Callable
from typing import Final

import trio

_AFTER_S: Final = 5.0  # without a change; what follows from the last one is done by then
_MOST_S: Final = 30.0  # that a look is late, at most, if nothing tells of what it would find


class Stillness:
    """Tells those who sleep in it when to look again."""

    def __init__(self, is_busy: Callable[[], bool], clock_s: Callable[[], float]) -> None:
        """*is_busy* tells whether something is under way, whatever was told by stir(); *clock_s* never goes back."""
        self._is_busy = is_busy
        self._clock_s = clock_s
        self._since_s = clock_s()
        self._token: trio.lowlevel.TrioToken | None = None
        self._ended = trio.Event()

    @property
    def is_there(self) -> bool:
        """Whether nothing has happened for a while, and nothing is under way."""
        return self._clock_s() - self._since_s > _AFTER_S and not self._is_busy()

    def start(self) -> None:
        """Begin; in the loop's thread."""
        self._token = trio.lowlevel.current_trio_token()

    def stir(self) -> None:
        """Hear that something happens; in any thread."""
        before_s, self._since_s = self._since_s, self._clock_s()
        if self._since_s - before_s > _AFTER_S and self._token is not None:
            try:
                self._token.run_sync_soon(self._end, idempotent=True)
            except trio.RunFinishedError:
                pass  # nobody sleeps any more

    def _end(self) -> None:
        self._ended.set()
        self._ended = trio.Event()

    async def sleep(self, seconds: float, *, most_s: float = _MOST_S) -> None:
        """Sleep for so many *seconds*; if it is still then, until something happens, or for *most_s*."""
        await trio.sleep(seconds)
        if not self.is_there:
            return
        ended = self._ended
        with trio.move_on_after(max(0.0, most_s - seconds)):
            await ended.wait()
