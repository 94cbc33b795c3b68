"""Writes the contents of a file from verified chunks: into a new file, or into one that is in use.

Every chunk is read and checked before a file in use is changed, so a damaged chunk leaves it as it was.  Blocks of zeros
become holes, also those inside of chunks.
"""

import ctypes
import errno
import os
from collections.abc import Iterator, Sequence

from dkfs.core.diff import differing_ranges
from dkfs.failpoints import failpoint
from dkfs.history import content
from dkfs.model.node import Chunk, NodeState
from dkfs.store import Reader

_KEPT = (
    8 * 1024 * 1024
)  # bytes of checked chunks held until they are written; beyond, they are read twice
_PUNCH_HOLE = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE: linux/falloc.h
_ZEROS = bytes(64 * 1024)
_BLOCK = bytes(4096)  # what a file system can leave out

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

_Piece = tuple[int, Chunk]  # offset in the file


def write_new(fd: int, reader: Reader, state: NodeState) -> int:
    """Write the contents of *state* into the empty file *fd*; return the bytes of its chunks.

    Raises CorruptError, and then the file is not to be kept, ForgottenError and OSError.
    """
    written = end = 0
    for offset, chunk in content.pieces(reader, state):
        if chunk.blob is None:
            continue
        data = content.chunk_data(reader, chunk)
        for start, stop in data_runs(data, offset):
            _write(fd, data[start:stop], offset + start)
            end = offset + stop
        written += chunk.length
    if end < state.attr.size:
        os.ftruncate(fd, state.attr.size)
    return written


def rewrite(fd: int, reader: Reader, old: NodeState | None, new: NodeState) -> int:
    """Make the contents of the open file *fd* those of *new*, in place; return the bytes written.

    *old* says what they are now; None: not known, every chunk is compared.  Raises CorruptError and ForgottenError, and
    then nothing was changed, and OSError.
    """
    if old is None or old.is_forgotten:
        pieces = content.pieces(reader, new)
        differing = [piece for piece in pieces if not _is_there(fd, reader, *piece)]
    else:
        differing = list(_differing(reader, old, new))
    return _put(fd, reader, differing, new.attr.size)


def is_equal(fd: int, reader: Reader, state: NodeState) -> bool:
    """Return whether the file *fd* has the contents of *state*; raises CorruptError, ForgottenError and OSError."""
    pieces = content.pieces(reader, state)
    if os.fstat(fd).st_size != state.attr.size:
        return False
    return all(_is_there(fd, reader, *piece) for piece in pieces)


def _differing(reader: Reader, old: NodeState, new: NodeState) -> Iterator[_Piece]:
    """Yield the chunks of *new* that *old* has not at the same place; a hole perhaps twice."""
    chunks = content.manifest(reader, new)
    for start, end in differing_ranges(content.manifest(reader, old), chunks):
        yield from chunks.pieces(start, end)


def _put(fd: int, reader: Reader, pieces: Sequence[_Piece], size: int) -> int:
    kept: dict[int, bytes] = {}
    held = 0
    for offset, chunk in pieces:
        if chunk.blob is not None:
            data = content.chunk_data(reader, chunk)
            if held + len(data) <= _KEPT:
                kept[offset] = data
                held += len(data)
    written = 0
    for offset, chunk in pieces:
        if chunk.blob is None:
            _punch(fd, offset, chunk.length)
            continue
        data = kept.pop(offset, b"") or content.chunk_data(reader, chunk)
        done = 0
        for start, stop in data_runs(data, offset):
            _punch(fd, offset + done, start - done)
            _write(fd, data[start:stop], offset + start)
            done = stop
        _punch(fd, offset + done, len(data) - done)
        written += chunk.length
    if os.fstat(fd).st_size != size:
        os.ftruncate(fd, size)
    return written


def data_runs(data: bytes, offset: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of *data*, which starts at *offset* in the file, between the blocks that are all zero."""
    start, size = 0, len(_BLOCK)
    first = -offset % size
    heads = data[first::size]  # one byte of each block tells nearly always that it is not zero
    block = heads.find(0)
    while block >= 0:
        at = first + block * size
        if data.startswith(_BLOCK, at):
            if start < at:
                yield start, at
            start = at + size
        block = heads.find(0, block + 1)
    if start < len(data):
        yield start, len(data)


def _is_there(fd: int, reader: Reader, offset: int, chunk: Chunk) -> bool:
    if chunk.blob is not None:
        return os.pread(fd, chunk.length, offset) == content.chunk_data(reader, chunk)
    if offset + chunk.length > os.fstat(fd).st_size:
        return False
    try:
        if os.lseek(fd, offset, os.SEEK_DATA) >= offset + chunk.length:
            return True
    except OSError as exc:
        if exc.errno == errno.ENXIO:  # no data from here to the end
            return True
        if exc.errno != errno.EINVAL:  # the file system knows no holes
            raise
    return all(
        os.pread(fd, length, start) == _ZEROS[:length]
        for start, length in _cells(offset, chunk.length)
    )


def _cells(offset: int, length: int) -> Iterator[tuple[int, int]]:
    for start in range(offset, offset + length, len(_ZEROS)):
        yield start, min(len(_ZEROS), offset + length - start)


def _write(fd: int, data: bytes, offset: int) -> None:
    failpoint("contents.write")
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        done += os.pwrite(fd, memoryview(data)[done:], offset + done)


def _punch(fd: int, offset: int, length: int) -> None:
    """Make a hole; zeros where the file system has none.  The file's end is the caller's."""
    length = min(length, os.fstat(fd).st_size - offset)
    if length <= 0 or _libc.fallocate(fd, _PUNCH_HOLE, offset, length) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.ENOTSUP, errno.ENOSYS):
        raise OSError(code, os.strerror(code))
    for start, part in _cells(offset, length):
        _write(fd, _ZEROS[:part], start)
