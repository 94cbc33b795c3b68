"""Which paths at which versions a damage reaches: compared with reading every path at every version."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.errors import CorruptError
from dkfs.history import content
from dkfs.history.damage import Affected, affected
from dkfs.history.tree import Tree
from dkfs.model.ids import BlobId, Seq
from dkfs.model.node import Kind
from dkfs.store import Reader, Store
from dkfs.store.check import check
from dkfs.store.segments import RECORD, segment_path
from tests.history.model_history import ModelHistory
from tests.history.random_history import fill


def damage_blob(store: Store, blob: BlobId) -> None:
    """Flip a bit in the middle of what is stored of *blob*."""
    with store.read() as reader:
        at = reader.location(blob)
    assert at is not None
    path = segment_path(store.path / "segments", at.segment)
    offset = at.offset + RECORD.size + at.stored_length // 2
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def find(store: Store) -> list[Affected]:
    damages = list(check(store, read_data=True))
    with store.read() as reader:
        return list(affected(reader, damages))


def said(found: list[Affected]) -> list[tuple[bytes, int, int]]:
    return sorted((a.path, a.first, a.last) for a in found)


def unreadable(reader: Reader) -> Iterator[tuple[bytes, int]]:
    """Find every path and version that cannot be read, by reading it."""
    for seq in range(1, reader.last + 1):
        for path, _, state in Tree(reader, Seq(seq)).walk():
            try:
                content.xattrs(reader, state)
                if state.attr.kind is Kind.FILE:
                    content.read(reader, state, 0, state.attr.size)
            except CorruptError:
                yield path, seq


def expanded(found: list[Affected]) -> set[tuple[bytes, int]]:
    return {(a.path, seq) for a in found for seq in range(a.first, a.last + 1)}


def test_a_damaged_blob_is_named_by_path_and_versions(history: ModelHistory) -> None:
    history.create(b"f", b"one" * 50)  # 2
    history.create(b"other", b"other")  # 3
    history.write(b"f", b"two" * 50)  # 4
    content_id = history.state(b"f", 2).content
    assert content_id is not None
    damage_blob(history.store, content_id)

    (found,) = find(history.store)

    assert (found.path, found.first, found.last) == (b"f", 2, 3)
    assert found.damage.blob == content_id
    assert f"blob {content_id.hex()} in segment 1" in found.damage.message


def test_a_file_keeps_its_damage_under_every_name_while_it_had_it(history: ModelHistory) -> None:
    history.mkdir(b"d")  # 2
    history.create(b"d/f", b"one" * 50)  # 3
    history.link(b"d/f", b"g")  # 4
    history.rename(b"d", b"e")  # 5
    history.unlink(b"e/f")  # 6
    history.chmod(b"g", 0o600)  # 7
    history.unlink(b"g")  # 8
    content_id = history.state(b"d/f", 3).content
    assert content_id is not None
    damage_blob(history.store, content_id)

    found = find(history.store)

    assert said(found) == [(b"d/f", 3, 4), (b"e/f", 5, 5), (b"g", 4, 7)]


def test_a_file_in_a_directory_that_is_gone_for_a_time_is_not_named_in_it(
    history: ModelHistory,
) -> None:
    history.mkdir(b"d")  # 2
    history.create(b"d/f", b"one" * 50)  # 3
    history.found(removed=[b"d"])  # 4
    history.create(b"x")  # 5
    history.rollback(3)  # 6
    content_id = history.state(b"d/f", 3).content
    assert content_id is not None
    damage_blob(history.store, content_id)

    assert said(find(history.store)) == [(b"d/f", 3, 3), (b"d/f", 6, 6)]


@pytest.mark.parametrize("seed", range(6))
def test_what_is_named_is_exactly_what_cannot_be_read(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with ModelHistory(tmp_path / "store") as history:
        fill(history, seed, 60)
        with history.store.read() as reader:
            blobs = sorted(BlobId(key) for key, _ in reader.rows("blobs"))
        for blob in rng.sample(blobs, 2):
            damage_blob(history.store, blob)

        found = find(history.store)

        with history.store.read() as reader:
            expected = set(unreadable(reader))
        assert expanded(found) == expected
        assert len(expected) > 0
