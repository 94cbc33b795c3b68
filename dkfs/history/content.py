"""Reads contents and extended attributes out of the store: every byte checked, or CorruptError."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from dkfs.core import codec
from dkfs.errors import CorruptError, UsageError
from dkfs.model.ids import BlobId
from dkfs.model.node import Chunk, Kind, NodeState
from dkfs.store import Reader


class Contents:
    """The bytes of one file at one version, for reading here and there.

    Knows the chunks, holds no Reader: it may be kept as long as the file is open.
    """

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks = tuple(chunks)
        self._ends = tuple(accumulate(chunk.length for chunk in chunks))
        self._last: tuple[BlobId, bytes] | None = None  # neighbouring reads want the same blob

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self._ends[-1] if self._ends else 0

    def read(self, reader: Reader, offset: int, length: int) -> bytes:
        """Return the bytes in [offset, offset + length), fewer at the end of the file."""
        end = min(offset + length, self.size)
        if offset < 0 or length < 0:
            raise UsageError(f"cannot read {length} bytes at {offset}: expected no negative number")
        parts: list[bytes] = []
        index = bisect_right(self._ends, offset)
        while offset < end:
            chunk, chunk_end = self.chunks[index], self._ends[index]
            stop = min(end, chunk_end)
            if chunk.blob is None:
                parts.append(bytes(stop - offset))
            else:
                start = chunk_end - chunk.length
                parts.append(self._data(reader, chunk, chunk.blob)[offset - start : stop - start])
            offset = stop
            index += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _data(self, reader: Reader, chunk: Chunk, blob: BlobId) -> bytes:
        if self._last is not None and self._last[0] == blob:
            return self._last[1]
        data = reader.blob(blob)
        if len(data) != chunk.length:
            raise CorruptError(
                f"blob {blob.hex()} has {len(data)} bytes, its chunk expects {chunk.length}"
            )
        self._last = (blob, data)
        return data


def contents(reader: Reader, state: NodeState) -> Contents:
    """Return the contents of the file *state*; raises UsageError if it is not a file, CorruptError."""
    if state.attr.kind is not Kind.FILE:
        raise UsageError(f"a {state.attr.kind.name} has no contents to read: expected a FILE")
    return Contents(chunks(reader, state))


def read(reader: Reader, state: NodeState, offset: int, length: int) -> bytes:
    """Return bytes of the file *state*, fewer at its end; see Contents, which is for more than one read."""
    return contents(reader, state).read(reader, offset, length)


def chunks(reader: Reader, state: NodeState) -> tuple[Chunk, ...]:
    """Return the chunks of a file, which together are exactly its size; () for anything but a file."""
    size = state.attr.size
    if state.attr.kind is not Kind.FILE or size == 0:
        return ()
    if state.content is None:
        return (Chunk(size, None),)
    if not state.is_manifest:
        return (Chunk(size, state.content),)
    found = codec.decode_manifest(reader.blob(state.content))
    covered = sum(chunk.length for chunk in found)
    if covered != size:
        raise CorruptError(
            f"manifest {state.content.hex()} covers {covered} bytes of a file of {size} bytes"
        )
    return tuple(found)


def pieces(reader: Reader, state: NodeState) -> Iterator[tuple[int, Chunk]]:
    """Yield the chunks of a file with the offset of each."""
    offset = 0
    for chunk in chunks(reader, state):
        yield offset, chunk
        offset += chunk.length


def xattrs(reader: Reader, state: NodeState) -> dict[bytes, bytes]:
    """Return the extended attributes by name."""
    if state.xattrs is None:
        return {}
    return codec.decode_xattrs(reader.blob(state.xattrs))
