"""The recorder: the one thread that turns what was done into committed versions, in log order.

append() is called by the file system's thread and is cheap.  The recorder's thread resolves what
was appended against the previous states, stores contents, and commits many operations in one
transaction.  A position is committed only after all before it.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from dkfs.core.chunking import Chunking
from dkfs.core.plan import Plan
from dkfs.errors import DkfsError
from dkfs.failpoints import failpoint
from dkfs.history.batch import Admit, next_batch
from dkfs.history.change import NameChange, NodeChange, Pending
from dkfs.history.links import remember
from dkfs.history.lost import Lost
from dkfs.history.pace import Pace, Queued
from dkfs.history.puts import Counts
from dkfs.history.resolve import Resolver
from dkfs.model.ids import NodeId, Seq
from dkfs.model.operation import Operation, OpKind
from dkfs.store import Store, Writer

log = logging.getLogger(__name__)

_AHEAD = 1024  # operations in which a rename of what is saved now is looked for
_MOST_FDS = 128  # of contents that wait to be read
_RETRY_S = 1.0  # after a failed commit
_CHUNKING = Chunking()


class Commit(NamedTuple):
    """What one transaction did; for metrics."""

    seq: Seq  # the last version in it
    operations: int
    latencies_s: tuple[float, ...]  # of contents: from append to durable
    counts: Counts  # of contents
    lost: int  # contents that could not be composed: what they build on is damaged
    seconds: float


class Recorder:
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
    ) -> None:
        """Record into *store*, which is writable and stays open until close()."""
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
        self._queue: deque[Queued] = deque()
        self._pace = Pace()
        self._due = Seq(0)  # up to here it was decided to begin
        self._condition = threading.Condition()
        self._wanted = Seq(0)  # somebody waits for this version
        self._idle = False
        self._closing = False
        self._abandoned = False
        self._pressed = False  # somebody cannot wait until a failing store works again
        self._held_in = 0  # bytes; written by the file system's thread only
        self._held_out = 0  # bytes; written by the recorder's thread only
        self._fds_in = self._fds_out = 0  # likewise
        self.failure: DkfsError | OSError | None = None
        self._lost = Lost()
        self._admit: Admit | None = None
        self._resolver = Resolver(chunking)
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    # Called by the file system's thread.

    def new_node(self) -> NodeId:
        """Return a node id that was never used."""
        node = self._next_node
        self._next_node = NodeId(node + 1)
        return node

    def now_ns(self) -> int:
        """Return the time for the next operation: the clock, but never before the last one's."""
        self._time_ns = max(self._time_ns, self._clock_ns())
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
                self._held_in += change.contents.held
                self._fds_in += change.contents.fds
        now_s = time.monotonic()
        self._pace.note(now_s)
        self._queue.append((Pending(seq, operation, nodes, names), now_s))
        if self._idle:
            with self._condition:
                self._condition.notify_all()
        return seq

    def append_plan(self, operation: Operation, plan: Plan, *, expected: Seq) -> Seq:
        """Record at once, and durably, that *plan* was done; the queue must be empty.

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
        self._resolver.forget()
        with self._store.read() as reader:
            self._next_node = max(self._next_node, reader.next_node())
        with self._condition:
            self.last = self.committed = seq
        return seq

    def with_writer(self, work: Callable[[Writer], None]) -> None:
        """Run *work* in one transaction of its own, after everything appended so far."""
        self.flush()
        with self._store.write() as writer:
            work(writer)

    def saved(self, count: int) -> None:
        """Count *count* bytes that frozen contents in the queue hold in addition."""
        self._held_in += count

    def ask_first(self, admit: Admit) -> None:
        """Have *admit* asked before each transaction from now on, in the recorder's thread; see next_batch()."""
        self._admit = admit

    # Called by anybody.

    @property
    def held_bytes(self) -> int:
        """How many bytes of contents wait in memory."""
        return self._held_in - self._held_out

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
        """Whether whoever changes files should wait in wait_room() first."""
        return self.is_recording and self._is_over(1)

    def _is_over(self, part: int) -> bool:
        """Return whether more than this *part* (2: a half) of what may wait does."""
        return (
            self.held_bytes * part > self._most_bytes
            or self.queued * part > self._most_operations
            or (self._fds_in - self._fds_out) * part > _MOST_FDS
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
            self._wanted = max(self._wanted, seq)
            self._condition.notify_all()
            self._condition.wait_for(lambda: self.committed >= seq or not self.is_recording)
            return self.committed >= seq

    def refuse_lost(self, node: NodeId) -> None:
        """Raise OSError if the last version of *node* is durable but for its contents; see Lost.refuse()."""
        self._lost.refuse(node)

    def refuse_any_lost(self) -> None:
        """See refuse_lost(), of any node, and Lost.refuse_any()."""
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
        return complete and not self._abandoned

    # The recorder's thread.

    def _run(self) -> None:
        while self._await_work():
            if self._abandoned:
                self._drop()  # append() had not seen it; behind a gap nothing is recorded
                continue
            try:
                batch = next_batch(self._queue, self._admit)
                report = self._commit(batch)
            except (DkfsError, OSError) as exc:
                self._failed(exc)
                continue
            except Exception:  # an edge: who waits for this thread would wait for ever
                log.exception("the recorder failed by an internal error")
                with self._condition:
                    self._abandon()
                continue
            self._succeeded(batch, report)

    def _await_work(self) -> bool:
        """Wait for operations, and then for a quiet moment; return False when closing and done."""
        with self._condition:
            self._idle = True
            # The timeout covers an append between the test of the queue and the wait.
            while not self._queue and not self._closing:
                self._condition.wait(timeout=0.5)
            self._idle = False
            while self._queue and self._queue[0][0].seq > self._due and not self._is_hurried():
                left_s = self._pace.wait_s(self._queue, time.monotonic())
                if left_s <= 0:
                    break
                self._condition.wait(timeout=left_s)
            if self._queue:
                # What has come by now goes into transactions without another wait.
                self._due = max(self._due, self._queue[-1][0].seq)
            return bool(self._queue)

    def _is_hurried(self) -> bool:
        return self._wanted > self.committed or self._closing or self._is_over(2)

    def _commit(self, batch: list[Queued]) -> Commit:
        started = time.monotonic()
        appended = []
        lost = 0
        is_lost: dict[NodeId, bool] = {}  # of whom there were contents
        with self._store.write() as writer:
            failpoint("record.begin")
            ahead = range(min(len(self._queue), _AHEAD))
            self._resolver.begin(self._queue[i][0] for i in ahead)
            if writer.clean():
                writer.set_clean(False)
            for pending, at in batch:
                if pending.seq <= writer.last:
                    continue  # the commit that seemed to fail had landed
                nodes = [
                    (change.node, self._resolver.state(writer, change)) for change in pending.nodes
                ]
                missing = self._resolver.take_lost()
                lost += len(missing)
                is_lost.update(
                    (change.node, change.node in missing)
                    for change in pending.nodes
                    if change.contents is not None
                )
                failpoint("record.version")
                writer.append(pending.seq, pending.operation, nodes, pending.names)
                if pending.operation.kind is OpKind.WRITE and not missing:
                    appended.append(at)
        now = time.monotonic()
        self._lost.note(is_lost, self._resolver.unreadable)
        return Commit(
            seq=batch[-1][0].seq,
            operations=len(batch),
            latencies_s=tuple(now - at for at in appended),
            counts=self._resolver.counts,
            lost=lost,
            seconds=now - started,
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
        self._on_commit(report)

    def _release(self, pending: Pending) -> None:
        for change in pending.nodes:
            if change.contents is not None:
                self._held_out += change.contents.release()
                self._fds_out += change.contents.fds

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
        """Drop the queue: the application goes on, the next mount records what differs."""
        log.error(
            "%d operations could not be recorded and are dropped; recording stops until the next mount",
            len(self._queue),
        )
        self._abandoned = True
        self._drop()
        self._condition.notify_all()

    def _drop(self) -> None:
        contents = 0
        while self._queue:
            pending, _ = self._queue.popleft()
            self._release(pending)
            contents += pending.operation.kind is OpKind.WRITE
        self._on_drop(contents)
