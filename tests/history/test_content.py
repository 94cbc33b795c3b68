import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from dkfs.core.manifest import encode_manifest_node
from dkfs.core.manifest_update import build
from dkfs.errors import CorruptError, ForgottenError, UsageError
from dkfs.history.content import check_kept, contents, manifest, pieces, read, xattrs
from dkfs.model.ids import BlobId, Seq
from dkfs.model.node import Chunk, NodeState
from dkfs.store import Reader, Store, Writer
from tests.history.model_history import CELL, ModelHistory
from tests.history.random_history import RandomOperations

MIXED = b"a" * CELL + bytes(2 * CELL) + b"b" * CELL + b"tail"


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
    edges = [0, 1, CELL - 1, CELL, 3 * CELL, 4 * CELL, len(MIXED)]
    offsets = edges + [rng.randrange(len(MIXED) + 100) for _ in range(100)]

    with history.store.read() as reader:
        opened = contents(reader, state)
        for offset in offsets:
            for length in (0, 1, 4096, CELL + 1, rng.randrange(3 * CELL)):
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
        assert list(pieces(reader, state)) == [(0, Chunk(1 << 40, None))]
        assert read(reader, state, (1 << 40) - 10, 1 << 40) == bytes(10)


def test_pieces_have_their_offsets(history: ModelHistory) -> None:
    state = write_file(history, MIXED)

    with history.store.read() as reader:
        found = [(offset, chunk.length, chunk.blob) for offset, chunk in pieces(reader, state)]
        assert found == [
            (0, CELL, history.store.hash(b"a" * CELL)),
            (CELL, 2 * CELL, None),
            (3 * CELL, CELL, history.store.hash(b"b" * CELL)),
            (4 * CELL, 4, history.store.hash(b"tail")),
        ]


def test_only_a_file_has_contents(history: ModelHistory) -> None:
    history.symlink(b"l", b"target")

    with history.store.read() as reader:
        assert list(pieces(reader, history.state(b"l"))) == []
        with pytest.raises(UsageError, match="SYMLINK"):
            read(reader, history.state(b"l"), 0, 10)
        with pytest.raises(UsageError, match="DIR"):
            read(reader, history.state(b""), 0, 10)


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, -1)])
def test_a_negative_range_is_refused(history: ModelHistory, offset: int, length: int) -> None:
    state = write_file(history, b"data")

    with history.store.read() as reader, pytest.raises(UsageError):
        read(reader, state, offset, length)


def put_state(writer: Writer, base: NodeState, size: int, *entries: Chunk) -> NodeState:
    """Return the state of a file of *size* bytes whose manifest has *entries*."""
    root = writer.put_blob(encode_manifest_node(0, entries)).blob
    return replace(base, attr=replace(base.attr, size=size), content=root, is_manifest=True)


def test_a_manifest_that_does_not_cover_the_file_is_damage(history: ModelHistory) -> None:
    state = write_file(history, b"data")
    with history.store.write() as writer:
        bad = put_state(writer, state, 100, Chunk(4, state.content), Chunk(95, None))

    with history.store.read() as reader, pytest.raises(CorruptError, match=r"99 bytes.*100"):
        read(reader, bad, 0, 1)


def test_a_blob_of_another_length_than_its_chunk_is_damage(history: ModelHistory) -> None:
    state = write_file(history, b"data")
    bad = replace(state, attr=replace(state.attr, size=5))

    with history.store.read() as reader, pytest.raises(CorruptError, match="4 bytes"):
        read(reader, bad, 0, 5)


def test_one_blob_cannot_be_chunks_of_two_lengths(history: ModelHistory) -> None:
    state = write_file(history, b"data")
    with history.store.write() as writer:
        bad = put_state(writer, state, 7, Chunk(4, state.content), Chunk(3, state.content))

    with history.store.read() as reader:
        opened = contents(reader, bad)
        assert opened.read(reader, 0, 4) == b"data"
        with pytest.raises(CorruptError, match="4 bytes, its chunk expects 3"):
            opened.read(reader, 4, 3)


