"""Writes a version, or a part of it, as an archive: walks the tree, checks contents, and leaves the form to a Format.

What is damaged is left out and named; whatever is in the archive is whole.  Memory is bounded: of the nodes that have
been met only those with several names are remembered.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from dkfs.core.plan import is_directory
from dkfs.errors import CorruptError, NotFoundError
from dkfs.history import content
from dkfs.history.fileout import data_runs
from dkfs.history.fill import Progress
from dkfs.history.places import check_name
from dkfs.history.tree import Tree, components, is_under, path_key, shown
from dkfs.model.ids import NodeId, Seq
from dkfs.model.node import Chunk, Kind, NodeState
from dkfs.store import Reader

_KEPT = (
    8 * 1024 * 1024
)  # bytes of checked contents held until they are written; beyond, they are read twice

Write = Callable[[bytes], object]


class Format(Protocol):
    """A kind of archive; what it cannot hold it says in *left_out* and goes on."""

    left_out: list[str]
    copies_links: bool  # it knows no hard links

    def directory(self, path: bytes, state: NodeState, xattrs: Mapping[bytes, bytes]) -> None:
        """Add a directory; path b"" is the top."""
        ...

    def file(
        self, path: bytes, state: NodeState, xattrs: Mapping[bytes, bytes], data: "Data"
    ) -> None:
        """Add a file."""
        ...

    def link(self, path: bytes, state: NodeState, first: bytes) -> None:
        """Add a further name of what is in the archive as *first*."""
        ...

    def special(self, path: bytes, state: NodeState, xattrs: Mapping[bytes, bytes]) -> None:
        """Add a symlink, fifo, socket or device."""
        ...

    def close(self) -> None:
        """Write the end."""
        ...


@dataclass(frozen=True, slots=True)
class Dumped:
    """What came of it."""

    entries: int
    problems: tuple[str, ...]  # for people: one line each, path first
    damaged: int  # how many of the problems are damage in the store
    left_out: tuple[str, ...]  # what the format cannot hold


class Data:
    """The contents of one file, each chunk checked before the first is handed out."""

    def __init__(self, reader: Reader, state: NodeState) -> None:
        """Check all of it; raises CorruptError, NotFoundError."""
        self._reader = reader
        self._state = state
        self._kept: dict[int, bytes] = {}
        # By the offset of a chunk, where in it there are no blocks of zeros; not of those without such blocks.
        self._runs: dict[int, tuple[tuple[int, int], ...]] = {}
        held = 0
        for offset, chunk in self.pieces():
            data = self._read(chunk)
            runs = tuple(data_runs(data, offset))
            if chunk.blob is not None and runs != ((0, len(data)),):
                self._runs[offset] = runs
            held += len(data)
            if data and held <= _KEPT:
                self._kept[offset] = data

    @property
    def size(self) -> int:
        """Bytes, holes included."""
        return self._state.attr.size

    def pieces(self) -> Iterator[tuple[int, Chunk]]:
        """Yield the chunks with the offset of each."""
        return content.pieces(self._reader, self._state)

    def extents(self) -> Iterator[tuple[int, int]]:
        """Yield offset and length of what is no hole: a block of 4 KiB of zeros is one, as it is where it is restored."""
        for offset, chunk in self.pieces():
            if chunk.blob is not None:
                for start, end in self._runs.get(offset, ((0, chunk.length),)):
                    yield offset + start, end - start

    def chunks(self, *, holes: bool) -> Iterator[bytes]:
        """Yield the bytes, with zeros for holes if *holes*, else those of extents(); raises CorruptError for what is damaged since."""
        zeros = bytes(1024 * 1024) if holes else b""
        for offset, chunk in self.pieces():
            if chunk.blob is not None:
                data = self._kept.pop(offset, b"") or self._read(chunk)
                if holes or offset not in self._runs:
                    yield data
                else:
                    yield from (data[start:end] for start, end in self._runs[offset])
            elif holes:
                for done in range(0, chunk.length, len(zeros)):
                    yield zeros[: chunk.length - done]

    def _read(self, chunk: Chunk) -> bytes:
        return b"" if chunk.blob is None else content.chunk_data(self._reader, chunk)


def dump(
    reader: Reader, at: Seq, path: bytes, archive: Format, *, on_progress: Progress | None = None
) -> Dumped:
    """Add what *path* is at version *at*, and all below it, to *archive*, names from there on; a file under its own.

    Raises NotFoundError, UsageError, and what writing raises.
    """
    dumper = _Dumper(Tree(reader, at), path, archive, on_progress)
    dumper.run()
    archive.close()
    left_out = list(archive.left_out)
    if dumper.copied:
        left_out.append(f"hard links: {dumper.copied} files are in the archive once more")
    return Dumped(dumper.entries, tuple(dumper.problems), dumper.damaged, tuple(left_out))


class _Dumper:
    def __init__(
        self, tree: Tree, path: bytes, archive: Format, on_progress: Progress | None
    ) -> None:
        self._tree = tree
        self._prefix = b"/".join(components(path))
        self._top = tree.resolve(path)
        self._archive = archive
        self._on_progress = on_progress
        self.entries = self.damaged = self._bytes = 0
        self.problems: list[str] = []
        self._seen: set[NodeId] = {self._top}
        self._firsts: dict[NodeId, bytes] = {}  # of what has several names
        self._failed: set[NodeId] = set()
        self._unread: list[bytes] = []  # directories that could not be read to their end
        self.copied = 0

    def run(self) -> None:
        state = self._tree.state(self._top)
        if not is_directory(state):
            name = self._prefix.rpartition(b"/")[2]
            self._try(None, b"", name, self._top)
            return
        self._directory(b"", state)
        stack = [(self._top, b"", self._children(self._top, b""))]
        while stack:
            directory, path, children = stack[-1]
            for name, node in children:
                if self._try(directory, path, name, node):
                    below = path + b"/" + name if path else name
                    stack.append((node, below, self._children(node, below)))
                    break
            else:
                stack.pop()

    def _children(self, directory: NodeId, path: bytes) -> Iterator[tuple[bytes, NodeId]]:
        """Yield what is in *directory*, as far as it can be read."""
        try:
            yield from self._tree.children(directory)
        except CorruptError as exc:
            self._unread.append(path)
            self._report(path, exc)

    def _try(self, directory: NodeId | None, above: bytes, name: bytes, node: NodeId) -> bool:
        """Add one name in *directory*, None for the top; return whether it is a directory to enter."""
        path = above + b"/" + name if above else name
        try:
            check_name(name)
            state = self._tree.reader.node(node, self._tree.at)
            if state is None:
                raise CorruptError(f"node {node} has a name but no state")
            if is_directory(state):
                if node in self._seen:
                    raise CorruptError(f"directory node {node} has two names")
                self._seen.add(node)
                self._directory(path, state)
                return True
            is_known_by = directory is None or (state.parent, state.name) == (directory, name)
            self._node(path, node, state, is_known_by=is_known_by)
        except (CorruptError, NotFoundError) as exc:
            self._failed.add(node)
            self._report(path, exc)
        return False

    def _directory(self, path: bytes, state: NodeState) -> None:
        xattrs: Mapping[bytes, bytes] = {}
        try:
            xattrs = content.xattrs(self._tree.reader, state)
        except CorruptError as exc:
            self._report(path, exc)
        self._archive.directory(path, state, xattrs)
        self._added(0)

    def _node(self, path: bytes, node: NodeId, state: NodeState, *, is_known_by: bool) -> None:
        reader = self._tree.reader
        xattrs = content.xattrs(reader, state)
        first = self._first(path, node, state, is_known_by=is_known_by)
        if first is not None and not self._archive.copies_links:
            self._archive.link(path, state, first)
            self._added(0)
        elif state.attr.kind is Kind.FILE:
            if first is not None:
                self.copied += 1
            self._archive.file(path, state, xattrs, Data(reader, state))
            self._added(state.attr.size)
        else:
            self._archive.special(path, state, xattrs)
            self._added(0)

    def _first(
        self, path: bytes, node: NodeId, state: NodeState, *, is_known_by: bool
    ) -> bytes | None:
        """Return the path under which *node* is in the archive already, None if it is not.

        A state holds one name of its node.  What is met by another name has several, and whether the one in the state
        came before can be told from the paths.
        """
        known = self._firsts.get(node)
        if known is not None or is_known_by or node in self._failed:
            return known
        other = self._other(node, state)
        if other is None or path_key(other) > path_key(path):
            self._firsts[node] = path
            return None
        self._firsts[node] = other
        return other

    def _other(self, node: NodeId, state: NodeState) -> bytes | None:
        """Return the path below the top that the state of *node* holds, if it is one of its names now."""
        if self._tree.child(state.parent, state.name) != node:
            return None
        full = self._tree.path(node)
        if not is_under(full, self._prefix):
            return None
        below = full[len(self._prefix) :].lstrip(b"/")
        return None if any(is_under(below, path) for path in self._unread) else below

    def _added(self, size: int) -> None:
        self.entries += 1
        self._bytes += size
        if self._on_progress is not None:
            self._on_progress(self.entries, 0, self._bytes)

    def _report(self, path: bytes, exc: CorruptError | NotFoundError) -> None:
        self.damaged += isinstance(exc, CorruptError)
        full = os.path.join(self._prefix, path) if path else self._prefix
        self.problems.append(f"{shown(full)} at version {self._tree.at}: left out: {exc}")
