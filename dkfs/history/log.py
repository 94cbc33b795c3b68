"""The log as people read it, and all versions of what one path named.  Both lazy: nothing is read ahead."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from dkfs.core.diff import Change, Field, classify, differing_fields
from dkfs.errors import CorruptError, NotFoundError, UsageError
from dkfs.history.tree import DirectoryPaths, clean_path, components, is_under, shown
from dkfs.model.ids import NO_NODE, ROOT, NodeId, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.model.operation import NOBODY, LogRecord, Operation, OpKind, Origin
from dkfs.store import Reader

_COMM_MAX = 15  # bytes; the kernel cuts a command's name there

_RETURNS = frozenset((OpKind.ROLLBACK, OpKind.UNDO, OpKind.REDO))
_MANY = _RETURNS | {OpKind.FOUND, OpKind.GAP}  # one operation, any number of names
_MOVES = frozenset((OpKind.RENAME, OpKind.EXCHANGE))
_TAGS = frozenset((OpKind.TAG, OpKind.UNTAG))
_SIZED = frozenset((OpKind.WRITE, OpKind.TRUNCATE, OpKind.CREATE))


@dataclass(frozen=True, slots=True)
class By:
    """Whose operations; None = anybody's."""

    pid: int | None = None
    uid: int | None = None
    comm: bytes | None = None

    def matches(self, origin: Origin) -> bool:
        """Return whether *origin* is the one meant."""
        return (
            (self.pid is None or origin.pid == self.pid)
            and (self.uid is None or origin.uid == self.uid)
            and (self.comm is None or origin.comm[:_COMM_MAX] == self.comm[:_COMM_MAX])
        )


@dataclass(frozen=True, slots=True)
class LogLine:
    """One operation with its paths as they were at its version."""

    seq: Seq
    time_ns: int
    kind: OpKind
    origin: Origin
    node: NodeId  # NO_NODE: not done to one node
    path: bytes | None  # None: not done at one path
    new_path: bytes | None  # RENAME, EXCHANGE, LINK: the other place
    size: int | None  # WRITE, TRUNCATE, CREATE: bytes of the file after it
    changed: int  # nodes and names that it gave a new version
    folded: int  # ... that have one here because the versions that changed them were forgotten
    tag: str | None  # TAG, UNTAG
    target: Seq  # TAG: the version tagged.  ROLLBACK, UNDO, REDO: the version gone back to.  Else 0
    undoes: Seq  # UNDO, REDO: the operation taken back.  Else 0
    paths: tuple[bytes, ...]  # ROLLBACK, UNDO, REDO: only these; empty = the whole tree


