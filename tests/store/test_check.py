"""Whether check finds what is wrong: one kind of damage a test, made with the store's own means."""

import os
from pathlib import Path

import pytest

from dkfs.core import codec
from dkfs.core.location import PLAIN, BlobLocation, encode_blob_location
from dkfs.core.manifest import encode_manifest_node
from dkfs.model.ids import ROOT, BlobId, NodeId, Seq
from dkfs.model.node import Attr, Chunk, Kind, NodeState
from dkfs.model.operation import OpKind, Tag
from dkfs.store import Store, Writer
from dkfs.store.check import Damage, DamageKind, check
from dkfs.store.rows import NEXT_NODE_KEY, NODE_KEY, SEQ, name_key, seal
from tests.core.trees import flat_manifest
from tests.store.making import TIME_NS, add_file, append, file_state

MISSING = BlobId(b"m" * 32)


@pytest.fixture
def store(path: Path) -> Store:
    """Open a store with two versions of two files; not checked at the end."""
    store = Store.open(path, writable=True)
    add_file(store, b"a", b"a" * 100)
    add_file(store, b"b", b"b" * 100)
    return store


def damages(store: Store) -> list[Damage]:
    with store:
        return list(check(store, read_data=True))


def delete(writer: Writer, table: str, key: bytes) -> None:
    assert writer._txn.delete(key, db=writer._tables[table])


def put(writer: Writer, table: str, key: bytes, record: bytes) -> None:
    writer._txn.put(key, seal(key, record), db=writer._tables[table])


def test_a_sound_store_has_no_damage(store: Store) -> None:
    assert damages(store) == []


def test_a_missing_version_is_found(store: Store) -> None:
    with store.write() as writer:
        delete(writer, "log", SEQ.pack(1))

    found = damages(store)

    assert Damage("1 versions up to 2 are not in the log, 0 were forgotten") in found
    gone = "state of node 2 is of version 1, which is not in the log"
    assert Damage(gone, Seq(1), NodeId(2)) in found


def test_a_missing_state_is_found(store: Store) -> None:
    with store.write() as writer:
        delete(writer, "nodes", NODE_KEY.pack(3, 2))

    found = damages(store)

    assert Damage("state of node 3 at version 2 is missing", Seq(2), NodeId(3)) in found
    assert Damage("1 rows in nodes, the log names 2") in found


def test_a_state_that_no_version_names_is_found(store: Store) -> None:
    with store.write() as writer:
        put(writer, "nodes", NODE_KEY.pack(3, 1), codec.encode_node(file_state()))

    assert damages(store) == [Damage("3 rows in nodes, the log names 2")]


def test_a_missing_name_is_found(store: Store) -> None:
    with store.write() as writer:
        delete(writer, "names", name_key(ROOT, b"a", 1))

    expected = Damage("name b'a' at version 1 is missing", Seq(1), ROOT, name=b"a")
    assert expected in damages(store)


def test_a_name_that_leads_nowhere_is_found(store: Store) -> None:
    with store.write() as writer:
        append(writer, {}, {(ROOT, b"c"): 9})

    assert damages(store) == [
        Damage("name b'c' leads to node 9 without a state", Seq(3), NodeId(9))
    ]


def test_a_missing_blob_is_found(store: Store) -> None:
    with store.write() as writer:
        append(writer, {9: file_state(size=1, content=MISSING)})

    assert damages(store) == [
        Damage(f"blob {MISSING.hex()} is not in the store", Seq(3), NodeId(9), MISSING)
    ]


def test_contents_of_another_length_than_the_file_are_found(store: Store) -> None:
    with store.write() as writer:
        blob, *_ = writer.put_blob(b"four")
        append(writer, {9: file_state(size=5, content=blob)})

    assert damages(store) == [Damage("contents of 4 bytes, node 9 has 5", Seq(3), NodeId(9), blob)]


@pytest.mark.parametrize(
    ("chunks", "length"), [([Chunk(5, None)], 5), ([Chunk(15, None)], 15), ([], 0)]
)
def test_a_manifest_of_another_length_is_found(
    store: Store, chunks: list[Chunk], length: int
) -> None:
    with store.write() as writer:
        blob, *_ = writer.put_blob(flat_manifest(*((0, chunk.length, b"") for chunk in chunks)))
        append(writer, {9: file_state(size=10, content=blob, is_manifest=True)})

    message = f"contents of {length} bytes, node 9 has 10"
    assert damages(store) == [Damage(message, Seq(3), NodeId(9), blob)]


def test_a_chunk_that_is_missing_is_found_once(store: Store) -> None:
    with store.write() as writer:
        leaf = writer.put_blob(encode_manifest_node(0, [Chunk(5, MISSING), Chunk(7, None)])).blob
        blob = writer.put_blob(encode_manifest_node(1, [Chunk(12, leaf), Chunk(12, leaf)])).blob
        append(writer, {9: file_state(size=24, content=blob, is_manifest=True)})
        append(writer, {9: file_state(size=24, content=blob, is_manifest=True)})

    message = f"blob {MISSING.hex()} is not in the store"
    (damage,) = damages(store)
    assert damage == Damage(message, Seq(3), NodeId(9), MISSING)
    assert (damage.kind, damage.length) == (DamageKind.BLOB, 5)


