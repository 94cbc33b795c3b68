"""The contents of a file before it was changed: its chunks and, where they are needed, its bytes."""

from collections.abc import Iterator
from typing import Protocol

from dkfs.core.extents import within
from dkfs.core.location import BlobLocation
from dkfs.core.manifest import Manifest
from dkfs.errors import CorruptError
from dkfs.history.frozen import Frozen
from dkfs.model.ids import BlobId
from dkfs.model.node import Chunk, Kind, NodeState


class Blobs(Protocol):
    """Where blobs are read from: a Reader, or whatever has one."""

    def blob(self, blob: BlobId) -> bytes:
        """See Reader."""
        ...

    def location(self, blob: BlobId) -> BlobLocation | None:
        """See Reader."""
        ...


class Previous:
    """Reads a version's contents here and there; every byte verified, or CorruptError."""

    def __init__(self, blobs: Blobs, manifest: Manifest) -> None:
        self.manifest = manifest
        self.size = manifest.size
        self.chunk_at = manifest.chunk_at
        self.pieces = manifest.pieces
        self._blobs = blobs
        self._last: tuple[BlobId, bytes] | None = None  # neighbouring reads want the same blob

    def over(self, start: int, end: int) -> Iterator[tuple[int, Chunk]]:
        """Yield the chunks that hold bytes of [start, end), with where each starts; raises CorruptError."""
        start, end = max(start, 0), min(end, self.size)
        while start < end:
            offset, chunk = self.chunk_at(start)
            yield offset, chunk
            start = offset + chunk.length

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes in [offset, offset + length), all of them inside the size; raises CorruptError."""
        end = offset + length
        parts = []
        for start, chunk in self.over(offset, end):
            stop = min(end, start + chunk.length)
            if chunk.blob is None:
                parts.append(bytes(stop - max(offset, start)))
            else:
                parts.append(self._data(chunk, chunk.blob)[max(offset - start, 0) : stop - start])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def cost(self, blob: BlobId) -> int:
        """Return how many bytes must be read to have *blob*; raises CorruptError."""
        location = self._blobs.location(blob)
        if location is None:
            raise CorruptError(f"blob {blob.hex()} is not in the store")
        return location.read_cost

    def _data(self, chunk: Chunk, blob: BlobId) -> bytes:
        if self._last is not None and self._last[0] == blob:
            return self._last[1]
        data = self._blobs.blob(blob)
        if len(data) != chunk.length:
            raise CorruptError(
                f"blob {blob.hex()} has {len(data)} bytes, its chunk expects {chunk.length}"
            )
        self._last = (blob, data)
        return data


def contents_of(blobs: Blobs, state: NodeState | None) -> Previous:
    """Return the contents of *state*, of which nothing is loaded yet; none for anything but a file."""
    if state is None or state.attr.kind is not Kind.FILE:
        return Previous(blobs, Manifest(blobs.blob, None, is_manifest=False, size=0))
    manifest = Manifest(
        blobs.blob, state.content, is_manifest=state.is_manifest, size=state.attr.size
    )
    return Previous(blobs, manifest)


class Patched:
    """The bytes of a file after a change: what is frozen, else what was there before, else zeros.  See chunking.Source."""

    def __init__(self, frozen: Frozen, old: Previous) -> None:
        self.size = frozen.size
        self._frozen = frozen
        self._old = old

    def read(self, offset: int, length: int) -> bytes:
        """See Source; raises CorruptError, and OSError from the backing directory."""
        end = offset + length
        parts = []
        for start, stop in within(self._frozen.ranges, offset, end):
            if offset < start:
                parts.append(self._clean(offset, start))
            parts.append(self._frozen.read(start, stop))
            offset = stop
        if offset < end:
            parts.append(self._clean(offset, end))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def hole_end(self, offset: int) -> int:
        """See Source."""
        start = offset
        while start < self.size:
            first, last = next(within(self._frozen.ranges, start, self.size), (self.size,) * 2)
            if start < first:
                start = self._clean_hole_end(start, first)
                if start < first:
                    break
            if first < last:
                start = self._frozen.next_data(first, last)
                if start < last:
                    break
        return start

    def clean(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges of [start, end) that the older contents had just so."""
        end = min(end, self._old.size)
        for first, last in within(self._frozen.ranges, start, end):
            if start < first:
                yield start, first
            start = last
        if start < end:
            yield start, end

    def _clean(self, start: int, end: int) -> bytes:
        size = self._old.size
        if end <= size:
            return self._old.read(start, end - start)
        if start >= size:
            return bytes(end - start)
        return self._old.read(start, size - start) + bytes(end - size)

    def _clean_hole_end(self, start: int, end: int) -> int:
        while start < min(end, self._old.size):
            offset, chunk = self._old.chunk_at(start)
            if chunk.blob is not None:
                return start
            start = offset + chunk.length
        return end
