"""Whether the segments alone could give the index back: a checkpoint, and the journal of every transaction after it."""

from dkfs.errors import CorruptError
from dkfs.store.damage import DamageKind, Notes
from dkfs.store.journals import unpack_journal
from dkfs.store.reader import Reader
from dkfs.store.rows import CHECKPOINT_KEY, unseal
from dkfs.store.salvage import Record


class JournalChecker:
    """Is given every journal that is in the segments."""

    def __init__(self, reader: Reader, notes: Notes) -> None:
        self._reader = reader
        self._notes = notes
        self._complete: set[int] = set()  # transactions
        self._checkpoints: set[int] = set()  # transactions of which there is a complete one
        self._parts: dict[tuple[bool, int], dict[int, bool]] = {}  # those seen of incomplete ones

    def add(self, record: Record) -> None:
        """Look at one part."""
        try:
            part = unpack_journal(record.stored, record.length)
        except CorruptError as exc:
            where = f"segment {record.segment} at {record.offset}"
            self._notes.add(f"journal in {where}: {exc}", kind=DamageKind.SEGMENT)
            return
        whole = self._checkpoints if part.is_checkpoint else self._complete
        if part.part == 0 and part.is_last:
            whole.add(part.txn)
            return
        parts = self._parts.setdefault((part.is_checkpoint, part.txn), {})
        parts[part.part] = part.is_last
        last = next((number for number, is_last in parts.items() if is_last), None)
        if last is not None and all(number in parts for number in range(last + 1)):
            whole.add(part.txn)
            del self._parts[part.is_checkpoint, part.txn]

    def finish(self) -> None:
        """Note what is missing."""
        try:
            newest, end = self._checkpoint(), self._reader.tail().txn + 1
        except CorruptError:
            return  # rows that are damaged, and noted
        if newest and newest not in self._checkpoints:
            self._add(f"the checkpoint of transaction {newest} is damaged or missing")
            newest = max((txn for txn in self._checkpoints if txn < newest), default=0)
        start: int | None = None
        for txn in range(newest + 1, end + 1):
            is_missing = txn < end and txn not in self._complete
            if is_missing and start is None:
                start = txn
            elif not is_missing and start is not None:
                self._add(_missing(start, txn - 1))
                start = None

    def _checkpoint(self) -> int:
        """Return the transaction of the newest checkpoint, as the index has it; 0 if there is none."""
        for key, value in self._reader.rows("meta"):
            if key == CHECKPOINT_KEY:
                return int.from_bytes(unseal("meta", key, value), "big")
        return 0

    def _add(self, what: str) -> None:
        self._notes.add(
            f"{what}: without the index, nothing after it could be found again",
            kind=DamageKind.SEGMENT,
        )


def _missing(first: int, last: int) -> str:
    if first == last:
        return f"the journal of transaction {first} is damaged or missing"
    return f"the journals of transactions {first} to {last} are damaged or missing"
