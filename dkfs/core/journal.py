"""The journal: the rows of the index that a transaction put or deleted, as they are kept in the segments. Pure, no I/O.

So the segments alone can give the index back. A transaction is one or more parts; a checkpoint is every row there was
as of a transaction. The layout is specified in dkfs/docs/format.md: change both together.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from dkfs.core.varint import read_sized, sized
from dkfs.errors import CorruptError

TABLES_JOURNALED: Final = ("meta", "log", "nodes", "names", "tags", "moves")  # by number
TABLE_NUMBERS: Final = {table: number for number, table in enumerate(TABLES_JOURNALED)}
PART_LIMIT: Final = (
    1 << 20
)  # bytes of rows, plain; a part with more is cut after the row that made it so

_FORMAT: Final = 1
_HEAD: Final = struct.Struct(">BBQI")
_IS_LAST: Final = 0x01
_IS_CHECKPOINT: Final = 0x02
_IS_DELETED: Final = 0x80
_PUT: Final = tuple(bytes((number,)) for number in range(len(TABLES_JOURNALED)))
_DELETE: Final = tuple(bytes((_IS_DELETED | number,)) for number in range(len(TABLES_JOURNALED)))


class Row(NamedTuple):
    """One row of the index that was put or deleted."""

    table: str  # one of TABLES_JOURNALED
    key: bytes
    record: bytes | None  # without its checksum; None: deleted


@dataclass(frozen=True, slots=True)
class JournalPart:
    """Some of the rows of one transaction, or of one checkpoint, in the order in which they were put."""

    txn: int  # number of the transaction; of a checkpoint: the newest that is in it
    part: int  # 0, 1, 2 ...
    is_last: bool  # with it the transaction, or the checkpoint, is complete
    is_checkpoint: bool
    rows: tuple[Row, ...]


def encode_journal(part: JournalPart) -> bytes:
    """Return the plain form of *part*."""
    return join_rows(
        part.txn,
        part.part,
        map(encode_row, part.rows),
        is_last=part.is_last,
        is_checkpoint=part.is_checkpoint,
    )


def encode_row(row: Row) -> bytes:
    """Return the coding of *row* within a part."""
    number = TABLE_NUMBERS[row.table]
    if row.record is None:
        return encode_delete(number, row.key)
    return encode_put(number, row.key, row.record)


def encode_put(number: int, key: bytes, record: bytes) -> bytes:
    """Return the coding of a row that was put into the table of this number."""
    return b"%b%b%b" % (_PUT[number], sized(key), sized(record))


def encode_delete(number: int, key: bytes) -> bytes:
    """Return the coding of a row that was deleted from the table of this number."""
    return _DELETE[number] + sized(key)


def join_rows(
    txn: int, part: int, rows: Iterable[bytes], *, is_last: bool, is_checkpoint: bool
) -> bytes:
    """Return the plain form of a part of *rows*, each as encode_row() gave it."""
    flags = is_last * _IS_LAST | is_checkpoint * _IS_CHECKPOINT
    return b"".join((_HEAD.pack(_FORMAT, flags, txn, part), *rows))


def decode_journal(data: bytes) -> JournalPart:
    """Return the part that *data* records; raises CorruptError. It takes at most 100 times the memory of *data*."""
    head = decode_journal_head(data)
    rows: list[Row] = []
    at = _HEAD.size
    try:
        while at < len(data):
            code = data[at]
            number = code & ~_IS_DELETED
            if number >= len(TABLES_JOURNALED):
                raise CorruptError(f"journal of {len(data)} bytes with a row of table {number}")
            key, at = read_sized(data, at + 1)
            record = None
            if not code & _IS_DELETED:
                record, at = read_sized(data, at)
            rows.append(Row(TABLES_JOURNALED[number], key, record))
    except IndexError:
        raise CorruptError(f"journal of {len(data)} bytes ends too early") from None
    return JournalPart(head.txn, head.part, head.is_last, head.is_checkpoint, tuple(rows))


def decode_journal_head(data: bytes) -> JournalPart:
    """Return the part that begins as *data* does, without its rows; raises CorruptError."""
    if len(data) < _HEAD.size:
        raise CorruptError(f"journal of {len(data)} bytes, need {_HEAD.size}")
    fmt, flags, txn, part = _HEAD.unpack_from(data)
    if fmt != _FORMAT or flags & ~(_IS_LAST | _IS_CHECKPOINT):
        raise CorruptError(f"journal of format {fmt}, flags {flags}; need format {_FORMAT}")
    return JournalPart(txn, part, flags & _IS_LAST != 0, flags & _IS_CHECKPOINT != 0, ())
