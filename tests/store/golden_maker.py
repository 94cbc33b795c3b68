"""Makes the store that is kept as an example of format 2: `python -m tests.store.golden_maker DIRECTORY`.

Once in tests/golden/ a store is never made anew: a later format gets a store, and a maker, of its own.
"""

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dkfs.core import codec
from dkfs.core.delta import Copy, Like
from dkfs.core.location import BSDIFF, EXTENTS, PATCH, XDELTA
from dkfs.core.manifest import encode_manifest_node
from dkfs.model.ids import NO_NODE, ROOT, BlobId, NodeId, Seq
from dkfs.model.node import Attr, Chunk, Kind, NodeState
from dkfs.model.operation import NOBODY, Operation, OpKind, Origin, Tag
from dkfs.store import EncodingPolicy, Store, Writer
from dkfs.store.encoders import Library
from dkfs.store.rows import NODE_KEY, SEQ, name_key

TIME_NS: Final = 1_700_000_000_000_000_000
BASH: Final = Origin(42, 1000, b"bash")
BASE: Final = random.Random(1).randbytes(20_000)
LIBRARIES: Final[dict[int, Library]] = {
    EXTENTS: "extents",
    PATCH: "zstd",
    BSDIFF: "bsdiff",
    XDELTA: "xdelta",
}
CHUNK: Final = b"A" * 65536
XATTRS: Final = {b"user.a": b"1", b"user.b": b""}

HELLO: Final = NodeId(2)
BIG: Final = NodeId(3)
LINK: Final = NodeId(4)
NULL: Final = NodeId(5)
GONE: Final = NodeId(6)


def changed(number: int) -> bytes:
    """Return the contents that follow BASE, by number."""
    return BASE[:1000] + b"version %d" % number + BASE[1100:]


def attr(kind: Kind, mode: int, *, size: int = 0, rdev: int = 0) -> Attr:
    """Return attributes with the times and owners that all nodes here have."""
    return Attr(kind, mode, 1000, 100, TIME_NS + 1, TIME_NS + 2, size, rdev)


def state(
    each: Attr,
    name: bytes = b"",
    content: BlobId | None = None,
    *,
    is_manifest: bool = False,
    target: bytes = b"",
    xattrs: BlobId | None = None,
    is_forgotten: bool = False,
) -> NodeState:
    """Return the state of a node in the root directory."""
    return NodeState(each, ROOT, name, content, is_manifest, target, xattrs, is_forgotten)


def operations() -> Iterator[Operation]:
    """Yield the operation of every version, those that are then forgotten too."""

    def done(kind: OpKind, seq: int, node: int, name: bytes) -> Operation:
        time_ns = TIME_NS + seq * 10
        return Operation(kind, time_ns, BASH, node=NodeId(node), parent=ROOT, name=name)

    yield Operation(OpKind.FOUND, TIME_NS, NOBODY, node=ROOT)
    yield done(OpKind.CREATE, 2, HELLO, b"hello")
    yield done(OpKind.WRITE, 3, BIG, b"\xff\xfe")
    yield done(OpKind.SYMLINK, 4, LINK, b"link")
    yield done(OpKind.MKNOD, 5, NULL, b"null")
    for seq in range(6, 10):
        yield done(OpKind.WRITE, seq, HELLO, b"hello")
    yield Operation(
        OpKind.RENAME,
        TIME_NS + 100,
        BASH,
        node=HELLO,
        parent=ROOT,
        name=b"hello",
        new_parent=ROOT,
        new_name=b"bye",
    )
    yield Operation(OpKind.TAG, TIME_NS + 110, NOBODY, name="v2-ü".encode(), target=Seq(10))
    yield Operation(OpKind.ROLLBACK, TIME_NS + 120, BASH, target=Seq(5), paths=(b"hello", b"bye"))
    yield Operation(OpKind.UNDO, TIME_NS + 130, BASH, target=Seq(11), undoes=Seq(12))


TAGS: Final = (
    Tag("expires", Seq(9), TIME_NS + 140, expires_ns=TIME_NS + 10**15),
    Tag("held", Seq(5), TIME_NS + 150, is_hold=True),
    Tag("v2-ü", Seq(10), TIME_NS + 110),
)
FORGOTTEN: Final = (4, 7, 8)  # versions, each folded into the next that is there


def make(path: Path) -> None:
    """Make the store at *path*."""
    Store.create(path)
    for seq, operation in enumerate(operations(), 1):
        library = LIBRARIES.get(seq - 4, "auto")  # versions 6 to 9 are one difference of each kind
        policy = EncodingPolicy(library=library, budget_s=1000)
        with Store.open(path, writable=True, encoding=policy, segment_limit=5_000) as store:
            with store.write() as writer:
                writer.append(Seq(seq), operation, _nodes(writer, seq), _names(seq))
    with Store.open(path, writable=True) as store:
        with store.write() as writer:
            for tag in TAGS:
                writer.put_tag(tag)
            writer.put_meta(b"note", b"text")
            _forget(writer)
        with store.write() as writer:
            writer.put_checkpoint()
        with store.write() as writer:
            writer.put_blob(b"after the checkpoint")
            writer.put_meta(b"note", b"other text")
            writer.set_clean(clean=True)


