"""What is looked at when a store is opened, so that no damage is made worse by going on.

A writer trusts a few rows: where the segments end, which of them there are, which numbers are free. It cuts off what
lies behind the end. An index that is older than its segments, a copy from a backup for example, would make it cut off
history: so that is refused, by readers too, which would show the past as the present.
"""

import contextlib
from pathlib import Path
from zlib import crc32

from dkfs.core.location import JOURNAL
from dkfs.errors import CorruptError
from dkfs.store.index import INDEX_NAME
from dkfs.store.journals import unpack_journal
from dkfs.store.reader import Reader
from dkfs.store.rows import OLD_FORMAT
from dkfs.store.salvage import Record, Salvage
from dkfs.store.segments import (
    HEADER,
    HEADER_SIZE,
    MAGIC,
    Tail,
    list_segments,
    segment_path,
)

ADVICE = "`dkfs check --repair` comes first"


def measure_segments(directory: Path) -> dict[int, int]:
    """Return the bytes of every segment file by number, of those that can be seen."""
    sizes: dict[int, int] = {}
    with contextlib.suppress(OSError):  # whoever reads from one that is not there hears of it
        for number, path in list_segments(directory):
            sizes[number] = path.stat().st_size
    return sizes


def owner(directory: Path, number: int) -> bytes | None:
    """Return the uuid of the store that segment *number* is of; None if it is missing, or does not tell."""
    try:
        with segment_path(directory, number).open("rb") as file:
            head = file.read(HEADER_SIZE)
    except OSError:
        return None
    if len(head) < HEADER_SIZE or crc32(head[: HEADER.size]) != int.from_bytes(head[-4:], "big"):
        return None
    magic, _, _, uuid = HEADER.unpack_from(head)
    return bytes(uuid) if magic == MAGIC else None


def check_owner(index: Path, uuid: bytes, directory: Path, newest: int) -> None:
    """Raise CorruptError if there are segments in *directory*, and none is of the store *uuid*, that of *index*.

    The segment *newest* is looked at first: mostly it is enough.
    """
    others = False
    for number in (newest, *measure_segments(directory)):
        found = owner(directory, number)
        if found == uuid:
            return
        others |= found is not None
    if others:
        raise CorruptError(f"index {index} is of another store than the segments beside it")


def check_counters(reader: Reader, directory: Path, uuid: bytes) -> None:
    """Raise CorruptError unless the rows that a writer goes on from agree with the others, and with the segments."""
    last = reader.last
    if not reader.is_log_counted(last):
        raise CorruptError(
            f"index: {reader.count('log')} versions up to {last} are in the log and"
            f" {reader.forgotten()} were forgotten: {ADVICE}"
        )
    if reader.next_node() <= reader.greatest_node():
        raise CorruptError(
            f"index: next node is {reader.next_node()}, used is {reader.greatest_node()}: {ADVICE}"
        )
    tail = reader.tail()
    if not tail.txn and reader.format != OLD_FORMAT and (last or reader.count("segments")):
        raise CorruptError(f"index: the end of the segments is not known: {ADVICE}")
    if owner(directory, tail.segment) not in {None, uuid}:
        raise CorruptError(
            f"segment {tail.segment}, which is to be written on, is of another store: {ADVICE}"
        )


def check_age(reader: Reader, directory: Path, uuid: bytes, sizes: dict[int, int]) -> None:
    """Raise CorruptError if the segments hold transactions that were committed and that *reader* does not know.

    *sizes* is what the segments measured before the view began. One transaction behind the end is what a crash leaves:
    it never was. The one after it can only be there if it was.
    """
    try:
        tail = reader.tail()
    except CorruptError:
        return  # reading does not need it, and a writer stumbles over it
    check_owner(directory.parent / INDEX_NAME, uuid, directory, tail.segment)
    if reader.format == OLD_FORMAT:
        return
    behind = [number for number in sizes if number > tail.segment]
    if sizes.get(tail.segment, 0) <= tail.length and not behind:
        return
    known = reader.segment_numbers() if behind else set()
    for number in (tail.segment, *sorted(behind)):
        if number in sizes and (number == tail.segment or number not in known):
            start = tail.length if number == tail.segment else HEADER_SIZE
            if owner(directory, number) == uuid:
                _expect_no_later(directory, number, start, sizes[number], tail)


def _expect_no_later(directory: Path, number: int, start: int, end: int, tail: Tail) -> None:
    with Salvage(segment_path(directory, number), number) as salvage:
        for record in salvage.records(start, end, knows=_is_no_journal):
            if not isinstance(record, Record) or record.encoding != JOURNAL:
                continue
            try:
                part = unpack_journal(record.stored, record.length)
            except CorruptError:
                continue  # the rest of what was never finished
            if not part.is_checkpoint and part.txn > tail.txn + 1:
                raise CorruptError(
                    f"index of store {directory.parent} is of transaction {tail.txn}, older than"
                    f" segment {number}, which holds transaction {part.txn}: {ADVICE}"
                )


def _is_no_journal(record: Record) -> bool:
    return record.encoding != JOURNAL
