import errno
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace

import lmdb
import pytest

from dkfs.core import codec
from dkfs.core.location import LOST, BlobLocation, encode_blob_location
from dkfs.core.manifest import encode_manifest_node
from dkfs.errors import CorruptError, NotFoundError, StoreError
from dkfs.model.ids import ROOT, BlobId, NodeId, Seq
from dkfs.model.node import Chunk, NodeState
from dkfs.model.operation import Tag
from dkfs.store import Store
from dkfs.store import side as side_module
from dkfs.store.check import check
from tests.store.making import TIME_NS, FailingTransaction, add_file, append, file_state, operation


def segment_bytes(store: Store) -> int:
    return store.size().segment_bytes


def journal_bytes(store: Store) -> int:
    with store.read() as reader:
        return sum(row.journal_bytes for _, row in reader.segments())


def flip(store: Store, blob: BlobId) -> None:
    """Flip a bit in the stored bytes of *blob*."""
    with store.read() as reader:
        location = reader.location(blob)
    assert location is not None
    segment = store.path / "segments" / f"{location.segment:08d}.seg"
    data = bytearray(segment.read_bytes())
    data[location.offset + 45] ^= 1
    segment.write_bytes(data)


# ---- transactions


def test_an_exception_aborts_everything(store: Store) -> None:
    add_file(store, b"kept", b"kept")
    before = segment_bytes(store)

    def write_and_fail() -> None:
        with store.write() as writer:
            blob, *_ = writer.put_blob(b"x" * 5_000_000)
            append(writer, {2: file_state(size=5_000_000, content=blob)}, {(1, b"lost"): 2})
            writer.put_tag(Tag("lost", Seq(2), TIME_NS))
            writer.set_clean(True)
            raise KeyError

    with pytest.raises(KeyError):
        write_and_fail()

    with store.read() as reader:
        assert reader.last == 1
        assert not reader.has_blob(store.hash(b"x" * 5_000_000))
        assert reader.tag("lost") is None
        assert not reader.clean()
        assert reader.next_node() == 3
    assert segment_bytes(store) == before


def test_a_store_goes_on_after_an_abort(store: Store) -> None:
    writer = store.write()
    writer.put_blob(b"lost" * 1000)
    writer.close()

    _, _, blob = add_file(store, b"f", b"kept" * 1000)

    with store.read() as reader:
        assert reader.blob(blob) == b"kept" * 1000


def test_a_writer_that_has_ended_raises_a_store_error(store: Store) -> None:
    with store.write() as writer:
        append(writer)

    with pytest.raises(StoreError):
        writer.set_clean(True)


def test_two_writers_take_turns(store: Store) -> None:
    first_is_in, second_is_done = Event(), Event()

    def write_second() -> None:
        first_is_in.wait()
        with store.write() as writer:
            append(writer)
        second_is_done.set()

    thread = Thread(target=write_second)
    thread.start()
    with store.write() as writer:
        first_is_in.set()
        assert not second_is_done.wait(0.05)
        append(writer)
    thread.join()

    with store.read() as reader:
        assert reader.last == 2


def test_a_store_that_is_open_for_reading_has_no_writer(path: Path) -> None:
    with Store.open(path, writable=False) as store:
        with pytest.raises(StoreError, match="not open for writing"):
            store.write()


# ---- versions


def test_a_writer_sees_what_it_wrote(store: Store) -> None:
    with store.write() as writer:
        blob, *_ = writer.put_blob(b"x" * 100_000)
        state = file_state(b"f", size=100_000, content=blob)
        append(writer, {7: state}, {(1, b"f"): 7})
        writer.put_tag(Tag("t", Seq(1), TIME_NS))

        assert writer.last == 1
        assert writer.node(NodeId(7), Seq(1)) == state
        assert writer.child(ROOT, b"f", Seq(1)) == 7
        assert writer.blob(blob) == b"x" * 100_000
        assert writer.next_node() == 8
        assert [tag.name for tag in writer.tags()] == ["t"]
        assert [record.seq for record in writer.log(Seq(1), Seq(9))] == [1]


@pytest.mark.parametrize("seq", [0, 1, 3])
def test_a_version_must_follow_the_last(store: Store, seq: int) -> None:
    with store.write() as writer:
        append(writer)

        with pytest.raises(StoreError, match="cannot follow version 1"):
            writer.append(Seq(seq), operation(), [], [])


