"""Forgetting under a live mount: in a thread, in slices so short that the mount goes on answering.

Who asks has worked out what is to go, with a view of its own: here it is only done.
"""

import time

from dkfs.daemon.control import Message
from dkfs.daemon.listener import Say
from dkfs.daemon.maintenance import Maintenance
from dkfs.errors import UsageError
from dkfs.history.forget import Range, forget, forget_contents
from dkfs.model.ids import NodeId, Seq
from dkfs.store import Store


class Forgetting:
    """The commands that forget."""

    def __init__(self, store: Store, maintenance: Maintenance) -> None:
        self._store = store
        self._maintenance = maintenance

    async def versions(self, request: Message, say: Say) -> Message:
        """Forget the versions in "ranges", with those tags of theirs that are in "tags"."""
        ranges = [(Seq(first), Seq(last)) for first, last in _pairs(request, "ranges")]
        tags = [str(tag) for tag in _list(request, "tags")]
        done = await self._maintenance.forget(
            lambda pace: forget(self._store, ranges, tags=tags, now_ns=time.time_ns(), pace=pace),
            say,
        )
        return {"forgotten": done.forgotten, "tags": list(done.tags)}

    async def contents(self, request: Message, say: Say) -> Message:
        """Forget the contents of the states in "states"."""
        rows = [(NodeId(node), Seq(seq)) for node, seq in _pairs(request, "states")]
        done = await self._maintenance.forget(
            lambda pace: forget_contents(self._store, rows, pace=pace), say
        )
        return {"forgotten": done}


def _list(request: Message, key: str) -> list[object]:
    values = request.get(key)
    if not isinstance(values, list):
        raise UsageError(f'control request: "{key}" is not a list')
    return values


def _pairs(request: Message, key: str) -> list[Range]:
    pairs = []
    for pair in _list(request, key):
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair)):
            raise UsageError(f'control request: "{key}" is not a list of pairs of numbers')
        if not 0 <= min(pair) <= max(pair) < 1 << 64:
            raise UsageError(f'control request: "{key}" holds {pair}')
        pairs.append((pair[0], pair[1]))
    return pairs
