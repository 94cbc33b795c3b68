"""Rows of the index as one LMDB transaction sees them: found by key, checked, and yielded in order."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Self

import lmdb

from dkfs.errors import CorruptError
from dkfs.model.ids import NodeId, Seq
from dkfs.store.index import Index, index_error
from dkfs.store.rows import NODE_KEY, is_sealed, unseal

_NONE = bytes(8)  # the version before all
_GREATEST = (1 << 64) - 1
_SIDE_BY_SIDE = (
    4  # rows for each node that is wanted: then to read all of them is faster than to find each
)

if TYPE_CHECKING:
    Cursor = lmdb.Cursor[bytes]


class View:
    """One LMDB transaction, for one thread."""

    def __init__(self, index: Index, *, write: bool = False) -> None:
        """Begin the transaction; raises StoreError."""
        self.format = index.format
        self._tables = index.tables
        self._txn = index.begin(write=write)
        self._cursors: dict[str, Cursor] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the view; iterators that are not finished end with StoreError."""
        self._txn.abort()

    def rows(self, table: str, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys from *start* on and the values of *table* as they are, for whoever looks for damage."""
        cursor = self._new_cursor(table)
        try:
            if not start or cursor.set_range(start):
                yield from cursor
        except lmdb.Error as exc:
            raise index_error(exc) from exc

    def records(self, nodes: Iterable[NodeId], at: Seq) -> dict[NodeId, tuple[Seq, bytes]]:
        """Return the records of *nodes* as of *at*, with their versions, of those that lie side by side, undamaged.

        The others are for node(), which finds each by itself, and says what is wrong with it.
        """
        found: dict[NodeId, tuple[Seq, bytes]] = {}
        run: list[NodeId] = []
        for node in (*sorted(nodes), _GREATEST):
            if run and node - run[-1] > _SIDE_BY_SIDE:
                if len(run) >= _SIDE_BY_SIDE:
                    found |= self._run(run[0], run[-1], at, most=_SIDE_BY_SIDE * len(run))
                run = []
            run.append(NodeId(node))
        return found

    def _run(
        self, first: NodeId, last: NodeId, at: Seq, *, most: int
    ) -> dict[NodeId, tuple[Seq, bytes]]:
        """Return the records from node *first* to *last*; none if one is damaged, or if there are more rows than *most*."""
        found: dict[NodeId, tuple[Seq, bytes]] = {}
        rows = self._range("nodes", NODE_KEY.pack(first, 0), NODE_KEY.pack(last, _GREATEST))
        try:
            for key, data in rows:
                node, seq = NODE_KEY.unpack(key)
                if seq <= at:
                    found[node] = seq, data
                most -= 1
                if most < 0:
                    return {}
        except CorruptError:
            return {}
        return found

    def has_row(self, table: str, key: bytes) -> bool:
        """Return whether *table* has a row at *key*, sound or not."""
        try:
            return self._txn.get(key, db=self._tables[table]) is not None
        except lmdb.Error as exc:
            raise index_error(exc) from exc

    def count(self, table: str) -> int:
        """Return how many rows *table* has."""
        try:
            return int(self._txn.stat(self._tables[table])["entries"])
        except lmdb.Error as exc:
            raise index_error(exc) from exc

    def _get(self, table: str, key: bytes) -> bytes | None:
        try:
            value = self._txn.get(key, db=self._tables[table])
        except lmdb.Error as exc:
            raise index_error(exc) from exc
        return None if value is None else unseal(table, key, value)

    def _floor(self, table: str, key: bytes) -> tuple[bytes, bytes] | None:
        """Return the row with the greatest key <= *key* that differs from it in the last 8 bytes at most."""
        found, value, doubtful = b"", b"", []
        try:
            cursor = self._cursors.get(table)
            if cursor is None:
                cursor = self._cursors[table] = self._new_cursor(table)
            if cursor.set_range(key):
                found, value = cursor.item()
                if found == key:
                    return key, unseal(table, key, value)
                # A row whose key is damaged is not found under its key, but lies where it lay: right behind the place,
                # or right before it.
                if not is_sealed(found, value):
                    doubtful.append(found)
                is_there = cursor.prev()
            else:
                is_there = cursor.last()
            if is_there:
                found, value = cursor.item()
        except lmdb.Error as exc:
            raise index_error(exc) from exc
        is_same = is_there and found[:-8] == key[:-8]
        if is_there and not is_same and not is_sealed(found, value):
            doubtful.append(found)
        for damaged in doubtful:
            self._expect_other(table, found if is_same else key[:-8] + _NONE, key, damaged)
        return (found, unseal(table, found, value)) if is_same else None

    def _expect_other(self, table: str, after: bytes, until: bytes, damaged: bytes) -> None:
        """Raise CorruptError unless the row at *damaged* is certainly none between *after* and *until*, included."""
        raise CorruptError(
            f"index: {table} row {damaged.hex()}, which may be one after {after.hex()} up to"
            f" {until.hex()}, does not match its checksum"
        )

    def _range(
        self, table: str, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows with start <= key <= end, None: to the end of the table."""
        cursor = self._new_cursor(table)
        try:
            if reverse and end is not None:
                more = cursor.set_range(end)
                if not more:
                    more = cursor.last()
                elif cursor.key() != end:
                    self._expect_sealed(table, cursor, start, end)
                    more = cursor.prev()
            else:
                if cursor.prev() if cursor.set_range(start) else cursor.last():
                    self._expect_sealed(table, cursor, start, end)
                more = cursor.set_range(start)
            if not more:
                return
            for key, value in cursor.iterprev() if reverse else cursor.iternext():
                if key < start if reverse else end is not None and key > end:
                    self._expect_sealed(table, cursor, start, end)
                    return
                yield key, unseal(table, key, value)
        except lmdb.Error as exc:
            raise index_error(exc) from exc

    def _expect_sealed(self, table: str, cursor: "Cursor", start: bytes, end: bytes | None) -> None:
        """Look at the row next to a range: if its key is damaged, it may be one of the range."""
        key, value = cursor.item()
        if not is_sealed(key, value):
            self._expect_other(table, start[:-8] + _NONE, end or start, key)

    def _last_key(self, table: str) -> bytes:
        return self._last_row(table)[0]

    def _last_row(self, table: str) -> tuple[bytes, bytes]:
        cursor = self._new_cursor(table)
        try:
            return cursor.item() if cursor.last() else (b"", b"")
        except lmdb.Error as exc:
            raise index_error(exc) from exc

    def _new_cursor(self, table: str) -> "Cursor":
        try:
            return self._txn.cursor(self._tables[table])
        except lmdb.Error as exc:
            raise index_error(exc) from exc
