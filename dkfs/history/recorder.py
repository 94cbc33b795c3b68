"""The recorder: the one thread that turns what was done into committed versions, in log order.

append() is called by the file system's thread and is cheap.  The recorder's thread resolves what
was appended against the previous states, stores contents, and commits many operations in one
transaction.  A position is committed only after all before it.
"""

import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable

from dkfs.core.chunking import Chunking
from dkfs.core.plan import Plan
from dkfs.errors import DkfsError, StoreError
from dkfs.failpoints import failpoint
from dkfs.history.awaited import Awaited
from dkfs.history.batch import Admit, next_batch
from dkfs.history.change import NameChange, NodeChange, Pending
from dkfs.history.commit import Commit, commit
from dkfs.history.held import Held
from dkfs.history.intent import IntentLog
from dkfs.history.links import remember
from dkfs.history.lost import Lost
from dkfs.history.pace import Pace, Queued
from dkfs.history.resolve import Resolver
from dkfs.model.ids import NodeId, Seq
from dkfs.model.operation import Operation, OpKind
from dkfs.store import Store, Writer
from dkfs.store.intent import LIMIT

log = logging.getLogger(__name__)

_AHEAD = 1024  # operations in which a rename of what is saved now is looked for
_MOST_FDS = 128  # of contents that wait to be read
_ASKED_S = 0.03  # between looks at whether somebody wants to see what was promised
_RETRY_S = 1.0  # after a failed commit
_DROP_S = 10.0  # that dropping the queue may take
_CHUNKING = Chunking()