def test_nodes_of_a_manifest_at_other_levels_or_of_other_lengths_are_found(store: Store) -> None:
    with store.write() as writer:
        leaf = writer.put_blob(encode_manifest_node(0, [Chunk(5, None)])).blob
        short = writer.put_blob(encode_manifest_node(1, [Chunk(6, leaf), Chunk(5, leaf)])).blob
        high = writer.put_blob(encode_manifest_node(2, [Chunk(5, leaf), Chunk(5, leaf)])).blob
        append(writer, {9: file_state(size=11, content=short, is_manifest=True)})
        append(writer, {10: file_state(size=10, content=high, is_manifest=True)})

    assert [damage.message for damage in damages(store)] == [
        f"node {leaf.hex()} of a manifest does not cover 6 bytes",
        f"node {leaf.hex()} of a manifest has level 0, need 1",
        f"node {leaf.hex()} of a manifest has level 0, need 1",
    ]


def test_a_chunk_of_another_length_than_its_blob_is_found(store: Store) -> None:
    with store.write() as writer:
        part, *_ = writer.put_blob(b"four")
        blob, *_ = writer.put_blob(flat_manifest((1, 10, part)))
        append(writer, {9: file_state(size=10, content=blob, is_manifest=True)})

    assert damages(store) == [
        Damage(f"chunk {part.hex()} is not 10 bytes", Seq(3), NodeId(9), blob)
    ]


def test_a_blob_that_should_be_a_manifest_and_is_not_is_found(store: Store) -> None:
    with store.write() as writer:
        blob, *_ = writer.put_blob(b"text")
        append(writer, {9: file_state(size=4, content=blob, is_manifest=True)})

    (damage,) = damages(store)
    assert damage.blob == blob
    assert "manifest node of 4 bytes that starts with 7465" in damage.message


def test_xattrs_that_are_none_are_found(store: Store) -> None:
    with store.write() as writer:
        blob, *_ = writer.put_blob(b"text")
        append(writer, {9: file_state(xattrs=blob)})

    (damage,) = damages(store)
    assert damage.blob == blob
    assert "xattr record starts with 74" in damage.message


def test_a_directory_with_contents_is_found(store: Store) -> None:
    with store.write() as writer:
        blob, *_ = writer.put_blob(b"four")
        attr = Attr(Kind.DIR, 0o755, 0, 0, 0, 0, 4, 0)
        state = NodeState(attr, ROOT, b"d", blob, is_manifest=False, target=b"t", xattrs=None)
        append(writer, {9: state})

    assert [damage.message for damage in damages(store)] == [
        "node 9 has a target and is no symbolic link",
        "node 9 has contents and is no file",
    ]


def test_time_that_runs_backwards_is_found(store: Store) -> None:
    with store.write() as writer:
        writer._last_time_ns = 0
        append(writer, time_ns=TIME_NS - 1)

    assert Damage("version 3 is older than the one before it", Seq(3)) in damages(store)


def test_a_move_that_is_not_in_its_table_is_found(store: Store) -> None:
    with store.write() as writer:
        append(writer, kind=OpKind.UNDO)
        delete(writer, "moves", SEQ.pack(3))

    assert damages(store) == [Damage("0 rows in moves, the log names 1")]


def test_a_row_of_moves_that_is_no_move_is_found(store: Store) -> None:
    with store.write() as writer:
        put(writer, "moves", SEQ.pack(2), bytes((OpKind.UNDO,)))

    assert Damage("moves row 2 is not what the log says", Seq(2)) in damages(store)


def test_a_tag_of_a_version_that_is_not_there_is_found(store: Store) -> None:
    with store.write() as writer:
        writer.put_tag(Tag("t", Seq(3), TIME_NS))

    assert damages(store) == [Damage("tag 't' of version 3 under b't'", Seq(3))]


def test_a_blob_behind_the_end_of_its_segment_is_found(store: Store) -> None:
    location = BlobLocation(1, 100_000, 10, 10, PLAIN)
    with store.write() as writer:
        put(writer, "blobs", MISSING, encode_blob_location(location))

    assert damages(store) == [Damage(f"blob {MISSING.hex()} is behind the end of 1", blob=MISSING)]


def test_a_segment_that_was_cut_is_found_with_its_blobs(store: Store) -> None:
    with store.read() as reader:
        location = reader.location(store.hash(b"b" * 100))
        length = reader.tail().length
    assert location is not None
    os.truncate(store.path / "segments" / "00000001.seg", location.offset + 1)

    with store:
        found = list(check(store, read_data=False))

    cut = location.offset + 1
    assert found[0] == Damage(f"segment 1 has {cut} bytes, need {length}")
    assert found[1].message.startswith("the journal of transaction 2 is damaged or missing")
    assert [damage.blob for damage in found[2:]] == [store.hash(b"b" * 100)]


def test_a_node_id_that_would_be_used_again_is_found(store: Store) -> None:
    with store.write() as writer:
        put(writer, "meta", NEXT_NODE_KEY, SEQ.pack(3))

    assert damages(store) == [Damage("next node is 3, used is 3")]


def test_a_page_of_the_index_that_is_damaged_is_found(store: Store) -> None:
    index = store.path / "index.lmdb"
    with store:
        data = bytearray(index.read_bytes())
        last = len(data) - 4096
        data[last : last + 8] = b"\xff" * 8  # a page that says it is another
        index.write_bytes(data)

        assert store.verify_index() != []