def test_time_never_runs_backwards(store: Store) -> None:
    with store.write() as writer:
        append(writer, time_ns=TIME_NS)

    with store.write() as writer:
        append(writer, time_ns=TIME_NS + 5)
        with pytest.raises(StoreError, match="before that of version 2"):
            append(writer, time_ns=TIME_NS + 4)

    with store.write() as writer:
        with pytest.raises(StoreError, match="before that of version 2"):
            append(writer, time_ns=TIME_NS + 4)


def test_time_never_runs_backwards_after_opening_again(path: Path) -> None:
    with Store.open(path, writable=True) as store, store.write() as writer:
        append(writer, time_ns=TIME_NS)

    with Store.open(path, writable=True) as store, store.write() as writer:
        with pytest.raises(StoreError, match="before that of version 1"):
            append(writer, time_ns=TIME_NS - 1)


@pytest.mark.parametrize("name", [b"", b"a/b", b"a\0", b"x" * 256])
def test_a_name_that_cannot_be_is_refused(store: Store, name: bytes) -> None:
    with store.write() as writer:
        with pytest.raises(StoreError, match="name"):
            writer.append(Seq(1), operation(), [], [(ROOT, name, ROOT)])
        writer.close()


def test_a_version_of_many_nodes_is_streamed(store: Store) -> None:
    count = 5_000

    def nodes() -> Iterator[tuple[NodeId, NodeState]]:
        for i in range(1, count + 1):
            yield NodeId(i), file_state(b"f%d" % i)

    with store.write() as writer:
        names = ((ROOT, b"f%d" % i, NodeId(i)) for i in range(1, count + 1))
        writer.append(Seq(1), operation(), nodes(), names)

    with store.read() as reader:
        record = reader.record(Seq(1))
        assert record is not None
        assert record.nodes == tuple(range(1, count + 1))
        assert record.names[-1] == (ROOT, b"f5000")
        assert len(list(reader.children(ROOT, Seq(1)))) == count


def test_node_ids_are_not_reused_after_opening_again(path: Path) -> None:
    with Store.open(path, writable=True) as store, store.write() as writer:
        append(writer, {41: file_state()})

    with Store.open(path, writable=True) as store, store.read() as reader:
        assert reader.next_node() == 42


# ---- blobs


def test_the_same_contents_are_stored_once(store: Store) -> None:
    with store.write() as writer:
        first, added, _ = writer.put_blob(b"same" * 1000)
        again = writer.put_blob(b"same" * 1000)
    size = segment_bytes(store)
    with store.write() as writer:
        later = writer.put_blob(b"same" * 1000)

    assert added > 0
    assert again == later == (first, 0, None)
    assert segment_bytes(store) == size


@pytest.mark.expect_logs("stored again")
def test_only_what_is_there_and_sound_is_found(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        with store.write() as writer:
            blob = writer.put_blob(b"there" * 100).blob
            assert writer.find_blob(b"there" * 100) == blob
            assert writer.find_blob(b"not there") is None
        flip(store, blob)

    with Store.open(path, writable=True) as store, store.write() as writer:
        assert writer.find_blob(b"there" * 100) is None


def test_bytes_added_are_what_the_segment_grows_by(store: Store) -> None:
    with store.write() as writer:
        writer.put_blob(b"the first makes the header")
    before, journals_before = segment_bytes(store), journal_bytes(store)

    with store.write() as writer:
        _, added, _ = writer.put_blob(bytes(range(256)) * 10)

    assert segment_bytes(store) - before == added + journal_bytes(store) - journals_before


@pytest.mark.parametrize("size", [0, 1, 63, 64, 4096, 65536, 3_000_000])
def test_blobs_of_every_size_come_back(store: Store, size: int) -> None:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]

    with store.write() as writer:
        blob, *_ = writer.put_blob(data)
        assert writer.blob(blob) == data

    with store.read() as reader:
        assert reader.blob(blob) == data
        assert store.hash(data) == blob


