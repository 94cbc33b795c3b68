"""Waiting for the recorder, by whoever was promised something: in any thread but its own."""

import errno
import threading
from abc import abstractmethod
from collections.abc import Callable

from dkfs.errors import DkfsError
from dkfs.failpoints import failpoint
from dkfs.history.intent import IntentLog
from dkfs.history.lost import Lost
from dkfs.model.ids import NodeId, Seq
from dkfs.store.flushing import begin_writing


class Awaited:
    """The part of the Recorder that others wait for; what is below is set there."""

    last: Seq  # the newest version
    committed: Seq  # up to this version all are in the index
    failure: DkfsError | OSError | None
    _condition: threading.Condition  # of all that follows
    _wanted: Seq  # somebody waits for this version
    _pressed: bool  # somebody cannot wait until a failing store works again
    _refuses: bool  # what cannot be recorded is not to be done
    _intent: IntentLog
    _first_node: NodeId  # and all nodes after it are of this session
    _lost: Lost

    @property
    @abstractmethod
    def is_recording(self) -> bool:
        """Whether what is appended will be committed, as far as is known."""

    @property
    @abstractmethod
    def is_full(self) -> bool:
        """Whether whoever changes files should wait in wait_room() first, or is to be refused that."""

    @property
    def refusal(self) -> int:
        """Return the errno with which every change is to be refused; 0: none."""
        if not self._refuses or self.is_recording:
            return 0
        return (self.failure.errno if self.failure is not None else None) or errno.EIO

    def refuse_unrecorded(self) -> None:
        """Raise OSError if changes are to be refused."""
        number = self.refusal
        if number:
            raise OSError(number, "the store fails, and changes are refused")

    def wait_room(self) -> None:
        """Wait until the queue is below its limits."""
        with self._condition:
            self._wanted = max(self._wanted, self.committed + 1)  # type: ignore[assignment]
            self._condition.notify_all()
            self._condition.wait_for(lambda: not self.is_full, timeout=10.0)

    def wait(self, seq: Seq) -> bool:
        """Wait until version *seq* is durable; False if the store fails and it is not."""
        with self._condition:
            if self.committed >= seq:
                return True
            if seq > self.last:
                return self.is_recording  # of before a gap: what follows that has it
            self._wanted = max(self._wanted, seq)
            self._condition.notify_all()
            self._condition.wait_for(lambda: self.committed >= seq or not self.is_recording)
            return self.committed >= seq

    def secure(self, seq: Seq, node: NodeId | None = None) -> bool:
        """Make version *seq* durable in the intent log; return whether it is.  If not, it is being committed: see wait().

        Not if *node*, the file that is synced, might build on what is damaged: then refuse_lost() knows when it is committed.
        """
        if self.committed >= seq:
            return True
        if self._is_sure(node) and self.is_recording and self._intent.write(seq):
            return True
        self.hurry()
        return False

    def _is_sure(self, node: NodeId | None) -> bool:
        return node is None or node >= self._first_node or self._lost.is_sound(node)

    def keep(self, seq: Seq) -> None:
        """Wait until version *seq* is durable, in the intent log or in the index, if the store does not fail."""
        if not self.secure(seq):
            self.wait(seq)

    def sync(self, fd: int, how: Callable[[int], None], seq: Seq, node: NodeId) -> None:
        """Make durable the file *fd* by *how*, os.fsync or os.fdatasync, and version *seq* of *node*; raises OSError.

        If the store does not fail: see keep().
        """
        is_kept, is_synced = self._is_kept(seq), False
        if not is_kept:
            is_kept, is_synced = self._keep_beside(fd, how, seq, node)
        if not is_synced:
            _sync(fd, how)
        failpoint("fsync.wait")
        if not is_kept:
            self.wait(seq)

    def _is_kept(self, seq: Seq) -> bool:
        return seq <= max(self.committed, self._intent.promised)

    def _keep_beside(
        self, fd: int, how: Callable[[int], None], seq: Seq, node: NodeId
    ) -> tuple[bool, bool]:
        """Make version *seq* durable if that need not wait for its commit; return whether it is, and whether *fd* is.

        One does that at a time, for all who come meanwhile: then there is less to do for each of them.
        """
        if not (self._is_sure(node) and self.is_recording):
            self.hurry()
            return False, False
        begin_writing(fd)
        self._intent.want(seq)
        with self._intent.group:
            if self._is_kept(seq):
                return True, False
            laid = self._intent.lay(seq)
            if laid is None:
                self.hurry()
                return False, False
            if not laid.is_flushed_by(fd):
                return self._intent.sync(laid), False
            try:
                _sync(fd, how)
            except OSError as exc:
                self._intent.doubt(laid, exc)
                raise
            return self._intent.flushed(laid), True

    @property
    def owes(self) -> bool:
        """Whether there is a version that is durable, and not in the index: whoever looks there should settle() first."""
        return self._intent.promised > self.committed

    def settle(self) -> None:
        """Wait until what is durable is in the index, if the store does not fail."""
        self.wait(self._intent.promised)

    def refuse_lost(self, node: NodeId) -> None:
        """Raise OSError if the last version of *node* is durable but for its contents; see Lost.refuse().

        And if nothing is recorded, and that is to be told.
        """
        self.refuse_unrecorded()
        self._lost.refuse(node)

    def refuse_any_lost(self) -> None:
        """See refuse_lost(), of any node, and Lost.refuse_any()."""
        self.refuse_unrecorded()
        self._lost.refuse_any()

    def take_lost(self) -> frozenset[NodeId]:
        """See Lost.take()."""
        return self._lost.take()

    def hurry(self) -> None:
        """Have everything appended committed without waiting for company."""
        with self._condition:
            self._wanted = max(self._wanted, self.last)
            self._condition.notify_all()

    def press(self) -> None:
        """Have a failing store tried once more, and then no more: an application must go on."""
        with self._condition:
            self._pressed = True
            self._condition.notify_all()

    def flush(self) -> bool:
        """Wait until everything appended is durable; see wait()."""
        return self.wait(self.last)


def _sync(fd: int, how: Callable[[int], None]) -> None:
    failpoint("fsync.backing")
    how(fd)
