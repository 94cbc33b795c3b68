"""Threads for what must not hold up other requests.  As many as there is work for, up to a bound.

Where the system gives no more threads (pids.max, RLIMIT_NPROC) those that there are do it all; where there is
none, whoever asks does it himself.

trio's own take 66 to 131 microseconds to start and to hand their result back through the loop; these
write their replies to the kernel themselves.
"""

import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

log = logging.getLogger(__name__)

_MOST: Final = 128  # who waits for a disk that is stuck occupies one each
_END_S: Final = 10.0


class Workers:
    """A pool of threads."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._mutex = threading.Lock()
        self._idle = 0  # threads that wait for work, less work that waits for a thread
        self._is_short = False  # the system gives no more threads

    def do(self, work: Callable[[], None]) -> None:
        """Have *work*, which raises nothing, done in some thread; in this one if there can be no other."""
        self._queue.put(work)
        with self._mutex:
            self._idle -= 1
            if self._idle >= 0 or len(self._threads) >= _MOST or self._grow() or self._threads:
                return
        self._do_one()

    def _grow(self) -> bool:
        """Start one more thread; return whether there is one.  With the mutex."""
        thread = threading.Thread(target=self._run, name="dkfs-worker", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:
            if not self._is_short:
                log.warning("no more than %d threads serve: %s", len(self._threads), exc)
            self._is_short = True
            return False
        self._is_short = False
        self._threads.append(thread)
        self._idle += 1
        return True

    def _do_one(self) -> None:
        try:
            work = self._queue.get_nowait()
        except Empty:
            return  # a thread that was started meanwhile has it
        if work is not None:
            work()
        with self._mutex:
            self._idle += 1

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()
            with self._mutex:
                self._idle += 1

    def close(self) -> None:
        """End the threads; one that is stuck is left behind after a while."""
        for _ in self._threads:
            self._queue.put(None)
        deadline_s = time.monotonic() + _END_S
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
