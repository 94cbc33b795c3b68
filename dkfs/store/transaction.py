"""A write transaction: how what it did becomes durable, all of it or none.

Order of a commit: the segments are written and synced, then LMDB commits, synced. So the index never knows a blob that
is not on the disk, and what is behind the tail that the index knows belongs to nobody. What goes to the segments ends
with the rows that the transaction put and deleted (see journals), from which the index can be made again.
"""

import errno
import logging
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import lmdb

from dkfs.core.journal import TABLE_NUMBERS
from dkfs.core.location import SegmentRow, decode_segment, encode_segment
from dkfs.errors import CorruptError, DkfsError, IndexFullError, StoreError
from dkfs.failpoints import failpoint
from dkfs.model.ids import ROOT, NodeId
from dkfs.store.blobs import BlobSource
from dkfs.store.index import Index, index_error
from dkfs.store.journals import Journal, checkpoint
from dkfs.store.reader import Reader
from dkfs.store.rows import (
    CHECKPOINT_KEY,
    FORGOTTEN_KEY,
    HASH_KEY,
    NEXT_NODE_KEY,
    SEGMENT_KEY,
    SEQ,
    TAIL_KEY,
    UUID_KEY,
    seal,
)
from dkfs.store.segments import Tail, pack_tail
from dkfs.store.side import WriteSide

_FULL: Final = 1024 * 1024  # bytes that a disk has left when it is as good as full

log = logging.getLogger(__name__)


class Transaction(Reader):
    """One transaction: reads see its own writes; leaving the block commits, an exception aborts."""

    def __init__(self, index: Index, blobs: BlobSource, side: WriteSide) -> None:
        """Begin the transaction when no other is under way; made by Store.write()."""
        side.mutex.acquire()
        try:
            super().__init__(index, blobs, write=True)
        except BaseException:
            side.mutex.release()
            raise
        self._index = index
        self._side = side
        self._is_open = True
        self._last_time_ns = 0
        self._next_node = self._committed_next_node = ROOT
        self._forgotten = self._committed_forgotten = 0
        self._journal = Journal(side.output, side.encoder, blobs.hash_data)
        self._has_checkpoint = False
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if self._is_open and exc_type is None:
            try:
                self._commit()
            except BaseException as exc:
                self._end(type(exc))
                raise
            self._is_open = False
            self._side.mutex.release()
        else:
            self._end(exc_type)

    def _end(self, exc_type: type[BaseException] | None) -> None:
        """Abort because of *exc_type*; if that is for want of room in the map, the next transaction has it."""
        self.close()
        if exc_type is not None and issubclass(exc_type, IndexFullError):
            self._index.grow()

    def close(self) -> None:
        """Abort the transaction, if it is still open."""
        if not self._is_open:
            return
        self._is_open = False
        side = self._side
        try:
            self._txn.abort()
            if not side.is_uncertain:
                side.output.forget()
        except StoreError as exc:
            log.warning("rest of a transaction is left for later: %s", exc)
            side.is_uncertain = True
        finally:
            self._blobs.close()  # files of the transaction may have been removed
            side.mutex.release()

    def put_checkpoint(self) -> None:
        """Let the journal of this transaction hold every row there is, so that those before it are not needed."""
        self._has_checkpoint = True

    def next_node(self) -> NodeId:
        """See Reader."""
        return self._next_node

    def forgotten(self) -> int:
        """See Reader."""
        return self._forgotten

    def _begin(self) -> None:
        side = self._side
        if side.is_uncertain:
            side.output.restore(self.tail())
            side.last_time_ns = None
            side.is_uncertain = False
        if side.last_time_ns is None:
            newest = self.record(self.last)
            side.last_time_ns = newest.operation.time_ns if newest else 0
        self._last_time_ns = side.last_time_ns
        self._committed_next_node = self._next_node = super().next_node()
        self._committed_forgotten = self._forgotten = super().forgotten()

    def _commit(self) -> None:
        side = self._side
        self._index.check_there()
        if self._next_node != self._committed_next_node:
            self._keep("meta", NEXT_NODE_KEY, SEQ.pack(self._next_node))
        if self._forgotten != self._committed_forgotten:
            self._keep("meta", FORGOTTEN_KEY, SEQ.pack(self._forgotten))
        if side.output.is_touched or self._has_checkpoint or not self._journal.is_empty:
            self._put_journal()
            side.output.sync()
            self._put_segments(side.output.tail)
        # From here on it depends on how far a failing commit came whether the transaction counts.
        side.is_uncertain = True
        try:
            failpoint("index.commit")
            self._txn.commit()
        except lmdb.Error as exc:
            raise _commit_error(exc, self._index.path) from exc
        failpoint("index.committed")
        side.is_uncertain = False
        side.output.keep()
        side.last_time_ns = self._last_time_ns
        self._index.cover()

    def _put_journal(self) -> None:
        journal = self._journal
        if self._has_checkpoint:
            # It holds what this transaction did too.
            for part in checkpoint(self, journal.txn):
                failpoint("journal.checkpoint")
                journal.write(part)
            self._put("meta", CHECKPOINT_KEY, SEQ.pack(journal.txn))
            return
        if journal.txn == 1:
            for key in (UUID_KEY, HASH_KEY):
                journal.put("meta", key, self._get("meta", key) or b"")
        failpoint("journal.finish")
        journal.finish()

    def _put_segments(self, tail: Tail) -> None:
        """Put the rows that make what was written to the segments part of the store."""
        rows = dict(self._side.output.left)
        key = SEGMENT_KEY.pack(tail.segment)
        if tail.segment != self._side.output.kept.segment or not self.has_row("segments", key):
            rows[tail.segment] = tail.row
        for number, row in rows.items():
            self._put(
                "segments", SEGMENT_KEY.pack(number), encode_segment(self._alive(number, row))
            )
        self._put("meta", TAIL_KEY, pack_tail(tail))

    def _alive(self, number: int, row: SegmentRow) -> SegmentRow:
        """Return *row*, dead if the transaction has found that nothing in the segment is needed."""
        try:
            data = self._get("segments", SEGMENT_KEY.pack(number))
            known = row if data is None else decode_segment(data)
        except CorruptError as exc:
            log.warning("written again: %s", exc)
            known = row
        return replace(row, is_dead=known.is_dead, death=known.death)

    def _keep(self, table: str, key: bytes, record: bytes) -> None:
        """Put a row, and its copy into the journal if the table has one."""
        self._put(table, key, record)
        if table in TABLE_NUMBERS:
            self._journal.put(table, key, record)

    def _put(self, table: str, key: bytes, record: bytes) -> None:
        try:
            failpoint("index.put")
            self._txn.put(key, seal(key, record), db=self._tables[table])
        except lmdb.Error as exc:
            raise index_error(exc) from exc


def _commit_error(exc: lmdb.Error, path: Path) -> DkfsError:
    """Return the error that *exc*, raised by a commit to the index at *path*, means; see index_error()."""
    error = index_error(exc)
    # LMDB says EIO when less was written than it asked for, which a disk that becomes full does.
    if isinstance(error, StoreError):
        with suppress(OSError):
            disk = os.statvfs(path)
            if disk.f_bavail * disk.f_frsize < _FULL:
                error.errno = errno.ENOSPC
    return error
