"""Before a mount: makes directory and history agree, so that nothing of either is lost.

An empty directory gets everything back.  What survived in a directory is recorded where it is newer, and replaced by
the history where that is newer.  Whether a missing file was deleted or lost is told by the identity of the directory:
in the one that was mounted last it was deleted, in any other it was lost.

A replay that is killed is taken up by the next one: the note _REPLAYING, made before the first file is changed and kept
until the last, says that what differs from the history in this directory is unfinished, not newer.  A rollback that was
killed is undone: what it had done is recorded as found, and then the directory is what it was before (decision 0017).
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from dkfs.core.chunking import Chunking
from dkfs.errors import UsageError
from dkfs.failpoints import failpoint
from dkfs.history.doubt import has_content
from dkfs.history.fill import Progress, Source, fill
from dkfs.history.found import Collector
from dkfs.history.materialise import STAGING_NAME, apply
from dkfs.history.outcome import Result
from dkfs.history.plan import plan
from dkfs.history.putback import PutBack
from dkfs.history.scan import Finding, What, scan
from dkfs.history.tree import Tree
from dkfs.model.ids import ROOT, NodeId, Seq
from dkfs.model.node import Kind
from dkfs.model.operation import NOBODY, Operation, OpKind
from dkfs.store import Reader, Store, Writer
from dkfs.store.reach import LOST_NOTE

RESERVED_NAME = b".dkfs"

_IDENTITY = b"identity"  # of the directory that was reconciled last
_REPLAYING = b"replaying"  # identity of the directory that is being changed, else empty
# The version that the directory is to have, and the last version when that was noted, after which the note means nothing;
# empty: none.  Made before the first change by a rollback, and with prefer="store".
_GOING_BACK = b"going-back"
_DOUBT_NS = (
    60 * 1_000_000_000
)  # after a crash, files changed so long before the last operation are read

_CHUNKING = Chunking()

Prefer = Literal["newer", "store", "dir"]
Fate = Literal["restore", "record"]  # as the history has it; as the directory has it


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a reconciliation did."""

    seq: Seq  # the version that the directory now is
    restored: int = 0  # nodes that came back from the history
    recorded: int = 0  # names and nodes that were recorded
    bytes: int = 0  # written to the directory, or read from it to be recorded
    found: Seq = Seq(0)  # the version that recorded what was in the directory; 0: nothing had to be
    rolled_back: Seq = Seq(0)  # prefer="store": the version that went back
    problems: tuple[str, ...] = ()  # for people: one line each, path first
    damaged: int = 0  # how many of the problems are damage in the store


def reconcile(
    store: Store,
    root_fd: int,
    *,
    prefer: Prefer,
    clock_ns: Callable[[], int],
    identity: bytes,
    on_progress: Progress | None = None,
    allow_reserved: bool = False,
    chunking: Chunking = _CHUNKING,
) -> ReplayResult:
    """Make the directory *root_fd* and the last version of *store*, open for writing, the same.

    *identity* tells one incarnation of the directory from another.  Raises UsageError for a directory with a file of
    the reserved name in its root, StoreError, CorruptError and OSError.
    """
    if not allow_reserved:
        check_reserved(root_fd)
    return _Reconciliation(store, root_fd, prefer, clock_ns, identity, on_progress, chunking).run()


def foresee(
    store: Store, root_fd: int | None, *, prefer: Prefer, identity: bytes
) -> Iterator[tuple[Fate, bytes]]:
    """Yield what reconcile() would do, path by path, and change nothing; *root_fd* None: the directory is lost.

    Of a directory only its name is given if it is missing in the other. Raises StoreError, CorruptError and OSError.
    """
    way = _Reconciliation(store, root_fd or -1, prefer, lambda: 0, identity, None, _CHUNKING)
    if root_fd is None or not _names(root_fd):
        if prefer != "dir":
            yield from way.foresee_all()
        return
    yield from way.foresee()


def check_reserved(root_fd: int) -> None:
    """Raise UsageError if the directory has a file of the reserved name in its root."""
    if RESERVED_NAME in _names(root_fd):
        raise UsageError(
            "the state directory has a file named .dkfs in its root: expected none, dkfs shows the history there"
        )


def note_going_back(writer: Writer, target: Seq) -> None:
    """Note that the directory is about to be changed, and is to be *target* if that does not come to its end."""
    writer.put_meta(_GOING_BACK, b"%d %d" % (target, writer.last))


