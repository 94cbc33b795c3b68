"""Taking a file's bytes into the store: chunks, holes and manifests."""

import errno
import os
from collections.abc import Iterator, Sequence

from dkfs.core import codec
from dkfs.core.content import CHUNK_SIZE, is_all_hole
from dkfs.model.ids import BlobId
from dkfs.model.node import Chunk
from dkfs.store import Writer

_ZEROS = bytes(CHUNK_SIZE)


def take(writer: Writer, fd: int, size: int) -> tuple[BlobId | None, bool]:
    """Store the first *size* bytes of the regular file *fd*; return (content, is_manifest).

    Moves the offset of *fd*.  A file that became shorter meanwhile is padded by a hole.
    Raises OSError from reading and StoreError from writing.
    """
    chunks = [put_chunk(writer, data, length) for _, data, length in cells(fd, 0, size)]
    return put_content(writer, chunks)


def cells(fd: int, start: int, end: int) -> Iterator[tuple[int, bytes | None, int]]:
    """Yield (offset, data, length) of each grid cell in [start, end); data None is a run of holes.

    *start* lies on the grid.  Moves the offset of *fd*.
    """
    data_from = _next_data(fd, start, end)
    while start < end:
        if data_from >= start + CHUNK_SIZE or data_from >= end:
            stop = end if data_from >= end else data_from // CHUNK_SIZE * CHUNK_SIZE
            yield start, None, stop - start
            start = stop
            continue
        length = min(CHUNK_SIZE, end - start)
        yield start, read_cell(fd, start, length), length
        start += length
        if start < end and data_from < start:
            data_from = _next_data(fd, start, end)


def read_cell(fd: int, offset: int, length: int) -> bytes:
    """Return *length* bytes at *offset*, zeros beyond the end of the file."""
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            return data + bytes(length - len(data))
        data += more
    return data


def put_chunk(writer: Writer, data: bytes | None, length: int) -> Chunk:
    """Store one cell; None or only zeros become a hole."""
    if data is None or is_zero(data):
        return Chunk(length, None)
    return Chunk(length, writer.put_blob(data)[0])


def is_zero(data: bytes) -> bool:
    """Return whether *data* is only zeros: such a cell is recorded as a hole."""
    return data == (_ZEROS if len(data) == CHUNK_SIZE else bytes(len(data)))


def put_content(writer: Writer, chunks: Sequence[Chunk]) -> tuple[BlobId | None, bool]:
    """Store the manifest of *chunks* if they need one; return (content, is_manifest)."""
    if is_all_hole(chunks):
        return None, False
    if len(chunks) == 1:
        return chunks[0].blob, False
    return writer.put_blob(codec.encode_manifest(_joined(chunks)))[0], True


def _joined(chunks: Sequence[Chunk]) -> Sequence[Chunk]:
    out: list[Chunk] = []
    for chunk in chunks:
        if chunk.blob is None and out and out[-1].blob is None:
            out[-1] = Chunk(out[-1].length + chunk.length, None)
        else:
            out.append(chunk)
    return out


def _next_data(fd: int, start: int, end: int) -> int:
    """Return the offset of the first data at or after *start*; *end* if there is none."""
    try:
        return os.lseek(fd, start, os.SEEK_DATA)
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            return end
        if exc.errno == errno.EINVAL:  # the file system knows no holes
            return start
        raise
