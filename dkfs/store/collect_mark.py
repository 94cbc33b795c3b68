"""What is alive: every blob that a state refers to, and what those blobs need themselves.

A state refers to its contents and its extended attributes; a node of a manifest to what is below it; a blob that is
stored as a difference to its bases.  What cannot be followed because it is damaged stops the collection: what it led
to might be dead only because nobody can see that it is not.
"""

from collections.abc import Iterable

from dkfs.core.manifest import decode_manifest_node
from dkfs.errors import CorruptError
from dkfs.model.ids import BlobId
from dkfs.model.node import NodeState
from dkfs.store.collect_table import BASE, DELTA, LIVE, LOST, WALKED, BlobTable
from dkfs.store.reader import Reader

_PENDING = 65536  # blobs that are held back, so that they are read in the order in which they lie on the disk


class Marker:
    """Marks in a table what is alive."""

    def __init__(self, table: BlobTable) -> None:
        self.table = table
        self._nodes: list[BlobId] = []  # of manifests, not yet looked into
        self._deltas: list[BlobId] = []  # whose bases are not yet looked up

    def mark(self, reader: Reader, states: Iterable[NodeState]) -> None:
        """Mark what *states* refer to; raises CorruptError if something cannot be followed."""
        for state in states:
            if state.xattrs is not None:
                self._reach(state.xattrs)
            if state.content is not None:
                self._reach(state.content, is_node=state.is_manifest)
            if len(self._nodes) + len(self._deltas) >= _PENDING:
                self._follow(reader)
        self._follow(reader)

    def keep(self, reader: Reader, blobs: Iterable[BlobId]) -> None:
        """Mark *blobs*, and their bases."""
        for blob in blobs:
            self._reach(blob)
        self._follow(reader)

    def _reach(self, blob: BlobId, *, is_node: bool = False) -> None:
        marks = self.table.marks
        for number in self.table.find(blob):
            was = marks[number]
            if was & LOST:
                marks[number] = was | LIVE
                continue
            if not was & LIVE and was & DELTA:
                self._deltas.append(blob)
            if is_node and not was & WALKED:
                self._nodes.append(blob)
            marks[number] = was | (LIVE | WALKED if is_node else LIVE)

    def _follow(self, reader: Reader) -> None:
        while self._nodes or self._deltas:
            nodes, self._nodes = self._nodes, []
            for blob in self._in_order(nodes):
                self._look_into(reader, blob)
            deltas, self._deltas = self._deltas, []
            for blob in self._in_order(deltas):
                location = reader.location(blob)
                if location is not None:
                    for base in reader.bases(blob, location):
                        self._reach(base)
                        for number in self.table.find(base):
                            self.table.marks[number] |= BASE

    def _look_into(self, reader: Reader, blob: BlobId) -> None:
        try:
            node = decode_manifest_node(reader.blob(blob))
        except CorruptError as exc:
            raise CorruptError(f"{exc}; `dkfs check --repair` comes first") from exc
        for chunk in node.entries:
            if chunk.blob is not None:
                self._reach(chunk.blob, is_node=node.level > 0)

    def _in_order(self, blobs: list[BlobId]) -> list[BlobId]:
        return sorted(blobs, key=lambda blob: self.table.place(self.table.find(blob)[0]))
