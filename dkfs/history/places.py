"""The directories of a real tree, opened by node: every step is one name in an open directory, never a path."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from dkfs.errors import CorruptError
from dkfs.history.links import Place
from dkfs.model.ids import ROOT, NodeId

MAX_OPEN = 128  # directory fds; the hard limit of a process can be 1,024
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Directories:
    """Opens directories below one fd; a context manager that closes them."""

    def __init__(self, root_fd: int, find: Callable[[NodeId], Place]) -> None:
        """*find* says where a directory is unless put() did; *root_fd* stays the caller's."""
        self._root_fd = root_fd
        self._find = find
        self._places: dict[NodeId, Place] = {}
        self._open: OrderedDict[NodeId, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def put(self, node: NodeId, place: Place) -> None:
        """Remember that *node* is now at *place*."""
        self._places[node] = place

    def place(self, node: NodeId) -> Place:
        """Return where *node* is."""
        return self._places.get(node) or self._find(node)

    def fd(self, node: NodeId) -> int:
        """Return an open fd of directory *node*, good until the next call; raises OSError."""
        if node == ROOT:
            return self._root_fd
        fd = self._open.get(node)
        if fd is not None:
            self._open.move_to_end(node)
            return fd
        closed: dict[NodeId, bytes] = {}
        above = node
        while above != ROOT and above not in self._open:
            if above in closed:
                raise CorruptError(f"directory node {node} lies inside itself")
            parent, closed[above] = self.place(above)
            above = parent
        fd = self._root_fd if above == ROOT else self._open[above]
        for directory in reversed(closed):
            fd = open_directory(closed[directory], fd)
            self._open[directory] = fd
            if len(self._open) > MAX_OPEN:
                self._close_oldest(keep=directory)
        return fd

    @contextmanager
    def pair(self, first: NodeId, second: NodeId) -> Iterator[tuple[int, int]]:
        """Give open fds of two directories at once; raises OSError."""
        if first == second:
            fd = self.fd(first)
            yield fd, fd
            return
        fd = os.dup(self.fd(first))  # opening the second may close the first
        try:
            yield fd, self.fd(second)
        finally:
            os.close(fd)

    def close(self, node: NodeId) -> None:
        """Close directory *node*, which is about to go or not wanted soon; where it is stays known."""
        fd = self._open.pop(node, None)
        if fd is not None:
            os.close(fd)

    def _close_oldest(self, *, keep: NodeId) -> None:
        oldest = next(node for node in self._open if node != keep)
        os.close(self._open.pop(oldest))


def open_directory(name: bytes, parent_fd: int) -> int:
    """Open directory *name* in *parent_fd*; a symlink is not followed; raises OSError."""
    return os.open(name, _FLAGS, dir_fd=parent_fd)


def check_name(name: bytes) -> bytes:
    """Return *name*; raises CorruptError if it could lead out of its directory."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise CorruptError(f"name {name!r} in the history is not a name of a file")
    return name