class Recorder(Awaited):
    """Records operations in the order of append(); see the module."""

    def __init__(
        self,
        store: Store,
        *,
        clock_ns: Callable[[], int],
        on_commit: Callable[[Commit], None],
        on_drop: Callable[[int], None],
        queue_bytes: int = 128 * 1024 * 1024,
        queue_operations: int = 100_000,
        chunking: Chunking = _CHUNKING,
        refuses: bool = False,
        intent_bytes: int = LIMIT,
    ) -> None:
        """Record into *store*, which is writable and stays open until close(); with an intent log of *intent_bytes* at most."""
        self._store = store
        self._clock_ns = clock_ns
        self._on_commit = on_commit
        self._on_drop = on_drop
        self._most_bytes = queue_bytes
        self._most_operations = queue_operations
        with store.read() as reader:
            self.committed: Seq = reader.last
            self._next_node = reader.next_node()
            last = reader.record(reader.last) if reader.last else None
        self.last: Seq = self.committed
        self._time_ns = last.operation.time_ns if last else 0
        self._first_node = self._next_node  # and all nodes after it are of this session
        self._intent = IntentLog(
            store, time_ns=self._time_ns, committed=lambda: self.committed, limit=intent_bytes
        )
        # Two of the file system's threads may append at once, see decisions/0023: it is held from now_ns() to append().
        self.appending = threading.Lock()
        self._queue: deque[Queued] = deque()
        self._pace = Pace()
        self._due = Seq(0)  # up to here it was decided to begin
        self._refuses = refuses  # what cannot be recorded is not to be done
        self._condition = threading.Condition()
        self._wanted = Seq(0)  # somebody waits for this version
        self._idle = False
        self._closing = False
        self._abandoned = False
        self._pressed = False  # somebody cannot wait until a failing store works again
        self._held = Held()
        self.failure: DkfsError | OSError | None = None
        self._lost = Lost()
        self._admit: Admit | None = None
        self.chunking = chunking
        self._resolver = Resolver(chunking)
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    # Called by the file system's threads; what comes after saved(), by one that nobody changes anything beside.

    def new_node(self) -> NodeId:
        """Return a node id that was never used."""
        with self.appending:
            node = self._next_node
            self._next_node = NodeId(node + 1)
        return node

    def now_ns(self) -> int:
        """Return the time for the next operation: the clock, but always after the last one's.

        So it tells versions apart whatever the clock does: the intent log goes on from a version that it knows by its time.
        """
        self._time_ns = max(self._time_ns + 1, self._clock_ns())
        return self._time_ns

    def append(
        self,
        operation: Operation,
        nodes: tuple[NodeChange, ...],
        names: tuple[NameChange, ...] = (),
    ) -> Seq:
        """Take *operation* into the log and return its version; it is committed later."""
        if self._abandoned:
            for change in nodes:
                if change.contents is not None:
                    change.contents.release()
            return self.last
        failpoint("record.append")
        self.last = seq = Seq(self.last + 1)
        for change in nodes:
            if change.contents is not None:
                self._held.add(change.contents)
        now_s = time.monotonic()
        self._pace.note(now_s)
        pending = Pending(seq, operation, nodes, names)
        self._queue.append((pending, now_s))
        self._intent.note(pending)
        if self._idle:
            with self._condition:
                self._condition.notify_all()
        return seq

    def append_plan(
        self,
        operation: Operation,
        plan: Plan,
        *,
        expected: Seq,
        work: Callable[[Writer], None] = lambda _: None,
    ) -> Seq:
        """Record at once, and durably, that *plan* was done, and do *work* in the same transaction; the queue must be empty.

        Raises StoreError; and RuntimeError if the log moved on since *expected*.
        """
        self.flush()
        if self.last != expected:
            raise RuntimeError(f"log is at {self.last}, expected {expected}")
        seq = Seq(self.last + 1)
        failpoint("record.plan")
        with self._store.write() as writer:
            if writer.clean():
                writer.set_clean(False)
            writer.append(seq, operation, plan.entry_nodes, plan.entry_names)
            remember(writer, plan.secondary_names)
            work(writer)
        self._resolver.forget()
        with self._store.read() as reader:
            self._next_node = max(self._next_node, reader.next_node())
        with self._condition:
            self.last = self.committed = seq
        self._intent.skip(seq, operation.time_ns)
        return seq

    def with_writer(self, work: Callable[[Writer], None]) -> None:
        """Run *work* in one transaction of its own, after everything appended so far."""
        self.flush()
        with self._store.write() as writer:
            work(writer)

    def saved(self, count: int) -> None:
        """Count *count* bytes that frozen contents in the queue hold in addition."""
        self._held.saved(count)

    def ask_first(self, admit: Admit) -> None:
        """Have *admit* asked before each transaction from now on, in the recorder's thread; see next_batch()."""
        self._admit = admit

    def resume(self, seq: Seq) -> None:
        """Go on from version *seq*, which is committed, and is all that was done, after the queue was dropped.

        Raises StoreError.
        """
        with self._store.read() as reader:
            newest, next_node = reader.record(seq), reader.next_node()
        with self._condition:
            self._wanted = max(self._wanted, self.last)
            self._condition.notify_all()
            # What append() took in while the queue was being dropped.
            if not self._condition.wait_for(lambda: not self._queue, timeout=_DROP_S):
                raise StoreError("the recorder is still busy")
        self._resolver.forget()
        self._next_node = max(self._next_node, next_node)
        self._time_ns = max(self._time_ns, newest.operation.time_ns if newest else 0)
        self._intent.restart(seq, self._time_ns)
        with self._condition:
            self.last = self.committed = self._wanted = seq
            self.failure = None
            self._abandoned = self._pressed = False
            self._condition.notify_all()
        log.warning("recording goes on: version %d is what is there after a gap", seq)

    # Called by anybody.

    @property
    def is_stopped(self) -> bool:
        """Whether the queue was dropped: then nothing is recorded until resume()."""
        return self._abandoned

    @property
    def held_bytes(self) -> int:
        """How many bytes of contents wait in memory."""
        return self._held.bytes

    @property
    def queued(self) -> int:
        """How many operations are not committed."""
        return self.last - self.committed

    @property
    def decided(self) -> Seq:
        """Return the last version that is committed, or never will be."""
        return self.last if self._abandoned else self.committed

    @property
    def is_full(self) -> bool:
        """Whether whoever changes files should wait in wait_room() first, or is to be refused that."""
        return self._is_over(1) if self.is_recording else self._refuses

    def _is_over(self, part: int) -> bool:
        """Return whether more than this *part* (2: a half) of what may wait does."""
        return (
            self.held_bytes * part > self._most_bytes
            or self.queued * part > self._most_operations
            or self._held.fds * part > _MOST_FDS
        )

    @property
    def is_recording(self) -> bool:
        """Whether what is appended will be committed, as far as is known."""
        return self.failure is None and not self._abandoned

    def lag_s(self) -> float:
        """Return the age in seconds of the oldest operation that is not committed; 0 if none."""
        try:
            return time.monotonic() - self._queue[0][1]
        except IndexError:
            return 0.0

    def close(self) -> bool:
        """Commit what is left, stop the thread; return whether everything is recorded."""
        complete = self.flush()
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._thread.join()
        if complete and not self._abandoned:
            failpoint("record.clean")
            with self._store.write() as writer:
                writer.set_clean(True)
                writer.set_intent(allowed=False)
        self._intent.close(is_complete=complete and not self._abandoned)
        return complete and not self._abandoned

    # The recorder's thread.

    def _run(self) -> None:
        while True:
            try:
                if not self._await_work():
                    return
                if self._abandoned:
                    self._drop()  # append() had not seen it; behind a gap nothing is recorded
                elif (done := self._try()) is not None:
                    self._succeeded(*done)
            except Exception:  # an edge: who waits for this thread would wait for ever
                log.exception("the recorder failed by an internal error")
                with self._condition:
                    self._abandon()

    def _try(self) -> tuple[list[Queued], Commit] | None:
        """Commit the next operations; return them, and what was done, or None if the store failed."""
        try:
            batch = next_batch(self._queue, self._admit)
            return batch, self._commit(batch)
        except (DkfsError, OSError) as exc:
            self._failed(exc)
        except MemoryError:
            self._failed(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))
        return None

    def _await_work(self) -> bool:
        """Wait for operations, and then for a quiet moment; return False when closing and done."""
        with self._condition:
            self._idle = True
            # An append after the test of the queue finds idle set, and waits for the lock to notify.
            while not self._queue and not self._closing:
                self._condition.wait()
            self._idle = False
            while self._queue and self._queue[0][0].seq > self._due and not self._is_hurried():
                left_s = self._pace.wait_s(self._queue, time.monotonic())
                if left_s <= 0:
                    break
                self._condition.wait(timeout=min(left_s, _ASKED_S))
            if self._queue:
                # What has come by now goes into transactions without another wait.
                self._due = max(self._due, self._queue[-1][0].seq)
            return bool(self._queue)

    def _is_hurried(self) -> bool:
        return (
            self._wanted > self.committed
            or self._closing
            or self._intent.is_due(time.monotonic())
            or self._is_over(2)
        )

    def _commit(self, batch: list[Queued]) -> Commit:
        return commit(
            self._store,
            self._resolver,
            batch,
            ahead=lambda: (self._queue[i][0] for i in range(min(len(self._queue), _AHEAD))),
            lost=self._lost,
            allows_intent=not self._intent.is_known,
        )

    def _succeeded(self, batch: list[Queued], report: Commit) -> None:
        failpoint("record.committed")
        for _ in batch:
            self._release(self._queue.popleft()[0])
        with self._condition:
            if self.failure is not None:
                log.info("the store works again, recording goes on")
                self.failure = None
            self._pressed = False
            self.committed = report.seq
            self._condition.notify_all()
        self._intent.committed()
        self._on_commit(report)

    def _release(self, pending: Pending) -> None:
        for change in pending.nodes:
            if change.contents is not None:
                self._held.release(change.contents)

    def _failed(self, exc: DkfsError | OSError) -> None:
        """Say it once, wake who waits, and try the same operations again after a while."""
        self._resolver.forget()
        with self._condition:
            if self.failure is None:
                log.error("the store failed, versions are not recorded: %s", exc)
            self.failure = exc
            self._condition.notify_all()
            if self._is_over(1) or self._closing or self._pressed:
                self._abandon()
            elif not self._closing:
                self._condition.wait(timeout=_RETRY_S)

    def _abandon(self) -> None:
        """Drop the queue: the application goes on; what differs is recorded when the store works again, see resume()."""
        log.error(
            "%d operations could not be recorded and are dropped; recording stops until the store works again",
            len(self._queue),
        )
        self._abandoned = True
        self._intent.drop()
        self._drop()
        self._condition.notify_all()

    def _drop(self) -> None:
        contents = 0
        while self._queue:
            pending, _ = self._queue.popleft()
            self._release(pending)
            contents += pending.operation.kind is OpKind.WRITE
        self._on_drop(contents)
