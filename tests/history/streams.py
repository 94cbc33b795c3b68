"""What the tests of streams share: two stores, and whether one holds what the other does."""

import io
from pathlib import Path

import pytest

from dkfs.errors import UsageError
from dkfs.history.replica import EMPTY, token_of
from dkfs.history.stream_in import Received
from dkfs.history.stream_io import read_stream, write_stream
from dkfs.history.stream_out import Sender, start_of
from dkfs.history.stream_store import receive
from dkfs.model.ids import Seq
from dkfs.store import Store, is_absent
from dkfs.store.check import check

TABLES = ("log", "nodes", "names", "moves", "tags")


def send(source: Store, start: int = 0, end: int | None = None) -> bytes:
    """Return the stream of all after version *start*."""
    out = io.BytesIO()
    with source.read() as reader:
        last = reader.last if end is None else Seq(end)
        write_stream(Sender(source, reader, Seq(start), last).items(), out.write)
    return out.getvalue()


def send_on(source: Store, target: Path) -> bytes:
    """Return the stream of all that the replica *target* lacks."""
    token = EMPTY
    if not is_absent(target):
        with Store.open(target, writable=False) as store, store.read() as reader:
            token = token_of(store, reader)
    with source.read() as reader:
        start = start_of(source, reader, token)
    return send(source, start)


def take(target: Path, data: bytes) -> Received:
    return receive(target, read_stream(io.BytesIO(data).read))


def rows(store: Store, last: int | None = None) -> dict[str, dict[bytes, bytes]]:
    """Return the rows of the history up to version *last*."""
    with store.read() as reader:
        last = reader.last if last is None else last
        found = {table: dict(reader.rows(table)) for table in TABLES}
        notes = {key: value for key, value in reader.rows("meta") if key.startswith(b"note:links:")}
    for table in ("log", "nodes", "names", "moves"):
        found[table] = {
            key: value
            for key, value in found[table].items()
            if int.from_bytes(key[-8:], "big") <= last
        }
    return {**found, "links": notes}


def assert_equal(source: Store, target: Path) -> None:
    """Raise AssertionError unless *target* is sound and holds the whole history of *source*."""
    with Store.open(target, writable=False) as store:
        assert list(check(store, read_data=True)) == []
        assert rows(store) == rows(source)
        with store.read() as there, source.read() as here:
            assert there.next_node() == here.next_node()
            assert there.forgotten() == here.forgotten()


def assert_prefix(source: Store, target: Path) -> Seq:
    """Raise AssertionError unless *target* is sound and holds the history of *source* up to some version, returned."""
    with Store.open(target, writable=False) as store:
        assert list(check(store, read_data=True)) == []
        with store.read() as reader:
            last = reader.last
        there, here = rows(store), rows(source, last)
        for table in ("log", "nodes", "names", "moves"):
            assert there[table] == here[table]
    return last


def refused(target: Path, data: bytes, match: str) -> None:
    before = tree(target)
    with pytest.raises(UsageError, match=match):
        take(target, data)
    assert tree(target) == before


def tree(top: Path) -> dict[str, bytes]:
    names = (
        path
        for path in sorted(top.rglob("*"))
        if path.is_file() and "lock" not in path.name.lower()
    )
    return {str(path): path.read_bytes() for path in names}
