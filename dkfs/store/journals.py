"""Journals: how the rows of the index come into the segments, and from there back.

A transaction that writes to the segments ends with a journal there, even of no rows: so a number that is missing tells
of one that was lost. The parts of a checkpoint may be written by later transactions than the one that it is of.
"""

from collections.abc import Callable, Iterator

from dkfs.core.journal import (
    PART_LIMIT,
    TABLE_NUMBERS,
    TABLES_JOURNALED,
    JournalPart,
    decode_journal,
    encode_delete,
    encode_put,
    join_rows,
)
from dkfs.core.location import JOURNAL
from dkfs.model.ids import BlobId
from dkfs.store.blobs import Encoder, decompress
from dkfs.store.rows import UNJOURNALED, is_sealed, unseal
from dkfs.store.segments import SegmentWriter
from dkfs.store.view import View


class Journal:
    """The journal of one transaction: its parts go to the segments as they become full."""

    def __init__(
        self, output: SegmentWriter, encoder: Encoder, hash_data: Callable[[bytes], bytes]
    ) -> None:
        self._output = output
        self._encoder = encoder
        self._hash = hash_data
        self._rows: list[bytes] = []
        self._size = 0
        self._part = 0

    @property
    def is_empty(self) -> bool:
        """Whether there was no row."""
        return not (self._rows or self._part)

    @property
    def txn(self) -> int:
        """The number of the transaction."""
        return self._output.kept.txn + 1

    def put(self, table: str, key: bytes, record: bytes) -> None:
        """Add a row that was put; raises StoreError."""
        self._add(encode_put(TABLE_NUMBERS[table], key, record))

    def delete(self, table: str, key: bytes) -> None:
        """Add a row that was deleted; raises StoreError."""
        self._add(encode_delete(TABLE_NUMBERS[table], key))

    def finish(self) -> None:
        """Write the last part; raises StoreError."""
        self._flush(is_last=True)

    def write(self, plain: bytes) -> None:
        """Write a part in its plain form; raises StoreError."""
        stored = self._encoder.compress(plain)
        self._output.append(BlobId(self._hash(plain)), stored, encoding=JOURNAL, length=len(plain))

    def _add(self, row: bytes) -> None:
        self._rows.append(row)
        self._size += len(row)
        if self._size >= PART_LIMIT:
            self._flush(is_last=False)

    def _flush(self, *, is_last: bool) -> None:
        rows, self._rows, self._size = self._rows, [], 0
        self.write(join_rows(self.txn, self._part, rows, is_last=is_last, is_checkpoint=False))
        self._part += 1


def checkpoint(view: View, txn: int, *, skip_damaged: bool = False) -> Iterator[bytes]:
    """Yield the parts, in their plain form, of a checkpoint of all that *view* sees.

    *txn* is the number of the newest transaction that it sees. A damaged row is left out if that is asked for; else it
    raises CorruptError, for an older journal may still have it whole.
    """
    rows: list[bytes] = []
    size = part = 0
    for table in TABLES_JOURNALED:
        number = TABLE_NUMBERS[table]
        for key, value in view.rows(table):
            if table == "meta" and key in UNJOURNALED:
                continue
            if skip_damaged and not is_sealed(key, value):
                continue
            if size >= PART_LIMIT:
                yield join_rows(txn, part, rows, is_last=False, is_checkpoint=True)
                rows, size, part = [], 0, part + 1
            rows.append(encode_put(number, key, unseal(table, key, value)))
            size += len(rows[-1])
    yield join_rows(txn, part, rows, is_last=True, is_checkpoint=True)


def unpack_journal(stored: bytes, length: int) -> JournalPart:
    """Return the part in the stored bytes of a record of *length* plain bytes; raises CorruptError."""
    return decode_journal(decompress(stored, length))
