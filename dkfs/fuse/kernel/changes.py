"""Whose turn it is to change things, when who does so is kept by a call on the backing directory.

As a rule it is the loop's, always, and asking whether that is so (is_shared) is all that it costs.  When the loop is
kept, the turn is taken from it, and goes from hand to hand, for a request each, of those who stand in and of the loop
when it is back: one at a time, in the order in which the requests were read.  Who is kept keeps a *claim*: the
devices on which its request changes something.  Nobody else touches these until it has finished; what is about
them is put off.  So whatever two threads do at once is on different devices, and what belongs to no inode
(the log, counts, the table of inodes) is changed in steps, each under a mutex of its own.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from dkfs.fuse.kernel.kinds import NOTHING, Claim

Item = TypeVar("Item")


class Who(Protocol):
    """A thread that serves."""

    @property
    def turn(self) -> int:
        """A number that grows at the beginning and at the end of each request: odd within one."""
        ...


class Changes(Generic[Item]):
    """See the module.  An Item is a request that changes something."""

    def __init__(self, claim_of: Callable[[Item], Claim]) -> None:
        self._claim_of = claim_of
        self._mutex = threading.Lock()
        self.is_shared = False  # else it is the loop's turn
        self._whose: Who | None = None
        self._claims: dict[Who, Claim] = {}  # of those who are kept
        self._waiting: deque[Item] = deque()
        self._put_off: list[Item] = []  # they concern what is claimed

    def submit(self, item: Item) -> None:
        """Have *item* done in its turn: next() is due."""
        with self._mutex:
            self._waiting.append(item)

    def next(self, who: Who) -> Item | None:
        """Return what *who* is to do now, done() is due then; None if there is nothing, or it is another's turn."""
        if not self._waiting:
            return None
        with self._mutex:
            if self._whose is not None:
                return None
            while self._waiting:
                item = self._waiting.popleft()
                if self._is_free(self._claim_of(item)):
                    self._whose = who if self.is_shared else None
                    return item
                self._put_off.append(item)
        return None

    def done(self, who: Who) -> None:
        """Hear that *who* has finished what it did."""
        with self._mutex:
            if self._whose is who:
                self._whose = None
            if who in self._claims:
                del self._claims[who]
                self._waiting.extendleft(reversed(self._put_off))
                self._put_off.clear()

    def hold(self, who: Who, claim: Claim) -> bool:
        """Return whether it is the turn of *who* now, for something with *claim* that is no Item; done() is due then."""
        with self._mutex:
            if self._whose is not None or not self._is_free(claim):
                return False
            self._whose = who if self.is_shared else None
            return True

    def is_kept(self, who: Who, turn: int, at: Item, *, is_loop: bool) -> bool:
        """Hear that *who* is kept at *at*, since its number is *turn*; return whether the turn was taken from it.

        The flag is set before the numbers are compared, and the loop looks at it after it has changed its own: so one of
        them sees the other.  If the loop has gone on it may have seen the flag for nothing, which next() and hold() bear.
        """
        claim = self._claim_of(at)
        with self._mutex:
            was_shared, self.is_shared = self.is_shared, True
            if who.turn != turn or not (self._whose is who if was_shared else is_loop):
                self.is_shared = was_shared
                return False
            self._claims[who] = claim
            self._whose = None
            return True

    def end(self) -> bool:
        """Return whether from now on it is always the loop's turn: nobody is kept, and nothing waits.  In the loop's thread."""
        with self._mutex:
            if self._claims or self._whose is not None or self._waiting or self._put_off:
                return False
            self.is_shared = False
            return True

    def _is_free(self, claim: Claim) -> bool:
        return not any(_clash(claim, other) for other in self._claims.values())


def _clash(one: Claim, other: Claim) -> bool:
    if one is None or other is None:
        return NOTHING not in (one, other)
    return not one.isdisjoint(other)
