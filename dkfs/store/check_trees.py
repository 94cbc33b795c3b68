"""Whether the contents of states are there and as long as they should be, through all levels of their manifests."""

from typing import NamedTuple

from dkfs.core import codec
from dkfs.core.location import LOST
from dkfs.core.manifest import ManifestNode, decode_manifest_node
from dkfs.errors import CorruptError, StoreError
from dkfs.model.ids import BlobId, NodeId, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.store.damage import DamageKind, Notes
from dkfs.store.reader import Reader


class _Covered(NamedTuple):
    """What a node of a manifest is."""

    level: int
    length: int  # bytes that it covers


class _KnownError(Exception):
    """What cannot be told because of a damage that was noted."""


class TreeChecker:
    """Looks at each blob once, in whatever state it is found first."""

    def __init__(self, reader: Reader, notes: Notes) -> None:
        self._reader = reader
        self._notes = notes
        self._seen: set[tuple[BlobId, Kind | None, int]] = set()
        self._nodes: dict[BlobId, _Covered | None] = {}  # of manifests; None: damaged
        self._at: tuple[Seq, NodeId] = (Seq(0), NodeId(0))

    def check(self, state: NodeState, seq: Seq, node: NodeId) -> None:
        """Look at what *state*, that of *node* at *seq*, refers to."""
        self._at = seq, node
        attr = state.attr
        if state.xattrs is not None and self._is_new(state.xattrs, None, 0):
            self._check_xattrs(state.xattrs)
        if state.content is None or not self._is_new(state.content, attr.kind, attr.size):
            return
        if attr.kind is not Kind.FILE:
            self._add(f"node {node} has contents and is no file", state.content)
            return
        try:
            if state.is_manifest:
                length = self._tree(state.content, None).length
            else:
                length = self._blob(state.content, attr.size)
        except _KnownError:
            return
        if length != attr.size:
            self._add(f"contents of {length} bytes, node {node} has {attr.size}", state.content)

    def _is_new(self, blob: BlobId, kind: Kind | None, size: int) -> bool:
        key = (blob, kind, size)
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def _check_xattrs(self, blob: BlobId) -> None:
        try:
            data = self._read(blob)
            codec.decode_xattrs(data)
        except _KnownError:
            pass
        except CorruptError as exc:
            self._add(str(exc), blob)

    def _tree(self, blob: BlobId, level: int | None) -> _Covered:
        """Return what the manifest's node *blob* covers; None: it is the root, of any level."""
        if blob not in self._nodes:
            self._nodes[blob] = None
            self._nodes[blob] = self._cover(blob)
        found = self._nodes[blob]
        if found is None:
            raise _KnownError
        if level is not None and found.level != level:
            self._add(
                f"node {blob.hex()} of a manifest has level {found.level}, need {level}", blob
            )
            raise _KnownError
        return found

    def _cover(self, blob: BlobId) -> _Covered:
        try:
            node = decode_manifest_node(self._read(blob))
        except CorruptError as exc:
            self._add(str(exc), blob)
            raise _KnownError from None
        for entry in node.entries:
            if entry.blob is not None:
                self._expect(blob, node, entry.blob, entry.length)
        return _Covered(node.level, sum(entry.length for entry in node.entries))

    def _expect(self, blob: BlobId, node: ManifestNode, below: BlobId, length: int) -> None:
        """The blob *below* *node* has, or covers, *length* bytes."""
        try:
            if not node.level:
                if self._blob(below, length) != length:
                    self._add(f"chunk {below.hex()} is not {length} bytes", blob)
            elif self._tree(below, node.level - 1).length != length:  # so this ends
                self._add(f"node {below.hex()} of a manifest does not cover {length} bytes", blob)
        except _KnownError:
            pass

    def _blob(self, blob: BlobId, length: int) -> int:
        """Return the length of *blob*; *length* is what it should be, should it be missing."""
        try:
            location = self._reader.location(blob)
        except CorruptError:
            raise _KnownError from None  # its row is a damage of its own
        if location is None:
            self._add_unreadable(f"blob {blob.hex()} is not in the store", blob, length)
            raise _KnownError
        return location.length

    def _read(self, blob: BlobId) -> bytes:
        try:
            location = self._reader.location(blob)
            if location is not None and location.encoding == LOST:
                raise _KnownError
            return self._reader.blob(blob)
        except (CorruptError, StoreError) as exc:
            self._add_unreadable(str(exc), blob)
            raise _KnownError from None

    def _add(self, message: str, blob: BlobId) -> None:
        """Note that *blob* is sound, and not what it should be."""
        self._notes.add(message, *self._at, blob)

    def _add_unreadable(self, message: str, blob: BlobId, length: int = 0) -> None:
        self._notes.add(message, *self._at, blob, kind=DamageKind.BLOB, length=length)
