"""When the recorder begins a transaction, and how much goes into one: the rule alone, which waits for nothing itself.

A transaction costs 1 to 2 ms whatever is in it, and while the recorder computes, requests wait for the interpreter.  So
in a burst of operations, an unpacking for example, it waits for a quiet moment.  A file that is saved when little else
happens is recorded at once.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

from dkfs.history.change import Pending
from dkfs.model.operation import OpKind

# What LMDB has changed goes to new pages, and the old ones of two transactions cannot be used again: so an index has
# twice as many free pages as a transaction may change.  Of 100,000 versions of 1,000 files it took 493 bytes a version
# with 1,000 operations in one, 365 with 128, 353 with 64.
BATCH: Final = 128  # operations in one transaction, unless more than _BACKLOG times as many wait
_BACKLOG: Final = 64  # with 16, a mount that is faster than its recorder got 403 to 419 bytes a version; with 64, 368

# So many operations in such a time are a burst: an unpacking makes 60 in it, a program that saves file after file by
# writing, fsync and renaming 12 at most.
_BURST: Final = 16
_BURST_S: Final = 0.03
# Since the last operation of a burst.  A busy machine holds up a burst for 4 ms at any time, and the recorder that begins then
# makes the rest of it slower: creating 6,000 files, it took 0.1 ms a file; having waited, nothing.
_LULL_S: Final = 0.03
_QUIET_S: Final = 0.004
# What begins the saving of a file would be in the way of the rest: the writing, which takes 1 ms for 1 MiB.
_BEGINS: Final = frozenset((OpKind.CREATE, OpKind.TRUNCATE))
# A new file is often renamed, 0.1 to 0.5 ms later through the mount, and that tells what its contents resemble.
_REST_S: Final = 0.001
# So that whoever waits for the answer to what was done has it first.  With 0.3 ms a close took 10 to 30 us less, and the
# version of 100 KiB written into 1 MiB was committed after 4.2 ms instead of 3.7: what was just written is still in the caches.
_ANSWER_S: Final = 0.0001
_NAP_S: Final = 0.0005  # no longer at a time, for nobody says that something came, but in a burst
_LAG_MOST_S: Final = 5.0  # of the oldest one: as long as ext4 by default keeps what nobody syncs

Queued = tuple[Pending, float]  # what was appended, and when, in monotonic seconds


def most(waiting: int) -> int:
    """Return how many operations one transaction takes at most if so many are *waiting*.

    On a disk that takes long to sync it takes more, so that the queue does not become longer and longer.
    """
    return max(BATCH, waiting // _BACKLOG)


class Pace:
    """Knows how operations have come in of late."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_BURST)

    def note(self, now_s: float) -> None:
        """Note that an operation is appended."""
        self._recent.append(now_s)

    def wait_s(self, queue: Sequence[Queued], now_s: float) -> float:
        """Return after how many seconds to ask again whether *queue*, which is not empty, waits; nothing: begin.

        Another thread may append to it meanwhile.
        """
        newest, at_s = queue[-1]
        recent = self._recent
        is_burst = len(recent) == _BURST and now_s - recent[0] < _BURST_S
        quiet_s = _LULL_S if is_burst else _rest_s(queue, newest)
        left_s = min(at_s + quiet_s, queue[0][1] + _LAG_MOST_S) - now_s
        return left_s if is_burst else min(left_s, _NAP_S)


def _rest_s(queue: Sequence[Queued], newest: Pending) -> float:
    """Return how long after *newest*, the last of *queue*, what belongs to it may still come."""
    operation = newest.operation
    if operation.kind in _BEGINS:
        return _QUIET_S
    if operation.kind is OpKind.RENAME:
        return _ANSWER_S
    if operation.kind is not OpKind.WRITE:
        return _REST_S
    earlier = (queue[i][0].operation for i in range(len(queue)))
    is_new = any(each.kind is OpKind.CREATE and each.node == operation.node for each in earlier)
    return _REST_S if is_new else _ANSWER_S
