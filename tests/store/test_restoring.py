"""Blobs that are stored as differences: what is written, what is read back, and what damage does to them."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dkfs.core.delta import Copy, Like
from dkfs.core.location import (
    DELTAS,
    EXTENTS,
    LOST,
    PLAIN,
    ZSTD,
    BlobLocation,
    encode_blob_location,
)
from dkfs.errors import CorruptError, NotFoundError, StoreError
from dkfs.model.ids import BlobId
from dkfs.store import EncodingPolicy, Store, Writer
from dkfs.store import restoring as restoring_module
from dkfs.store.blobs import BlobSource, join_delta
from dkfs.store.restoring import DEPTH_LIMIT, cost_limit, weigh
from dkfs.store.side import PlainCache

SIZE = 20_000


def noise(seed: int, size: int = SIZE) -> bytes:
    return random.Random(seed).randbytes(size)


def changed(data: bytes, seed: int, size: int = 100) -> bytes:
    """Return *data* with *size* other bytes, elsewhere for each *seed*."""
    start = seed * 500
    return data[:start] + noise(seed, size) + data[start + size :]


def copies_of(data: bytes, seed: int, size: int = 100) -> tuple[Copy, ...]:
    """Return what changed() left alone."""
    end = seed * 500 + size
    return (Copy(0, 0, end - size), Copy(end, end, len(data) - end))


def like(*bases: BlobId, copies: Sequence[Copy] | None = None) -> Like:
    return Like(bases, None if copies is None else tuple(copies))


def location(store: Store, blob: BlobId) -> BlobLocation:
    with store.read() as reader:
        found = reader.location(blob)
    assert found is not None
    return found


def put_chain(writer: Writer, length: int) -> list[BlobId]:
    """Store contents, and *length* times a change of them as a difference to the one before."""
    data = noise(0)
    blobs = [writer.put_blob(data).blob]
    for i in range(1, length + 1):
        data = changed(data, i)
        blobs.append(writer.put_blob(data, like=like(blobs[-1], copies=copies_of(data, i))).blob)
    return blobs


def chain_data(length: int) -> list[bytes]:
    data = [noise(0)]
    for i in range(1, length + 1):
        data.append(changed(data[-1], i))
    return data


def flip(store: Store, blob: BlobId) -> None:
    """Flip a bit in the last of the stored bytes of *blob*."""
    at = location(store, blob)
    segment = store.path / "segments" / f"{at.segment:08d}.seg"
    data = bytearray(segment.read_bytes())
    data[at.offset + 45 + at.stored_length - 1] ^= 1
    segment.write_bytes(data)


# ---- written and read


def test_what_is_like_something_is_stored_as_a_difference_and_comes_back(path: Path) -> None:
    with Store.open(path, writable=True) as store, store.write() as writer:
        base = writer.put_blob(noise(1)).blob
        put = writer.put_blob(changed(noise(1), 2), like=like(base))

        assert put.encoding in DELTAS
        assert put.added < 400
        assert writer.blob(put.blob) == changed(noise(1), 2)

    with Store.open(path, writable=False) as store, store.read() as reader:
        at = reader.location(put.blob)
        assert at is not None
        assert reader.blob(put.blob, strict=True) == changed(noise(1), 2)
        assert (at.depth, at.cost) == (1, at.stored_length + SIZE)
        assert reader.bases(put.blob, at) == (base,)
        assert reader.stored(at, put.blob)[:33] == b"\1" + base


def test_what_is_known_to_be_the_same_is_not_looked_at(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.write() as writer:
        base = writer.put_blob(noise(1)).blob
    store._write_side.plain.drop(base)  # type: ignore[union-attr]
    new = changed(noise(1), 2, 50)

    with store.write() as writer, monkeypatch.context() as patch:
        patch.setattr(BlobSource, "read_whole", None)
        put = writer.put_blob(new, like=like(base, copies=copies_of(new, 2, 50)))

    assert put.encoding == EXTENTS
    with store.read() as reader:
        assert reader.blob(put.blob) == new


def test_several_bases_are_joined_in_their_order(store: Store) -> None:
    parts = [noise(i, 5000) for i in range(8)]
    joined = b"".join(parts)
    with store.write() as writer:
        bases = [writer.put_blob(part).blob for part in parts]
        put = writer.put_blob(joined[2500:], like=like(*bases))

    assert put.encoding in DELTAS
    assert put.added < 400 + 8 * 32
    with store.read() as reader:
        assert reader.blob(put.blob) == joined[2500:]
        assert reader.bases(put.blob, location(store, put.blob)) == tuple(bases)


def test_a_chain_ends_at_the_depth_of_the_policy(path: Path) -> None:
    with Store.open(path, writable=True, encoding=EncodingPolicy(depth=3)) as store:
        with store.write() as writer:
            blobs = put_chain(writer, 9)

        assert [location(store, blob).depth for blob in blobs] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
        with store.read() as reader:
            assert [reader.blob(blob) for blob in blobs] == chain_data(9)


def test_a_chain_ends_where_restoring_would_cost_too_much(path: Path) -> None:
    with Store.open(path, writable=True, encoding=EncodingPolicy(depth=200)) as store:
        with store.write() as writer:
            data = noise(0)
            blob = writer.put_blob(data).blob
            for i in range(1, 12):
                data = changed(data, i, SIZE // 5)
                blob = writer.put_blob(data, like=like(blob)).blob
                at = writer.location(blob)
                assert at is not None
                assert at.read_cost <= cost_limit(SIZE)
        with store.read() as reader:
            assert reader.blob(blob) == data
            depths = [found.depth for found in map(reader.location, ids(store)) if found]
    assert max(depths) == 4


def ids(store: Store) -> list[BlobId]:
    with store.read() as reader:
        return [BlobId(key) for key, _ in reader.rows("blobs")]


@pytest.mark.parametrize("library", ["auto", "extents", "zstd", "bsdiff", "xdelta"])
def test_every_library_restores_what_it_was_given(path: Path, library: str) -> None:
    policy = EncodingPolicy(library=library, budget_s=1000)  # type: ignore[arg-type]
    with Store.open(path, writable=True, encoding=policy) as store:
        with store.write() as writer:
            base = writer.put_blob(noise(1)).blob
            put = writer.put_blob(changed(noise(1), 2), like=like(base))
        assert put.encoding in DELTAS
        with store.read() as reader:
            assert reader.blob(put.blob) == changed(noise(1), 2)


def test_no_differences_are_made_when_they_are_switched_off(path: Path) -> None:
    with Store.open(path, writable=True, encoding=EncodingPolicy(diff=False)) as store:
        with store.write() as writer:
            base = writer.put_blob(noise(1)).blob
            put = writer.put_blob(changed(noise(1), 2), like=like(base))

    assert put.encoding == PLAIN


def test_what_is_small_or_not_alike_is_stored_whole(store: Store) -> None:
    with store.write() as writer:
        base = writer.put_blob(noise(1)).blob
        small = writer.put_blob(noise(1)[:100], like=like(base))
        other = writer.put_blob(noise(2), like=like(base))
        repetitive = writer.put_blob(b"the same again and again " * 100, like=like(base))
        too_many = writer.put_blob(noise(3), like=like(*[base] * 9))
        none = writer.put_blob(noise(4), like=like())

    assert [put.encoding for put in (small, other, repetitive)] == [PLAIN, PLAIN, ZSTD]
    assert [put.encoding for put in (too_many, none)] == [PLAIN, PLAIN]


def test_a_base_that_is_not_there_is_ignored(store: Store) -> None:
    with store.write() as writer:
        put = writer.put_blob(noise(1), like=like(BlobId(b"?" * 32)))

    assert put.encoding == PLAIN


@pytest.mark.expect_logs("not used as a base: blob .* do not match")
def test_a_base_that_is_damaged_is_ignored(path: Path) -> None:
    with Store.open(path, writable=True) as store, store.write() as writer:
        base = writer.put_blob(noise(1)).blob
    with Store.open(path, writable=True) as store:
        flip(store, base)
        with store.write() as writer:
            put = writer.put_blob(changed(noise(1), 2), like=like(base))

        assert put.encoding == PLAIN
        with store.read() as reader:
            assert reader.blob(put.blob) == changed(noise(1), 2)


@pytest.mark.expect_logs("not used as a base")
def test_a_base_whose_row_is_damaged_is_ignored(store: Store) -> None:
    with store.write() as writer:
        base = writer.put_blob(noise(1)).blob
        writer._txn.put(base, b"nonsense", db=writer._tables["blobs"])
        put = writer.put_blob(changed(noise(1), 2), like=like(base))
        writer.delete_row("blobs", base)

    assert put.encoding == PLAIN


@pytest.mark.expect_logs("written again")
def test_a_blob_whose_row_is_damaged_is_stored_again(store: Store) -> None:
    with store.write() as writer:
        blob = writer.put_blob(noise(1)).blob
        writer._txn.put(blob, b"nonsense", db=writer._tables["blobs"])

        assert writer.put_blob(noise(1)).encoding == PLAIN
        assert writer.blob(blob) == noise(1)


def test_a_reference_that_is_too_long_is_not_used(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring_module, "_REFERENCE_LIMIT", SIZE)
    with store.write() as writer:
        base = writer.put_blob(noise(1)).blob
        longer = writer.put_blob(noise(2, SIZE + 1)).blob

        fits = writer.put_blob(changed(noise(1), 2), like=like(base))
        does_not = writer.put_blob(changed(noise(2), 3), like=like(longer))

    assert fits.encoding in DELTAS
    assert does_not.encoding == PLAIN


def test_what_is_not_committed_is_no_base_later(store: Store) -> None:
    writer = store.write()
    base = writer.put_blob(noise(1)).blob
    writer.close()

    with store.write() as writer:
        put = writer.put_blob(changed(noise(1), 2), like=like(base))

    assert put.encoding == PLAIN


def test_a_long_chain_of_the_same_transaction_is_read_back_from_the_buffer(store: Store) -> None:
    with store.write() as writer:
        blobs = put_chain(writer, 10)
        for blob in blobs:
            store._write_side.plain.drop(blob)  # type: ignore[union-attr]

        assert [writer.blob(blob) for blob in blobs] == chain_data(10)


@settings(max_examples=25)
@given(
    edits=st.lists(
        st.tuples(
            st.integers(0, 40),  # which of the contents so far is changed
            st.integers(0, 5000),  # where
            st.integers(0, 800),  # bytes that go
            st.integers(0, 800),  # bytes that come
            st.booleans(),  # whether what stays is told
        ),
        max_size=25,
    ),
    depth=st.integers(1, 12),
)
def test_any_history_of_changes_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    edits: list[tuple[int, int, int, int, bool]],
    depth: int,
) -> None:
    path = tmp_path_factory.mktemp("stores") / "store"
    Store.create(path)
    contents = [noise(0, 6000)]
    with Store.open(path, writable=True, encoding=EncodingPolicy(depth=depth)) as store:
        with store.write() as writer:
            blobs = [writer.put_blob(contents[0]).blob]
            for seed, (which, at, gone, come, is_told) in enumerate(edits):
                number = which % len(contents)
                old = contents[number]
                start = min(at, len(old))
                end = min(start + gone, len(old))
                new = old[:start] + noise(seed, come) + old[end:]
                copies = [Copy(0, 0, start), Copy(start + come, end, len(old) - end)]
                hint = like(blobs[number], copies=copies if is_told else None)
                contents.append(new)
                blobs.append(writer.put_blob(new, like=hint).blob)
        with store.read() as reader:
            assert [reader.blob(blob, strict=True) for blob in blobs] == contents
            for blob in blobs:
                found = reader.location(blob)
                assert found is not None
                assert found.depth <= depth
                assert found.read_cost <= cost_limit(found.length)


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


def put_difference(
    writer: Writer, blob: BlobId, bases: Sequence[BlobId], *, depth: int = 1, length: int = 64
) -> None:
    """Store a difference to *bases* that makes the first *length* bytes of them, of whatever depth it says."""
    payload = bytes.fromhex("000100") + bytes((length, 0))
    stored = join_delta(bases, payload)
    at = writer._side.output.append(blob, stored, encoding=EXTENTS, length=length)
    row = BlobLocation(at.segment, at.offset, len(stored), length, EXTENTS, depth, 100)
    writer.put_row("blobs", blob, encode_blob_location(row))


def name(number: int) -> BlobId:
    return BlobId(number.to_bytes(32, "big"))


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


# ---- records as another store has them


def test_records_are_copied_as_they_are(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Store.create(other)
    with Store.open(path, writable=True) as source:
        with source.write() as writer:
            blobs = put_chain(writer, 3)
            blobs.append(writer.put_blob(b"text " * 1000).blob)
        with Store.open(other, writable=True) as target:
            with source.read() as reader, target.write() as writer:
                for blob in blobs:
                    at = reader.location(blob)
                    assert at is not None
                    writer.put_record(blob, at.encoding, reader.stored(at, blob), at.length)
            with target.read() as reader:
                assert [reader.blob(blob) for blob in blobs[:4]] == chain_data(3)
                assert reader.blob(blobs[4]) == b"text " * 1000
            for blob in blobs:
                here, there = location(source, blob), location(target, blob)
                assert (here.depth, here.cost) == (there.depth, there.cost)


def test_a_record_whose_base_is_not_there_is_refused(store: Store) -> None:
    with store.write() as writer:
        stored = join_delta([name(1)], b"payload")

        with pytest.raises(NotFoundError, match=f"base {name(1).hex()} is not"):
            writer.put_record(name(2), EXTENTS, stored, 100)


@pytest.mark.parametrize("encoding", [6, 16, LOST])
def test_a_record_of_another_encoding_is_refused(store: Store, encoding: int) -> None:
    with store.write() as writer, pytest.raises(StoreError, match=f"of encoding {encoding} cannot"):
        writer.put_record(name(2), encoding, b"stored", 100)


def test_a_record_that_would_be_too_deep_is_refused(store: Store) -> None:
    with store.write() as writer:
        put_difference(writer, name(1), [name(2)], depth=DEPTH_LIMIT)

        with pytest.raises(StoreError, match="needs too much of others"):
            writer.put_record(name(3), EXTENTS, join_delta([name(1)], b""), 100)
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
