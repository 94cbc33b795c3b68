"""Whether contents are as long as they should be, through all levels of their manifests."""

from dkfs.core.manifest import decode_manifest_node
from dkfs.errors import CorruptError
from dkfs.model.ids import BlobId
from dkfs.model.node import Kind
from dkfs.store.reader import Reader


class TreeChecker:
    """Looks at each blob once, in whatever state it is found first."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._seen: set[tuple[BlobId, Kind | None, int]] = set()
        self._nodes: dict[BlobId, tuple[int, int]] = {}  # of manifests: level, bytes covered

    def is_new(self, blob: BlobId, kind: Kind | None, size: int) -> bool:
        """Return whether these contents were not looked at yet."""
        key = (blob, kind, size)
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def length(self, blob: BlobId, *, is_manifest: bool) -> int:
        """Return how many bytes the contents *blob* have; raises CorruptError."""
        return self._tree_length(blob, None) if is_manifest else self._blob_length(blob)

    def _tree_length(self, blob: BlobId, level: int | None) -> int:
        """Return what the manifest's node *blob* covers; None: it is the root, of any level."""
        found = self._nodes.get(blob)
        if found is None:
            # A level below is one less, so this ends.
            node = decode_manifest_node(self._reader.blob(blob))
            length = 0
            for entry in node.entries:
                length += entry.length
                if entry.blob is not None:
                    self._expect(entry.blob, entry.length, node.level)
            found = self._nodes[blob] = node.level, length
        if level is not None and found[0] != level:
            raise CorruptError(
                f"node {blob.hex()} of a manifest has level {found[0]}, need {level}"
            )
        return found[1]

    def _expect(self, blob: BlobId, length: int, level: int) -> None:
        if not level:
            if self._blob_length(blob) != length:
                raise CorruptError(f"chunk {blob.hex()} is not {length} bytes")
        elif self._tree_length(blob, level - 1) != length:
            raise CorruptError(f"node {blob.hex()} of a manifest does not cover {length} bytes")

    def _blob_length(self, blob: BlobId) -> int:
        location = self._reader.location(blob)
        if location is None:
            raise CorruptError(f"blob {blob.hex()} is not in the store")
        return location.length
