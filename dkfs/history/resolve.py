"""From a change to a state: merges what changed with what the node was before."""

import logging
from collections import OrderedDict
from dataclasses import dataclass, replace

from dkfs.core import codec
from dkfs.core.content import Run, splice
from dkfs.errors import CorruptError
from dkfs.history.change import NodeChange, attr_of
from dkfs.history.frozen import Frozen
from dkfs.history.intake import is_zero, put_content
from dkfs.model.ids import ROOT, BlobId, NodeId
from dkfs.model.node import Chunk, Kind, NodeState
from dkfs.store import Writer

log = logging.getLogger(__name__)

_STATES = 4096  # states kept, so that a busy file is not decoded again and again
_MANIFESTS = 64


@dataclass(slots=True)
class Counts:
    """What one transaction stored."""

    plain_bytes: int = 0
    stored_bytes: int = 0
    chunks_new: int = 0
    chunks_reused: int = 0


class Resolver:
    """Resolves the changes of one transaction after the other, in log order."""

    def __init__(self) -> None:
        self._states: OrderedDict[NodeId, NodeState] = OrderedDict()
        self._manifests: OrderedDict[BlobId, tuple[Chunk, ...]] = OrderedDict()
        self.counts = Counts()

    def begin(self) -> None:
        """Start a transaction: count from zero."""
        self.counts = Counts()

    def forget(self) -> None:
        """Forget all states: the last transaction was not committed, or somebody else wrote."""
        self._states.clear()
        self._manifests.clear()

    def state(self, writer: Writer, change: NodeChange) -> NodeState:
        """Return the node's new state, with its contents in the store; see intake for errors."""
        before = self._states.get(change.node)
        if before is None:
            before = writer.node(change.node, writer.last)
        after = self._merge(writer, change, before)
        self._states[change.node] = after
        self._states.move_to_end(change.node)
        if len(self._states) > _STATES:
            self._states.popitem(last=False)
        return after

    def _merge(self, writer: Writer, change: NodeChange, before: NodeState | None) -> NodeState:
        attr = attr_of(change.status)
        content = before.content if before else None
        is_manifest = before.is_manifest if before else False
        if attr.kind is Kind.FILE:
            if change.contents is not None:
                attr = replace(attr, size=change.contents.size)
                content, is_manifest = self._content(writer, change.contents, before)
            else:
                # A size without its contents was never a state of the file.
                attr = replace(attr, size=before.attr.size if before else 0)
        if change.xattrs is None:
            xattrs = before.xattrs if before else None
        elif change.xattrs:
            xattrs = writer.put_blob(codec.encode_xattrs(change.xattrs))[0]
        else:
            xattrs = None
        return NodeState(
            attr=attr,
            parent=change.link.parent if change.link else before.parent if before else ROOT,
            name=change.link.name if change.link else before.name if before else b"",
            content=content,
            is_manifest=is_manifest,
            target=change.target if change.target is not None else before.target if before else b"",
            xattrs=xattrs,
        )

    def _content(
        self, writer: Writer, frozen: Frozen, before: NodeState | None
    ) -> tuple[BlobId | None, bool]:
        runs: list[Run] = []
        run: list[Chunk] = []
        position = -1
        for offset, data, length in frozen.cells():
            if offset != position:
                run = []
                runs.append((offset, run))
            run.append(self._chunk(writer, data, length))
            position = offset + length
        if len(runs) == 1 and runs[0][0] == 0 and position == frozen.size:
            chunks = tuple(runs[0][1])  # all of it is fresh
        else:
            try:
                old = self._chunks(writer, before)
            except CorruptError as exc:
                # Damage stays contained: this file is refused until all of it is written, others go on.
                log.error("a file whose contents in the store are damaged was changed: %s", exc)  # noqa: TRY400
                return (before.content, before.is_manifest) if before else (None, False)
            chunks = splice(old, runs, frozen.size)
        content, is_manifest = put_content(writer, chunks)
        if is_manifest and content is not None:
            self._manifests[content] = chunks
            if len(self._manifests) > _MANIFESTS:
                self._manifests.popitem(last=False)
        return content, is_manifest

    def _chunk(self, writer: Writer, data: bytes | None, length: int) -> Chunk:
        counts = self.counts
        counts.plain_bytes += length
        if data is None or is_zero(data):
            return Chunk(length, None)
        blob, added, _ = writer.put_blob(data)
        if added:
            counts.chunks_new += 1
            counts.stored_bytes += added
        else:
            counts.chunks_reused += 1
        return Chunk(length, blob)

    def _chunks(self, writer: Writer, before: NodeState | None) -> tuple[Chunk, ...]:
        if before is None or before.attr.size == 0:
            return ()
        if before.content is None:
            return (Chunk(before.attr.size, None),)
        if not before.is_manifest:
            return (Chunk(before.attr.size, before.content),)
        chunks = self._manifests.get(before.content)
        if chunks is None:
            chunks = codec.decode_manifest(writer.blob(before.content))
        return chunks
