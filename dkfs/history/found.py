"""Records what was found in a real directory as one version."""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from dkfs.core import codec
from dkfs.core.chunking import Chunking
from dkfs.core.plan import is_directory
from dkfs.history.change import attr_of
from dkfs.history.fill import Progress
from dkfs.history.intake import FileSource, take
from dkfs.history.links import remember
from dkfs.history.metadata import path_in, read_xattrs
from dkfs.history.previous import contents_of
from dkfs.history.puts import Counts, Puts
from dkfs.history.reading import never_noticed
from dkfs.history.scan import Finding, What
from dkfs.history.tree import shown
from dkfs.model.ids import NO_NODE, ROOT, BlobId, NodeId, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.model.operation import NOBODY, Operation, OpKind
from dkfs.store import Reader, Writer

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Name = tuple[NodeId, bytes, NodeId]


class Collector:
    """Turns findings into one version; what cannot be read is a problem and is not in it."""

    def __init__(
        self, reader: Reader, at: Seq, on_progress: Progress | None, chunking: Chunking
    ) -> None:
        """*reader* sees version *at*, which the findings are compared with."""
        self._reader = reader
        self._at = at
        self._on_progress = on_progress
        self._chunking = chunking
        self._names: dict[tuple[NodeId, bytes], NodeId] = {}
        self._linked: list[Name] = []  # names besides the one in the state
        self._unread: set[NodeId] = set()
        self.problems: list[str] = []
        self.nodes = 0
        self.bytes = 0

    @property
    def recorded(self) -> int:
        """How many names and nodes were recorded."""
        return max(self.nodes, len(self._names))

    def record(
        self,
        writer: Writer,
        findings: Iterable[Finding],
        clock_ns: Callable[[], int],
        *,
        kind: OpKind = OpKind.FOUND,
    ) -> Seq:
        """Append one version with *findings*, if there are any, or if it is a gap; return the last version."""
        nodes = self._states(writer, findings)
        first = next(nodes, None)  # or, without one, all findings were looked at
        if first is None and not self._names and kind is OpKind.FOUND:
            return writer.last
        last = writer.record(writer.last)
        time_ns = max(clock_ns(), last.operation.time_ns if last else 0)
        seq = Seq(writer.last + 1)
        writer.append(
            seq,
            Operation(kind, time_ns, NOBODY),
            chain((first,) if first is not None else (), nodes),
            self._found_names(),
        )
        remember(writer, self._linked)
        return seq

    def _states(
        self, writer: Writer, findings: Iterable[Finding]
    ) -> Iterator[tuple[NodeId, NodeState]]:
        for finding in findings:
            if finding.what is What.SKIPPED:
                self.problems.append(finding.why)
            elif finding.what is What.MISSING:
                self._remove(finding.parent, finding.name, finding.node)
            elif finding.what is What.LINK:
                if finding.node not in self._unread:
                    self._replace(finding)
                    self._linked.append((finding.parent, finding.name, finding.node))
            elif finding.parent not in self._unread:
                state = self._state(writer, finding)
                if state is not None:
                    self._replace(finding)
                    self.nodes += 1
                    yield finding.node, state
            if self._on_progress is not None:
                self._on_progress(self.nodes, 0, self.bytes)

    def _found_names(self) -> Iterator[Name]:
        """Yield the names when all nodes are there."""
        for (parent, name), node in self._names.items():
            yield parent, name, node

    def _replace(self, finding: Finding) -> None:
        if finding.what is What.CHANGED or finding.node == ROOT:
            return
        if finding.replaced:
            self._remove(finding.parent, finding.name, finding.replaced)
        self._names[finding.parent, finding.name] = finding.node

    def _remove(self, parent: NodeId, name: bytes, node: NodeId) -> None:
        """Remove a name and, of a directory, all below it."""
        stack = [(parent, name, node)]
        while stack:
            parent, name, node = stack.pop()
            self._names.setdefault((parent, name), NO_NODE)
            if is_directory(self._reader.node(node, self._at)):
                stack.extend(
                    (node, below, child) for below, child in self._reader.children(node, self._at)
                )

    def _state(self, writer: Writer, finding: Finding) -> NodeState | None:
        """Return the state of what was found, contents stored; None if it cannot be read."""
        try:
            return self._take(writer, finding)
        except (FileNotFoundError, PermissionError) as exc:
            self._unread.add(finding.node)
            self.problems.append(f"{shown(finding.name)} not recorded: {exc.strerror}")
            return None
        finally:
            if finding.status is not None:
                self.bytes += finding.status.st_size

    def _take(self, writer: Writer, finding: Finding) -> NodeState:
        status, name, dir_fd = finding.status, finding.name, finding.dir_fd
        assert status is not None
        attr = attr_of(status)
        content: BlobId | None = None
        is_manifest = False
        target = b""
        if attr.kind is Kind.FILE and attr.size:
            fd = os.open(name, _READ, dir_fd=dir_fd)
            try:
                never_noticed(fd)
                source = FileSource(fd, attr.size)
                old = contents_of(writer, self._before(finding))
                content, is_manifest, _ = take(Puts(writer, Counts()), source, old, self._chunking)
            finally:
                os.close(fd)
        elif attr.kind is Kind.SYMLINK:
            target = os.readlink(name, dir_fd=dir_fd)
        xattrs = read_xattrs(path_in(name, dir_fd), follow=False) if name else read_xattrs(dir_fd)
        return NodeState(
            attr=attr,
            parent=finding.parent,
            name=name,
            content=content,
            is_manifest=is_manifest,
            target=target,
            xattrs=writer.put_blob(codec.encode_xattrs(xattrs))[0] if xattrs else None,
        )

    def _before(self, finding: Finding) -> NodeState | None:
        """Return what had the name before."""
        if finding.old is None and finding.replaced:
            return self._reader.node(finding.replaced, self._at)
        return finding.old
