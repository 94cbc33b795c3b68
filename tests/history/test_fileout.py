"""Contents are written as they were, in place with what differs, with holes wherever a block is all zero."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.manifest_update import build, update
from dkfs.errors import CorruptError, ForgottenError
from dkfs.history import content, fileout
from dkfs.model.ids import BlobId
from dkfs.model.node import Chunk, NodeState
from dkfs.store import Reader, Writer
from tests.history.model_history import CELL, ModelHistory

BLOCK = 4096


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def data_of(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def data_ranges(fd: int) -> list[tuple[int, int]]:
    """Return where the file has data, in blocks."""
    size = os.fstat(fd).st_size
    found: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        found.append((start // BLOCK, -(-at // BLOCK)))
    return found


def put(writer: Writer, state: NodeState, data: bytes, lengths: list[int]) -> NodeState:
    """Return the state of a file with *data*, cut into chunks of *lengths*."""
    chunks = []
    at = 0
    for length in lengths:
        part = data[at : at + length]
        chunks.append(Chunk(length, writer.put_blob(part).blob if part.strip(b"\0") else None))
        at += length
    assert at == len(data)
    root, is_manifest, size = build(chunks, lambda node, _: writer.put_blob(node).blob)
    attr = replace(state.attr, size=size)
    return replace(state, attr=attr, content=root, is_manifest=is_manifest)


def test_blocks_of_zeros_inside_a_chunk_become_holes(history: ModelHistory, fd: int) -> None:
    data = b"a" * BLOCK + bytes(3 * BLOCK) + b"b" + bytes(2 * BLOCK) + b"c" * 10 + bytes(BLOCK)
    history.create(b"f", data)

    with history.store.read() as reader:
        assert fileout.write_new(fd, reader, history.state(b"f")) == len(data)

    assert data_of(fd) == data
    assert data_ranges(fd) == [(0, 1), (4, 5), (6, 8)]  # what remains at the end is no block


def test_blocks_are_those_of_the_file_not_of_the_chunk(history: ModelHistory, fd: int) -> None:
    data = b"x" * 5000 + bytes(8 * BLOCK) + b"y" * 100
    history.create(b"f")
    with history.store.write() as writer:
        state = put(writer, history.state(b"f"), data, [1000, len(data) - 1000])

    with history.store.read() as reader:
        fileout.write_new(fd, reader, state)

    assert data_of(fd) == data
    assert data_ranges(fd) == [(0, 2), (9, 10)]


def test_rewriting_makes_holes_of_blocks_of_zeros(history: ModelHistory, fd: int) -> None:
    old = Random(1).randbytes(16 * BLOCK)
    new = old[: 2 * BLOCK] + bytes(5 * BLOCK) + old[7 * BLOCK : 12 * BLOCK] + bytes(6 * BLOCK)
    history.create(b"f", old)
    before = history.state(b"f")
    history.write(b"f", new)

    with history.store.read() as reader:
        fileout.write_new(fd, reader, before)
        fileout.rewrite(fd, reader, before, history.state(b"f"))

    assert data_of(fd) == new
    assert data_ranges(fd) == [(0, 2), (7, 12)]


def test_only_what_differs_is_read_and_written(
    history: ModelHistory, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 3000
    history.create(b"f")
    with history.store.write() as writer:
        chunks = [Chunk(4, writer.put_blob(i.to_bytes(4, "big")).blob) for i in range(count)]
        first = build(chunks, lambda node, _: writer.put_blob(node).blob)
    old_state = of(history, first)
    with history.store.write() as writer, history.store.read() as reader:
        second = update(
            content.manifest(reader, old_state),
            [(400, 404, [Chunk(4, writer.put_blob(b"new!").blob)])],
            lambda node, _: writer.put_blob(node).blob,
        )
    asked = 0
    blob = Reader.blob

    def counted(reader: Reader, id_: BlobId) -> bytes:
        nonlocal asked
        asked += 1
        return blob(reader, id_)

    with history.store.read() as reader:
        fileout.write_new(fd, reader, old_state)
        monkeypatch.setattr(Reader, "blob", counted)
        assert fileout.rewrite(fd, reader, old_state, of(history, second)) == 4

    assert asked <= 8
    expected = b"".join(i.to_bytes(4, "big") for i in range(count))
    assert data_of(fd) == expected[:400] + b"new!" + expected[404:]


def of(history: ModelHistory, named: tuple[BlobId | None, bool, int]) -> NodeState:
    root, is_manifest, size = named
    state = history.state(b"f")
    attr = replace(state.attr, size=size)
    return replace(state, attr=attr, content=root, is_manifest=is_manifest)


@given(st.integers(0, 2**40), st.booleans())
def test_any_contents_become_any_others(made: "Made", seed: int, is_known: bool) -> None:  # noqa: FBT001
    rng = Random(seed)
    history, path = made
    with history.store.write() as writer:
        base = some_data(rng)
        old = put(writer, history.state(b"f"), base, some_lengths(rng, len(base)))
        data = changed(rng, base)
        new = put(writer, history.state(b"f"), data, some_lengths(rng, len(data)))
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        with history.store.read() as reader:
            fileout.write_new(fd, reader, old)
            assert data_of(fd) == base
            fileout.rewrite(fd, reader, old if is_known else None, new)
            assert data_of(fd) == data
            assert fileout.is_equal(fd, reader, new)
            assert fileout.is_equal(fd, reader, old) == (base == data)
    finally:
        os.close(fd)


Made = tuple[ModelHistory, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    place = tmp_path_factory.mktemp("fileout")
    with ModelHistory(place / "store") as history:
        history.create(b"f")
        yield history, place / "out"


def some_data(rng: Random) -> bytes:
    parts = (
        rng.choice((bytes, rng.randbytes))(rng.choice((1, 100, BLOCK, 9999))) for _ in range(9)
    )
    return b"".join(parts)[: rng.randrange(60_000)]


def changed(rng: Random, data: bytes) -> bytes:
    at, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return rng.choice((data[:at] + some_data(rng) + data[end:], data[:at], data, some_data(rng)))


def some_lengths(rng: Random, size: int) -> list[int]:
    lengths = []
    while size:
        lengths.append(min(size, rng.choice((7, 1000, BLOCK, 10_000, CELL))))
        size -= lengths[-1]
    return lengths


def test_damage_leaves_a_file_in_use_as_it_was(history: ModelHistory, fd: int) -> None:
    history.create(b"f", b"data" * 5000)
    state = history.state(b"f")
    bad = replace(state, content=BlobId(bytes(32)))

    with history.store.read() as reader:
        fileout.write_new(fd, reader, state)
        for old in (state, None):
            with pytest.raises(CorruptError):
                fileout.rewrite(fd, reader, old, bad)
            assert data_of(fd) == b"data" * 5000


def test_a_later_chunk_that_is_damaged_leaves_the_earlier_ones_as_they_were(
    history: ModelHistory, fd: int
) -> None:
    before, after = Random(1).randbytes(20_000), Random(2).randbytes(10_000)
    history.create(b"f")
    with history.store.write() as writer:
        old = put(writer, history.state(b"f"), before, [10_000, 10_000])
        chunks = [Chunk(10_000, writer.put_blob(after).blob), Chunk(10_000, BlobId(bytes(32)))]
        named = build(chunks, lambda node, _: writer.put_blob(node).blob)

    with history.store.read() as reader:
        fileout.write_new(fd, reader, old)
        for known in (old, None):
            with pytest.raises(CorruptError):
                fileout.rewrite(fd, reader, known, of(history, named))
            assert data_of(fd) == before


def test_forgotten_contents_are_not_written_and_equal_nothing(
    history: ModelHistory, fd: int
) -> None:
    history.create(b"f", b"data")
    state = history.state(b"f")
    forgotten = replace(state, content=None, is_forgotten=True)

    with history.store.read() as reader:
        fileout.write_new(fd, reader, state)
        with pytest.raises(ForgottenError):
            fileout.rewrite(fd, reader, state, forgotten)
        with pytest.raises(ForgottenError):
            fileout.is_equal(fd, reader, forgotten)
        assert data_of(fd) == b"data"
        # What the file holds is not known then, so all of it is compared.
        os.pwrite(fd, b"DA", 0)
        assert fileout.rewrite(fd, reader, forgotten, state) == 4
        assert data_of(fd) == b"data"
