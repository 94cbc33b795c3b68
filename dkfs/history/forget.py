"""Forgetting versions of an open store, beside whoever records into it: in transactions that are as short as wanted.

Each transaction folds some versions (history.fold) and leaves a store in which the versions that are still there are
what they were.  So it may be interrupted anywhere, by anything, and going on is beginning again.

Between two versions that are kept the forgotten ones go from the newest to the oldest, all into the kept one that
follows, so that a row is moved once however many versions changed it.  Where very many names were changed between the
two, some of the forgotten versions are used as heads that gather some thousand changes each, and go last: else the
log record of the kept one, which names all changes, would be written anew with every transaction.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from dkfs.core import codec
from dkfs.failpoints import failpoint
from dkfs.history.fold import Folder, size, without_content
from dkfs.history.links import is_linked
from dkfs.model.ids import NodeId, Seq
from dkfs.model.operation import LogRecord, OpKind, Tag
from dkfs.store import Reader, Store, Writer
from dkfs.store.rows import NODE_KEY, SEQ

Range = tuple[Seq, Seq]  # first and last version, both included

_HEAD_KEYS: Final = 2000  # changes that one head gathers
_BATCH_FIRST: Final = 64  # rows in the first transaction, before it is known how long one takes
_BATCH_MOST: Final = 100_000
_FORGOTTEN_MOVE: Final = (
    b"forgotten-move"  # note: the newest rollback, undo or redo that was forgotten
)
_MOVES: Final = frozenset((OpKind.ROLLBACK, OpKind.UNDO, OpKind.REDO))


@dataclass(slots=True)
class Progress:
    """How far it has come."""

    forgotten: int = 0  # versions
    total: int = 0  # versions that are to be
    tags: tuple[str, ...] = ()  # that went with their versions


Pause = Callable[[Progress], None]


def _go_on() -> None:
    """Do not stop."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a transaction may be, and what happens between two of them."""

    seconds: float = 0.25  # that a transaction should take, without the commit
    pause: Pause | None = None
    breathe: Callable[[], None] = _go_on  # called after about each row


def is_live_hold(tag: Tag, now_ns: int) -> bool:
    """Return whether *tag* keeps its version from being forgotten."""
    return tag.is_hold and (tag.expires_ns is None or tag.expires_ns > now_ns)


def forgotten_move(reader: Reader) -> Seq:
    """Return the newest rollback, undo or redo that was forgotten, 0 if none was."""
    return Seq(int.from_bytes(reader.meta(_FORGOTTEN_MOVE) or b"", "big"))


def put_forgotten_move(writer: Writer, seq: Seq) -> None:
    """Note that the rollback, undo or redo *seq* was forgotten, and none after it."""
    writer.put_meta(_FORGOTTEN_MOVE, SEQ.pack(seq))


def forget(
    store: Store,
    ranges: Iterable[Range],
    *,
    tags: Iterable[str],
    now_ns: int,
    pace: Pace = Pace(),
) -> Progress:
    """Forget every version in *ranges* that is there; return what was done.

    The newest version stays; so does one that has a live hold, or a tag that is not among *tags*: those may go with
    their versions. Raises CorruptError, StoreError; what was done until then is done.
    """
    return _Forgetting(store, frozenset(tags), now_ns, pace).run(ranges)


def forget_contents(
    store: Store, rows: Sequence[tuple[NodeId, Seq]], *, pace: Pace = Pace()
) -> int:
    """Forget the contents of the states *rows* (node, version); return how many had any.

    What the newest version has keeps its contents, whatever is asked for. Raises CorruptError, StoreError.
    """
    batches = _Batches(pace.seconds)
    at = done = 0
    while at < len(rows):
        batch = rows[at : at + batches.size]
        with store.write() as writer, batches:
            for node, seq in batch:
                done += _forget_content(writer, node, seq)
                pace.breathe()
        at += len(batch)
        if pace.pause is not None:
            pace.pause(Progress(at, len(rows)))
    return done


def _forget_content(writer: Writer, node: NodeId, seq: Seq) -> bool:
    found = writer.node_seq(node, seq)
    if found is None or found[0] != seq or found[1].content is None:
        return False
    is_newest = next(writer.node_versions(node, Seq(seq + 1)), None) is None
    if is_newest and is_linked(writer, node, writer.last):
        return False
    state = without_content(found[1])
    writer.put_row("nodes", NODE_KEY.pack(node, seq), codec.encode_node(state))
    return True


class _Batches:
    """Finds out how much fits into a transaction: a context manager around the work of each."""

    def __init__(self, seconds: float) -> None:
        self.size = _BATCH_FIRST
        self._seconds = seconds
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        taken = time.monotonic() - self._started
        if taken > self._seconds:
            self.size = max(1, int(self.size * max(0.25, self._seconds / taken)))
        elif taken < self._seconds / 2:
            self.size = min(_BATCH_MOST, self.size * 2)


