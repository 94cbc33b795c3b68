"""Stores of every released format are opened by every later release: their files are added to, never made anew."""

import shutil
from pathlib import Path

import pytest

from dkfs.core import codec
from dkfs.core.manifest import decode_manifest_node
from dkfs.errors import StoreFormatError
from dkfs.model.ids import NO_NODE, ROOT, NodeId, Seq
from dkfs.model.node import Attr, Chunk, Kind, NodeState
from dkfs.model.operation import NOBODY, Operation, OpKind, Origin, Tag
from dkfs.store import Reader, Store
from dkfs.store.check import check

GOLDEN = Path(__file__).parent.parent / "golden"
TIME_NS = 1_700_000_000_000_000_000
BASH = Origin(42, 1000, b"bash")
TAG = "v1-ü"


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """Copy the store, as opening it makes a lock file in it."""
    return Path(shutil.copytree(GOLDEN / "store-v1", tmp_path / "store"))


def attr(kind: Kind, mode: int, *, size: int = 0, rdev: int = 0) -> Attr:
    return Attr(kind, mode, 1000, 100, TIME_NS + 1, TIME_NS + 2, size, rdev)


def operations(reader: Reader) -> list[Operation]:
    return [record.operation for record in reader.log(Seq(1), reader.last)]


def test_the_log_of_format_1_is_read(golden: Path) -> None:
    with Store.open(golden, writable=False) as store, store.read() as reader:
        found = operations(reader)
        moves = list(reader.moves())
        tags = list(reader.tags())

    def done(kind: OpKind, position: int, node: int, name: bytes) -> Operation:
        time_ns = TIME_NS + position * 10
        return Operation(kind, time_ns, BASH, node=NodeId(node), parent=ROOT, name=name)

    assert found == [
        Operation(OpKind.FOUND, TIME_NS, NOBODY, node=ROOT),
        done(OpKind.CREATE, 1, 2, b"hello"),
        done(OpKind.WRITE, 2, 3, b"\xff\xfe"),
        done(OpKind.SYMLINK, 3, 4, b"link"),
        done(OpKind.MKNOD, 4, 5, b"null"),
        Operation(
            OpKind.RENAME,
            TIME_NS + 50,
            BASH,
            node=NodeId(2),
            parent=ROOT,
            name=b"hello",
            new_parent=ROOT,
            new_name=b"bye",
        ),
        Operation(OpKind.TAG, TIME_NS + 60, NOBODY, name=TAG.encode(), target=Seq(5)),
        Operation(OpKind.ROLLBACK, TIME_NS + 70, BASH, target=Seq(5), paths=(b"hello", b"bye")),
        Operation(OpKind.UNDO, TIME_NS + 80, BASH, target=Seq(7), undoes=Seq(8)),
    ]
    assert moves == [(8, OpKind.ROLLBACK), (9, OpKind.UNDO)]
    assert tags == [Tag(TAG, Seq(5), TIME_NS + 60)]


def test_the_tree_of_format_1_is_read_at_every_version(golden: Path) -> None:
    with Store.open(golden, writable=False) as store, store.read() as reader:
        trees = [dict(reader.children(ROOT, Seq(seq))) for seq in range(10)]
        hello = list(reader.child_versions(ROOT, b"hello"))

    others = {b"\xff\xfe": 3, b"link": 4, b"null": 5}
    assert trees == [
        {},
        {},
        {b"hello": 2},
        {b"hello": 2, b"\xff\xfe": 3},
        {b"hello": 2, b"\xff\xfe": 3, b"link": 4},
        {b"hello": 2, **others},
        {b"bye": 2, **others},
        {b"bye": 2, **others},
        {b"hello": 2, **others},
        {b"bye": 2, **others},
    ]
    assert hello == [(2, 2), (6, NO_NODE), (8, 2), (9, NO_NODE)]


def test_the_states_of_format_1_are_read(golden: Path) -> None:
    with Store.open(golden, writable=False) as store, store.read() as reader:
        nodes = [reader.node(NodeId(node), Seq(9)) for node in range(1, 7)]
        content = store.hash(b"hello\n")
        manifest, xattrs = (nodes[2].content, nodes[2].xattrs) if nodes[2] else (None, None)

    assert nodes == [
        NodeState(
            attr(Kind.DIR, 0o755), ROOT, b"", None, is_manifest=False, target=b"", xattrs=None
        ),
        NodeState(
            attr(Kind.FILE, 0o644, size=6),
            ROOT,
            b"bye",
            content,
            is_manifest=False,
            target=b"",
            xattrs=None,
        ),
        NodeState(
            attr(Kind.FILE, 0o600, size=196864),
            ROOT,
            b"\xff\xfe",
            manifest,
            is_manifest=True,
            target=b"",
            xattrs=xattrs,
        ),
        NodeState(
            attr(Kind.SYMLINK, 0o777, size=5),
            ROOT,
            b"link",
            None,
            is_manifest=False,
            target=b"hello",
            xattrs=None,
        ),
        NodeState(
            attr(Kind.CHAR, 0o666, rdev=0x103),
            ROOT,
            b"null",
            None,
            is_manifest=False,
            target=b"",
            xattrs=None,
        ),
        None,
    ]


def test_the_contents_of_format_1_are_read(golden: Path) -> None:
    with Store.open(golden, writable=False) as store, store.read() as reader:
        state = reader.node(NodeId(3), Seq(9))
        assert state is not None
        assert state.content is not None
        assert state.xattrs is not None
        chunks = decode_manifest_node(reader.blob(state.content)).entries

        assert chunks == (
            Chunk(65536, store.hash(b"A" * 65536)),
            Chunk(131072, None),
            Chunk(256, store.hash(bytes(range(256)))),
        )
        assert reader.blob(store.hash(b"A" * 65536)) == b"A" * 65536
        assert reader.blob(store.hash(bytes(range(256)))) == bytes(range(256))
        assert codec.decode_xattrs(reader.blob(state.xattrs)) == {b"user.a": b"1", b"user.b": b""}
        assert reader.blob(store.hash(b"last")) == b"last"
        assert reader.clean()
        assert reader.next_node() == 6
        assert list(check(store, read_data=True)) == []


def test_a_store_of_format_1_is_not_written_before_it_is_migrated(golden: Path) -> None:
    before = {path: path.read_bytes() for path in golden.rglob("*") if path.is_file()}

    with pytest.raises(
        StoreFormatError, match=r"has format 1: run `dkfs migrate --store .*` first"
    ):
        Store.open(golden, writable=True)

    after = {path: path.read_bytes() for path in golden.rglob("*") if path.is_file()}
    after.pop(golden / "index.lmdb-lock", None)
    assert after == before
