"""How a file's content is cut into chunks, and how the chunks of its next version follow.

Chunks lie on a fixed grid: a chunk of data starts at a multiple of CHUNK_SIZE and is CHUNK_SIZE long,
except the last of a file; a hole is a run of whole grid cells, or up to the end of the file.
"""

from collections.abc import Iterator, Sequence

from dkfs.errors import CorruptError
from dkfs.model.node import Chunk

CHUNK_SIZE = 64 * 1024  # bytes; part of the format, see docs/format.md

# A run of fresh chunks: the offset of the first, a multiple of CHUNK_SIZE, and the chunks.
Run = tuple[int, Sequence[Chunk]]


def content_size(chunks: Sequence[Chunk]) -> int:
    """Return the number of bytes that *chunks* cover."""
    return sum(chunk.length for chunk in chunks)


def splice(old: Sequence[Chunk], fresh: Sequence[Run], size: int) -> tuple[Chunk, ...]:
    """Return the chunks of a file of *size* bytes: *fresh* where given, else *old*, else a hole.

    *fresh* is sorted by offset and does not overlap itself.  A last chunk of *old* that is shorter
    than the grid must be covered by *fresh* if the file's size changed; raises CorruptError else.
    """
    out: list[Chunk] = []
    cursor = _Cursor(old)
    position = 0
    for offset, chunks in fresh:
        _extend(out, cursor.take(position, offset))
        _extend(out, chunks)
        position = offset + content_size(chunks)
    _extend(out, cursor.take(position, size))
    return tuple(out)


def is_all_hole(chunks: Sequence[Chunk]) -> bool:
    """Return whether *chunks* hold no data at all."""
    return all(chunk.blob is None for chunk in chunks)


def _extend(out: list[Chunk], chunks: Sequence[Chunk] | Iterator[Chunk]) -> None:
    for chunk in chunks:
        if chunk.blob is None and out and out[-1].blob is None:
            out[-1] = Chunk(out[-1].length + chunk.length, None)
        else:
            out.append(chunk)


class _Cursor:
    """Walks the chunks of one version once, from front to back."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = chunks
        self._index = 0
        self._offset = 0  # of chunks[index]

    def take(self, start: int, end: int) -> Iterator[Chunk]:
        """Yield what lies in [start, end), holes where the old version had ended."""
        while start < end:
            self._skip_to(start)
            if self._index == len(self._chunks):
                yield Chunk(end - start, None)
                return
            chunk = self._chunks[self._index]
            stop = min(self._offset + chunk.length, end)
            whole = (self._offset, self._offset + chunk.length)
            if chunk.blob is not None and (start, stop) != whole:
                raise CorruptError(
                    f"chunk of {chunk.length} bytes at {whole[0]} would be cut at {start}..{stop}"
                )
            yield Chunk(stop - start, chunk.blob)
            start = stop

    def _skip_to(self, start: int) -> None:
        while (
            self._index < len(self._chunks)
            and self._offset + self._chunks[self._index].length <= start
        ):
            self._offset += self._chunks[self._index].length
            self._index += 1
