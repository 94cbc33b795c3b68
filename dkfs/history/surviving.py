"""What of the head is still in the state directory: bytes for blobs that the store has lost.

Whether they are still the same is not for this module to say: who asks compares them with the ids.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import suppress

from dkfs.core.codec import encode_xattrs
from dkfs.errors import DkfsError
from dkfs.history import content
from dkfs.history.metadata import read_xattrs
from dkfs.history.places import open_directory
from dkfs.history.tree import Tree
from dkfs.model.ids import BlobId
from dkfs.model.node import Kind, NodeState
from dkfs.store import Reader

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class StateDirectory:
    """The files of the state directory, as a source of a repair."""

    def __init__(self, root_fd: int, name: str) -> None:
        """*root_fd* is the open directory, *name* what people call it."""
        self._root_fd = root_fd
        self._name = name

    @property
    def name(self) -> str:
        """See store.repair.Source."""
        return f"the files in {self._name}"

    def find(self, reader: Reader, wanted: Collection[BlobId]) -> Iterator[bytes]:
        """See store.repair.Source."""
        walk = Tree(reader, reader.last).walk()
        with suppress(DkfsError):  # of a tree that is damaged itself, as much as can be walked
            for path, _, state in walk:
                if not wanted:
                    return
                if state.xattrs in wanted:
                    yield from self._xattrs(path)
                if state.attr.kind is Kind.FILE and state.content is not None:
                    yield from self._chunks(reader, path, state, wanted)

    def _chunks(
        self, reader: Reader, path: bytes, state: NodeState, wanted: Collection[BlobId]
    ) -> Iterator[bytes]:
        fd = -1
        try:
            for offset, chunk in content.pieces(reader, state):
                if chunk.blob not in wanted:
                    continue
                if fd < 0:
                    fd = self._open(path)
                yield os.pread(fd, chunk.length, offset)
        except (OSError, DkfsError):
            pass  # gone, not readable, or a manifest that is damaged
        finally:
            if fd >= 0:
                os.close(fd)

    def _xattrs(self, path: bytes) -> Iterator[bytes]:
        try:
            fd = self._open(path)
        except OSError:
            return
        try:
            yield encode_xattrs(read_xattrs(fd))
        except OSError:
            pass  # it has none any more
        finally:
            os.close(fd)

    def _open(self, path: bytes) -> int:
        """Open what *path* names, one directory after the other; no link is followed; raises OSError."""
        *above, name = path.split(b"/") if path else [b"."]
        directory = self._root_fd
        try:
            for each in above:
                below = open_directory(each, directory)
                if directory != self._root_fd:
                    os.close(directory)
                directory = below
            return os.open(name, _FLAGS, dir_fd=directory)
        finally:
            if directory != self._root_fd:
                os.close(directory)
