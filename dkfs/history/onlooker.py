"""The recorder of a mount that records nothing: its directory and its store belong to somebody else, or rest.

The kernel refuses to change anything there, and so do the engines, after a `remount,rw`: what is refused here is the rest.
"""

# ruff: noqa: ARG002 -- the arguments are those of Recorder

import errno
import os
from collections.abc import Callable
from typing import NoReturn

from dkfs.core.chunking import Chunking
from dkfs.core.plan import Plan
from dkfs.history.change import NameChange, NodeChange
from dkfs.history.recorder import Recorder
from dkfs.model.ids import NodeId, Seq
from dkfs.model.operation import Operation
from dkfs.store import Writer


class Onlooker(Recorder):
    """See Recorder: nothing ever waits, and everything that would record something raises OSError(EROFS)."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        """Start no thread, and need no store."""
        self._clock_ns = clock_ns
        self.last = self.committed = Seq(0)
        self.failure = None
        self.chunking = Chunking()

    def new_node(self) -> NodeId:
        """Refuse."""
        _refuse()

    def now_ns(self) -> int:
        """Return the time."""
        return self._clock_ns()

    def append(
        self,
        operation: Operation,
        nodes: tuple[NodeChange, ...],
        names: tuple[NameChange, ...] = (),
    ) -> Seq:
        """Refuse."""
        _refuse()

    def append_plan(
        self,
        operation: Operation,
        plan: Plan,
        *,
        expected: Seq,
        work: Callable[[Writer], None] = lambda _: None,
    ) -> Seq:
        """Refuse."""
        _refuse()

    def with_writer(self, work: Callable[[Writer], None]) -> None:
        """Refuse."""
        _refuse()

    def resume(self, seq: Seq) -> None:
        """Refuse."""
        _refuse()

    @property
    def is_stopped(self) -> bool:
        """It never began."""
        return False

    def saved(self, count: int) -> None:
        """Refuse."""
        _refuse()

    @property
    def held_bytes(self) -> int:
        """Nothing waits."""
        return 0

    @property
    def queued(self) -> int:
        """Nothing waits."""
        return 0

    @property
    def decided(self) -> Seq:
        """There is nothing to decide on."""
        return self.committed

    @property
    def is_full(self) -> bool:
        """Nothing waits."""
        return False

    @property
    def is_recording(self) -> bool:
        """It never is."""
        return False

    def refuse_unrecorded(self) -> None:
        """Nothing is refused here."""

    @property
    def refusal(self) -> int:
        """Nothing is refused here."""
        return 0

    def lag_s(self) -> float:
        """Nothing waits."""
        return 0.0

    def wait_room(self) -> None:
        """Nothing waits."""

    def wait(self, seq: Seq) -> bool:
        """Nothing is to be waited for."""
        return True

    def secure(self, seq: Seq, node: NodeId | None = None) -> bool:
        """Nothing is to be made durable."""
        return True

    def keep(self, seq: Seq) -> None:
        """Nothing is to be made durable."""

    def sync(self, fd: int, how: Callable[[int], None], seq: Seq, node: NodeId) -> None:
        """Make durable what others have written to *fd*."""
        how(fd)

    @property
    def owes(self) -> bool:
        """Nothing was promised."""
        return False

    def refuse_lost(self, node: NodeId) -> None:
        """Nothing was lost."""

    def refuse_any_lost(self) -> None:
        """Nothing was lost."""

    def take_lost(self) -> frozenset[NodeId]:
        """Nothing was lost."""
        return frozenset()

    def hurry(self) -> None:
        """Nothing waits."""

    def press(self) -> None:
        """Nothing waits."""

    def flush(self) -> bool:
        """Nothing waits."""
        return True

    def close(self) -> bool:
        """Nothing is left to be recorded."""
        return True


def _refuse() -> NoReturn:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
