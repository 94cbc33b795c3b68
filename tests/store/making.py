"""Short ways to say the records that tests of the store put into it."""

from pathlib import Path

import lmdb

from dkfs.core.journal import TABLES_JOURNALED, JournalPart
from dkfs.core.location import JOURNAL
from dkfs.model.ids import NO_NODE, ROOT, BlobId, NodeId, Seq
from dkfs.model.node import Attr, Kind, NodeState
from dkfs.model.operation import NOBODY, Operation, OpKind
from dkfs.store import Store, Writer
from dkfs.store.journals import unpack_journal
from dkfs.store.rows import UNJOURNALED, unseal
from dkfs.store.segments import FOOTER, HEADER_SIZE, RECORD

Rows = dict[tuple[str, bytes], bytes]  # by table and key: record

TIME_NS = 1_700_000_000_000_000_000


def file_state(
    name: bytes = b"f",
    *,
    parent: int = ROOT,
    size: int = 0,
    content: BlobId | None = None,
    is_manifest: bool = False,
    mtime_ns: int = TIME_NS,
    xattrs: BlobId | None = None,
) -> NodeState:
    """Return the state of a regular file."""
    attr = Attr(Kind.FILE, 0o644, 1000, 1000, mtime_ns, mtime_ns, size, 0)
    return NodeState(attr, NodeId(parent), name, content, is_manifest, b"", xattrs)


def operation(
    kind: OpKind = OpKind.WRITE, *, time_ns: int = TIME_NS, node: int = NO_NODE, name: bytes = b""
) -> Operation:
    """Return an operation by nobody."""
    return Operation(kind, time_ns, NOBODY, node=NodeId(node), parent=ROOT, name=name)


def append(
    writer: Writer,
    nodes: dict[int, NodeState] | None = None,
    names: dict[tuple[int, bytes], int] | None = None,
    *,
    kind: OpKind = OpKind.WRITE,
    time_ns: int = TIME_NS,
) -> Seq:
    """Append the next version and return its number."""
    seq = Seq(writer.last + 1)
    writer.append(
        seq,
        operation(kind, time_ns=time_ns),
        [(NodeId(node), state) for node, state in (nodes or {}).items()],
        [(NodeId(parent), name, NodeId(to)) for (parent, name), to in (names or {}).items()],
    )
    return seq


def add_file(store: Store, name: bytes, data: bytes) -> tuple[Seq, NodeId, BlobId]:
    """Commit a version that makes a file of one chunk; return version, node and content."""
    with store.write() as writer:
        blob, *_ = writer.put_blob(data)
        node = NodeId(max(writer.next_node(), 2))
        state = file_state(name, size=len(data), content=blob)
        return append(writer, {node: state}, {(ROOT, name): node}), node, blob


def journals(path: Path) -> list[JournalPart]:
    """Read every journal of the store at *path* out of its segments."""
    found = []
    for segment in sorted((path / "segments").glob("*.seg")):
        data = segment.read_bytes()
        at = HEADER_SIZE
        while at < len(data):
            if data[at : at + 4] == b"\xff" * 4:
                at += FOOTER.size
                continue
            stored_length, _, encoding, length, _ = RECORD.unpack_from(data, at)
            start = at + RECORD.size
            at = start + stored_length
            if encoding == JOURNAL:
                found.append(unpack_journal(data[start:at], length))
    return found


def replayed(parts: list[JournalPart]) -> Rows:
    """Return what the index must hold after *parts*, in order."""
    rows: Rows = {}
    for part in parts:
        if part.is_checkpoint and part.part == 0:
            rows.clear()
        for table, key, record in part.rows:
            if record is None:
                rows.pop((table, key), None)
            else:
                rows[table, key] = record
    return rows


def indexed(path: Path) -> Rows:
    """Return every row of the index that a journal would hold."""
    with Store.open(path, writable=False) as store, store.read() as reader:
        return {
            (table, key): unseal(table, key, value)
            for table in TABLES_JOURNALED
            for key, value in reader.rows(table)
            if table != "meta" or key not in UNJOURNALED
        }


class FailingTransaction:
    """A transaction whose commit fails, before or after it has come into effect."""

    def __init__(self, real: "lmdb.Transaction[bytes]", *, has_landed: bool) -> None:
        self._real = real
        self._has_landed = has_landed

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def commit(self) -> None:
        if self._has_landed:
            self._real.commit()
        else:
            self._real.abort()
        raise lmdb.DiskError("mdb_txn_commit")
