"""Which operations go into the next transaction."""

from collections.abc import Callable, Sequence

from dkfs.history.change import Pending
from dkfs.history.pace import Queued, most

# Hears how many bytes of contents come next, waits if they should wait, and returns how many may be stored.
Admit = Callable[[int], int]


def next_batch(queue: Sequence[Queued], admit: Admit | None) -> list[Queued]:
    """Return the operations at the head of *queue* that are to be committed together, one at least.

    If there is somebody to *admit* them, no more than he lets through at once.
    """
    waiting = len(queue)
    batch = [queue[i] for i in range(min(waiting, most(waiting)))]
    if admit is None:
        return batch
    room = admit(size_of(batch[0][0]))
    count = 0
    for pending, _ in batch:
        room -= size_of(pending)
        if room < 0 and count:
            break
        count += 1
    return batch[:count]


def size_of(pending: Pending) -> int:
    """Return how many bytes of contents *pending* has, which may take less in the store, and rarely more."""
    return sum(
        end - start
        for change in pending.nodes
        if change.contents is not None
        for start, end in change.contents.ranges
    )
