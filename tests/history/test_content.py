from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from dkfs.core import codec
from dkfs.core.content import CHUNK_SIZE
from dkfs.errors import CorruptError, UsageError
from dkfs.history.content import Contents, chunks, contents, pieces, read, xattrs
from dkfs.model.ids import BlobId
from dkfs.model.node import Chunk, NodeState
from dkfs.store import Store, Writer
from tests.history.model_history import ModelHistory
from tests.history.random_history import RandomOperations

MIXED = b"a" * CHUNK_SIZE + bytes(2 * CHUNK_SIZE) + b"b" * CHUNK_SIZE + b"tail"


def write_file(history: ModelHistory, data: bytes) -> NodeState:
    history.create(b"f", data)
    return history.state(b"f")


@pytest.mark.parametrize("data", RandomOperations.DATA)
def test_a_whole_file_reads_back(history: ModelHistory, data: bytes) -> None:
    state = write_file(history, data)

    with history.store.read() as reader:
        assert read(reader, state, 0, len(data)) == data
        assert read(reader, state, 0, 1 << 40) == data


def test_any_range_reads_as_the_bytes_there(history: ModelHistory) -> None:
    state = write_file(history, MIXED)
    rng = Random(7)
    edges = [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, 3 * CHUNK_SIZE, 4 * CHUNK_SIZE, len(MIXED)]
    offsets = edges + [rng.randrange(len(MIXED) + 100) for _ in range(100)]

    with history.store.read() as reader:
        opened = contents(reader, state)
        for offset in offsets:
            for length in (0, 1, 4096, CHUNK_SIZE + 1, rng.randrange(3 * CHUNK_SIZE)):
                expected = MIXED[offset : offset + length]
                assert opened.read(reader, offset, length) == expected
                assert read(reader, state, offset, length) == expected


def test_contents_outlive_the_reader(history: ModelHistory) -> None:
    state = write_file(history, MIXED)
    with history.store.read() as reader:
        opened = contents(reader, state)

    with history.store.read() as reader:
        assert opened.size == len(MIXED)
        assert opened.read(reader, len(MIXED) - 4, 100) == b"tail"


def test_a_hole_of_a_tebibyte_gives_zeros_and_no_more_than_asked(history: ModelHistory) -> None:
    state = write_file(history, b"")
    state = replace(state, attr=replace(state.attr, size=1 << 40))

    with history.store.read() as reader:
        assert chunks(reader, state) == (Chunk(1 << 40, None),)
        assert read(reader, state, (1 << 40) - 10, 1 << 40) == bytes(10)


def test_pieces_have_their_offsets(history: ModelHistory) -> None:
    state = write_file(history, MIXED)

    with history.store.read() as reader:
        found = [(offset, chunk.length, chunk.blob) for offset, chunk in pieces(reader, state)]
        assert found == [
            (0, CHUNK_SIZE, history.store.hash(b"a" * CHUNK_SIZE)),
            (CHUNK_SIZE, 2 * CHUNK_SIZE, None),
            (3 * CHUNK_SIZE, CHUNK_SIZE, history.store.hash(b"b" * CHUNK_SIZE)),
            (4 * CHUNK_SIZE, 4, history.store.hash(b"tail")),
        ]


def test_only_a_file_has_contents(history: ModelHistory) -> None:
    history.symlink(b"l", b"target")

    with history.store.read() as reader:
        assert chunks(reader, history.state(b"l")) == ()
        with pytest.raises(UsageError, match="SYMLINK"):
            read(reader, history.state(b"l"), 0, 10)
        with pytest.raises(UsageError, match="DIR"):
            read(reader, history.state(b""), 0, 10)


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, -1)])
def test_a_negative_range_is_refused(history: ModelHistory, offset: int, length: int) -> None:
    state = write_file(history, b"data")

    with history.store.read() as reader, pytest.raises(UsageError):
        read(reader, state, offset, length)


def put_state(writer: Writer, base: NodeState, size: int, *, manifest: list[Chunk]) -> NodeState:
    content = writer.put_blob(codec.encode_manifest(manifest))[0]
    return replace(base, attr=replace(base.attr, size=size), content=content, is_manifest=True)


def test_a_manifest_that_does_not_cover_the_file_is_damage(history: ModelHistory) -> None:
    state = write_file(history, b"data")
    assert state.content is not None
    with history.store.write() as writer:
        bad = put_state(writer, state, 100, manifest=[Chunk(4, state.content), Chunk(95, None)])

    with history.store.read() as reader, pytest.raises(CorruptError, match=r"99 bytes.*100"):
        read(reader, bad, 0, 1)


def test_a_blob_of_another_length_than_its_chunk_is_damage(history: ModelHistory) -> None:
    state = write_file(history, b"data")
    bad = replace(state, attr=replace(state.attr, size=5))

    with history.store.read() as reader, pytest.raises(CorruptError, match="4 bytes"):
        read(reader, bad, 0, 5)


def test_a_missing_blob_is_damage_only_where_it_is_read(history: ModelHistory) -> None:
    state = write_file(history, MIXED)
    missing = BlobId(bytes(32))

    with history.store.read() as reader:
        opened = Contents([*chunks(reader, state)[:2], Chunk(4, missing)])
        assert opened.read(reader, 0, CHUNK_SIZE + 5) == MIXED[: CHUNK_SIZE + 5]
        with pytest.raises(CorruptError):
            opened.read(reader, 3 * CHUNK_SIZE, 1)


def test_a_flipped_bit_in_the_segment_is_never_returned(tmp_path: Path) -> None:
    with ModelHistory(tmp_path / "store") as history:
        state = write_file(history, bytes(range(256)) * 64)
    (segment,) = (tmp_path / "store" / "segments").iterdir()
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)

    with (
        Store.open(tmp_path / "store", writable=False) as store,
        store.read() as reader,
        pytest.raises(CorruptError),
    ):
        read(reader, state, 0, 100)


def test_extended_attributes_read_back(history: ModelHistory) -> None:
    history.create(b"f")
    history.setxattr(b"f", {b"user.a": b"\0\1", b"user.b": b""})

    with history.store.read() as reader:
        assert xattrs(reader, history.state(b"f")) == {b"user.a": b"\0\1", b"user.b": b""}
        assert xattrs(reader, history.state(b"")) == {}
