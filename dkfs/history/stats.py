"""What a store holds, what keeps it small, and what made it grow.

Sizes are bytes.  A blob belongs to the first version that reaches it, in log order: that version made the store grow
by what the blob takes.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from dkfs.core.location import PLAIN, ZSTD
from dkfs.core.manifest import decode_manifest_node
from dkfs.errors import CorruptError, DkfsError
from dkfs.history.tree import DirectoryPaths, Tree
from dkfs.model.ids import ROOT, BlobId, NodeId, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.model.operation import LogRecord
from dkfs.store import Reader

By = Literal["path", "writer", "day"]

_DAY_NS = 86_400 * 10**9
_PREFIX = 8  # bytes of an id: enough to tell some billion blobs apart


@dataclass(frozen=True, slots=True)
class RestoreSize:
    """What restoring one version would write."""

    files: int
    directories: int
    others: int
    file_bytes: int  # of all files, holes included


@dataclass(slots=True)
class Savings:
    """From full copies of every version of every file to what is stored of them, cause by cause."""

    contents: int = 0  # versions of contents
    full_bytes: int = 0  # as so many full copies
    chunk_bytes: int = 0  # plain, each chunk once
    chunks: int = 0
    delta_bytes: int = 0  # saved by deltas
    compression_bytes: int = 0  # saved by compression
    stored_bytes: int = 0  # of chunks
    metadata_bytes: int = 0  # stored of manifests and extended attributes
    blobs: int = 0  # chunks, nodes of manifests, extended attributes
    damaged: int = 0  # blobs and states that could not be looked at

    @property
    def dedup_bytes(self) -> int:
        """What is saved because a chunk is stored once, and a hole not at all."""
        return max(0, self.full_bytes - self.chunk_bytes)


@dataclass(slots=True)
class Grown:
    """By how much something made the store grow."""

    versions: int = 0
    written_bytes: int = 0  # plain bytes of new chunks
    stored_bytes: int = 0


@dataclass(slots=True)
class Survey:
    """Everything that one pass over the log finds."""

    savings: Savings = field(default_factory=Savings)
    grown: dict[bytes, Grown] = field(default_factory=lambda: defaultdict(Grown))


def restore_size(reader: Reader, at: Seq, path: bytes = b"") -> RestoreSize:
    """Return what restoring *path* as of *at* would write; raises NotFoundError, CorruptError."""
    counts = dict.fromkeys(Kind, 0)
    size = 0
    for _, _, state in Tree(reader, at).walk(path):
        counts[state.attr.kind] += 1
        if state.attr.kind is Kind.FILE:
            size += state.attr.size
    files, directories = counts.pop(Kind.FILE), counts.pop(Kind.DIR)
    return RestoreSize(files, directories, sum(counts.values()), size)


def survey(reader: Reader, *, by: By, depth: int = 1) -> Survey:
    """Look at all versions; group growth by the first *depth* parts of the path, by writer, or by day (UTC)."""
    found = Survey()
    seen = _Seen(reader, found.savings)
    paths = DirectoryPaths(reader)
    for record in reader.log(Seq(1), reader.last):
        for node in record.all_nodes:
            state = _state_made(reader, node, record.seq, found.savings)
            if state is None or _is_as_before(reader, node, record.seq, state):
                continue
            written, stored = seen.add(state)
            grown = found.grown[_key(by, paths, record, state, depth)]
            grown.versions += 1
            grown.written_bytes += written
            grown.stored_bytes += stored
    return found


def unique_bytes(reader: Reader, at: Seq) -> int:
    """Return the stored bytes that only version *at* reaches: what would come back if it were forgotten."""
    record = reader.record(at)
    following = reader.next_version(at)
    own: dict[NodeId, NodeState] = {}
    for node in record.all_nodes if record is not None else ():
        state = reader.node(node, at)
        after = None if following is None else reader.node_seq(node, following)
        if state is not None and (after is None or after[0] == following):
            own[node] = state
    mine = _Seen(reader, Savings())
    for state in own.values():
        mine.add(state)
    others = _Seen(reader, Savings())
    for seq in _versions(reader):
        other = reader.record(seq)
        for node in other.all_nodes if other is not None and seq != at else ():
            state = _state_made(reader, node, seq, Savings())
            if state is not None:
                others.add(state)
    return sum(size for blob, size in mine.stored.items() if blob not in others.stored)


def _versions(reader: Reader) -> Iterator[Seq]:
    for seq, _ in reader.versions(Seq(1), reader.last):
        yield seq


def _state_made(reader: Reader, node: NodeId, seq: Seq, savings: Savings) -> NodeState | None:
    """Return the state that version *seq* gave *node*, None if it gave none or it is damaged."""
    try:
        found = reader.node_seq(node, seq)
    except CorruptError:
        savings.damaged += 1
        return None
    return found[1] if found is not None and found[0] == seq else None


def _is_as_before(reader: Reader, node: NodeId, seq: Seq, state: NodeState) -> bool:
    """Return whether *state* has the contents and attributes of the state before it: nothing new to store."""
    try:
        before = reader.node(node, Seq(seq - 1))
    except CorruptError:
        return False
    if before is None:
        return state.content is None and state.xattrs is None
    return (before.content, before.xattrs) == (state.content, state.xattrs)


def _key(by: By, paths: DirectoryPaths, record: LogRecord, state: NodeState, depth: int) -> bytes:
    if by == "writer":
        origin = record.operation.origin
        return origin.comm or (b"pid %d" % origin.pid if origin.pid else b"(unknown)")
    if by == "day":
        return b"%d" % (record.operation.time_ns // _DAY_NS)
    if state.parent == ROOT and not state.name:
        return b""
    try:
        path = os.path.join(paths.path(state.parent, record.seq), state.name)
    except DkfsError:
        return b"(gone)"
    return b"/".join(path.split(b"/")[:depth])


class _Seen:
    """The blobs reached so far, and what was found of each when it was reached first."""

    def __init__(self, reader: Reader, savings: Savings) -> None:
        self.stored: dict[bytes, int] = {}  # by the beginning of the id
        self._reader = reader
        self._savings = savings

    def add(self, state: NodeState) -> tuple[int, int]:
        """Reach what *state* refers to; return the plain bytes of new chunks, and what all new blobs take."""
        savings = self._savings
        before = savings.chunk_bytes, savings.stored_bytes + savings.metadata_bytes
        if state.attr.kind is Kind.FILE and not state.is_forgotten:
            savings.contents += 1
            savings.full_bytes += state.attr.size
        if state.xattrs is not None:
            self._reach(state.xattrs, is_chunk=False)
        if state.content is not None:
            if state.is_manifest:
                self._walk(state.content)
            else:
                self._reach(state.content, is_chunk=True)
        stored = savings.stored_bytes + savings.metadata_bytes
        return savings.chunk_bytes - before[0], stored - before[1]

    def _walk(self, root: BlobId) -> None:
        nodes = [root]
        while nodes:
            blob = nodes.pop()
            if not self._reach(blob, is_chunk=False):
                continue
            try:
                node = decode_manifest_node(self._reader.blob(blob))
            except CorruptError:
                self._savings.damaged += 1
                continue
            for entry in node.entries:
                if entry.blob is None:
                    continue
                if node.level:
                    nodes.append(entry.blob)
                else:
                    self._reach(entry.blob, is_chunk=True)

    def _reach(self, blob: BlobId, *, is_chunk: bool) -> bool:
        """Count *blob* and the bases of its delta unless they are known; return whether it was new."""
        if blob[:_PREFIX] in self.stored:
            return False
        pending = [blob]
        while pending:
            blob = pending.pop()
            if blob[:_PREFIX] in self.stored:
                continue
            self.stored[blob[:_PREFIX]] = 0
            try:
                location = self._reader.location(blob)
                if location is None:
                    raise CorruptError(f"blob {blob.hex()} is not in the store")
                if location.depth:
                    pending += self._reader.bases(blob, location)
            except CorruptError:
                self._savings.damaged += 1
                continue
            self.stored[blob[:_PREFIX]] = location.stored_length
            self._count(location.encoding, location.length, location.stored_length, is_chunk)
        return True

    def _count(self, encoding: int, length: int, stored: int, is_chunk: bool) -> None:  # noqa: FBT001 - private
        savings = self._savings
        savings.blobs += 1
        if not is_chunk:
            savings.metadata_bytes += stored
            return
        savings.chunks += 1
        savings.chunk_bytes += length
        savings.stored_bytes += stored
        if encoding == ZSTD:
            savings.compression_bytes += length - stored
        elif encoding != PLAIN:
            savings.delta_bytes += length - stored
