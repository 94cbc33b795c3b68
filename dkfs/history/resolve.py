"""From a change to a state: merges what changed with what the node was before."""

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace

from dkfs.core import codec
from dkfs.core.chunking import Chunking
from dkfs.core.location import LOST, BlobLocation, encode_blob_location
from dkfs.errors import CorruptError, NotFoundError, UnreadableError
from dkfs.history.change import NodeChange, Pending, attr_of
from dkfs.history.frozen import Frozen
from dkfs.history.intake import take_changed
from dkfs.history.predecessors import Predecessors
from dkfs.history.previous import Previous, contents_of
from dkfs.history.puts import Counts, Puts
from dkfs.history.tree import Tree, shown
from dkfs.model.ids import ROOT, BlobId, NodeId
from dkfs.model.node import Kind, NodeState
from dkfs.store import Writer
from dkfs.store.reach import LOST_NOTE

log = logging.getLogger(__name__)

_STATES = 4096  # states kept, so that a busy file is not decoded again and again
_MANIFESTS = 8  # of files, with some 60 nodes of 15 KB each at most


class Resolver:
    """Resolves the changes of one transaction after the other, in log order."""

    def __init__(self, chunking: Chunking) -> None:
        self._chunking = chunking
        self._states: OrderedDict[NodeId, NodeState] = OrderedDict()
        self._predecessors = Predecessors()
        self._manifests: OrderedDict[BlobId, Previous] = OrderedDict()
        self._writer: Writer | None = None
        self.counts = Counts()
        self._lost: list[NodeId] = []
        self.unreadable: set[NodeId] = set()  # whose contents the backing directory does not give

    def begin(self, batch: Iterable[Pending]) -> None:
        """Start the transaction of *batch*: count from zero."""
        self.counts = Counts()
        self._lost.clear()
        self._predecessors.begin(batch)

    def forget(self) -> None:
        """Forget all states: the last transaction was not committed, or somebody else wrote."""
        self._states.clear()
        self._predecessors.forget()
        self._manifests.clear()

    def state(self, writer: Writer, change: NodeChange) -> NodeState:
        """Return the node's new state, with its contents in the store; see intake for errors."""
        self._writer = writer
        before = self._states.get(change.node)
        if before is None:
            before = writer.node(change.node, writer.last)
        after = self._merge(writer, change, before)
        self._states[change.node] = after
        self._states.move_to_end(change.node)
        if len(self._states) > _STATES:
            self._states.popitem(last=False)
        return after

    def take_lost(self) -> tuple[NodeId, ...]:
        """Return the nodes whose contents could not be composed since the last call."""
        lost, self._lost = tuple(self._lost), []
        return lost

    def _merge(self, writer: Writer, change: NodeChange, before: NodeState | None) -> NodeState:
        attr = attr_of(change.status)
        content = before.content if before else None
        is_manifest = before.is_manifest if before else False
        is_forgotten = before.is_forgotten if before else False
        if attr.kind is Kind.FILE:
            if change.contents is not None:
                attr = replace(attr, size=change.contents.size)
                content, is_manifest = self._content(writer, change, change.contents, before)
                is_forgotten = False
            else:
                # A size without its contents was never a state of the file.
                attr = replace(attr, size=before.attr.size if before else 0)
        if change.xattrs is None:
            xattrs = before.xattrs if before else None
        elif change.xattrs:
            xattrs = writer.put_blob(codec.encode_xattrs(change.xattrs)).blob
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
            is_forgotten=is_forgotten,
        )

    def _content(
        self, writer: Writer, change: NodeChange, frozen: Frozen, before: NodeState | None
    ) -> tuple[BlobId | None, bool]:
        started_s = time.perf_counter()
        counts = self.counts
        counts.plain_bytes += sum(end - start for start, end in frozen.ranges)
        resembled = self._predecessors.of(
            writer,
            change.node,
            before,
            frozen.size,
            is_anew=frozen.ranges == ((0, frozen.size),) or not frozen.size,
        )
        old = self._previous(before)
        try:
            if before is not None and before.is_forgotten:
                raise CorruptError("what the file was before has been forgotten")
            content = take_changed(
                Puts(writer, counts),
                frozen,
                old,
                old if resembled is before else self._previous(resembled),
                self._chunking,
            )
        except CorruptError as exc:
            self.unreadable.discard(change.node)
            why = f"what it was before is damaged, so this version of it is not recorded: {exc}"
            return self._lose(writer, change, why), False
        except UnreadableError as exc:
            self.unreadable.add(change.node)
            return self._lose(writer, change, f"this version of it is not recorded: {exc}"), False
        self.unreadable.discard(change.node)
        if frozen.size > self._chunking.threshold:
            counts.chunked_s.append(time.perf_counter() - started_s)
        return content.blob, content.is_manifest

    def _lose(self, writer: Writer, change: NodeChange, why: str) -> BlobId:
        """Return what contents are recorded as that cannot be had: this version of one file is refused, others go on."""
        self._lost.append(change.node)
        try:
            path = Tree(writer, writer.last).path(change.node)
        except (NotFoundError, CorruptError):
            path = b"node %d" % change.node
        log.error("%s was changed, but %s", shown(path), why)
        # No contents have this name, and it leads to none: nobody gets older bytes for those that are not known.
        name = b"%d at %d" % (change.node, writer.last + 1)
        blob = BlobId(hashlib.sha256(b"contents lost: node " + name).digest())
        writer.put_row("blobs", blob, encode_blob_location(BlobLocation(0, 0, 0, 0, LOST)))
        writer.put_meta(
            LOST_NOTE, b"1"
        )  # the next mount looks for it, if this one does not come to it
        return blob

    def _previous(self, state: NodeState | None) -> Previous:
        if state is None or state.content is None or not state.is_manifest:
            return contents_of(self, state)
        found = self._manifests.get(state.content)
        if found is None or found.size != state.attr.size:
            found = contents_of(self, state)
            self._manifests[state.content] = found
            if len(self._manifests) > _MANIFESTS:
                self._manifests.popitem(last=False)
        return found

    def blob(self, blob: BlobId) -> bytes:
        """See Blobs: contents outlast the transaction in which they were first read."""
        assert self._writer is not None
        return self._writer.blob(blob)

    def location(self, blob: BlobId) -> BlobLocation | None:
        """See Blobs."""
        assert self._writer is not None
        return self._writer.location(blob)
