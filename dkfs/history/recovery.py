"""What was promised and is only in the intent log comes into the index when the store is opened next.

A store is opened for writing by open_store(), nowhere else above the store.  Who opens it for reading has this done first if
nobody writes to it, and it may be written.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from dkfs.core.chunking import Chunking
from dkfs.errors import CorruptError, DkfsError, StoreBusyError
from dkfs.failpoints import failpoint
from dkfs.history.change import Pending
from dkfs.history.commit import commit
from dkfs.history.intent_codec import decode
from dkfs.history.lost import Lost
from dkfs.history.pace import BATCH
from dkfs.history.resolve import Resolver
from dkfs.model.ids import Seq
from dkfs.store import Store
from dkfs.store.encoders import DEFAULT, EncodingPolicy
from dkfs.store.intent import IntentRecord, has_intents, read_intents
from dkfs.store.lock import is_held
from dkfs.store.segments import SEGMENT_LIMIT

_AHEAD: Final = 1024  # operations in which a rename is looked for, as the recorder does

log = logging.getLogger(__name__)


def open_store(
    path: Path,
    *,
    writable: bool,
    encoding: EncodingPolicy = DEFAULT,
    segment_limit: int = SEGMENT_LIMIT,
) -> Store:
    """Open the store at *path* with everything that was promised in its index; see Store.open()."""
    if not writable:
        _recover_quietly(path)
    return Store.open(
        path, writable=writable, encoding=encoding, segment_limit=segment_limit, recover=recover
    )


def recover(store: Store, records: Sequence[IntentRecord]) -> bool:
    """Commit what *records* have that *store*, open for writing, has not; return whether it now has all of it.

    Raises StoreError.
    """
    with store.read() as reader:
        last = reader.last
        newest = reader.record(last) if last else None
    waiting: list[Pending] = []
    is_complete = True
    try:
        waiting.extend(_following(records, last, newest.operation.time_ns if newest else 0))
    except CorruptError as exc:
        log.warning("the intent log of %s: %s", store.path, exc)
        is_complete = False
    resolver, lost = Resolver(Chunking()), Lost()
    for start in range(0, len(waiting), BATCH):
        failpoint("intent.recover")
        batch = [(pending, 0.0) for pending in waiting[start : start + BATCH]]
        ahead = partial(islice, waiting, start, start + _AHEAD)
        commit(store, resolver, batch, ahead=ahead, lost=lost, allows_intent=False)
    if waiting:
        log.info("%d versions came from the intent log of %s", len(waiting), store.path)
    return is_complete


def verify(store: Store, *, is_alone: bool = False) -> int:
    """Return how many versions are in the intent log of *store* only, after making sure that all of them can be taken in.

    What a crash has torn, or a disk has lost, before it was promised to anybody is no damage.  Beside a writer at work only what
    is in each record is looked at: some change meanwhile.  *is_alone*: the caller has the lock of the store.
    Raises CorruptError, StoreError.
    """
    records = read_intents(
        store.path, store.uuid.bytes
    )  # first: what goes from there is in the index
    is_at_work = not is_alone and is_held(store.path)
    with store.read() as reader:
        last = reader.last
        newest = reader.record(last) if last else None
    if not is_at_work:
        return sum(1 for _ in _following(records, last, newest.operation.time_ns if newest else 0))
    return sum(sum(pending.seq > last for pending in _decoded(record)) for record in records)


def _decoded(record: IntentRecord) -> list[Pending]:
    """Return the operations of *record*; raises CorruptError."""
    span, payload = record
    pendings = list(decode(payload))
    if [pending.seq for pending in pendings] != list(range(span.first, span.last + 1)):
        raise CorruptError(f"there are not exactly the versions {span.first} to {span.last}")
    return pendings


def _following(records: Sequence[IntentRecord], last: Seq, time_ns: int) -> Iterator[Pending]:
    """Yield the operations of *records* that go on from version *last*, of *time_ns*; raises CorruptError at what does not."""
    safe = max((span.safe for span, _ in records), default=last)
    for record in records:
        span = record.span
        if span.last <= last:
            continue
        if span.first > last + 1:
            if safe <= last:
                return  # the disk has kept a record and lost the one before; neither was promised yet
            raise CorruptError(f"version {span.first} cannot follow version {last}")
        pendings = _decoded(record)
        known = last + 1 - span.first  # of these are in the index
        before_ns = pendings[known - 1].operation.time_ns if known else span.before_ns
        if before_ns != time_ns:
            raise CorruptError(f"version {last} of the store is not the one that it goes on from")
        for pending in pendings[known:]:
            last, time_ns = pending.seq, pending.operation.time_ns
            yield pending


def _recover_quietly(path: Path) -> None:
    """Take in what is only in the intent log, if there is one, nobody writes to the store, and it may be written.

    A mount that begins meanwhile, as after a kill, waits for that.
    """
    if not has_intents(path) or is_held(path):
        return
    try:
        Store.open(path, writable=True, recover=recover, is_brief=True).close()
    except StoreBusyError:
        pass  # who has it now does it, or has done it
    except DkfsError as exc:
        log.warning("what is only in the intent log is not seen: %s", exc)