def test_a_missing_blob_is_damage_only_where_it_is_read(history: ModelHistory) -> None:
    state = write_file(history, b"data")
    with history.store.write() as writer:
        missing = Chunk(4, BlobId(bytes(32)))
        bad = put_state(writer, state, 9, Chunk(4, state.content), Chunk(1, None), missing)

    with history.store.read() as reader:
        opened = contents(reader, bad)
        assert opened.read(reader, 0, 5) == b"data\0"
        with pytest.raises(CorruptError):
            opened.read(reader, 8, 1)


def large_file(history: ModelHistory, *, count: int) -> NodeState:
    """Return a state of a file of *count* chunks of 4 bytes each."""
    state = write_file(history, b"data")
    with history.store.write() as writer:
        chunks = [
            Chunk(4, writer.put_blob(number.to_bytes(4, "big")).blob) for number in range(count)
        ]
        root, is_manifest, size = build(chunks, lambda node, _: writer.put_blob(node).blob)
    attr = replace(state.attr, size=size)
    return replace(state, attr=attr, content=root, is_manifest=is_manifest)


def test_reading_a_place_reads_only_the_nodes_above_it(
    history: ModelHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = large_file(history, count=5000)
    asked: list[BlobId] = []
    blob = Reader.blob

    def counted(reader: Reader, id_: BlobId) -> bytes:
        asked.append(id_)
        return blob(reader, id_)

    monkeypatch.setattr(Reader, "blob", counted)

    with history.store.read() as reader:
        levels = manifest(reader, state).root().level + 1
        asked.clear()
        opened = contents(reader, state)
        assert not asked
        assert opened.read(reader, 4 * 2500, 4) == (2500).to_bytes(4, "big")
        assert len(asked) == levels + 1
        opened.read(reader, 4 * 2500, 4)  # all is kept
        assert len(asked) == levels + 1


def test_every_node_on_the_way_is_verified(history: ModelHistory, tmp_path: Path) -> None:
    state = large_file(history, count=5000)
    (segment,) = (tmp_path / "store" / "segments").iterdir()
    with history.store.read() as reader:
        tree = manifest(reader, state)
        whole = read(reader, state, 0, state.attr.size)
        for level in range(tree.root().level + 1):
            node = tree.node_at(4 * 2500, level)
            assert node.blob is not None
            location = reader.location(node.blob)
            assert location is not None
            with flipped_bit(segment, location.offset + 50 + location.stored_length // 2):
                for at in (0, state.attr.size - 4):
                    if not node.start <= at < node.end:
                        assert read(reader, state, at, 4) == whole[at : at + 4]
                with pytest.raises(CorruptError):
                    read(reader, state, 4 * 2500, 4)


@contextmanager
def flipped_bit(path: Path, offset: int) -> Iterator[None]:
    """Damage the file *path*, and repair it in the end."""
    for last in (False, True):
        with path.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))
        if not last:
            yield


def test_one_open_file_is_read_by_many_threads(history: ModelHistory) -> None:
    state = large_file(history, count=3000)
    with history.store.read() as reader:
        whole = read(reader, state, 0, state.attr.size)
        opened = contents(reader, state)

    def read_some(seed: int) -> bool:
        rng = Random(seed)
        with history.store.read() as reader:
            for _ in range(200):
                start, length = rng.randrange(len(whole)), rng.randrange(200)
                if opened.read(reader, start, length) != whole[start : start + length]:
                    return False
        return True

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(read_some, range(8)))
    finally:
        sys.setswitchinterval(interval)


def test_contents_that_were_forgotten_are_not_found(history: ModelHistory) -> None:
    state = replace(write_file(history, b"data"), content=None, is_forgotten=True)

    with history.store.read() as reader:
        for attempt in (contents, pieces):
            with pytest.raises(ForgottenError, match="the contents of f were forgotten"):
                attempt(reader, state)
    with pytest.raises(ForgottenError, match="the contents of a/f at version 7 were forgotten"):
        check_kept(state, b"a/f", Seq(7))


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
