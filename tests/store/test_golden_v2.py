"""The store of format 2 in tests/golden/, see golden_maker, is opened by every later release."""

import shutil
from pathlib import Path

import pytest

from dkfs.core import codec
from dkfs.core.journal import TABLES_JOURNALED
from dkfs.core.location import BSDIFF, EXTENTS, PATCH, XDELTA
from dkfs.core.manifest import decode_manifest_node
from dkfs.model.ids import NO_NODE, ROOT, NodeId, Seq
from dkfs.model.node import Chunk, Kind
from dkfs.model.operation import OpKind
from dkfs.store import Store
from dkfs.store.check import check
from dkfs.store.rows import UNJOURNALED, unseal
from tests.store.golden_maker import (
    BASE,
    BIG,
    CHUNK,
    FORGOTTEN,
    GONE,
    HELLO,
    LINK,
    NULL,
    TAGS,
    TIME_NS,
    XATTRS,
    attr,
    changed,
    make,
    operations,
    state,
)
from tests.store.making import append, file_state, journals

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(params=["golden", "made now"])
def store_path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Copy the store, as opening it makes a lock file in it; or make one as it was made."""
    path = tmp_path / "store"
    if request.param == "golden":
        shutil.copytree(GOLDEN / "store-v2", path)
    else:
        make(path)
    return path


def test_the_log_of_format_2_is_read(store_path: Path) -> None:
    with Store.open(store_path, writable=False) as store, store.read() as reader:
        found = {record.seq: record for record in reader.log(Seq(1), reader.last)}
        expected = dict(enumerate(operations(), 1))
        for seq in FORGOTTEN:
            del expected[seq]

        assert {seq: record.operation for seq, record in found.items()} == expected
        assert found[Seq(5)].all_nodes == (NULL, GONE, LINK)
        assert found[Seq(5)].folded_nodes == (LINK,)
        assert found[Seq(5)].folded_names == ((ROOT, b"link"),)
        assert found[Seq(5)].all_names == ((ROOT, b"null"), (ROOT, b"gone"), (ROOT, b"link"))
        assert list(reader.moves()) == [(12, OpKind.ROLLBACK), (13, OpKind.UNDO)]
        assert tuple(reader.tags()) == TAGS
        assert reader.meta(b"note") == b"other text"
        assert reader.clean()
        assert reader.next_node() == 7


def test_forgotten_versions_of_format_2_are_gaps(store_path: Path) -> None:
    with Store.open(store_path, writable=False) as store, store.read() as reader:
        assert reader.last == 13
        assert reader.forgotten() == 3
        assert [reader.version(seq) for seq in (0, 3, 4, 5, 8, 9, 99)] == [0, 3, 3, 5, 6, 9, 13]
        assert [reader.next_version(seq) for seq in (0, 3, 6, 12, 13)] == [1, 5, 9, 13, None]
        assert reader.version_at(TIME_NS + 89) == 6
        assert reader.version_at(TIME_NS + 90) == 9


def test_the_tree_of_format_2_is_read(store_path: Path) -> None:
    with Store.open(store_path, writable=False) as store, store.read() as reader:
        trees = {seq: dict(reader.children(ROOT, Seq(seq))) for seq in (1, 2, 3, 5, 9, 10, 12, 13)}
        hello = list(reader.child_versions(ROOT, b"hello"))

    others = {b"\xff\xfe": 3, b"link": 4, b"null": 5, b"gone": 6}
    assert trees == {
        1: {},
        2: {b"hello": 2},
        3: {b"hello": 2, b"\xff\xfe": 3},
        5: {b"hello": 2, **others},
        9: {b"hello": 2, **others},
        10: {b"bye": 2, **others},
        12: {b"hello": 2, **others},
        13: {b"bye": 2, **others},
    }
    assert hello == [(2, 2), (10, NO_NODE), (12, 2), (13, NO_NODE)]


def test_the_states_of_format_2_are_read(store_path: Path) -> None:
    with Store.open(store_path, writable=False) as store, store.read() as reader:
        big = reader.node(BIG, Seq(13))
        assert big is not None
        assert (big.is_manifest, big.attr.size) == (True, 33 * 65536 + 256)
        assert [reader.node(node, Seq(13)) for node in (ROOT, HELLO, LINK, NULL, GONE)] == [
            state(attr(Kind.DIR, 0o755)),
            state(attr(Kind.FILE, 0o644, size=19909), b"bye", store.hash(changed(9))),
            state(attr(Kind.SYMLINK, 0o777, size=5), b"link", target=b"hello"),
            state(attr(Kind.CHAR, 0o666, rdev=0x103), b"null"),
            state(attr(Kind.FILE, 0o600, size=1000), b"gone", is_forgotten=True),
        ]
        assert [seq for seq, _ in reader.node_versions(HELLO)] == [2, 6, 9, 10, 12, 13]
        assert big.xattrs is not None
        assert codec.decode_xattrs(reader.blob(big.xattrs)) == XATTRS


def test_a_tree_of_chunks_of_format_2_is_read(store_path: Path) -> None:
    with Store.open(store_path, writable=False) as store, store.read() as reader:
        big = reader.node(BIG, Seq(13))
        assert big is not None
        assert big.content is not None
        root = decode_manifest_node(reader.blob(big.content))
        nodes = [
            decode_manifest_node(reader.blob(entry.blob)) for entry in root.entries if entry.blob
        ]
        chunk = Chunk(65536, store.hash(CHUNK))

        assert (root.level, [node.level for node in nodes]) == (1, [0, 0])
        assert [entry.length for entry in root.entries] == [16 * 65536, 17 * 65536 + 256]
        assert nodes[0].entries == (chunk,) * 16
        assert nodes[1].entries == (
            Chunk(131072, None),
            *(chunk,) * 15,
            Chunk(256, store.hash(bytes(range(256)))),
        )
        assert reader.blob(store.hash(CHUNK)) == CHUNK


def test_differences_of_every_kind_of_format_2_are_read(store_path: Path) -> None:
    with Store.open(store_path, writable=False) as store, store.read() as reader:
        blobs = [store.hash(changed(seq)) for seq in (6, 7, 8, 9)]
        found = [reader.location(blob) for blob in blobs]
        at = [location for location in found if location is not None]

        assert [each.encoding for each in at] == [EXTENTS, PATCH, BSDIFF, XDELTA]
        assert [each.depth for each in at] == [1, 2, 3, 4]
        assert at[3].cost == len(BASE) + sum(each.stored_length for each in at)
        assert [reader.blob(blob, strict=True) for blob in blobs] == [
            changed(seq) for seq in (6, 7, 8, 9)
        ]
        assert reader.bases(blobs[0], at[0]) == (store.hash(BASE),)
        assert reader.bases(blobs[3], at[3]) == (blobs[2],)


def test_the_segments_of_format_2_are_what_the_index_says(store_path: Path) -> None:
    with Store.open(store_path, writable=False) as store, store.read() as reader:
        rows = dict(reader.segments())
        assert {number: row.length for number, row in rows.items()} == store.segment_sizes()
        assert len(rows) == 2
        assert (reader.tail().segment, reader.tail().txn) == (2, 16)
        assert rows[2].journal_txn == 16
        assert not any(row.is_dead for row in rows.values())
        assert reader.checkpoint() == 15
        assert list(check(store, read_data=True)) == []


def test_the_journals_of_format_2_make_the_index(store_path: Path) -> None:
    rows: dict[tuple[str, bytes], bytes | None] = {}
    for part in journals(store_path):
        if part.is_checkpoint:
            assert {key: record for key, record in rows.items() if record is not None} == {
                (row.table, row.key): row.record for row in part.rows
            }
            rows = {}
        rows |= {(row.table, row.key): row.record for row in part.rows}

    with Store.open(store_path, writable=False) as store, store.read() as reader:
        assert rows == {
            (table, key): unseal(table, key, value)
            for table in TABLES_JOURNALED
            for key, value in reader.rows(table)
            if table != "meta" or key not in UNJOURNALED
        }


def test_a_store_of_format_2_is_written_on(store_path: Path) -> None:
    with Store.open(store_path, writable=True) as store:
        with store.write() as writer:
            assert writer.next_node() == 7
            blob = writer.put_blob(b"new").blob
            new = file_state(b"new", size=3, content=blob)
            time_ns = TIME_NS + 200
            assert append(writer, {7: new}, {(ROOT, b"new"): NodeId(7)}, time_ns=time_ns) == 14

        assert list(check(store, read_data=True)) == []
