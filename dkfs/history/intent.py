"""What a sync waits for: not for its version, but for the operations up to it in the intent log of the store.

To find out how contents are stored best, and to commit it, takes ten times as long as to write down what was done.  Who
waits does that himself, for all that was done meanwhile; who comes while he writes waits for his turn, and mostly
finds that the one before him has written down his too.

What is written down (laid) is durable when the disk has flushed its cache.  A sync of a file on that disk has it do so anyway, and
then carries the log; else sync() does.  If one of them fails nobody can say what the disk still has (a later
success says nothing about it), so that nothing which was laid and not yet durable is promised from then on.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from dkfs.errors import StoreError
from dkfs.failpoints import failpoint
from dkfs.history.batch import size_of
from dkfs.history.change import Pending
from dkfs.history.intent_codec import encode
from dkfs.model.ids import Seq
from dkfs.store import Store
from dkfs.store.intent import LIMIT, PAYLOAD_LIMIT, IntentFile, Span, remove_intents

# Who reads the store sees it by then, or asks: see Asking.
VISIBLE_S: Final = 0.2
_MOST: Final = 256  # operations in one record: more are committed as fast as they are written here

log = logging.getLogger(__name__)


class _Noted(NamedTuple):
    """An operation of the log."""

    seq: Seq
    time_ns: int
    pending: Pending | None  # None: it is committed


class Laid(NamedTuple):
    """What is in the file, and durable after the next flush of its disk."""

    file: IntentFile
    seq: Seq  # and all before

    def is_flushed_by(self, fd: int) -> bool:
        """Return whether a sync of *fd* flushes that disk."""
        return self.file.disk is not None and self.file.disk.is_flushed_by(fd)


class IntentLog:
    """See the module."""

    def __init__(
        self, store: Store, *, time_ns: int, committed: Callable[[], Seq], limit: int = LIMIT
    ) -> None:
        """Go on from a version of *time_ns*; *committed* says up to which one the index has them, durably."""
        self._store = store
        self._limit = limit
        self._committed = committed
        self._noted: deque[_Noted] = (
            deque()
        )  # what is neither here nor in the index, the newest last
        self._before_ns = time_ns  # of the version before the first of these
        self._laid = Seq(0)  # up to here, everything is here or in the index
        self._written = Seq(0)  # and durable
        self._wanted = Seq(0)  # somebody waits for this version
        self.group = threading.Lock()  # of who syncs a file: one does for all; before the others
        self._turn = threading.Lock()  # to write
        self._syncing = threading.Lock()  # after _turn, if both
        self._mutex = threading.Lock()  # of _written; the innermost
        self._file: IntentFile | None = None
        self.is_known = False  # the index says that there may be an intent log
        self.is_allowed = False  # it is, and nothing is the matter with it
        self._is_doubtful = False  # a flush has failed
        self._is_tight = False  # there is not much room left
        self._since_s: float | None = None  # there has been something that is not in the index

    # Called by the file system's thread.

    def note(self, pending: Pending) -> None:
        """Hear of an operation."""
        self._noted.append(_Noted(pending.seq, pending.operation.time_ns, pending))

    def skip(self, seq: Seq, time_ns: int) -> None:
        """Hear of a version that was committed otherwise."""
        self._noted.append(_Noted(seq, time_ns, None))

    # Called by anybody.

    def write(self, seq: Seq) -> bool:
        """Write down everything up to version *seq*; return whether it is durable.  If not, wait for the commit."""
        if self._written >= seq:
            return True
        laid = self.lay(seq)
        if laid is not None:
            self.sync(laid)
        return self._written >= seq

    def want(self, seq: Seq) -> None:
        """Hear that somebody waits for version *seq*: who writes next writes it down, too."""
        self._wanted = max(
            self._wanted, seq
        )  # if another's is lost by a race, he writes it himself

    def lay(self, seq: Seq) -> Laid | None:
        """Write down everything up to version *seq*; return what then needs a flush; None: wait for the commit."""
        self.want(seq)
        with self._turn:
            if not self.is_allowed:
                return None
            try:
                if self._laid < seq and not self._write(seq):
                    return None
            except StoreError as exc:
                self._give_up(exc)
                return None
            return Laid(self._file, self._laid) if self._file is not None else None

    def sync(self, laid: Laid) -> bool:
        """Make *laid* durable; return whether it is.  If not, wait for the commit."""
        with self._syncing:  # who comes meanwhile mostly finds that it is done
            if laid.file is not self._file or self._written >= laid.seq:
                return self.is_kept(laid)
            laid = Laid(laid.file, self._laid)
            try:
                laid.file.sync()
            except OSError as exc:
                self.doubt(laid, exc)
            return self.flushed(laid)

    def flushed(self, laid: Laid) -> bool:
        """Hear that the disk was flushed since *laid* was; return whether it is durable.  If not, wait for the commit."""
        with self._mutex:
            if not self._is_doubtful and laid.file is self._file:
                self._written = max(self._written, laid.seq)
        return self.is_kept(laid)

    def is_kept(self, laid: Laid) -> bool:
        """Return whether *laid* is durable."""
        return laid.file is self._file and self._written >= laid.seq

    def doubt(self, laid: Laid, why: OSError) -> None:
        """Hear that a flush since *laid* was has failed: whatever is not known to be durable may be lost."""
        with self._mutex:
            if laid.file is not self._file or self._written >= laid.seq:
                return
            self._is_doubtful = True
        self._give_up(why)

    def _give_up(self, why: StoreError | OSError) -> None:
        """Write nothing more to this file; what was durable before can be relied on."""
        if self.is_allowed:
            log.warning("from now on a sync waits until its version is in the index: %s", why)
        self.is_allowed = False

    @property
    def promised(self) -> Seq:
        """Up to this version everything is here, or in the index."""
        return self._written

    # Called by the recorder's thread.

    def committed(self) -> None:
        """Hear that more is in the index, and that there may be an intent log."""
        if not self.is_known:
            self.is_known = self.is_allowed = True
        # If somebody else has it, the next commit does it, or whoever syncs next.
        if self._turn.acquire(blocking=False):
            try:
                self._forget()
            finally:
                self._turn.release()

    def is_due(self, now_s: float) -> bool:
        """Return whether what is here should be in the index: it is long here, it is much, or somebody wants to see it."""
        since_s = self._since_s  # once: whoever syncs may set it to None meanwhile
        if since_s is None:
            return False
        if self._is_tight or now_s - since_s > VISIBLE_S:
            return True
        if not self._turn.acquire(blocking=False):
            return False
        try:
            return self._file is not None and self._file.is_asked
        finally:
            self._turn.release()

    def drop(self) -> None:
        """Hear that what waits will not be committed, before it goes; in any thread."""
        self.is_allowed = False

    def restart(self, seq: Seq, time_ns: int) -> None:
        """Begin anew after version *seq*, of *time_ns*: what was dropped is in it.  Raises StoreError."""
        with self._turn:
            self.is_allowed = False
            self._noted.clear()
            self._close_file()
            remove_intents(self._store.path)
            self._before_ns = time_ns
            self._written = self._laid = self._wanted = seq
            self._is_doubtful = False
            self._is_tight = False
            self._since_s = None
            self.is_allowed = self.is_known

    def close(self, *, is_complete: bool) -> None:
        """Close the file; if everything is in the index, remove it.  Raises StoreError."""
        with self._turn:
            self.is_allowed = False
            self._noted.clear()
            self._close_file()
            if is_complete:
                failpoint("intent.remove")
                remove_intents(self._store.path)

    def _close_file(self) -> None:
        with self._syncing:  # an fd that is closed in the middle may be another file's
            if self._file is not None:
                self._file.close()
                self._file = None

    def _forget(self) -> None:
        """Forget what is in the index."""
        committed = self._committed()
        noted = self._noted
        while noted and noted[0].seq <= committed:
            self._before_ns = noted.popleft().time_ns
        with self._mutex:
            self._written = max(self._written, committed)
        self._laid = max(self._laid, committed)
        if self._file is not None:
            self._file.free(committed)
            self._is_tight = self._file.is_tight
            if self._file.is_empty:
                self._since_s = None

    def _write(self, seq: Seq) -> bool:
        """Lay everything up to version *seq*; return whether it is."""
        self._forget()
        if not self._noted:
            return self._laid >= seq
        first = self._noted[0].seq
        payload = self._payload(first, seq)
        if not payload:
            return self._laid >= seq
        last = Seq(first + len(payload) - 1)
        if self._file is None:
            self._file = IntentFile(self._store.path, self._store.uuid.bytes, limit=self._limit)
        if not self.is_allowed:
            return False  # drop() came meanwhile, and the contents may have gone
        if not self._file.append(Span(first, last, self._before_ns, self._written), payload):
            self._is_tight = True
            return False
        self._store.check_there()
        failpoint("intent.written")
        for _ in payload:
            self._before_ns = self._noted.popleft().time_ns
        self._laid = last
        self._is_tight = self._file.is_tight
        if self._since_s is None:
            self._since_s = time.monotonic()
        return last >= seq

    def _payload(self, first: Seq, seq: Seq) -> list[bytes]:
        """Return the operations from *first* to *seq*, and up to the last that somebody waits for; nothing if one is too much."""
        parts: list[bytes] = []
        room = PAYLOAD_LIMIT
        for index in range(min(max(seq, self._wanted) - first + 1, len(self._noted))):
            pending = self._noted[index].pending
            part = None
            if pending is not None and index < _MOST and size_of(pending) < room:
                part = encode(pending)
            if part is None or len(part) > room:
                return parts if first + index > seq else []
            parts.append(part)
            room -= len(part)
        return parts
