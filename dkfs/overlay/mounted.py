"""The file system of one mount, put together."""

import os
from collections.abc import Callable

from dkfs.core.chunking import Chunking
from dkfs.core.io_mode import STRICT, IoRules
from dkfs.history.recorder import Recorder
from dkfs.overlay.attributes import READ_ONLY_XATTR, STORE_XATTR, Attributes
from dkfs.overlay.captures import May, always
from dkfs.overlay.counting import FileCount
from dkfs.overlay.files import Files
from dkfs.overlay.forgotten import Forgotten
from dkfs.overlay.inodes import InodeTable
from dkfs.overlay.journal import Journal
from dkfs.overlay.modes import Modes
from dkfs.overlay.names import Names
from dkfs.overlay.origin import groups_of
from dkfs.overlay.passed import PassedCaptures
from dkfs.overlay.resuming import Resuming
from dkfs.overlay.rollback import Rollback
from dkfs.overlay.tags import Tags
from dkfs.overlay.virtual import Virtual
from dkfs.store import Store

_LARGE = Chunking().threshold
# dkfs owns the backing directory while it is mounted and invalidates by itself, so what the kernel
# knows stays true: a day.  With short timeouts SQLite sees stale pages (docs/decisions/0003).
FOREVER_S = 86_400.0


class FileSystem:
    """Everything that serves requests on one backing directory; see the parts."""

    def __init__(
        self,
        root_fd: int,
        store: Store,
        recorder: Recorder,
        *,
        reserved: bytes | None,
        is_listed: bool = False,
        clock_ns: Callable[[], int],
        large_above: int = _LARGE,
        is_read_only: bool = False,
        is_history: bool = False,
        io: IoRules = STRICT,
    ) -> None:
        """Serve *root_fd*, recording to *recorder*.

        *reserved* is the root's name for the history, listed in it if *is_listed*.  A file of more than *large_above*
        bytes is counted as large.  *is_read_only*: nothing is changed here, but perhaps by others, and *recorder* is an
        Onlooker.  *is_history*: the root is the history, and *root_fd* tells the disk.  *io*: how files are served.
        """
        self.recorder, self.store = recorder, store
        self.is_read_only, self.is_history = is_read_only, is_history
        # How long the kernel may believe what it was told of names and attributes.
        self.valid_s = 0.0 if is_read_only else FOREVER_S
        self.table = _table(root_fd, recorder, clock_ns, is_shared=is_read_only)
        self.forgotten = Forgotten(self.table)
        self.journal = Journal(recorder, store, self.table)
        self.count = FileCount(store, large_above=large_above)
        self.captures = PassedCaptures(self.table, self.journal, self.count)
        self.modes = Modes(self.table, io)
        parts = self.table, self.journal, self.captures
        self.files = Files(*parts)
        self.names = Names(
            *parts, self.files, count=self.count, reserved=reserved, is_listed=is_listed
        )
        self.attributes = Attributes(
            *parts,
            self.files,
            store_path=os.fsencode(store.path),
            is_read_only=is_read_only,
        )
        self.tags = Tags(self.captures, recorder, store)
        self.resuming = Resuming(self.table, self.captures, recorder, store)
        self.rollback = Rollback(self.table, self.journal, self.captures, recorder, store)
        own = _xattrs(store) if is_history else None
        self.virtual = Virtual(store, reserved, self.tags, clock_ns, groups_of, root_xattrs=own)

    def forget(self, number: int, lookups: int) -> None:
        """Take back references of the kernel; an unknown number is nobody's."""
        try:
            inode = self.table[number]
        except OSError:
            return
        self.forgotten.note(inode)
        self.table.forget(inode, lookups)

    def tick(self, older_than_s: float, may: May = always) -> None:
        """Capture what has been dirty for so long, if it *may* be touched now, and forget what is not needed any more."""
        self.captures.mend(may)
        self.captures.capture_due(older_than_s, may=may)
        self.table.sweep()

    def close(self) -> bool:
        """Record everything that was written, let go; return whether all of it is in the store."""
        if self.resuming.is_due and self.resuming.works():
            self.resuming.resume()
        self.captures.capture_all()
        self.recorder.flush()  # then it is known what builds on damage
        self.captures.mend()
        is_all = not (len(self.captures) or self.captures.has_missed)
        self.captures.close()
        complete = self.recorder.close()
        self.table.close()
        return complete and is_all


def _xattrs(store: Store) -> dict[bytes, bytes]:
    return {STORE_XATTR: os.fsencode(store.path), READ_ONLY_XATTR: b"1"}


def _table(
    root_fd: int, recorder: Recorder, clock_ns: Callable[[], int], *, is_shared: bool
) -> InodeTable:
    # Of the time: another mount begins with another generation.
    generation = clock_ns() >> 10
    return InodeTable(
        root_fd, committed=lambda: recorder.decided, is_shared=is_shared, generation=generation
    )
