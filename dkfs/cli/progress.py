"""A progress bar on a terminal; nothing elsewhere."""

import sys
import time
from types import TracebackType
from typing import Final, Self, TextIO

_WIDTH: Final = 30
_INTERVAL_S: Final = 0.1


class Progress:
    """A line on *stream* that tells how far *what* has come; gone at the end."""

    def __init__(self, what: str, *, stream: TextIO | None = None) -> None:
        """Show *what* on stderr, or on *stream*."""
        self._what = what
        self._stream = sys.stderr if stream is None else stream
        self._shown = self._stream.isatty()
        self._next_s = 0.0

    def __enter__(self) -> Self:
        """Show nothing yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Clear the line."""
        if self._shown and self._next_s:
            print("\r\x1b[K", end="", file=self._stream, flush=True)

    def update(self, done: int, total: int) -> None:
        """Tell that *done* of *total* things are done; *total* 0 = not known."""
        now_s = time.monotonic()
        if not self._shown or now_s < self._next_s:
            return
        self._next_s = now_s + _INTERVAL_S
        if total:
            filled = _WIDTH * min(done, total) // total
            bar = f"[{'#' * filled}{' ' * (_WIDTH - filled)}] {done}/{total}"
        else:
            bar = str(done)
        print(f"\r{self._what} {bar}\x1b[K", end="", file=self._stream, flush=True)

    def tell(self, what: str, done: int, total: int) -> None:
        """Tell that *done* of *total* things are done of *what*, which takes the place of what it was."""
        self._what = what
        self.update(done, total)

    def replay(self, done: int, total: int, size: int) -> None:  # noqa: ARG002 - see update
        """Tell that *done* of *total* nodes and *size* bytes are written."""
        self.update(done, total)
