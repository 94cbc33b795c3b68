"""Ways to damage a store: each yields what it does in words, and a function that does it."""

import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import lmdb

from dkfs.core.location import JOURNAL
from dkfs.store.salvage import Record, Salvage
from dkfs.store.segments import HEADER_SIZE, RECORD, list_segments

PAGE = 4096

Mutation = tuple[str, Callable[[], object]]  # what it does, and how


def flips(place: Path, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Flip one bit in one file; in each file, as often as in the others, but seldom in the table of readers."""
    files = data_files(place)
    for number in range(count):
        path = files[number % len(files)] if number % 20 else place / "index.lmdb-lock"
        at, bit = rng.randrange(path.stat().st_size), 1 << rng.randrange(8)
        yield f"bit {bit:#x} at {at} of {path.name}", _flip(path, at, bit)


def flips_in_use(place: Path, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Flip a bit in what a store needs of its segments: headers, journals, and blobs that are in no newer record."""
    used: list[tuple[Path, int, int]] = []
    newest: dict[bytes, int] = {}
    for number, path in list_segments(place / "segments"):
        used.append((path, 0, HEADER_SIZE))
        with Salvage(path, number) as salvage:
            for record in salvage.records():
                if isinstance(record, Record):
                    if record.encoding != JOURNAL:
                        if record.blob in newest:
                            used[newest[record.blob]] = (path, 0, HEADER_SIZE)
                        newest[record.blob] = len(used)
                    used.append((path, record.offset, record.end))
    for _ in range(count):
        path, start, end = rng.choice(used)
        at, bit = rng.randrange(start, end), 1 << rng.randrange(8)
        yield f"bit {bit:#x} at {at} of {path.name}", _flip(path, at, bit)


def data_files(place: Path) -> list[Path]:
    """Return the files whose bytes are the store."""
    return [place / "index.lmdb", *(path for _, path in list_segments(place / "segments"))]


def _flip(path: Path, at: int, bit: int) -> Callable[[], None]:
    def mutate() -> None:
        with path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0] ^ bit
            file.seek(at)
            file.write(bytes((byte,)))

    return mutate


def pages(place: Path, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Zero a page, fill it with junk, or swap it with another, in any file."""
    files = data_files(place)
    for number in range(count):
        path = files[number % len(files)]
        at, other = (PAGE * rng.randrange((path.stat().st_size + PAGE - 1) // PAGE) for _ in "ab")
        how = rng.choice(("zero", "junk", "swap"))
        junk = rng.randbytes(PAGE)
        yield f"{how} page at {at} of {path.name} ({other})", _page(path, at, other, how, junk)


def _page(path: Path, at: int, other: int, how: str, junk: bytes) -> Callable[[], None]:
    def mutate() -> None:
        data = bytearray(path.read_bytes())
        size = len(data)
        if how == "zero":
            data[at : at + PAGE] = bytes(len(data[at : at + PAGE]))
        elif how == "junk":
            data[at : at + PAGE] = junk[: len(data[at : at + PAGE])]
        else:
            first, second = data[at : at + PAGE], data[other : other + PAGE]
            length = min(len(first), len(second))
            data[at : at + length], data[other : other + length] = second[:length], first[:length]
        assert len(data) == size
        path.write_bytes(data)

    return mutate


def cuts(place: Path) -> Iterator[Mutation]:
    """Cut each file at every 4 KiB; remove it; make it empty."""
    for path in data_files(place):
        for size in range(0, path.stat().st_size, PAGE):
            yield f"{path.name} cut at {size}", partial(os.truncate, path, size)
        yield f"{path.name} is removed", path.unlink


def swapped_blobs(place: Path, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Swap the stored bytes of two blobs, or their whole records, of equal length."""
    records: dict[int, list[tuple[Path, Record]]] = {}
    for number, path in list_segments(place / "segments"):
        with Salvage(path, number) as salvage:
            for record in salvage.records():
                if isinstance(record, Record) and record.encoding != JOURNAL:
                    records.setdefault(record.stored_length, []).append((path, record))
    alike = [group for group in records.values() if len(group) > 1]
    for _ in range(count):
        (one, first), (other, second) = rng.sample(rng.choice(alike), 2)
        head = rng.choice((0, RECORD.size))
        what = f"{one.name} at {first.offset} and {other.name} at {second.offset}"
        yield (
            f"swap {what}, from {head}",
            _swap(
                one,
                first.offset + head,
                other,
                second.offset + head,
                first.stored_length + RECORD.size - head,
            ),
        )


def _swap(one: Path, at: int, other: Path, there: int, length: int) -> Callable[[], None]:
    def mutate() -> None:
        with one.open("r+b") as file, other.open("r+b") as second:
            file.seek(at)
            second.seek(there)
            first_bytes, second_bytes = file.read(length), second.read(length)
            file.seek(at)
            second.seek(there)
            file.write(second_bytes)
            second.write(first_bytes)

    return mutate


def swapped_rows(place: Path, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Swap the values of two rows of a table."""
    tables = ("log", "nodes", "names", "blobs", "segments", "meta")
    return _rows(place, rng, count, tables, ("swap",))


def lost_rows(place: Path, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Delete a row, or put its value under another key: no damage of a disk, but of a program's."""
    return _rows(place, rng, count, ("log", "nodes", "names"), ("delete", "move"))


def _rows(
    place: Path,
    rng: random.Random,
    count: int,
    tables: tuple[str, ...],
    ways: tuple[str, ...],
) -> Iterator[Mutation]:
    for _ in range(count):
        table, how, first, second = rng.choice(tables), rng.choice(ways), rng.random(), rng.random()
        what = f"{how} rows of {table} at {first:.4f}, {second:.4f}"
        yield what, _row(place, table, how, first, second)


def _row(place: Path, table: str, how: str, first: float, second: float) -> Callable[[], None]:
    def mutate() -> None:
        # In a child: LMDB may not be open in this process when it forks.
        pid = os.fork()
        if not pid:
            _change_rows(place, table, how, first, second)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    return mutate


def _change_rows(place: Path, table: str, how: str, first: float, second: float) -> None:
    with lmdb.open(str(place / "index.lmdb"), subdir=False, max_dbs=16, map_size=1 << 30) as env:
        db = env.open_db(table.encode(), create=False)
        with env.begin(write=True) as txn:
            keys = list(txn.cursor(db).iternext(values=False))
            one, other = keys[int(first * len(keys))], keys[int(second * len(keys)) - 1]
            if one == other:
                other = keys[int(second * len(keys)) - 2]
            value, there = txn.get(one, db=db), txn.get(other, db=db)
            assert value is not None
            assert there is not None
            if how == "swap":
                txn.put(one, there, db=db)
                txn.put(other, value, db=db)
            elif how == "delete":
                txn.delete(one, db=db)
            else:
                txn.delete(one, db=db)
                changed = bytearray(one)
                changed[int(second * len(one))] ^= 1 << int(first * 8)
                txn.put(bytes(changed), value, db=db)
        pages = env.info()["last_pgno"] + 1
    if (place / "index.lmdb").stat().st_size < pages * PAGE:
        os.truncate(place / "index.lmdb", pages * PAGE)
