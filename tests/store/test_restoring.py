"""Blobs that are stored as differences: their limits, and what damage does to them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.core.location import (
    DELTAS,
    EXTENTS,
    LOST,
    PLAIN,
    BlobLocation,
    encode_blob_location,
)
from dkfs.errors import CorruptError
from dkfs.model.ids import BlobId
from dkfs.store import EncodingPolicy, Store
from dkfs.store import restoring as restoring_module
from dkfs.store.restoring import DEPTH_LIMIT, weigh
from dkfs.store.side import PlainCache
from tests.store.differences import (
    SIZE,
    chain_data,
    changed,
    flip,
    like,
    location,
    name,
    noise,
    put_chain,
    put_difference,
)

# ---- damage


@pytest.fixture
def chain(path: Path) -> Iterator[tuple[Store, list[BlobId]]]:
    with Store.open(path, writable=True) as store, store.write() as writer:
        blobs = put_chain(writer, 3)
    with Store.open(path, writable=True) as store:
        yield store, blobs


def test_damage_of_a_base_is_damage_of_what_is_like_it_and_named(
    chain: tuple[Store, list[BlobId]],
) -> None:
    store, blobs = chain
    flip(store, blobs[1])

    with store.read() as reader:
        assert reader.blob(blobs[0]) == chain_data(3)[0]
        for blob in blobs[1:]:
            with pytest.raises(CorruptError) as caught:
                reader.blob(blob)
            assert str(caught.value).startswith(f"blob {blob.hex()} in segment 1 at ")
            assert f"blob {blobs[1].hex()} in segment 1 at " in str(caught.value)


def test_damage_of_what_is_whole_is_named_from_the_end_of_the_chain(
    chain: tuple[Store, list[BlobId]],
) -> None:
    store, blobs = chain
    flip(store, blobs[0])

    with store.read() as reader, pytest.raises(CorruptError) as caught:
        reader.blob(blobs[3])

    assert f"blob {blobs[0].hex()} in segment 1 at 36: the contents do not match" in str(
        caught.value
    )


@pytest.mark.parametrize("encoding", sorted(DELTAS))
def test_a_difference_with_any_byte_changed_is_right_or_refused(
    path: Path, encoding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = {2: "extents", 3: "zstd", 4: "bsdiff", 5: "xdelta"}[encoding]
    policy = EncodingPolicy(library=library, budget_s=1000)  # type: ignore[arg-type]
    new = changed(noise(1), 2, 20)
    with Store.open(path, writable=True, encoding=policy) as store:
        with store.write() as writer:
            base = writer.put_blob(noise(1)).blob
            put = writer.put_blob(new, like=like(base))
        assert put.encoding == encoding
        at = location(store, put.blob)
    segment = path / "segments" / "00000001.seg"
    good = segment.read_bytes()
    refused = 0
    with Store.open(path, writable=False) as store:
        for offset in range(at.offset, at.offset + 45 + at.stored_length):
            with segment.open("r+b") as file:
                file.seek(offset)
                file.write(bytes((good[offset] ^ 0x10,)))
            try:
                with store.read() as reader:
                    assert reader.blob(put.blob) == new
            except CorruptError as exc:
                refused += f"blob {put.blob.hex()} in segment 1 at" in str(exc)
            segment.write_bytes(good)
    assert refused >= at.stored_length + 45 - 4 - 12


@pytest.mark.expect_logs("stored again")
def test_a_base_that_is_stored_again_heals_what_is_like_it(
    chain: tuple[Store, list[BlobId]],
) -> None:
    store, blobs = chain
    flip(store, blobs[1])

    with store.write() as writer:
        # Even though it resembles what is stored as a difference to it.
        put = writer.put_blob(chain_data(3)[1], like=like(blobs[2]))

    assert put.encoding == PLAIN
    with store.read() as reader:
        assert [reader.blob(blob, strict=True) for blob in blobs] == chain_data(3)


def test_what_is_lost_says_so(chain: tuple[Store, list[BlobId]]) -> None:
    store, blobs = chain
    with store.write() as writer:
        at = BlobLocation(1, 36, 10, SIZE, LOST)
        writer.put_row("blobs", blobs[0], encode_blob_location(at))

    with store.read() as reader:
        with pytest.raises(CorruptError, match=f"blob {blobs[0].hex()} .* lost"):
            reader.blob(blobs[0])
        with pytest.raises(CorruptError, match=f"blob {blobs[3].hex()} .* lost"):
            reader.blob(blobs[3])


def test_a_base_that_is_not_in_the_store_is_named(chain: tuple[Store, list[BlobId]]) -> None:
    store, blobs = chain
    with store.write() as writer:
        assert writer.delete_row("blobs", blobs[0])

    with store.read() as reader, pytest.raises(CorruptError, match=f"base {blobs[0].hex()} is not"):
        reader.blob(blobs[2])


def test_differences_that_lead_to_themselves_are_corrupt(store: Store) -> None:
    with store.write() as writer:
        put_difference(writer, name(1), [name(2)])
        put_difference(writer, name(2), [name(1)])
        put_difference(writer, name(3), [name(3)])
    with store.read() as reader:
        for number in (1, 2, 3):
            with pytest.raises(CorruptError, match="leads to itself"):
                reader.blob(name(number))
    with store.write() as writer:
        for number in (1, 2, 3):
            writer.delete_row("blobs", name(number))


def test_a_chain_that_is_too_deep_is_corrupt(store: Store) -> None:
    with store.write() as writer:
        writer.put_blob(noise(1, 64))
        base = store.hash(noise(1, 64))
        for number in range(1, DEPTH_LIMIT + 2):
            put_difference(writer, name(number), [base if number == 1 else name(number - 1)])
    with store.read() as reader:
        # What is not too deep is restored, and then is not what it is said to be: its name is made up.
        with pytest.raises(CorruptError, match="do not match the hash"):
            reader.blob(name(DEPTH_LIMIT))
        with pytest.raises(CorruptError, match="too deep"):
            reader.blob(name(DEPTH_LIMIT + 1))
    with store.write() as writer:
        for number in range(1, DEPTH_LIMIT + 2):
            writer.delete_row("blobs", name(number))


def test_differences_that_multiply_are_corrupt(store: Store) -> None:
    with store.write() as writer:
        writer.put_blob(noise(1, 64))
        base = store.hash(noise(1, 64))
        for number in range(1, 30):
            put_difference(writer, name(number), [base if number == 1 else name(number - 1)] * 8)
    with store.read() as reader:
        restoration = restoring_module._Restoration(store._blobs, reader.location)
        with pytest.raises(CorruptError, match="more other blobs than"):
            restoration.run(name(29), location(store, name(29)), strict=False)
        with pytest.raises(CorruptError, match="do not match"):
            reader.blob(name(29))
    with store.write() as writer:
        for number in range(1, 30):
            writer.delete_row("blobs", name(number))


@pytest.mark.parametrize("limit", ["_REFERENCE_LIMIT", "_HELD_LIMIT"])
def test_a_reference_of_any_size_is_not_held(
    store: Store, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    with store.write() as writer:
        base = writer.put_blob(noise(1, 5000)).blob
        put_difference(writer, name(1), [base] * 8)
    monkeypatch.setattr(restoring_module, limit, 20_000)

    with store.read() as reader, pytest.raises(CorruptError, match="more than 20000"):
        reader.blob(name(1))

    with store.write() as writer:
        writer.delete_row("blobs", name(1))


@pytest.mark.parametrize("stored", [b"", b"\0", b"\x09" + b"x" * 288, b"\1" + b"x" * 31])
def test_a_difference_that_does_not_name_its_bases_is_corrupt(store: Store, stored: bytes) -> None:
    with store.write() as writer:
        at = writer._side.output.append(name(1), stored, encoding=EXTENTS, length=10)
        row = BlobLocation(at.segment, at.offset, len(stored), 10, EXTENTS, 1, 100)
        writer.put_row("blobs", name(1), encode_blob_location(row))
    with store.read() as reader:
        with pytest.raises(CorruptError, match="bases"):
            reader.blob(name(1))
        with pytest.raises(CorruptError, match="bases"):
            reader.bases(name(1), row)
    with store.write() as writer:
        writer.delete_row("blobs", name(1))


# ---- limits


def test_all_references_of_a_chain_can_be_held() -> None:
    most = 0
    for depth in range(1, DEPTH_LIMIT + 1):
        below = BlobLocation(1, 0, 1, 1, EXTENTS if depth > 1 else PLAIN, depth - 1)
        largest = max(
            size
            for size in (1 << 20, 1 << 21, 1 << 24, 1 << 25, 1 << 26)
            if not weigh([below, BlobLocation(1, 0, 1, size - 1, PLAIN)]).is_too_much
        )
        most += largest
    assert most <= restoring_module._HELD_LIMIT


def test_the_plain_bytes_that_are_kept_are_bounded() -> None:
    cache = PlainCache(1000)
    for number in range(20):
        cache.put(name(number), bytes(100))
    cache.get(name(10))
    cache.put(name(20), bytes(100))
    cache.put(name(20), bytes(100))
    cache.put(name(21), bytes(501))
    cache.drop(name(19))
    cache.drop(name(19))

    assert [n for n in range(25) if cache.get(name(n)) is not None] == [
        *(10, 12, 13, 14, 15, 16, 17, 18, 20)
    ]
    cache.put(name(30), bytes(100))
    assert cache.get(name(12)) is not None
