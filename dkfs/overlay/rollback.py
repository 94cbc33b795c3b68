"""Rolling back under a running application: the backing directory, the log and the inode table.

It runs between two requests, so nothing else changes anything meanwhile.  A node that exists before
and after keeps its inode: open handles, locks and maps stay valid and see the contents gone back to.
"""

import os
from typing import NamedTuple

from dkfs.core.plan import Plan
from dkfs.errors import StoreError
from dkfs.failpoints import failpoint
from dkfs.history import materialise
from dkfs.history.outcome import Result
from dkfs.history.recorder import Recorder
from dkfs.history.replay import note_going_back
from dkfs.history.rollback import Move
from dkfs.model.ids import NodeId, Seq
from dkfs.model.operation import Origin
from dkfs.overlay.inodes import Inode, InodeTable
from dkfs.overlay.journal import Journal
from dkfs.overlay.passed import PassedCaptures
from dkfs.store import Store, Writer


class Stale(NamedTuple):
    """What the kernel must be told to forget."""

    names: tuple[tuple[int, bytes], ...]  # (directory, name) by the kernel's numbers
    inodes: tuple[int, ...]
    sizes: tuple[
        bytes, ...
    ] = ()  # paths of files open for writing whose size it must ask for again


class Rolled(NamedTuple):
    """What a rollback did, or would do."""

    seq: Seq  # the version that it is; of a dry run, the version it started from
    plan: Plan
    result: Result | None  # None: a dry run
    stale: Stale


class Rollback:
    """Makes the tree, or parts of it, what they were."""

    def __init__(
        self,
        table: InodeTable,
        journal: Journal,
        captures: PassedCaptures,
        recorder: Recorder,
        store: Store,
    ) -> None:
        self._table = table
        self._journal = journal
        self._captures = captures
        self._recorder = recorder
        self._store = store
        # Inodes whose pages the kernel still has to drop: what maps have stored in those is of before.
        self.settling: set[int] = set()

    def written_ones(self) -> tuple[int, ...]:
        """Return the inodes that are open for writing, and perhaps mapped."""
        return tuple(inode.id for inode in self._table.known() if inode.handles)

    def roll_back(self, move: Move, origin: Origin, *, dry_run: bool) -> Rolled:
        """Do *move*.

        What maps have stored is to be written before it is called, see written_ones(), and what is in
        settling to be taken out when the kernel has dropped its pages.  Raises NotFoundError, OSError, StoreError,
        that too if something is in no version and cannot be recorded; what
        was done before an error is undone at the next mount, unless something was recorded meanwhile: then it is found, and recorded.
        """
        self._captures.capture_all()
        self._captures.refuse_uncaptured("nothing was rolled back")
        known = self._known()  # may record what appeared behind the mount
        if not self._recorder.flush():
            raise StoreError(f"the store fails, nothing was rolled back: {self._recorder.failure}")
        base = self._recorder.committed
        with self._store.read() as reader:
            plan = move.plan(reader)
            if dry_run:
                return Rolled(base, plan, None, Stale((), ()))
            for binding in plan.names:
                inode = known.get(binding.old)
                if inode is not None:
                    self._table.pin(inode)
            # If dkfs is killed before the version is recorded, the next mount undoes what was done.
            self._recorder.with_writer(lambda writer: _note(writer, base))
            failpoint("rollback.apply")
            result = materialise.apply(plan, reader, self._table.root.fd)
            plan = plan.without(result.failed)  # a version says only what was done
            seq = self._recorder.append_plan(
                move.operation(self._recorder.now_ns(), origin), plan, expected=base
            )
        stale = self._settle(plan, known)
        self._table.forget_places()
        self.settling.update(stale.inodes)
        return Rolled(seq, plan, result, stale)

    def _known(self) -> dict[NodeId, Inode]:
        """Return every inode that the kernel knows, by its node."""
        return {self._journal.node(i): i for i in self._table.known() if not i.unlinked}

    def _settle(self, plan: Plan, known: dict[NodeId, Inode]) -> Stale:
        """Bring the inode table up to date; return what the kernel must forget."""
        names = []
        for binding in plan.names:
            parent = known.get(binding.parent)
            if parent is not None:
                names.append((parent.id, binding.name))
            old = known.get(binding.old)
            if old is not None and (old.parent, old.name) == (parent, binding.name):
                self._table.unnamed(old)
                old.unlinked = old.is_dir or os.fstat(old.fd).st_nlink == 0
        for binding in plan.names:
            new, parent = known.get(binding.new), known.get(binding.parent)
            if new is not None and parent is not None and new.parent is None:
                self._table.moved(new, parent, binding.name)
                new.unlinked = False
        for binding in plan.names:
            old = known.get(binding.old)
            if old is not None:
                self._table.unpin(old)
        inodes = []
        sizes = []
        for node in plan.nodes:
            inode = known.get(node)
            if inode is None:
                continue
            inodes.append(inode.id)
            inode.plain = False
            self._captures.rolled_back(inode)
            if inode.handles:
                inode.recorded_size = os.fstat(inode.handles[0].fd).st_size
                if inode.parent is not None:
                    sizes.append(self._table.path(inode))
        return Stale(tuple(names), tuple(inodes), tuple(sizes))


def _note(writer: Writer, base: Seq) -> None:
    note_going_back(writer, base)
    writer.set_clean(False)  # files may get back times that they had
