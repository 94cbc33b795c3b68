"""Lanes: how many threads one device may keep at a time, so that its callers do not keep all that there are."""

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Lanes(Generic[Item]):
    """Who serves a device, and what waits until one of these is kept no more."""

    def __init__(self, most: int) -> None:
        """At most *most* serve one device at a time."""
        self._most = most
        self._mutex = threading.Lock()
        self._serving: dict[int, int] = {}  # threads, by device
        self._waiting: dict[int, deque[Item]] = {}

    def enter(self, device: int, item: Item) -> bool:
        """Return whether *item* is to be served now; leave() is due then.  Else somebody gets it from leave()."""
        with self._mutex:
            serving = self._serving.get(device, 0)
            if serving >= self._most:
                self._waiting.setdefault(device, deque()).append(item)
                return False
            self._serving[device] = serving + 1
            return True

    def leave(self, device: int) -> Item | None:
        """Return what is to be served now, after which leave() is due again; None if nothing waits."""
        with self._mutex:
            waiting = self._waiting.get(device)
            if waiting:
                return waiting.popleft()
            self._waiting.pop(device, None)
            self._serving[device] -= 1
            if not self._serving[device]:
                del self._serving[device]
            return None