@dataclass(frozen=True, slots=True)
class FileVersion:
    """What a path named from version *seq* on."""

    seq: Seq
    time_ns: int
    kind: (
        OpKind | None
    )  # of the operation that made it so; None: the version that did was forgotten
    origin: Origin  # NOBODY if it was forgotten
    change: Change  # against the version before: +, -, M, T or U
    fields: tuple[Field, ...]
    node: NodeId  # NO_NODE: removed
    state: NodeState | None  # None: removed


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which a path named one node."""

    first: Seq
    end: Seq  # exclusive
    node: NodeId


def parse_by(text: str) -> By:
    """Return who is meant by "1234" (a pid), "pid=1234", "uid=1000", "comm=make" or "make"."""
    key, equals, value = text.partition("=")
    if not equals:
        key, value = ("pid" if text.isdecimal() and text.isascii() else "comm"), text
    if key == "comm" and value:
        return By(comm=value.encode("utf-8", "surrogateescape"))
    if key in ("pid", "uid") and value.isdecimal() and value.isascii() and len(value) <= 10:
        return By(pid=int(value)) if key == "pid" else By(uid=int(value))
    raise UsageError(f"{text!r} names nobody: expected PID, pid=N, uid=N, COMM or comm=COMM")


def log(
    reader: Reader,
    path: bytes | None = None,
    *,
    since: Seq | None = None,
    until: Seq | None = None,
    by: By | None = None,
    oldest_first: bool = False,
) -> Iterator[LogLine]:
    """Return the operations from *since* to *until* (both included), the newest first.

    Only those *by* somebody; only those at or below *path* (as paths were at the time), those that moved a
    directory above it, and those of many names that touched it.  Raises NotFoundError if *path* never was.
    """
    top = None if path is None else clean_path(path)
    if top is not None and next(spans(reader, top), None) is None:
        raise _never(reader, top)
    first = Seq(max(1, since or 1))
    last = Seq(reader.last if until is None else min(until, reader.last))
    return _lines(reader, top, first, last, by or By(), oldest_first=oldest_first)


def file_history(reader: Reader, path: bytes) -> Iterator[FileVersion]:
    """Return every distinct version of what *path* named, and where it was removed, the oldest first.

    Taken from the index: its cost does not grow with the log.  Raises NotFoundError if *path* never was.
    """
    named = spans(reader, path)
    first = next(named, None)
    if first is None:
        raise _never(reader, path)
    return _FileVersions(reader, components(path)).walk(chain((first,), named))


def spans(reader: Reader, path: bytes) -> Iterator[Span]:
    """Return when *path* named which node, in order; nothing if it never named any.

    One span may follow another of the same node without a gap.
    """
    return _descend(reader, components(path))


def _never(reader: Reader, path: bytes) -> NotFoundError:
    oldest = reader.next_version(0)
    where = f"versions {oldest} to {reader.last}" if oldest else "any version: there is none"
    if reader.forgotten():
        where += f", of which {reader.last - reader.forgotten()} are kept"
    return NotFoundError(f"{shown(path)} was never there in {where}")


def _descend(reader: Reader, names: list[bytes]) -> Iterator[Span]:
    # A stack and not a generator in a generator: a path of 4096 bytes may have 2048 names.
    levels = [_root_span(reader)]
    while levels:
        span = next(levels[-1], None)
        if span is None:
            levels.pop()
        elif len(levels) > len(names):
            yield span
        else:
            levels.append(_spans_below(reader, span, names[len(levels) - 1]))


def _root_span(reader: Reader) -> Iterator[Span]:
    for seq, _ in reader.node_versions(ROOT):
        yield Span(seq, Seq(reader.last + 1), ROOT)
        return


def _spans_below(reader: Reader, above: Span, name: bytes) -> Iterator[Span]:
    first = above.first
    node = reader.child(above.node, name, first)
    for seq, then in reader.child_versions(above.node, name):
        if seq >= above.end:
            break
        if seq <= first:
            continue
        if node != NO_NODE:
            yield Span(first, seq, node)
        first, node = seq, then
    if node != NO_NODE:
        yield Span(first, above.end, node)


class _FileVersions:
    """The versions of what one path named."""

    def __init__(self, reader: Reader, names: list[bytes]) -> None:
        self._reader = reader
        self._names = frozenset(names)

    def walk(self, named: Iterator[Span]) -> Iterator[FileVersion]:
        """Yield them, given when the path *named* which node."""
        before: NodeState | None = None
        end = Seq(0)
        for span in named:
            if before is not None and span.first != end:
                yield self._version(end, "-", (), NO_NODE, None)
                before = None
            for seq, state in _states(self._reader, span):
                fields: tuple[Field, ...] = ()
                change: Change | None = "+"
                if before is not None:
                    fields = differing_fields(before, state, dir_times=False)
                    change = classify(before, state, fields)
                if change is not None:
                    yield self._version(seq, change, fields, span.node, state)
                    before = state
            end = span.end
        if before is not None and end <= self._reader.last:
            yield self._version(end, "-", (), NO_NODE, None)

    def _version(
        self,
        seq: Seq,
        change: Change,
        fields: tuple[Field, ...],
        node: NodeId,
        state: NodeState | None,
    ) -> FileVersion:
        record = self._reader.record(seq)
        if record is None:
            raise CorruptError(f"version {seq} has no log record, but the index names it")
        operation = record.operation
        kind: OpKind | None = operation.kind
        origin = operation.origin
        if self._is_folded(record, node):
            kind, origin = None, NOBODY
        return FileVersion(seq, operation.time_ns, kind, origin, change, fields, node, state)

    def _is_folded(self, record: LogRecord, node: NodeId) -> bool:
        """Return whether it was not the operation of *record* that gave the path what it has since."""
        if not record.folded_nodes and not record.folded_names:
            return False
        if node in record.nodes or node in record.folded_nodes:
            return node not in record.nodes
        return not any(name in self._names for _, name in record.names)


def _states(reader: Reader, span: Span) -> Iterator[tuple[Seq, NodeState]]:
    state = reader.node(span.node, span.first)
    if state is None:
        raise CorruptError(f"node {span.node} is named at version {span.first} but has no state")
    yield span.first, state
    yield from reader.node_versions(span.node, Seq(span.first + 1), Seq(span.end - 1))


def _lines(
    reader: Reader, top: bytes | None, first: Seq, last: Seq, by: By, *, oldest_first: bool
) -> Iterator[LogLine]:
    paths = DirectoryPaths(reader)
    anybody = by == By()
    for record in reader.log(first, last, reverse=not oldest_first):
        # Remembered paths hold on one side of an operation that moves directories only.
        moving = _moves_directories(reader, record)
        if moving and oldest_first:
            paths.forget()
        if anybody or by.matches(record.operation.origin):
            line = _line(reader, paths, record)
            if top is None or _concerns(paths, record, line, top):
                yield line
        if moving and not oldest_first:
            paths.forget()


def _moves_directories(reader: Reader, record: LogRecord) -> bool:
    operation = record.operation
    if record.folded_names:
        return True  # it may be
    if operation.kind is OpKind.RENAME:
        state = reader.node(operation.node, record.seq)
        return state is None or state.attr.kind is Kind.DIR
    return operation.kind is OpKind.EXCHANGE or operation.kind in _MANY


def _line(reader: Reader, paths: DirectoryPaths, record: LogRecord) -> LogLine:
    operation = record.operation
    kind = operation.kind
    new_path = size = None
    if operation.new_parent != NO_NODE:
        new_path = paths.join(operation.new_parent, operation.new_name, record.seq)
    if kind in _SIZED:
        state = reader.node(operation.node, record.seq)
        size = None if state is None else state.attr.size
    return LogLine(
        seq=record.seq,
        time_ns=operation.time_ns,
        kind=kind,
        origin=operation.origin,
        node=operation.node,
        path=_path(paths, operation, record.seq),
        new_path=new_path,
        size=size,
        changed=len(record.nodes) + len(record.names),
        folded=len(record.folded_nodes) + len(record.folded_names),
        tag=operation.name.decode("utf-8", "backslashreplace") if kind in _TAGS else None,
        target=operation.target,
        undoes=operation.undoes,
        paths=operation.paths,
    )


def _path(paths: DirectoryPaths, operation: Operation, seq: Seq) -> bytes | None:
    if operation.kind in _TAGS:
        return None
    if operation.parent != NO_NODE:
        return paths.join(operation.parent, operation.name, seq)
    return None if operation.node == NO_NODE else paths.path(operation.node, seq)


def _concerns(paths: DirectoryPaths, record: LogRecord, line: LogLine, top: bytes) -> bool:
    """Return whether *line* is about something at or below *top*, or moved a directory above it."""
    kind = line.kind
    for path in (line.path, line.new_path):
        if path is not None and (is_under(path, top) or (kind in _MOVES and is_under(top, path))):
            return True
    if kind not in _MANY:
        return False
    for parent, name in record.names:
        path = paths.join(parent, name, record.seq)
        if is_under(path, top) or (kind in _RETURNS and is_under(top, path)):
            return True
    return any(is_under(paths.path(node, record.seq), top) for node in record.nodes)
