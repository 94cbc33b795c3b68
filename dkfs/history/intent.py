"""What a sync waits for: not for its version, but for the operations up to it in the intent log of the store.

To find out how contents are stored best, and to commit it, takes ten times as long as to write down what was done.  Who
waits does that himself, for all that was done meanwhile; who comes while he writes waits for his turn, and mostly
finds that the one before him has written down his too.
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
        self._written = Seq(0)  # up to here, everything is here or in the index
        self._wanted = Seq(0)  # somebody waits for this version
        self._turn = threading.Lock()
        self._file: IntentFile | None = None
        self.is_known = False  # the index says that there may be an intent log
        self.is_allowed = False  # it is, and nothing is the matter with it
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
        self._wanted = max(self._wanted, seq)
        with self._turn:
            if self._written >= seq:
                return True
            if not self.is_allowed:
                return False
            try:
                return self._write(seq)
            except StoreError as exc:
                # Nothing is written to this file any more; what was written before can be relied on.
                log.warning("from now on a sync waits until its version is in the index: %s", exc)
                self.is_allowed = False
                return False

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
            if self._file is not None:
                self._file.close()
                self._file = None
            remove_intents(self._store.path)
            self._before_ns = time_ns
            self._written = self._wanted = seq
            self._is_tight = False
            self._since_s = None
            self.is_allowed = self.is_known

    def close(self, *, is_complete: bool) -> None:
        """Close the file; if everything is in the index, remove it.  Raises StoreError."""
        with self._turn:
            self.is_allowed = False
            self._noted.clear()
            if self._file is not None:
                self._file.close()
                self._file = None
            if is_complete:
                failpoint("intent.remove")
                remove_intents(self._store.path)

    def _forget(self) -> None:
        """Forget what is in the index."""
        committed = self._committed()
        noted = self._noted
        while noted and noted[0].seq <= committed:
            self._before_ns = noted.popleft().time_ns
        self._written = max(self._written, committed)
        if self._file is not None:
            self._file.free(committed)
            self._is_tight = self._file.is_tight
            if self._file.is_empty:
                self._since_s = None

    def _write(self, seq: Seq) -> bool:
        self._forget()
        if not self._noted:
            return self._written >= seq
        first = self._noted[0].seq
        payload = self._payload(first, seq)
        if not payload:
            return self._written >= seq
        last = Seq(first + len(payload) - 1)
        if self._file is None:
            self._file = IntentFile(self._store.path, self._store.uuid.bytes, limit=self._limit)
        if not self.is_allowed:
            return False  # drop() came meanwhile, and the contents may have gone
        if not self._file.append(Span(first, last, self._before_ns), payload):
            self._is_tight = True
            return False
        self._store.check_there()
        failpoint("intent.written")
        for _ in payload:
            self._before_ns = self._noted.popleft().time_ns
        self._written = last
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
