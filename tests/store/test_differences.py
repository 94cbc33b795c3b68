"""Blobs that are stored as differences: what is written and read back."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dkfs.core.delta import Copy
from dkfs.core.location import (
    DELTAS,
    EXTENTS,
    LOST,
    PLAIN,
    ZSTD,
)
from dkfs.errors import NotFoundError, StoreError
from dkfs.model.ids import BlobId
from dkfs.store import EncodingPolicy, Store
from dkfs.store import restoring as restoring_module
from dkfs.store.blobs import BlobSource, join_delta
from dkfs.store.restoring import DEPTH_LIMIT, cost_limit
from tests.store.differences import (
    SIZE,
    chain_data,
    changed,
    copies_of,
    flip,
    like,
    location,
    name,
    noise,
    put_chain,
    put_difference,
)

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
                data = changed(data, i, SIZE * 4 // 5)
                blob = writer.put_blob(data, like=like(blob)).blob
                at = writer.location(blob)
                assert at is not None
                assert at.read_cost <= cost_limit(SIZE)
        with store.read() as reader:
            assert reader.blob(blob) == data
            depths = [found.depth for found in map(reader.location, ids(store)) if found]
    assert max(depths) == 8


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