def _going_back(note: bytes) -> tuple[Seq, Seq | None]:
    """Return what note_going_back() noted: the version to have, and the last one then (None: before that was noted)."""
    target, *noted = map(int, note.split())
    return Seq(target), Seq(noted[0]) if noted else None


class _Reconciliation:
    def __init__(
        self,
        store: Store,
        root_fd: int,
        prefer: Prefer,
        clock_ns: Callable[[], int],
        identity: bytes,
        on_progress: Progress | None,
        chunking: Chunking,
    ) -> None:
        self._store = store
        self._root_fd = root_fd
        self._prefer = prefer
        self._clock_ns = clock_ns
        self._identity = identity
        self._on_progress = on_progress
        self._chunking = chunking
        with store.read() as reader:
            self._last = reader.last
            newest = reader.record(reader.last) if reader.last else None
            time_ns = newest.operation.time_ns if newest else 0
            self._rehash_since_ns = None if reader.clean() else time_ns - _DOUBT_NS
            self._is_same = reader.meta(_IDENTITY) == identity
            self._is_unfinished = reader.meta(_REPLAYING) == identity
            going_back = reader.meta(_GOING_BACK)
        self._target = self._last
        self._goes_back = prefer == "store"
        if going_back:
            target, noted = _going_back(going_back)
            if noted in {self._last, None} and (self._goes_back or self._is_same):
                self._target = target
                self._goes_back = True
        self._restored = self._recorded = self._bytes = 0
        self._found = self._rolled_back = Seq(0)
        self._problems: list[str] = []
        self._damaged = 0

    def run(self) -> ReplayResult:
        """Do what the case asks for."""
        if STAGING_NAME in _names(self._root_fd):
            self._clear_staging()
        is_empty = not _names(self._root_fd)
        if self._last and is_empty and self._prefer != "dir":
            failpoint("replay.fill")
            self._fill()
        elif self._last and self._prefer == "newer" and not self._goes_back:
            self._merge()
        else:
            self._record(self._record_all)
            if self._last and self._goes_back:
                self._go_back()
        failpoint("replay.end")
        with self._store.write() as writer:
            writer.put_meta(_IDENTITY, self._identity)
            writer.put_meta(_REPLAYING, b"")
            writer.put_meta(_GOING_BACK, b"")
            if writer.meta(LOST_NOTE):
                writer.put_meta(LOST_NOTE, b"")  # what survived of it is recorded
            seq = writer.last
        return ReplayResult(
            seq=seq,
            restored=self._restored,
            recorded=self._recorded,
            bytes=self._bytes,
            found=self._found,
            rolled_back=self._rolled_back,
            problems=tuple(self._problems),
            damaged=self._damaged,
        )

    # What would be done.

    def foresee_all(self) -> Iterator[tuple[Fate, bytes]]:
        """Yield that everything in the history would be restored."""
        with self._store.read() as reader:
            pending = [(ROOT, b"")] if self._last else []
            while pending:
                directory, path = pending.pop()
                for name, node in reader.children(directory, self._last):
                    below = b"%s/%s" % (path, name) if path else name
                    yield "restore", below
                    state = reader.node(node, self._last)
                    if state is not None and state.attr.kind is Kind.DIR:
                        pending.append((node, below))

    def foresee(self) -> Iterator[tuple[Fate, bytes]]:
        """Yield what would be done where directory and history differ."""
        paths: dict[NodeId, bytes] = {ROOT: b""}
        with self._store.read() as reader:
            tree = Tree(reader, self._last)
            for finding in scan(
                reader, self._root_fd, at=self._last, rehash_since_ns=self._rehash_since_ns
            ):
                if finding.what is What.SKIPPED:
                    continue
                above = paths.get(finding.parent)
                if above is None:
                    above = paths[finding.parent] = tree.path(finding.parent)
                path = b"%s/%s" % (above, finding.name) if above else finding.name
                paths[finding.node] = path
                is_merging = bool(self._last) and self._prefer == "newer" and not self._goes_back
                if is_merging and self._is_store_newer(reader, finding):
                    yield "restore", path
                    continue
                yield "record", path
                if self._last and self._goes_back:
                    yield "restore", path

    # The history to the directory.

    def _fill(self) -> None:
        self._note(_REPLAYING, self._identity)
        with self._store.read() as reader:
            source = Source(reader, reader.last)
            self._count(fill(source, self._root_fd, on_progress=self._on_progress))

    def _go_back(self) -> None:
        """Make the directory, all of it recorded, what the history was before."""
        with self._store.read() as reader:
            way = plan(reader, base=reader.last, target=self._target)
            if way.is_empty:
                return
            result = apply(way, reader, self._root_fd)
            self._count(result)
            way = way.without(result.failed)
        with self._store.write() as writer:
            failpoint("replay.went-back")
            operation = self._operation(writer, OpKind.ROLLBACK, self._target)
            self._rolled_back = Seq(writer.last + 1)
            writer.append(self._rolled_back, operation, way.entry_nodes, way.entry_names)

    # The directory to the history.

    def _record(self, choose: Callable[[Reader, Iterator[Finding]], Iterator[Finding]]) -> None:
        """Record as one version the findings that *choose* lets pass."""
        with self._store.read() as reader, self._store.write() as writer:
            collector = Collector(reader, reader.last, self._on_progress, self._chunking)
            findings = scan(
                reader,
                self._root_fd,
                at=reader.last,
                rehash_since_ns=self._rehash_since_ns,
            )
            failpoint("replay.record")
            found = collector.record(writer, choose(reader, findings), self._clock_ns)
            if found != reader.last:
                self._found = found
            if self._goes_back and self._last:
                note_going_back(writer, self._target)
        self._recorded += collector.recorded
        self._bytes += collector.bytes
        self._problems += collector.problems

    def _record_all(self, _: Reader, findings: Iterator[Finding]) -> Iterator[Finding]:
        return findings

    def _merge(self) -> None:
        """Record what is newer in the directory, put back what is newer in the history."""
        back = PutBack()

        def choose(reader: Reader, findings: Iterator[Finding]) -> Iterator[Finding]:
            for finding in findings:
                if self._is_store_newer(reader, finding):
                    back.add(finding)
                else:
                    yield finding

        self._record(choose)
        if back.is_empty:
            return
        # After the findings are recorded: until then the files of an unfinished replay are told by this note.
        self._note(_REPLAYING, self._identity)
        with self._store.read() as reader:
            failpoint("replay.back")
            way = back.plan(reader)
            self._count(apply(way, reader, self._root_fd))

    def _is_store_newer(self, reader: Reader, finding: Finding) -> bool:
        if finding.what is What.MISSING:
            return not self._is_same or self._is_unfinished
        if finding.what is not What.CHANGED:
            return False
        if self._is_unfinished:
            return True
        old, status = finding.old, finding.status
        assert old is not None
        assert status is not None
        if self._is_same:
            # ctime, because mtime can be set: a file unpacked or copied with its old mtime is still the newer one.
            # Only a crash of the machine makes a directory lose what the history has.
            return old.attr.mtime_ns > status.st_mtime_ns and old.attr.ctime_ns > status.st_ctime_ns
        if old.attr.mtime_ns != status.st_mtime_ns:
            return old.attr.mtime_ns > status.st_mtime_ns
        return old.attr.kind is not Kind.FILE or (
            old.attr.size == status.st_size
            and has_content(reader, old, finding.name, finding.dir_fd)
        )

    def _clear_staging(self) -> None:
        """Record what a killed rollback left in its staging directory, then remove it."""
        if not self._is_unfinished:
            staged: set[NodeId] = set()

            def choose(_: Reader, findings: Iterator[Finding]) -> Iterator[Finding]:
                for finding in findings:
                    is_top = (finding.parent, finding.name) == (ROOT, STAGING_NAME)
                    if is_top or finding.parent in staged:
                        staged.add(finding.node)
                        yield finding

            if self._last:
                self._record(choose)
            else:
                self._record(self._record_all)
        failpoint("replay.unstage")
        shutil.rmtree(STAGING_NAME, dir_fd=self._root_fd)
        if self._is_unfinished:
            return

        def choose_gone(_: Reader, findings: Iterator[Finding]) -> Iterator[Finding]:
            for finding in findings:
                if (finding.parent, finding.name) == (ROOT, STAGING_NAME):
                    yield finding

        self._record(choose_gone)

    def _note(self, name: bytes, value: bytes) -> None:
        failpoint("replay.note")
        with self._store.write() as writer:
            writer.put_meta(name, value)

    def _operation(self, writer: Writer, kind: OpKind, target: Seq) -> Operation:
        newest = writer.record(writer.last)
        time_ns = max(self._clock_ns(), newest.operation.time_ns if newest else 0)
        return Operation(kind, time_ns, NOBODY, target=target)

    def _count(self, result: Result) -> None:
        self._restored += result.created + result.rewritten + result.attributes
        self._bytes += result.bytes_written
        self._problems += result.problems
        self._damaged += result.damaged


def _names(fd: int) -> set[bytes]:
    return {os.fsencode(name) for name in os.listdir(fd)}
