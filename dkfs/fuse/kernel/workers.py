"""Threads for what must not hold up other requests.  As many as there is work for, up to a bound.

trio's own take 66 to 131 microseconds to start and to hand their result back through the loop; these
write their replies to the kernel themselves.
"""

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

_MOST: Final = 128  # who waits for a disk that is stuck occupies one each
_END_S: Final = 10.0


class Workers:
    """A pool of threads."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._mutex = threading.Lock()
        self._idle = 0  # threads that wait for work, less work that waits for a thread

    def do(self, work: Callable[[], None]) -> None:
        """Have *work*, which raises nothing, done in some thread."""
        self._queue.put(work)
        with self._mutex:
            self._idle -= 1
            if self._idle >= 0 or len(self._threads) >= _MOST:
                return
            self._idle += 1
            thread = threading.Thread(target=self._run, name="dkfs-worker", daemon=True)
            self._threads.append(thread)
        thread.start()

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
