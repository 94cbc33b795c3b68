"""Whether everything that a state received needs is in the store: nothing is recorded that could not be read."""

from collections.abc import Iterator

from dkfs.core import codec
from dkfs.core.location import LOST, BlobLocation
from dkfs.core.manifest import ManifestNode, decode_manifest_node
from dkfs.errors import CorruptError
from dkfs.model.ids import BlobId
from dkfs.model.node import Kind, NodeState
from dkfs.store import Writer

_FRESH_LIMIT = 100_000  # ids that came since the last complete version; beyond, every blob counts as one that came
_KNOWN_LIMIT = 100_000  # ids of manifests and attributes of which all is known to be good


class ContentChecker:
    """Checks states against the blobs of one store.

    A manifest that was there before its version was complete when that was committed.  One that came with the stream,
    or that an interrupted one brought, is followed down to what was there.
    """

    def __init__(self) -> None:
        self._fresh: set[BlobId] | None = set()  # None: too many
        self._whole: dict[BlobId, tuple[int, int]] = {}  # bytes covered, level
        self._attributes: set[BlobId] = set()

    def came(self, blob: BlobId) -> None:
        """Take note that *blob* was in the stream."""
        if self._fresh is not None:
            self._fresh.add(blob)
            if len(self._fresh) > _FRESH_LIMIT:
                self._fresh = None

    def version_complete(self) -> None:
        """What came is now part of a version that is checked."""
        self._fresh = set()

    def check(self, writer: Writer, state: NodeState) -> None:
        """Raise CorruptError unless all that *state* refers to is there, and as it says."""
        if state.xattrs is not None:
            self._check_xattrs(writer, state.xattrs)
        if state.content is None:
            return
        attr = state.attr
        if attr.kind is not Kind.FILE:
            raise CorruptError(f"a {attr.kind.name} with contents")
        if state.is_manifest:
            self._check_tree(writer, state.content, attr.size)
        else:
            _expect(writer, state.content, attr.size)

    def _check_xattrs(self, writer: Writer, blob: BlobId) -> None:
        if blob in self._attributes or _location(writer, blob).encoding == LOST:
            return
        codec.decode_xattrs(writer.blob(blob))
        if len(self._attributes) >= _KNOWN_LIMIT:
            self._attributes.clear()
        self._attributes.add(blob)

    def _check_tree(self, writer: Writer, root: BlobId, size: int) -> None:
        stack: list[tuple[BlobId, int, int | None]] = [(root, size, None)]
        while stack:
            blob, length, level = stack.pop()
            found = self._whole.get(blob)
            if found is None:
                is_fresh = self._is_fresh(blob)
                if _location(writer, blob).encoding == LOST or not (is_fresh or level is None):
                    continue
                node = decode_manifest_node(writer.blob(blob))
                found = sum(entry.length for entry in node.entries), node.level
                if is_fresh:
                    stack += _below(writer, node)
                if len(self._whole) >= _KNOWN_LIMIT:
                    self._whole.clear()
                self._whole[blob] = found
            if found != (length, found[1] if level is None else level):
                raise CorruptError(
                    f"manifest node {blob.hex()} of level {found[1]} covers {found[0]} bytes,"
                    f" need {length}, level {level}"
                )

    def _is_fresh(self, blob: BlobId) -> bool:
        return self._fresh is None or blob in self._fresh


def _below(writer: Writer, node: ManifestNode) -> Iterator[tuple[BlobId, int, int | None]]:
    """Yield the nodes below *node* with their lengths and level; raises CorruptError if a chunk is not there."""
    for entry in node.entries:
        if entry.blob is None:
            continue
        if node.level:
            yield entry.blob, entry.length, node.level - 1
        else:
            _expect(writer, entry.blob, entry.length)


def _location(writer: Writer, blob: BlobId) -> BlobLocation:
    location = writer.location(blob)
    if location is None:
        raise CorruptError(f"the stream lacks blob {blob.hex()}, and so does the store")
    return location


def _expect(writer: Writer, blob: BlobId, length: int) -> None:
    found = _location(writer, blob).length
    if found != length:
        raise CorruptError(f"blob {blob.hex()} has {found} bytes, need {length}")
