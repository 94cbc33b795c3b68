"""Reads contents and extended attributes out of the store: every byte checked, or CorruptError.

A content is reached from its root: the hash of each node of the manifest and of each chunk is checked on the way down, and
only what leads to the bytes asked for is read.
"""

import threading
from collections.abc import Iterator

from dkfs.core import codec
from dkfs.core.manifest import Manifest
from dkfs.errors import CorruptError, ForgottenError, UsageError
from dkfs.history.tree import shown
from dkfs.model.ids import BlobId, Seq
from dkfs.model.node import Chunk, Kind, NodeState
from dkfs.store import Reader

_KEPT = 16  # nodes of a manifest that an open file keeps: some 20 KB each


class Contents:
    """The bytes of one file at one version, for reading here and there, by any number of threads.

    Holds no Reader, the last chunk and a few nodes of the manifest: it may be kept as long as the file is open.
    """

    def __init__(self, manifest: Manifest) -> None:
        """*manifest* is used by nobody else."""
        self.size = manifest.size  # bytes
        self._manifest = manifest
        self._lock = threading.Lock()  # of the manifest
        self._last: tuple[BlobId, bytes] | None = None  # neighbouring reads want the same chunk

    def read(self, reader: Reader, offset: int, length: int) -> bytes:
        """Return the bytes in [offset, offset + length), fewer at the end of the file; raises CorruptError."""
        if offset < 0 or length < 0:
            raise UsageError(f"cannot read {length} bytes at {offset}: expected no negative number")
        end = min(offset + length, self.size)
        parts: list[bytes] = []
        for start, chunk in self._pieces(reader, offset, end):
            first, last = max(offset - start, 0), min(end - start, chunk.length)
            if chunk.blob is None:
                parts.append(bytes(last - first))
            else:
                parts.append(self._data(reader, chunk, chunk.blob)[first:last])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _pieces(self, reader: Reader, start: int, end: int) -> list[tuple[int, Chunk]]:
        with self._lock:
            self._manifest.load = reader.blob
            return list(self._manifest.pieces(start, end))

    def _data(self, reader: Reader, chunk: Chunk, blob: BlobId) -> bytes:
        last = self._last
        if last is not None and last[0] == blob and len(last[1]) == chunk.length:
            return last[1]
        data = chunk_data(reader, chunk)
        self._last = (blob, data)
        return data


def contents(reader: Reader, state: NodeState) -> Contents:
    """Return the contents of the file *state*.

    Raises UsageError if it is not a file, ForgottenError and CorruptError.
    """
    if state.attr.kind is not Kind.FILE:
        raise UsageError(f"a {state.attr.kind.name} has no contents to read: expected a FILE")
    return Contents(manifest(reader, state))


def read(reader: Reader, state: NodeState, offset: int, length: int) -> bytes:
    """Return bytes of the file *state*, fewer at its end; see Contents, which is for more than one read."""
    return contents(reader, state).read(reader, offset, length)


def manifest(reader: Reader, state: NodeState) -> Manifest:
    """Return the chunks of a file, which together are exactly its size; nothing is read as yet.

    There are none for anything but a file.  Raises ForgottenError.
    """
    if state.is_forgotten:
        raise ForgottenError(f"the contents of {shown(state.name)} were forgotten")
    if state.attr.kind is not Kind.FILE:
        return Manifest(reader.blob, None, is_manifest=False, size=0)
    return Manifest(
        reader.blob,
        state.content,
        is_manifest=state.is_manifest,
        size=state.attr.size,
        kept=_KEPT,
    )


def check_kept(state: NodeState, path: bytes, at: Seq) -> None:
    """Raise ForgottenError if the contents of *state*, which *path* is at version *at*, are not kept any more."""
    if state.is_forgotten:
        raise ForgottenError(f"the contents of {shown(path)} at version {at} were forgotten")


def pieces(
    reader: Reader, state: NodeState, start: int = 0, end: int | None = None
) -> Iterator[tuple[int, Chunk]]:
    """Return the chunks of a file that hold bytes of [start, end), with the offset of each; see manifest()."""
    return manifest(reader, state).pieces(start, end)


def chunk_data(reader: Reader, chunk: Chunk) -> bytes:
    """Return the bytes of *chunk*, which is not a hole; raises CorruptError."""
    assert chunk.blob is not None, "a hole has no bytes"
    data = reader.blob(chunk.blob)
    if len(data) != chunk.length:
        raise CorruptError(
            f"blob {chunk.blob.hex()} has {len(data)} bytes, its chunk expects {chunk.length}"
        )
    return data


def xattrs(reader: Reader, state: NodeState) -> dict[bytes, bytes]:
    """Return the extended attributes by name."""
    if state.xattrs is None:
        return {}
    return codec.decode_xattrs(reader.blob(state.xattrs))
