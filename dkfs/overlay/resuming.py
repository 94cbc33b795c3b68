"""Recording goes on after the store failed for so long that the queue was dropped.

Between two requests, as a rollback: what was promised and is only in the intent log is committed, then all that the
directory has and the history has not, as one version that the log calls a gap.  What was known of inodes is asked again.
"""

import logging
import os
import time
from typing import Final

from dkfs.errors import CorruptError, DkfsError
from dkfs.history.found import Collector
from dkfs.history.recorder import Recorder
from dkfs.history.recovery import recover
from dkfs.history.scan import scan
from dkfs.model.ids import NO_NODE, Seq
from dkfs.model.operation import OpKind
from dkfs.overlay.captures import Captures
from dkfs.overlay.inodes import InodeTable
from dkfs.store import Store
from dkfs.store.intent import read_intents, set_aside

_AGAIN_S: Final = 1.0  # before the next try
_AGAIN_MOST_S: Final = 60.0  # when a try was far more than that, for nothing
_DOUBT_NS: Final = 1_000_000_000  # files changed so shortly before the last operation are read
_SINCE: Final = b"gap-since"  # the note that is written to see whether the store works

log = logging.getLogger(__name__)


class Resuming:
    """See the module."""

    def __init__(
        self, table: InodeTable, captures: Captures, recorder: Recorder, store: Store
    ) -> None:
        self._table = table
        self._captures = captures
        self._recorder = recorder
        self._store = store
        self._after_s = _AGAIN_S

    @property
    def is_due(self) -> bool:
        """Whether recording has stopped, and is to be tried again."""
        return self._recorder.is_stopped

    def works(self) -> bool:
        """Return whether the store takes a transaction; in any thread."""
        try:
            with self._recorder.appending:
                now_ns = self._recorder.now_ns()
            with self._store.write() as writer:
                writer.put_meta(_SINCE, b"%d" % now_ns)
        except (DkfsError, OSError) as exc:
            log.debug("the store still fails: %s", exc)
            return False
        return True

    def resume(self) -> float | None:
        """Record what there is and go on; return None, or, if that failed, after how many seconds to try again."""
        started = time.monotonic()
        try:
            seq = self._record()
            self._recorder.resume(seq)
        except (DkfsError, OSError) as exc:
            log.warning("recording cannot go on yet: %s", exc)
            took_s = time.monotonic() - started
            self._after_s = min(_AGAIN_MOST_S, max(2 * self._after_s, 20 * took_s))
            return self._after_s
        self._after_s = _AGAIN_S
        self._settle(seq)
        return None

    def _record(self) -> Seq:
        """Commit what was promised, and what else is there; return the version."""
        store = self._store
        self._take_in()
        with store.read() as reader, store.write() as writer:
            newest = reader.record(reader.last)
            since_ns = newest.operation.time_ns - _DOUBT_NS if newest else None
            collector = Collector(reader, reader.last, None, self._recorder.chunking)
            findings = scan(reader, self._table.root.fd, at=reader.last, rehash_since_ns=since_ns)
            seq = collector.record(writer, findings, self._recorder.now_ns, kind=OpKind.GAP)
            writer.put_meta(_SINCE, b"")
            if writer.clean():
                writer.set_clean(False)
        for problem in collector.problems:
            log.warning("%s", problem)
        return seq

    def _take_in(self) -> None:
        """Commit what was promised and is only in the intent log; one that cannot be used is kept aside."""
        store = self._store
        with store.read() as reader:
            last = reader.last
        try:
            records = read_intents(store.path, store.uuid.bytes)
            is_complete = recover(store, [record for record in records if record.span.last > last])
        except CorruptError as exc:
            log.warning("what is only in the intent log is not recorded: %s", exc)
            is_complete = False
        if not is_complete:
            log.warning("the intent log is kept as %s", set_aside(store.path))

    def _settle(self, seq: Seq) -> None:
        """Forget what is not so any more of the inodes: nodes by their names, and what was to be captured."""
        root = self._table.root
        with self._store.read() as reader:
            for inode in self._table.known():
                inode.last = seq
                is_found_by_name = inode.parent is not None
                if inode is root or (not is_found_by_name and reader.node(inode.node, seq)):
                    continue
                inode.node = NO_NODE
        self._captures.recorded_all(
            {
                inode: os.fstat(inode.handles[0].fd).st_size
                for inode in self._table.known()
                if inode.handles
            }
        )
