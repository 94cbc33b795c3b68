"""Puts the contents of files into the store, and counts what that took."""

from collections import Counter
from dataclasses import dataclass, field

from dkfs.core.delta import Like, common_ends
from dkfs.core.location import DELTAS
from dkfs.errors import CorruptError
from dkfs.model.ids import BlobId
from dkfs.store import Writer

# Below this there is nothing to gain: a delta names its base by 33 bytes.
_LIKE_LEAST = 256  # bytes


@dataclass(slots=True)
class Counts:
    """What one transaction stored."""

    plain_bytes: int = 0  # contents as the application wrote them
    stored_bytes: int = 0  # what they added to the segments, manifests included
    chunks_new: int = 0
    chunks_reused: int = 0
    # Of the chunks that were put, old bytes between the new ones included: what they did not take, by cause.
    saved_by_dedup: int = 0  # bytes
    saved_by_delta: int = 0
    saved_by_compression: int = 0
    encodings: Counter[int] = field(default_factory=Counter)  # of the new chunks
    chunked_s: list[float] = field(default_factory=list)  # for each file of several chunks


class Puts:
    """One transaction's."""

    def __init__(self, writer: Writer, counts: Counts) -> None:
        self._writer = writer
        self._counts = counts

    def reuse(self, data: bytes) -> BlobId | None:
        """Return the name of *data* if it is in the store; raises StoreError."""
        blob = self._writer.find_blob(data)
        if blob is not None:
            self._reused(data)
        return blob

    def put(self, data: bytes, like: Like | None = None) -> tuple[BlobId, bool]:
        """Store a chunk; return its name, and whether it is stored as a delta now; raises StoreError."""
        if len(data) < _LIKE_LEAST:
            like = None
        blob, added, encoding = self._writer.put_blob(data, like=like)
        if encoding is None:
            self._reused(data)
            return blob, False
        counts = self._counts
        is_delta = encoding in DELTAS
        counts.chunks_new += 1
        counts.stored_bytes += added
        counts.encodings[encoding] += 1
        saved = max(0, len(data) - added)
        if is_delta:
            counts.saved_by_delta += saved
        else:
            counts.saved_by_compression += saved
        return blob, is_delta

    def put_node(self, data: bytes, old: BlobId | None) -> BlobId:
        """Store a node of a manifest, which mostly took the place of *old*; see manifest_update.Put."""
        like = None
        if old is not None and len(data) >= _LIKE_LEAST:
            try:
                like = Like((old,), common_ends(data, self._writer.blob(old)))
            except CorruptError:
                like = None  # whoever reads the old version will be told
        blob, added, _ = self._writer.put_blob(data, like=like)
        self._counts.stored_bytes += added
        return blob

    def _reused(self, data: bytes) -> None:
        self._counts.chunks_reused += 1
        self._counts.saved_by_dedup += len(data)
