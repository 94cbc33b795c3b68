"""What of the head is still in the state directory: bytes for blobs that the store has lost.

Whether they are still the same is not for this module to say: who asks compares them with the ids.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import suppress

from dkfs.core.chunking import Chunking, Cut, cut
from dkfs.core.codec import encode_xattrs
from dkfs.core.manifest_update import build
from dkfs.errors import DkfsError
from dkfs.history import content
from dkfs.history.intake import FileSource
from dkfs.history.metadata import read_xattrs
from dkfs.history.places import open_directory
from dkfs.history.tree import Tree
from dkfs.model.ids import BlobId
from dkfs.model.node import Chunk, Kind, NodeState
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
        except OSError:
            pass  # gone, or not readable
        except DkfsError:
            with suppress(OSError):
                yield from self._cut_again(reader, path, state)
        finally:
            if fd >= 0:
                os.close(fd)

    def _cut_again(self, reader: Reader, path: bytes, state: NodeState) -> Iterator[bytes]:
        """Yield the nodes and the chunks of the manifest that the file would have today; raises OSError.

        Boundaries depend on the contents alone, but for chunk sizes that nobody told and for a few of long histories:
        mostly they are those of the manifest that is damaged.
        """
        nodes: list[bytes] = []

        def put(data: bytes, _: BlobId | None) -> BlobId:
            nodes.append(data)
            return reader.hash(data)

        fd = self._open(path)
        try:
            if os.fstat(fd).st_size != state.attr.size:
                return  # it was changed since
            source = FileSource(fd, state.attr.size)
            build((_named(reader, each) for each in cut(source, 0, Chunking())), put)
            yield from nodes
            for each in cut(source, 0, Chunking()):
                if each.data is not None:
                    yield each.data
        finally:
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


def _named(reader: Reader, each: Cut) -> Chunk:
    return Chunk(each.length, None if each.data is None else reader.hash(each.data))
