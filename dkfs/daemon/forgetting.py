"""Forgetting under a live mount: in a thread, in slices so short that the mount goes on answering.

Who asks has worked out what is to go, with a view of its own: here it is only done.
"""

import time
from collections.abc import Callable
from typing import Final, TypeVar

import trio

from dkfs.daemon.control import Message
from dkfs.daemon.listener import Say
from dkfs.errors import StoreBusyError, UsageError
from dkfs.history.forget import Pace, Progress, Range, forget, forget_contents
from dkfs.model.ids import NodeId, Seq
from dkfs.store import Store

# A transaction keeps the recorder waiting, and its Python keeps requests waiting for the interpreter.
_SLICE_S: Final = 0.004
_REST: Final = 4  # times as long as a slice took
_REST_LEAST_S: Final = 0.01
_TELL_S: Final = 0.2

T = TypeVar("T")


class Forgetting:
    """The commands that forget; one at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._busy = trio.Lock()

    async def versions(self, request: Message, say: Say) -> Message:
        """Forget the versions in "ranges", with those tags of theirs that are in "tags"."""
        ranges = [(Seq(first), Seq(last)) for first, last in _pairs(request, "ranges")]
        tags = _list(request, "tags")
        done = await self._run(
            lambda pace: forget(
                self._store, ranges, tags=map(str, tags), now_ns=time.time_ns(), pace=pace
            ),
            say,
        )
        return {"forgotten": done.forgotten, "tags": list(done.tags)}

    async def contents(self, request: Message, say: Say) -> Message:
        """Forget the contents of the states in "states"."""
        rows = [(NodeId(node), Seq(seq)) for node, seq in _pairs(request, "states")]
        done = await self._run(lambda pace: forget_contents(self._store, rows, pace=pace), say)
        return {"forgotten": done}

    async def _run(self, work: Callable[[Pace], T], say: Say) -> T:
        try:
            self._busy.acquire_nowait()
        except trio.WouldBlock:
            raise StoreBusyError(
                f"versions of store {self._store.path} are being forgotten already"
            ) from None
        try:
            pace = Pace(_SLICE_S, _Rest(say))
            return await trio.to_thread.run_sync(work, pace)
        finally:
            self._busy.release()


class _Rest:
    """What happens between two slices, in the thread that works: it tells how far it is, and lets others go on."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._rested = self._told = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        trio.from_thread.check_cancelled()  # the mount ends: what is left is for another time
        now = time.monotonic()
        if now - self._told > _TELL_S:
            self._told = now
            # Raises if nobody listens any more: who asked has given up.
            trio.from_thread.run(self._say, _progress(progress))
        time.sleep(max(_REST_LEAST_S, _REST * (now - self._rested)))
        self._rested = time.monotonic()


def _progress(progress: Progress) -> Message:
    return {
        "message_type": "progress",
        "done": progress.forgotten,
        "total": progress.total,
    }


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