@pytest.mark.expect_logs("stored again")
def test_a_damaged_blob_is_stored_again_when_it_comes_again(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        _, _, blob = add_file(store, b"f", b"precious" * 100)
        flip(store, blob)
    with Store.open(path, writable=True) as store:
        with store.read() as reader, pytest.raises(CorruptError):
            reader.blob(blob)

        with store.write() as writer:
            _, added, _ = writer.put_blob(b"precious" * 100)

        assert added > 0
        with store.read() as reader:
            assert reader.blob(blob) == b"precious" * 100
        assert list(check(store, read_data=True)) == []


# ---- tags and the clean mark


def test_a_tag_replaces_one_of_the_same_name(store: Store) -> None:
    with store.write() as writer:
        append(writer)
        append(writer)
        writer.put_tag(Tag("t", Seq(1), TIME_NS))
        writer.put_tag(Tag("t", Seq(2), TIME_NS))

    with store.read() as reader:
        assert list(reader.tags()) == [Tag("t", Seq(2), TIME_NS)]


def test_a_tag_can_be_deleted_once(store: Store) -> None:
    with store.write() as writer:
        append(writer)
        writer.put_tag(Tag("t", Seq(1), TIME_NS))
        writer.delete_tag("t")

        with pytest.raises(NotFoundError, match="no tag 't'"):
            writer.delete_tag("t")


@pytest.mark.parametrize("name", ["", "x" * 256, "ü" * 128])
def test_a_tag_name_that_is_too_short_or_long_is_refused(store: Store, name: str) -> None:
    with store.write() as writer, pytest.raises(StoreError, match="1 to 255"):
        writer.put_tag(Tag(name, Seq(1), TIME_NS))


def test_the_clean_mark_is_what_was_set(store: Store) -> None:
    for value in (True, False):
        with store.write() as writer:
            writer.set_clean(value)
        with store.read() as reader:
            assert reader.clean() is value


# ---- failures


class ShortWrite(FailingTransaction):
    """A transaction of which less was written than LMDB asked for."""

    def commit(self) -> None:
        self._real.abort()
        raise lmdb.Error("mdb_txn_commit: Input/output error")


@pytest.mark.parametrize("has_landed", [False, True])
def test_a_failed_commit_of_the_index_leaves_the_store_usable(
    store: Store, monkeypatch: pytest.MonkeyPatch, *, has_landed: bool
) -> None:
    add_file(store, b"before", b"before")
    writer = store.write()
    in_doubt, *_ = writer.put_blob(b"in doubt" * 1000)
    append(writer, time_ns=TIME_NS)
    failing = FailingTransaction(writer._txn, has_landed=has_landed)
    monkeypatch.setattr(writer, "_txn", failing)
    with pytest.raises(StoreError, match="mdb_txn_commit"):
        writer.__exit__(None)

    seq, _, after = add_file(store, b"after", b"after" * 1000)

    assert seq == (3 if has_landed else 2)
    with store.read() as reader:
        assert reader.blob(after) == b"after" * 1000
        assert reader.has_blob(in_doubt) is has_landed
        if has_landed:
            assert reader.blob(in_doubt) == b"in doubt" * 1000


@pytest.mark.parametrize(("left", "expected"), [(0, errno.ENOSPC), (1 << 30, errno.EIO)])
def test_a_commit_that_wrote_too_little_tells_whether_the_disk_is_full(
    store: Store, monkeypatch: pytest.MonkeyPatch, left: int, expected: int
) -> None:
    writer = store.write()
    append(writer)
    monkeypatch.setattr(writer, "_txn", ShortWrite(writer._txn, has_landed=False))
    disk = SimpleNamespace(f_bavail=left // 4096, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)

    with pytest.raises(StoreError, match="Input/output error") as caught:
        writer.__exit__(None)

    assert caught.value.errno == expected


def test_what_is_remembered_as_verified_is_bounded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_module, "VERIFIED_LIMIT", 4)

    with store.write() as writer:
        for i in range(10):
            writer.put_blob(b"%d" % i)

        assert len(writer._side.verified) <= 4


def test_manifests_and_chunks_are_checked_with_their_file(store: Store) -> None:
    with store.write() as writer:
        chunk, *_ = writer.put_blob(b"x" * 65536)
        manifest, *_ = writer.put_blob(
            encode_manifest_node(0, [Chunk(65536, chunk), Chunk(131072, None), Chunk(65536, chunk)])
        )
        xattrs, *_ = writer.put_blob(codec.encode_xattrs({b"user.a": b"1"}))
        state = file_state(size=4 * 65536, content=manifest, is_manifest=True, xattrs=xattrs)
        append(writer, {1: state})

    assert list(check(store, read_data=True)) == []


def test_where_a_blob_is_follows_what_the_transaction_does_to_its_row(store: Store) -> None:
    with store.write() as writer:
        elsewhere = BlobLocation(0, 0, 0, 0, LOST)
        blob = writer.put_blob(b"contents" * 50).blob
        first = writer.location(blob)
        writer.put_row("blobs", blob, encode_blob_location(elsewhere))
        assert writer.location(blob) == elsewhere
        assert writer.delete_row("blobs", blob)
        assert writer.location(blob) is None
        assert writer.put_blob(b"contents" * 50).blob == blob
        again = writer.location(blob)

    before, after = (at.offset for at in (first, again) if at is not None)
    assert after > before
