"""Makes a tree of the history anew in an empty directory: streaming, each file written once and in its place."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from dkfs.core.plan import is_directory
from dkfs.errors import CorruptError, ForgottenError
from dkfs.failpoints import failpoint
from dkfs.history import content, creation
from dkfs.history.links import Place
from dkfs.history.metadata import settle
from dkfs.history.outcome import Result, Tally
from dkfs.history.places import Directories, check_name
from dkfs.history.tree import shown
from dkfs.model.ids import ROOT, NodeId, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.store import Reader

Progress = Callable[[int, int, int], None]  # nodes done, nodes in all (0: not known), bytes written


@dataclass(frozen=True, slots=True)
class Source:
    """What to make: directory *top* as of version *at*."""

    reader: Reader
    at: Seq
    top: NodeId = ROOT


def fill(
    source: Source,
    root_fd: int,
    *,
    on_progress: Progress | None = None,
    sync: bool = False,
    metadata_of_top: bool = True,
) -> Result:
    """Make all that is below *source* in the empty directory *root_fd*, and give that its metadata.

    What is damaged, forgotten or refused is a problem in the result.  Raises OSError, and CorruptError for a tree that is none.
    """
    filler = _Filler(source, root_fd, on_progress, sync=sync)
    with filler.directories:
        filler.run(metadata_of_top=metadata_of_top)
    return filler.tally.result()


class _Filler:
    def __init__(
        self, source: Source, root_fd: int, on_progress: Progress | None, *, sync: bool
    ) -> None:
        self._reader = source.reader
        self._at = source.at
        self._top = source.top
        self._root_fd = root_fd
        self._sync = sync
        self._on_progress = on_progress
        self._total = self._count() if on_progress else 0
        self.tally = Tally()
        # The top is where Directories has its root, whatever node that is.
        self.directories = Directories(root_fd, self._unknown)
        self._seen: set[NodeId] = {source.top}
        self._files: dict[NodeId, Place] = {}  # for further links

    def run(self, *, metadata_of_top: bool) -> None:
        """Make everything; a directory gets its metadata when all in it is done."""
        _drop_default_acl(self._root_fd)
        stack: list[tuple[NodeId, bool]] = [(self._top, False)]
        while stack:
            directory, is_done = stack.pop()
            if not is_done:
                stack.append((directory, True))
                stack.extend((below, False) for below in self._make_all(directory))
                continue
            if directory != self._top or metadata_of_top:
                self._finish(directory)
            self.directories.close(directory)

    def _make_all(self, directory: NodeId) -> list[NodeId]:
        """Make all that is in *directory*; return the directories in it, empty as yet."""
        below = []
        for name, node in self._reader.children(directory, self._at):
            try:
                if self._make(directory, check_name(name), node):
                    below.append(node)
            except (CorruptError, ForgottenError, PermissionError) as exc:
                self._report(directory, name, f"not made: {self.tally.problem(exc)}")
            if self._on_progress is not None:
                self._on_progress(self.tally.created, self._total, self.tally.bytes_written)
        return below

    def _make(self, directory: NodeId, name: bytes, node: NodeId) -> bool:
        """Make one name; return whether it is a directory."""
        first = self._files.get(node)
        if first is not None:
            with self.directories.pair(self._key(first[0]), self._key(directory)) as (source, fd):
                os.link(first[1], name, src_dir_fd=source, dst_dir_fd=fd, follow_symlinks=False)
            return False
        failpoint("replay.make")
        state = self._state(node)
        fd = self._fd(directory)
        if state.attr.kind is Kind.DIR:
            if node in self._seen:
                raise CorruptError(f"directory node {node} has two names")
            self._seen.add(node)
            os.mkdir(name, 0o700, dir_fd=fd)
            self.directories.put(node, (self._key(directory), name))
            self.tally.created += 1
            return True
        written, problems = creation.create(self._reader, state, name, fd, sync=self._sync)
        self._files[node] = (directory, name)
        self.tally.created += 1
        self.tally.bytes_written += written
        for each in problems:
            self._report(directory, name, each)
        return False

    def _finish(self, directory: NodeId) -> None:
        state = self._state(directory)
        try:
            failpoint("replay.settle")
            xattrs = content.xattrs(self._reader, state)
            problems = settle(self._fd(directory), state, xattrs, fresh=directory != self._top)
        except CorruptError as exc:
            problems = [self.tally.problem(exc)]
        for each in problems:
            self._report(directory, b"", each)
        if self._sync:
            os.fsync(self._fd(directory))

    def _state(self, node: NodeId) -> NodeState:
        state = self._reader.node(node, self._at)
        if state is None:
            raise CorruptError(f"node {node} has a name but no state at version {self._at}")
        return state

    def _key(self, directory: NodeId) -> NodeId:
        return ROOT if directory == self._top else directory

    def _fd(self, directory: NodeId) -> int:
        return self.directories.fd(self._key(directory))

    def _unknown(self, node: NodeId) -> Place:
        raise CorruptError(f"directory node {node} was not made")

    def _report(self, directory: NodeId, name: bytes, what: str) -> None:
        names = [name] if name else []
        while (directory := self._key(directory)) != ROOT:
            directory, name = self.directories.place(directory)
            names.append(name)
        self.tally.problems.append(f"{shown(b'/'.join(reversed(names)))}: {what}")

    def _count(self) -> int:
        """Return how many nodes there are, names of hard links counted each."""
        count = 0
        seen = {self._top}
        stack = [self._top]
        while stack:
            for _, node in self._reader.children(stack.pop(), self._at):
                count += 1
                if node not in seen and is_directory(self._reader.node(node, self._at)):
                    seen.add(node)
                    stack.append(node)
        return count


def _drop_default_acl(fd: int) -> None:
    """What is made in a directory with a default ACL would inherit it."""
    try:
        os.removexattr(fd, "system.posix_acl_default")
    except OSError as exc:
        if exc.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
            raise
