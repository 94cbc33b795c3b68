"""A store of an older format becomes one of today's: the index is written anew, the segments stay as they are.

The new index, and the checkpoint of it that goes to a segment of its own, are whole and on the disk before the old index is
replaced. A kill at any moment leaves the one store or the other, and at most files that nobody looks at.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import lmdb

from dkfs.core import codec
from dkfs.core.location import (
    SegmentRow,
    decode_blob_location,
    encode_blob_location,
    encode_segment,
)
from dkfs.errors import CorruptError, StoreError, StoreFormatError
from dkfs.failpoints import failpoint
from dkfs.model.ids import Seq
from dkfs.model.node import Kind
from dkfs.store.blobs import Encoder, hash_function
from dkfs.store.index import (
    INDEX_NAME,
    OLD_TABLES,
    Index,
    close_index,
    create_index,
    index_error,
    lock_path,
    open_index,
)
from dkfs.store.journals import Journal, checkpoint
from dkfs.store.lock import StoreLock
from dkfs.store.rows import (
    CHECKPOINT_KEY,
    FORMAT,
    FORMAT_KEY,
    HASH_KEY,
    OLD_TAIL,
    SEGMENT_KEY,
    SEQ,
    TAIL_KEY,
    UUID_KEY,
    seal,
    unseal,
)
from dkfs.store.segments import (
    HEADER_SIZE,
    SEGMENT_LIMIT,
    SEGMENTS_NAME,
    SegmentWriter,
    Tail,
    list_segments,
    pack_tail,
    segment_path,
    sync_directory,
)
from dkfs.store.view import View

NEW_NAME: Final = f"{INDEX_NAME}.new"
_BATCH: Final = 20_000  # rows of one transaction

OnProgress = Callable[[int, int], None]  # rows that are done, of how many


@dataclass(frozen=True, slots=True)
class Migration:
    """What was done, or would be."""

    old_format: int
    versions: int
    blobs: int
    segments: int
    damaged: int = 0  # rows that are damaged, and were taken over as they are

    @property
    def new_format(self) -> int:
        """The format that the store has then."""
        return FORMAT


def survey(store: Path) -> Migration | None:
    """Return what migrate() would do to *store*, None if nothing; raises StoreError, CorruptError."""
    with _opened(store / INDEX_NAME, writable=False) as index:
        return _migration(index, _tail(index)) if index.format != FORMAT else None


def migrate(store: Path, *, on_progress: OnProgress) -> Migration | None:
    """Make *store* one of today's format; return what was done, None if it is one.

    Raises StoreError, StoreFormatError if it is newer, StoreBusyError, CorruptError.
    """
    index = store / INDEX_NAME
    with _opened(index, writable=False) as old:
        if old.format == FORMAT:
            return None
    with StoreLock(store), _opened(index, writable=False) as old:
        if old.format == FORMAT:
            return None  # somebody else was faster
        try:
            _discard(store)
            migration = _make(store, old, on_progress)
            _replace(store)
        except OSError as exc:
            error = StoreError(f"store {store} cannot be migrated: {exc.strerror}")
            error.errno = exc.errno or error.errno
            raise error from exc
        finally:
            _discard(store)
    return migration


def _make(store: Path, old: Index, on_progress: OnProgress) -> Migration:
    """Make the new index, complete, beside the *old* one, and its checkpoint."""
    tail = _tail(old)
    uuid, algorithm = _meta(old, UUID_KEY), _meta(old, HASH_KEY).decode()
    segments = store / SEGMENTS_NAME
    _cut_off(segments, uuid, tail)
    rows = {number: _segment(segments, number, tail) for number in range(1, tail.segment + 1)}
    create_index(store / NEW_NAME, {FORMAT_KEY: FORMAT.to_bytes(4, "big")})
    output = SegmentWriter(segments, uuid, Tail(0, 0, 0), limit=SEGMENT_LIMIT, known=set(rows))
    try:
        with _opened(store / NEW_NAME, writable=True) as new:
            with _Target(new) as target, View(old) as view:
                damaged = _copy_rows(view, target, on_progress)
            journal = Journal(output, Encoder(), hash_function(algorithm))
            with View(new) as made:
                for part in checkpoint(made, journal.txn, skip_damaged=True):
                    journal.write(part)
            output.sync()
            rows |= {**output.left, output.tail.segment: output.tail.row}
            with _Target(new) as target:
                _put_last(target, output.tail, rows)
            new.cover()
    except BaseException:
        output.forget()
        raise
    finally:
        output.close()
    return _migration(old, tail, damaged=damaged)


def _copy_rows(view: View, target: "_Target", on_progress: OnProgress) -> int:
    """Put every row in its new form; return how many are damaged."""
    total = sum(view.count(table) for table in OLD_TABLES)
    done = damaged = 0
    for table in OLD_TABLES:
        for key, value in view.rows(table):
            done += 1
            on_progress(done, total)
            if table == "meta" and key in {FORMAT_KEY, TAIL_KEY}:
                continue
            try:
                record = unseal(table, key, value)
            except CorruptError:
                damaged += 1
                target.put(table, key, value)
                continue
            try:
                record = _converted(table, key, record)
            except CorruptError:
                damaged += 1  # whoever reads the row hears the same
            target.put(table, key, seal(key, record))
    return damaged


def _converted(table: str, key: bytes, record: bytes) -> bytes:
    """Return *record* in the form of today; raises CorruptError."""
    if table == "log":
        entry = codec.decode_log(Seq(int.from_bytes(key, "big")), record)
        return codec.encode_log(entry.operation, entry.nodes, entry.names)
    if table == "nodes":
        state = codec.decode_node(record)
        if state.target and state.attr.kind is Kind.FILE:
            raise CorruptError(f"index: nodes row {key.hex()} is a file with a target")
        return codec.encode_node(state)
    if table == "tags":
        return codec.encode_tag(codec.decode_tag(record))
    if table == "blobs":
        return encode_blob_location(decode_blob_location(record))
    return record


class _Target:
    """Rows on their way into the new index, in transactions of a bounded size; the last ends with the block."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._txn = index.begin(write=True)
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if exc_type is None:
            self._commit()
        else:
            self._txn.abort()

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Put a row; raises StoreError."""
        try:
            self._txn.put(key, value, db=self._index.tables[table])
        except lmdb.Error as exc:
            raise index_error(exc) from exc
        self._count += 1
        if self._count >= _BATCH:
            self._commit()
            self._txn = self._index.begin(write=True)
            self._count = 0

    def _commit(self) -> None:
        try:
            failpoint("migrate.commit")
            self._txn.commit()
        except lmdb.Error as exc:
            raise index_error(exc) from exc


def _put_last(target: _Target, tail: Tail, rows: dict[int, SegmentRow]) -> None:
    """Put what belongs to the segments: the tail, what is known of each, and that a checkpoint is there."""
    meta = {
        TAIL_KEY: pack_tail(tail),
        CHECKPOINT_KEY: SEQ.pack(tail.txn),
    }
    for key, record in meta.items():
        target.put("meta", key, seal(key, record))
    for number, row in sorted(rows.items()):
        key = SEGMENT_KEY.pack(number)
        target.put("segments", key, seal(key, encode_segment(row)))


def _replace(store: Path) -> None:
    """Let the new index take the place of the old one."""
    index, new = store / INDEX_NAME, store / NEW_NAME
    failpoint("migrate.replace")
    sync_directory(store)
    # The table of readers goes first: the transactions of the two are counted apart (see format.md).
    if lock_path(new).exists():
        lock_path(new).rename(lock_path(index))
    failpoint("migrate.rename")
    new.rename(index)
    sync_directory(store)


def _discard(store: Path) -> None:
    """Remove what a migration that did not come to its end left beside the index."""
    new = store / NEW_NAME
    temporary = new.with_name(f"{new.name}.new")
    for each in (new, lock_path(new), temporary, lock_path(temporary)):
        each.unlink(missing_ok=True)


def _cut_off(segments: Path, uuid: bytes, tail: Tail) -> None:
    """Remove what lies behind *tail*, as every writer does: also the segment of a migration that was ended."""
    known = {number for number, _ in list_segments(segments) if number <= tail.segment}
    SegmentWriter(segments, uuid, tail, limit=SEGMENT_LIMIT, known=known | {tail.segment}).close()


def _segment(segments: Path, number: int, tail: Tail) -> SegmentRow:
    try:
        size = segment_path(segments, number).stat().st_size
    except FileNotFoundError:
        size = 0
    # What is missing is missed when it is read, or checked.
    return SegmentRow(tail.length if number == tail.segment else max(size, HEADER_SIZE))


def _migration(index: Index, tail: Tail, *, damaged: int = 0) -> Migration:
    with View(index) as view:
        return Migration(view.format, view.count("log"), view.count("blobs"), tail.segment, damaged)


def _tail(index: Index) -> Tail:
    data = index.meta(TAIL_KEY)
    if data is None:
        return Tail(0, 0, 0)
    if len(data) != OLD_TAIL.size:
        raise CorruptError(f"index: tail of {len(data)} bytes, need {OLD_TAIL.size}")
    return Tail(*OLD_TAIL.unpack(data))


def _meta(index: Index, key: bytes) -> bytes:
    record = index.meta(key)
    if record is None:
        raise StoreFormatError(f"index {index.path} has no {key.decode()}")
    return record


@contextmanager
def _opened(path: Path, *, writable: bool) -> Iterator[Index]:
    index = open_index(path, writable=writable)
    try:
        yield index
    finally:
        close_index(index)
