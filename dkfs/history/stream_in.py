"""Receives history: takes the items of a stream into a store, version by version, whatever they are.

Everything is checked before it counts: blobs by their hash, rows against the log record that lists them, contents down
to the last chunk.  A version is committed with all that it needs, or not at all; whenever it ends, the store holds the
history up to some version.  A store that has received is a replica: it remembers whose history it holds, and takes
nothing that does not continue it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dkfs.core import codec
from dkfs.core.location import BLOB_LIMIT, LOST, BlobLocation, encode_blob_location
from dkfs.core.stream import Blob, End, Header, Item, Links, Names, Nodes, TagItem, Version, digest
from dkfs.errors import CorruptError, DkfsError, UsageError
from dkfs.failpoints import failpoint
from dkfs.history.forget import forgotten_move, put_forgotten_move
from dkfs.history.links import remember
from dkfs.history.places import check_name
from dkfs.history.replica import (
    Replica,
    digest_of,
    is_untouched,
    own_versions,
    put_replica,
    replica_of,
)
from dkfs.history.stream_contents import ContentChecker
from dkfs.model.ids import NO_NODE, BlobId, NodeId, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.model.operation import LogRecord, OpKind, Tag
from dkfs.store import Reader, Store, Writer
from dkfs.store.rows import NAME_LIMIT, NEXT_NODE_KEY, NODE_KEY, SEQ, name_key, tag_key

BATCH_BYTES = 16 << 20  # of blobs, after which is committed
BATCH_VERSIONS = 2_000
_ID_LIMIT = 1 << 62  # exclusive
_NAME_MAX = 255
_MOVES = frozenset((OpKind.ROLLBACK, OpKind.UNDO, OpKind.REDO))

OnProgress = Callable[[int, int, int], None]  # versions done, the last one, bytes of blobs


@dataclass(slots=True)
class Received:
    """What came of it."""

    versions: int = 0  # that the store did not have
    known: int = 0  # that it had
    blobs: int = 0
    blob_bytes: int = 0  # as stored
    last: Seq = Seq(0)  # the newest version that is committed
    is_complete: bool = False  # the stream's end was reached


@dataclass(slots=True)
class _Coming:
    """The version whose items are coming."""

    record: LogRecord
    is_known: bool  # the store has it, or had: its items are passed over
    nodes: tuple[NodeId, ...]
    names: tuple[tuple[NodeId, bytes], ...]
    nodes_done: int = 0
    names_done: int = 0
    links: list[Links] = field(default_factory=list)

    @property
    def has_rows(self) -> bool:
        """Whether rows have been put that mean nothing without the rest."""
        return not self.is_known and bool(self.nodes_done or self.names_done)

    @property
    def is_complete(self) -> bool:
        return self.nodes_done == len(self.nodes) and self.names_done == len(self.names)


class Receiver:
    """Takes one stream into *store*, which is open for writing."""

    def __init__(
        self,
        store: Store,
        *,
        batch_bytes: int = BATCH_BYTES,
        batch_versions: int = BATCH_VERSIONS,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.result = Received()
        self._store = store
        self._batch_bytes = batch_bytes
        self._batch_versions = batch_versions
        self._on_progress = on_progress
        self._checker = ContentChecker()
        self._writer: Writer | None = None
        self._coming: _Coming | None = None
        self._tags: list[Tag] = []
        self._untagged: set[bytes] = set()  # names that were taken away on the way
        self._before = Seq(0)  # the version of the stream before
        self._count = 0  # of versions in the stream
        self._is_joined = False  # what the store has last is known to be what the stream continues
        self._last_time_ns = 0

    def lacks(self, blob: BlobId) -> bool:
        """Return whether *blob* is not in the store; for a sender in the same process."""
        return self._writer is None or not self._writer.has_blob(blob)

    def run(self, items: Iterator[Item]) -> Received:
        """Take all of *items*, committing often; raises DkfsError, and then the store holds what came before.

        UsageError if the stream does not belong to the store, CorruptError if it is damaged or ends too early.
        """
        header = next(items, None)
        if not isinstance(header, Header):
            raise CorruptError("stream without a header")
        with self._store.read() as reader:
            self._accept(header, reader)
        trouble: DkfsError | None = None
        while not self.result.is_complete and trouble is None:
            failpoint("receive.batch")
            with self._store.write() as self._writer:
                trouble = self._batch(self._writer, header, items)
                if self.result.versions:
                    last = self._writer.last
                    mark = digest_of(self._writer, last)
                    assert mark is not None, "the last version is there"
                    put_replica(self._writer, Replica(header.history, last, mark))
            self._writer = None
            with self._store.read() as reader:
                self.result.last = reader.last
            if self._on_progress is not None:
                self._on_progress(self.result.last, header.end, self.result.blob_bytes)
        if trouble is not None:
            raise trouble
        return self.result

    def _accept(self, header: Header, reader: Reader) -> None:
        """Raise UsageError unless the stream continues what the store has."""
        store, last = self._store, reader.last
        where = f"store {store.path}"
        self.result.last = last
        if header.hash_algo != store.hash_algo:
            raise UsageError(
                f"the stream names contents by {header.hash_algo}, {where} by {store.hash_algo}:"
                " expected the same"
            )
        if header.history == store.uuid.bytes:
            raise UsageError(f"the stream comes from {where} itself, or from a copy of it")
        replica = replica_of(reader)
        if last and replica is None:
            raise UsageError(
                f"{where} has a history of its own, expected an empty one or a replica"
            )
        if replica is not None and replica.history != header.history:
            raise UsageError(f"{where} is a replica of another history than the stream's")
        if replica is not None and not is_untouched(reader, replica):
            raise UsageError(own_versions(store, reader, replica))
        if header.start > last:
            raise UsageError(
                f"the stream begins after version {header.start}, {where} ends with {last}:"
                " see dkfs receive --token"
            )
        there = digest_of(reader, header.start)
        if there is not None and there != header.start_digest:
            raise UsageError(_parted(header.start, store))
        self._is_joined = header.start == last
        self._before = header.start
        if last:
            newest = reader.record(last)
            assert newest is not None, "the last version is there"
            self._last_time_ns = newest.operation.time_ns

    def _batch(self, writer: Writer, header: Header, items: Iterator[Item]) -> DkfsError | None:
        """Take items until it is time to commit; return what is wrong with the stream, if what came before counts."""
        versions, stored = self.result.versions, self.result.blob_bytes
        while not self.result.is_complete:
            try:
                item = next(items, None)
                if item is None:
                    raise CorruptError("stream without an end")
            except DkfsError as exc:
                if self._coming is not None and self._coming.has_rows:
                    raise
                return exc
            self._take(writer, header, item)
            if self._coming is not None and self._coming.has_rows:
                continue
            if (
                self.result.versions - versions >= self._batch_versions
                or self.result.blob_bytes - stored >= self._batch_bytes
            ):
                break
        return None

    def _take(self, writer: Writer, header: Header, item: Item) -> None:
        match item:
            case Version(record):
                self._begin(writer, header, record)
            case Blob():
                self._blob(writer, item)
            case Links():
                self._expect_version(item).links.append(item)
            case Nodes(states):
                for state in states:
                    self._node(writer, state)
            case Names(children):
                for child in children:
                    self._name(writer, child)
            case TagItem(tag):
                if self._coming is not None:
                    raise CorruptError(
                        f"stream with a tag within version {self._coming.record.seq}"
                    )
                self._tags.append(tag)
            case End():
                self._end(writer, header, item)
            case _:
                raise CorruptError("stream with a second header")
        if self._coming is not None and self._coming.is_complete:
            self._finish(writer, self._coming)

    def _begin(self, writer: Writer, header: Header, record: LogRecord) -> None:
        seq = record.seq
        if self._coming is not None or self._tags:
            raise CorruptError(f"stream with version {seq} within another, or behind the tags")
        if not self._before < seq <= header.end:
            raise CorruptError(
                f"stream with version {seq} after {self._before}, up to {header.end}"
            )
        self._before = seq
        self._count += 1
        is_known = seq <= writer.last
        if is_known:
            there = digest_of(writer, seq)
            if there is not None and there != digest(seq, record.operation):
                raise UsageError(_parted(seq, self._store))
            self._is_joined |= seq == writer.last
        elif not self._is_joined:
            raise UsageError(
                f"version {writer.last}, the last of store {self._store.path}, is not in the stream:"
                " it was forgotten where the stream comes from"
            )
        elif record.operation.time_ns < self._last_time_ns:
            raise CorruptError(f"stream with version {seq}, older than the one before it")
        for node in record.all_nodes:
            _check_id(node)
        for parent, name in record.all_names:
            _check_id(parent)
            _check_name(name)
        self._coming = _Coming(record, is_known, record.all_nodes, record.all_names)

    def _blob(self, writer: Writer, item: Blob) -> None:
        coming = self._expect_version(item)
        if coming.is_known:
            return
        if coming.has_rows:
            raise CorruptError(f"stream with a blob behind rows of version {coming.record.seq}")
        if item.length > BLOB_LIMIT:
            raise CorruptError(
                f"stream with a blob of {item.length} bytes, the limit is {BLOB_LIMIT}"
            )
        self._checker.came(item.blob)
        location = writer.location(item.blob)
        if location is not None and (location.encoding != LOST or item.encoding == LOST):
            return
        if item.encoding == LOST:
            lost = BlobLocation(0, 0, 0, item.length, LOST)
            writer.put_row("blobs", item.blob, encode_blob_location(lost))
        else:
            writer.put_record(item.blob, item.encoding, item.stored, item.length)
            writer.blob(item.blob)  # hashes it
        self.result.blobs += 1
        self.result.blob_bytes += len(item.stored)

    def _node(self, writer: Writer, state: NodeState) -> None:
        coming = self._expect_version(state)
        if coming.nodes_done >= len(coming.nodes):
            raise CorruptError(
                f"version {coming.record.seq} with more states than its record names"
            )
        node = coming.nodes[coming.nodes_done]
        coming.nodes_done += 1
        if coming.is_known:
            return
        if state.name:
            _check_name(state.name)
        if state.target and state.attr.kind is not Kind.SYMLINK:
            raise CorruptError(f"node {node} has a target and is no symbolic link")
        self._checker.check(writer, state)
        writer.put_row("nodes", NODE_KEY.pack(node, coming.record.seq), codec.encode_node(state))

    def _name(self, writer: Writer, child: NodeId) -> None:
        coming = self._expect_version(child)
        if coming.nodes_done < len(coming.nodes) or coming.names_done >= len(coming.names):
            raise CorruptError(f"version {coming.record.seq} with other names than its record's")
        parent, name = coming.names[coming.names_done]
        coming.names_done += 1
        if coming.is_known:
            return
        seq = coming.record.seq
        if child != NO_NODE:
            _check_id(child)
            if writer.node(child, seq) is None:
                raise CorruptError(f"version {seq} names node {child}, which has no state")
        writer.put_row("names", name_key(parent, name, seq), SEQ.pack(child))

    def _finish(self, writer: Writer, coming: _Coming) -> None:
        self._coming = None
        record = coming.record
        if coming.is_known:
            self.result.known += 1
            return
        key = SEQ.pack(record.seq)
        data = codec.encode_log(
            record.operation, record.nodes, record.names, record.folded_nodes, record.folded_names
        )
        writer.put_row("log", key, data)
        if record.operation.kind in _MOVES:
            writer.put_row("moves", key, bytes((record.operation.kind,)))
        for links in coming.links:
            for _, name in links.places:
                _check_name(name)
            remember(writer, ((parent, name, links.node) for parent, name in links.places))
        if record.operation.kind is OpKind.UNTAG and 0 < len(record.operation.name) <= NAME_LIMIT:
            self._untagged.add(record.operation.name)
        self._last_time_ns = record.operation.time_ns
        self._checker.version_complete()
        self.result.versions += 1

    def _end(self, writer: Writer, header: Header, item: End) -> None:
        if self._coming is not None or item.end != header.end or item.versions != self._count:
            raise CorruptError(f"stream of {self._count} versions ends with {item.versions}")
        # A tag that went with a version that was forgotten stays here, where that version is.
        for name in self._untagged:
            writer.delete_row("tags", name)
        for tag in self._tags:
            if not 0 < len(tag.name.encode()) <= NAME_LIMIT:
                raise CorruptError(f"stream with a tag of {len(tag.name)} characters")
            if writer.has_row("log", SEQ.pack(tag.seq)):
                writer.put_row("tags", tag_key(tag.name), codec.encode_tag(tag))
        if writer.next_node() < item.next_node < _ID_LIMIT:
            writer.put_row("meta", NEXT_NODE_KEY, SEQ.pack(item.next_node))
        move = item.forgotten_move
        if forgotten_move(writer) < move <= header.end and not writer.has_row(
            "log", SEQ.pack(move)
        ):
            put_forgotten_move(writer, move)
        self.result.is_complete = True

    def _expect_version(self, item: object) -> _Coming:
        if self._coming is None:
            raise CorruptError(f"stream with {type(item).__name__} outside of a version")
        return self._coming


def _parted(seq: Seq, store: Store) -> str:
    return (
        f"version {seq} of the stream is another than that of store {store.path}:"
        " the two have gone different ways"
    )


def _check_id(node: NodeId) -> None:
    if not 0 < node < _ID_LIMIT:
        raise CorruptError(f"stream with node {node}")


def _check_name(name: bytes) -> None:
    if len(check_name(name)) > _NAME_MAX:
        raise CorruptError(f"stream with a name of {len(name)} bytes")