def _nodes(writer: Writer, seq: int) -> list[tuple[NodeId, NodeState]]:
    """Return the states that version *seq* brings; their contents are stored."""

    def put(data: bytes, like: Like | None = None) -> BlobId:
        return writer.put_blob(data, like=like).blob

    if seq == 1:
        return [(ROOT, state(attr(Kind.DIR, 0o755)))]
    if seq == 2:
        return [(HELLO, state(attr(Kind.FILE, 0o644, size=len(BASE)), b"hello", put(BASE)))]
    if seq == 3:
        blob = _put_tree(writer)
        size = 33 * len(CHUNK) + 256
        xattrs = put(codec.encode_xattrs(XATTRS))
        big = attr(Kind.FILE, 0o600, size=size)
        return [(BIG, state(big, b"\xff\xfe", blob, is_manifest=True, xattrs=xattrs))]
    if seq == 4:
        return [(LINK, state(attr(Kind.SYMLINK, 0o777, size=5), b"link", target=b"hello"))]
    if seq == 5:
        null = state(attr(Kind.CHAR, 0o666, rdev=0x103), b"null")
        gone = attr(Kind.FILE, 0o600, size=1000)
        return [(NULL, null), (GONE, state(gone, b"gone", is_forgotten=True))]
    name = b"bye" if seq in {10, 11, 13} else b"hello"
    if seq in {6, 7, 8, 9}:
        before = put(changed(seq - 1) if seq > 6 else BASE)
        copies = (Copy(0, 0, 1000), Copy(1009, 1009 if seq > 6 else 1100, 18900))
        like = Like((before,), copies if seq == 6 else None)
        content = put(changed(seq), like)
    else:
        content = put(changed(9))
    if seq == 11:
        return []
    size = len(changed(9))
    return [(HELLO, state(attr(Kind.FILE, 0o644, size=size), name, content))]


def _put_tree(writer: Writer) -> BlobId:
    """Store a file of 33 chunks with a hole and an end of 256 bytes, as a tree of two levels."""
    chunk = writer.put_blob(CHUNK).blob
    end = writer.put_blob(bytes(range(256))).blob
    first = [Chunk(len(CHUNK), chunk)] * 16
    second = [Chunk(2 * len(CHUNK), None), *([Chunk(len(CHUNK), chunk)] * 15), Chunk(256, end)]
    nodes = [
        Chunk(
            sum(entry.length for entry in entries),
            writer.put_blob(encode_manifest_node(0, entries)).blob,
        )
        for entries in (first, second)
    ]
    return writer.put_blob(encode_manifest_node(1, nodes)).blob


def _names(seq: int) -> list[tuple[NodeId, bytes, NodeId]]:
    to_bye = [(ROOT, b"hello", NO_NODE), (ROOT, b"bye", HELLO)]
    to_hello = [(ROOT, b"hello", HELLO), (ROOT, b"bye", NO_NODE)]
    return {
        2: [(ROOT, b"hello", HELLO)],
        3: [(ROOT, b"\xff\xfe", BIG)],
        4: [(ROOT, b"link", LINK)],
        5: [(ROOT, b"null", NULL), (ROOT, b"gone", GONE)],
        10: to_bye,
        12: to_hello,
        13: to_bye,
    }.get(seq, [])


def _forget(writer: Writer) -> None:
    """Take versions out of the log, in the form in which history folds them into the next one."""
    for seq in FORGOTTEN:
        writer.delete_row("log", SEQ.pack(seq))
    _move(writer, "nodes", NODE_KEY.pack(LINK, 4), NODE_KEY.pack(LINK, 5))
    _move(writer, "names", name_key(ROOT, b"link", Seq(4)), name_key(ROOT, b"link", Seq(5)))
    for seq in (7, 8):
        writer.delete_row("nodes", NODE_KEY.pack(HELLO, seq))
    for seq, nodes, names in ((5, [LINK], [(ROOT, b"link")]), (9, [], [])):
        record = writer.record(Seq(seq))
        assert record is not None
        data = codec.encode_log(record.operation, record.nodes, record.names, nodes, names)
        writer.put_row("log", SEQ.pack(seq), data)


def _move(writer: Writer, table: str, old: bytes, new: bytes) -> None:
    record = writer._get(table, old)
    assert record is not None
    writer.delete_row(table, old)
    writer.put_row(table, new, record)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
