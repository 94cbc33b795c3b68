"""Writes the contents of a file from verified chunks: into a new file, or into one that is in use.

Every chunk is read and checked before the file is changed, so a damaged chunk leaves the file as it was.
"""

import ctypes
import errno
import os
from collections.abc import Iterator, Sequence

from dkfs.errors import CorruptError
from dkfs.history import content
from dkfs.model.ids import BlobId
from dkfs.model.node import Chunk, NodeState
from dkfs.store import Reader

_KEPT = (
    8 * 1024 * 1024
)  # bytes of checked chunks held until they are written; beyond, they are read twice
_PUNCH_HOLE = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE: linux/falloc.h
_ZEROS = bytes(64 * 1024)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

_Piece = tuple[int, Chunk]  # offset in the file


def write_new(fd: int, reader: Reader, state: NodeState) -> int:
    """Write the contents of *state* into the empty file *fd*; return the bytes written.

    Raises CorruptError, and then the file is not to be kept, and OSError.
    """
    size = state.attr.size
    if state.content is not None and not state.is_manifest:
        data = _checked(reader, state.content, size)
        _write(fd, data, 0)
        return size
    written = end = 0
    for offset, chunk in content.pieces(reader, state):
        if chunk.blob is not None:
            _write(fd, _checked(reader, chunk.blob, chunk.length), offset)
            written += chunk.length
            end = offset + chunk.length
    if end < size:
        os.ftruncate(fd, size)
    return written


def rewrite(fd: int, reader: Reader, old: NodeState | None, new: NodeState) -> int:
    """Make the contents of the open file *fd* those of *new*, in place; return the bytes written.

    *old* says what they are now; None: not known, every chunk is compared.  Raises CorruptError, and then nothing
    was changed, and OSError.
    """
    pieces = tuple(content.pieces(reader, new))
    if old is None:
        differing = [piece for piece in pieces if not _is_there(fd, reader, *piece)]
    else:
        there = set(content.pieces(reader, old))
        differing = [piece for piece in pieces if piece not in there]
    return _put(fd, reader, differing, new.attr.size)


def is_equal(fd: int, reader: Reader, state: NodeState) -> bool:
    """Return whether the file *fd* has the contents of *state*; raises CorruptError and OSError."""
    if os.fstat(fd).st_size != state.attr.size:
        return False
    return all(_is_there(fd, reader, *piece) for piece in content.pieces(reader, state))


def _put(fd: int, reader: Reader, pieces: Sequence[_Piece], size: int) -> int:
    kept: dict[int, bytes] = {}
    held = 0
    for offset, chunk in pieces:
        if chunk.blob is not None:
            data = _checked(reader, chunk.blob, chunk.length)
            if held + len(data) <= _KEPT:
                kept[offset] = data
                held += len(data)
    written = 0
    for offset, chunk in pieces:
        if chunk.blob is None:
            _punch(fd, offset, chunk.length)
            continue
        data = kept.pop(offset, b"") or _checked(reader, chunk.blob, chunk.length)
        _write(fd, data, offset)
        written += chunk.length
    if os.fstat(fd).st_size != size:
        os.ftruncate(fd, size)
    return written


def _checked(reader: Reader, blob: BlobId, length: int) -> bytes:
    data = reader.blob(blob)
    if len(data) != length:
        raise CorruptError(f"blob {blob.hex()} has {len(data)} bytes, its chunk expects {length}")
    return data


def _is_there(fd: int, reader: Reader, offset: int, chunk: Chunk) -> bool:
    if chunk.blob is not None:
        return os.pread(fd, chunk.length, offset) == _checked(reader, chunk.blob, chunk.length)
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
