"""One transaction of operations that wait: resolved against what was before, stored, and committed."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from dkfs.failpoints import failpoint
from dkfs.history.change import Pending
from dkfs.history.lost import Lost
from dkfs.history.pace import Queued
from dkfs.history.puts import Counts
from dkfs.history.resolve import Resolver
from dkfs.model.ids import NodeId, Seq
from dkfs.model.operation import OpKind
from dkfs.store import Store


class Commit(NamedTuple):
    """What one transaction did; for metrics."""

    seq: Seq  # the last version in it
    operations: int
    latencies_s: tuple[float, ...]  # of contents: from append to durable
    counts: Counts  # of contents
    lost: int  # contents that could not be composed: what they build on is damaged
    seconds: float


def commit(
    store: Store,
    resolver: Resolver,
    batch: Sequence[Queued],
    *,
    ahead: Callable[[], Iterable[Pending]],
    lost: Lost,
    allows_intent: bool,
) -> Commit:
    """Commit *batch* to *store*; raises StoreError, CorruptError, OSError.

    *ahead* returns the operations that wait, from those of *batch* on; *lost* hears whose contents could not be composed.  From then on
    there may be an intent log, if one is allowed.
    """
    started = time.monotonic()
    appended = []
    is_lost: dict[NodeId, bool] = {}  # of whom there were contents
    count = 0
    with store.write() as writer:
        failpoint("record.begin")
        resolver.begin(ahead())
        if writer.clean():
            writer.set_clean(False)
        if allows_intent:
            writer.set_intent(allowed=True)
        for pending, at in batch:
            if pending.seq <= writer.last:
                continue  # the commit that seemed to fail had landed
            nodes = [(change.node, resolver.state(writer, change)) for change in pending.nodes]
            missing = resolver.take_lost()
            count += len(missing)
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
    lost.note(is_lost, resolver.unreadable)
    return Commit(
        seq=batch[-1][0].seq,
        operations=len(batch),
        latencies_s=tuple(now - at for at in appended),
        counts=resolver.counts,
        lost=count,
        seconds=now - started,
    )