@dataclass(slots=True)
class _Work:
    """A range that is being forgotten, from above."""

    first: Seq
    last: Seq
    heads: list[Seq] = field(default_factory=list)  # the newest first
    keys: int = 0  # that were gathered since the last head
    is_gathered: bool = False  # what is left are the heads


class _Forgetting:
    """One run."""

    def __init__(self, store: Store, tags: frozenset[str], now_ns: int, pace: Pace) -> None:
        self._store = store
        self._tags = tags
        self._now_ns = now_ns
        self._pace = pace
        self._folder = Folder(pace.breathe)
        self._work: list[
            _Work
        ] = []  # the newest last: what follows a range is a version that is kept
        self._stays: frozenset[Seq] = frozenset()
        self._progress = Progress()

    def run(self, ranges: Iterable[Range]) -> Progress:
        """Do it."""
        with self._store.read() as reader:
            self._work = [_Work(*each) for each in sorted(_clamped(ranges, reader.last))]
            versions = (v for work in self._work for v in reader.versions(work.first, work.last))
            self._progress.total = sum(1 for _ in versions)
        batches = _Batches(self._pace.seconds)
        while self._work:
            with self._store.write() as writer, batches:
                failpoint("forget.fold")
                self._stays = self._staying(writer)
                done = 0
                while self._work and done < batches.size:
                    done += self._step(writer, batches.size - done)
            if self._pace.pause is not None:
                self._pace.pause(self._progress)
        return self._progress

    def _step(self, writer: Writer, most: int) -> int:
        """Fold some versions that changed about *most* rows; return how many they changed."""
        work = self._work[-1]
        if work.is_gathered:
            if not work.heads:
                self._work.pop()
                return 0
            record = writer.record(work.heads.pop(0))
            assert record is not None, "only this run folds"
            self._fold(writer, [record], None)
            return size(record)
        batch, keys, stop = self._batch(writer, work, min(most, _HEAD_KEYS))
        if batch and work.keys >= _HEAD_KEYS:
            head = batch.pop()
            work.heads.append(head.seq)
            work.keys = 0
            work.last = Seq(head.seq - 1)
        elif not batch:
            work.is_gathered = True
            if stop is not None:
                below = _Work(work.first, Seq(stop - 1))
                self._work.insert(-1, below)
        if batch:
            work.keys += self._fold(writer, batch, work.heads[-1] if work.heads else None)
            work.last = Seq(batch[0].seq - 1)
        return keys + 1

    def _batch(
        self, writer: Writer, work: _Work, most: int
    ) -> tuple[list[LogRecord], int, Seq | None]:
        """Return the next versions, oldest first, how many rows they changed, and the version that stopped them."""
        batch: list[LogRecord] = []
        keys = 0
        for record in writer.log(work.first, work.last, reverse=True):
            if record.seq in self._stays:
                return batch[::-1], keys, record.seq
            batch.append(record)
            self._pace.breathe()
            keys += size(record)
            if keys >= most:
                break
        return batch[::-1], keys, None

    def _staying(self, writer: Writer) -> frozenset[Seq]:
        """Return the versions that somebody wants to be kept who was not asked."""
        return frozenset(
            tag.seq
            for tag in writer.tags()
            if tag.name not in self._tags or is_live_hold(tag, self._now_ns)
        )

    def _fold(self, writer: Writer, batch: Sequence[LogRecord], head: Seq | None) -> int:
        """Fold *batch*; return by how many rows the log record grew that it went into."""
        into = head if head is not None else writer.next_version(batch[-1].seq)
        assert into is not None, "the newest version is never forgotten"
        grown = self._folder.fold(writer, batch, into)
        gone = {record.seq for record in batch}
        self._drop_tags(writer, gone)
        moves = [record.seq for record in batch if record.operation.kind in _MOVES]
        for seq in moves:
            writer.delete_row("moves", SEQ.pack(seq))
        if moves and moves[-1] > forgotten_move(writer):
            put_forgotten_move(writer, moves[-1])
        self._progress.forgotten += len(gone)
        return grown

    def _drop_tags(self, writer: Writer, gone: set[Seq]) -> None:
        names = [tag.name for tag in writer.tags() if tag.seq in gone]
        for name in names:
            writer.delete_tag(name)
        self._progress.tags += tuple(names)


def _clamped(ranges: Iterable[Range], newest: Seq) -> Iterator[Range]:
    """Yield *ranges* without the newest version."""
    for first, last in ranges:
        if first < newest:
            yield first, Seq(min(last, newest - 1))
