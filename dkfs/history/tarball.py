"""A tar archive: everything that a version holds but sockets, to the nanosecond and to the hole."""

from collections.abc import Iterator, Mapping
from os import major, minor

from dkfs.core import tar
from dkfs.errors import CorruptError
from dkfs.history.archive import Data, Write
from dkfs.history.tree import shown
from dkfs.model.node import Kind, NodeState

_BUFFER = 1024 * 1024  # bytes collected before they are written
_TYPES = {
    Kind.FILE: tar.Type.FILE,
    Kind.DIR: tar.Type.DIR,
    Kind.SYMLINK: tar.Type.SYMLINK,
    Kind.FIFO: tar.Type.FIFO,
    Kind.CHAR: tar.Type.CHAR,
    Kind.BLOCK: tar.Type.BLOCK,
}


class TarFormat:
    """See Format."""

    copies_links = False

    def __init__(self, write: Write) -> None:
        self.left_out: list[str] = []
        self._write = write
        self._buffer = bytearray()
        self._length = 0

    def directory(self, path: bytes, state: NodeState, xattrs: Mapping[bytes, bytes]) -> None:
        """See Format."""
        self._put(tar.header(_member(path or b".", state, xattrs)))

    def link(self, path: bytes, state: NodeState, first: bytes) -> None:
        """See Format."""
        if self._is_left_out(path, state):
            return
        self._put(tar.header(_member(path, state, {}, link=first)))

    def special(self, path: bytes, state: NodeState, xattrs: Mapping[bytes, bytes]) -> None:
        """See Format."""
        if self._is_left_out(path, state):
            return
        self._put(tar.header(_member(path, state, xattrs)))

    def file(
        self, path: bytes, state: NodeState, xattrs: Mapping[bytes, bytes], data: Data
    ) -> None:
        """See Format."""
        size = data.size
        count = stored = mapped = 0
        for extent in _extents(data):
            count += 1
            stored += extent[1]
            mapped += len(tar.map_line(extent))
        is_sparse = count != 1 or stored != size
        if not size:
            is_sparse = False
        if is_sparse:
            mapped += len(b"%d\n" % count)
            mapped += len(tar.padding(mapped))
            stored += mapped
        member = _member(path, state, xattrs, size=stored, sparse_size=size if is_sparse else None)
        self._put(tar.header(member))
        start = self._length
        if is_sparse:
            self._map(data, count)
        try:
            for chunk in data.chunks(holes=False):
                self._put(chunk)
        except CorruptError:
            # It was whole a moment ago, and its header is written: the rest of the archive needs its length.
            self._fill(start + stored - self._length)
            raise
        self._put(tar.padding(stored))

    def close(self) -> None:
        """See Format."""
        self._put(tar.trailer(self._length))
        self._flush()

    def _map(self, data: Data, count: int) -> None:
        start = self._length
        self._put(b"%d\n" % count)
        for extent in _extents(data):
            self._put(tar.map_line(extent))
        self._put(tar.padding(self._length - start))

    def _fill(self, length: int) -> None:
        zeros = bytes(_BUFFER)
        padding = tar.padding(self._length + length)
        while length > 0:
            self._put(zeros[:length])
            length -= len(zeros)
        self._put(padding)

    def _is_left_out(self, path: bytes, state: NodeState) -> bool:
        if state.attr.kind is not Kind.SOCKET:
            return False
        self.left_out.append(f"{shown(path)}: a socket")
        return True

    def _put(self, data: bytes) -> None:
        self._length += len(data)
        self._buffer += data
        if len(self._buffer) >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        self._write(bytes(self._buffer))
        self._buffer.clear()


def _extents(data: Data) -> Iterator[tar.Extent]:
    pieces = ((offset, length, True) for offset, length in data.extents())
    return tar.extents(pieces, data.size)


def _member(
    path: bytes,
    state: NodeState,
    xattrs: Mapping[bytes, bytes],
    *,
    size: int = 0,
    link: bytes = b"",
    sparse_size: int | None = None,
) -> tar.Member:
    attr = state.attr
    return tar.Member(
        path,
        tar.Type.LINK if link else _TYPES[attr.kind],
        attr.mode,
        attr.uid,
        attr.gid,
        attr.mtime_ns,
        size,
        link or state.target,
        (major(attr.rdev), minor(attr.rdev)),
        tuple(sorted(xattrs.items())),
        sparse_size,
    )
