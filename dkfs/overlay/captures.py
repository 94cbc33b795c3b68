"""Capture: decide that a version of a file's contents is due, and freeze them for the recorder."""

import errno
import logging
import os
import time
from collections.abc import Callable, Mapping
from weakref import WeakSet

from dkfs.core.extents import Extents, Range, below
from dkfs.errors import DkfsError, StoreError
from dkfs.history.change import NodeChange
from dkfs.history.frozen import COPY_MOST, Frozen, FrozenBytes, FrozenFile
from dkfs.history.reading import next_data
from dkfs.model.operation import NOBODY, OpKind, Origin
from dkfs.overlay.backing import by_fd
from dkfs.overlay.counting import FileCount
from dkfs.overlay.handles import Handle
from dkfs.overlay.inodes import Inode, InodeTable
from dkfs.overlay.journal import Journal

log = logging.getLogger(__name__)

# A change that would have to save more than this waits until the recorder has read the file.
_SAVE_MOST = 8 * 1024 * 1024  # bytes
_WAIT_S = 60.0
_PUT_OFF_MOST = 2.0  # intervals for which a capture waits for the rest of a write
_REST_S = 0.5  # in which the rest comes, also of an application that waits for a processor; of shorter intervals more are waited
_PRESS_S = 0.2  # between looks at whether the store fails


May = Callable[[Inode], bool]


def always(_: Inode) -> bool:
    """Return whether an inode may be touched now, where nobody else changes anything: it may."""
    return True


class Captures:
    """Knows which files hold bytes that are in no version yet."""

    def __init__(self, table: InodeTable, journal: Journal, count: FileCount) -> None:
        self._table = table
        self._journal = journal
        self._count = count
        self._dirty: dict[Inode, float] = {}  # since when, monotonic seconds
        # Inodes, by number, with contents that could not be read, or not be recorded: the next capture
        # takes all of it.
        self._missed: set[int] = set()
        self._late: WeakSet[FrozenFile] = WeakSet()  # was waited for in vain
        self.stirs: Callable[[], None] = lambda: (
            None
        )  # hears that there will be something to capture

    def __len__(self) -> int:
        return len(self._dirty)

    @property
    def has_missed(self) -> bool:
        """Whether there are files with contents that could not be read, or not be recorded."""
        return bool(self._missed)

    def opened(self, handle: Handle, size: int) -> None:
        """Note a handle for writing; *size* is the file's, in bytes, before it changes anything."""
        inode = handle.inode
        if inode.handles is None:
            inode.handles = []
            inode.recorded_size = size
        inode.handles.append(handle)
        if inode.id in self._missed:
            self.written(handle, 0, 1)

    def closed(self, handle: Handle) -> None:
        """Note that a handle for writing goes; what it wrote was captured, or cannot be."""
        handles = handle.inode.handles
        assert handles is not None
        handles.remove(handle)
        if not handles:
            handle.inode.handles = None
            self._dirty.pop(handle.inode, None)

    def written(self, handle: Handle, start: int, end: int) -> None:
        """Note that [start, end) was written through *handle*; if empty, only that the file is to be captured."""
        if not handle.dirty:
            self._dirty.setdefault(handle.inode, time.monotonic())
            self.stirs()
        handle.dirty.add(start, end)

    def before_change(self, inode: Inode, start: int, end: int) -> None:
        """Save what [start, end) is about to overwrite, if it is not recorded yet."""
        assert inode.frozen is not None
        for frozen in inode.frozen:
            self._journal.recorder.saved(frozen.before_change(start, end))
        inode.frozen = [f for f in inode.frozen if not f.wait_released(0)] or None

    def before_truncate(self, inode: Inode, size: int) -> None:
        """Save what lies at or after *size*, if it is not recorded yet; raises OSError."""
        for frozen in inode.frozen or ():
            self._save_or_wait(frozen, size, frozen.size)

    def before_large_change(self, inode: Inode, start: int, end: int) -> None:
        """See before_change(), for what may be more than memory should hold; raises OSError."""
        for frozen in inode.frozen or ():
            self._save_or_wait(frozen, start, end)

    def waiting(
        self, inode: Inode, start: int, end: int | None = None
    ) -> Callable[[], None] | None:
        """Return what to wait for, in any thread, before [start, end) is changed; None if that need not wait.

        *end* None is that of the file.
        """
        slow = [
            frozen
            for frozen in inode.frozen or ()
            if frozen.unsaved(start, frozen.size if end is None else end) > _SAVE_MOST
        ]
        if not slow:
            return None

        def wait() -> None:
            for frozen in slow:
                self._wait(frozen)

        return wait

    def waiting_for_all(self, inode: Inode) -> Callable[[], None] | None:
        """See waiting(), for changes of all of it that dkfs will not be told of: what is little is saved now.

        Raises OSError, also if it was waited for in vain.
        """
        slow = []
        for frozen in inode.frozen or ():
            if frozen.unsaved(0, frozen.size) <= _SAVE_MOST:
                self._journal.recorder.saved(frozen.before_change(0, frozen.size))
            elif frozen in self._late:
                raise OSError(errno.EIO, "the contents before the change cannot be recorded")
            else:
                slow.append(frozen)
        if not slow:
            return None

        def wait() -> None:
            for frozen in slow:
                if not self._wait(frozen):
                    self._late.add(frozen)

        return wait

    def _save_or_wait(self, frozen: FrozenFile, start: int, end: int) -> None:
        recorder = self._journal.recorder
        if frozen.unsaved(start, end) <= _SAVE_MOST:
            recorder.saved(frozen.before_change(start, end))
        elif not self._wait(frozen):
            raise OSError(errno.EIO, "the contents before the change cannot be recorded")

    def _wait(self, frozen: FrozenFile) -> bool:
        """Wait until *frozen* is recorded, or given up; return whether it is."""
        recorder = self._journal.recorder
        recorder.hurry()
        deadline_s = time.monotonic() + _WAIT_S
        while not frozen.wait_released(_PRESS_S) and time.monotonic() < deadline_s:
            if not recorder.is_recording:
                recorder.press()
        return frozen.wait_released(0)

    def capture(self, inode: Inode, origin: Origin, *, unasked: bool = False) -> None:  # noqa: ARG002 - see there
        """Record the contents of *inode* as they are now, if anything was written since.

        *unasked* is for what is not seen here; see PassedCaptures.
        """
        if inode not in self._dirty:
            return
        handles = inode.handles
        assert handles, "dirty inode without a handle"
        extents = handles[0].dirty
        for other in handles[1:]:
            extents.update(other.dirty)
        self._freeze(inode, handles[0].fd, extents, OpKind.WRITE, origin)
        for handle in handles:
            handle.dirty.clear()
            handle.wrote = False
        del self._dirty[inode]

    def truncated(self, inode: Inode, fd: int, before: int, origin: Origin) -> None:
        """Record that *inode*, open as *fd*, was truncated by its name; it had *before* bytes."""
        if inode.handles:
            # What was cut off is dirty: the file may grow again before it is captured.
            self.written(inode.handles[0], os.fstat(fd).st_size, before)
            self.capture(inode, origin)
            return
        inode.recorded_size = before
        self._freeze(inode, fd, Extents(), OpKind.TRUNCATE, origin)

    def _freeze(
        self, inode: Inode, fd: int, extents: Extents, kind: OpKind, origin: Origin
    ) -> None:
        """Record *inode*, open as *fd*, of which *extents* are dirty; what it grew by is zeros else."""
        was_missed = inode.id in self._missed
        self._missed.add(inode.id)  # until it is known to be in the log
        status = os.fstat(fd)
        size = status.st_size
        if status.st_nlink == 0:
            self._missed.discard(inode.id)
            return  # nobody will ever find it by a name
        if was_missed:
            extents.add(0, size)
        self._journal.node(inode)  # may record what it was found to be
        # Nothing but zeros should be found behind the old end that was not written through a handle.
        extents.add(next_data(fd, inode.recorded_size, size), size)
        self._append(
            inode, status, self._frozen(inode, fd, below(extents, size), size), kind, origin
        )

    def _append(
        self, inode: Inode, status: os.stat_result, frozen: Frozen, kind: OpKind, origin: Origin
    ) -> None:
        node = self._journal.node(inode)
        self._count.resized(status.st_nlink, inode.recorded_size, frozen.size)
        inode.recorded_size = frozen.size
        self._journal.changed(kind, origin, inode, NodeChange(node, status, None, frozen))
        self._missed.discard(inode.id)

    def _frozen(self, inode: Inode, fd: int, ranges: tuple[Range, ...], size: int) -> Frozen:
        if sum(end - start for start, end in ranges) <= COPY_MOST:
            return FrozenBytes(fd, ranges, size)
        try:
            own = os.open(by_fd(fd), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            if exc.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            return FrozenBytes(fd, ranges, size)  # memory is what is left
        frozen = FrozenFile(own, ranges, size)
        inode.frozen = [*(inode.frozen or ()), frozen]
        return frozen

    def mend(self, may: May = always) -> None:
        """Capture all of the files whose last contents could not be recorded, for damage in what they build on.

        And of those that could not be read when they were closed.  *May*, here and below, see always().
        """
        self._mend_missed(may)
        lost = self._journal.recorder.take_lost()
        if not lost:
            return
        for inode in self._table.known():
            if inode.node not in lost or inode.unlinked:
                continue
            self._missed.add(inode.id)
            if not may(inode) or inode.unlinked:
                continue
            try:
                self._capture_all_of(inode)
            except (OSError, DkfsError) as exc:
                log.warning("%s cannot be recorded: %s", os.fsdecode(inode.name), exc)

    def _mend_missed(self, may: May) -> None:
        if not self._missed:
            return
        for inode in self._table.known():
            if inode.id not in self._missed or inode.handles or inode.unlinked:
                continue  # what is open is captured by and by
            if (
                not may(inode) or inode.handles or inode.unlinked
            ):  # others may change things until it may
                continue
            try:
                self._capture_all_of(inode)
            except (OSError, DkfsError, MemoryError) as exc:
                log.debug("%s cannot be recorded yet: %s", os.fsdecode(inode.name), exc)

    def _capture_all_of(self, inode: Inode) -> None:
        if inode.handles:
            self._dirty.setdefault(inode, 0.0)
            self.capture(inode, inode.handles[0].origin)
            return
        fd = os.open(by_fd(self._table.fd(inode)), os.O_RDONLY | os.O_CLOEXEC)
        try:
            inode.recorded_size = os.fstat(fd).st_size
            self._freeze(inode, fd, Extents(), OpKind.WRITE, NOBODY)
        finally:
            os.close(fd)

    def capture_due(self, older_than_s: float, *, unasked: bool = True, may: May = always) -> None:
        """Capture every file that has been dirty for longer than *older_than_s*; see capture().

        But not one whose last contents the recorder has not read yet: a large file that is written
        all over all the time would only be read again and again.  And not one of which the kernel has
        perhaps sent half of a write.
        """
        until = time.monotonic() - older_than_s
        # Another thread may write to others meanwhile: a copy is made in one step of the interpreter.
        for inode in [inode for inode, since in self._dirty.copy().items() if since <= until]:
            if not may(inode) or inode not in self._dirty:
                continue
            if older_than_s and not all(f.wait_released(0) for f in inode.frozen or ()):
                continue
            assert inode.handles
            if older_than_s and self._is_halfway(inode, until, older_than_s):
                continue
            if older_than_s and self._has_to_wait(inode):
                continue
            try:
                self.capture(inode, inode.handles[0].origin, unasked=unasked)
            except BlockingIOError:
                self._dirty[inode] = time.monotonic()  # there will be a quieter moment
            except (OSError, DkfsError) as exc:
                # Nobody asked, so nobody can be told; it stays dirty and is tried again.
                log.warning("%s cannot be recorded: %s", os.fsdecode(inode.name), exc)
                self._dirty[inode] = time.monotonic()

    def _has_to_wait(self, _: Inode) -> bool:
        """Return whether what is to be captured is still being found out."""
        return False

    def _is_halfway(self, inode: Inode, until: float, interval_s: float) -> bool:
        """Return whether the rest of a write seems to be on its way: by the next look it will have come."""
        assert inode.handles
        halves = [handle for handle in inode.handles if handle.is_halfway]
        if interval_s >= _REST_S:
            for handle in halves:
                handle.is_halfway = False  # if there is no rest, it is put off once only
        put_off_s = _PUT_OFF_MOST * max(interval_s, _REST_S)
        return bool(halves) and self._dirty[inode] > until - put_off_s

    def recorded_all(self, sizes: Mapping[Inode, int]) -> None:
        """Note that everything is recorded as it is now; *sizes* are those of the files open for writing."""
        for inode, size in sizes.items():
            inode.recorded_size = size
            for handle in inode.handles or ():
                handle.dirty.clear()
                handle.wrote = False
        self._dirty.clear()
        self._missed.clear()

    def capture_all(self, *, unasked: bool = False) -> None:
        """Capture every dirty file; what cannot be stays dirty.  See capture()."""
        self._mend_missed(always)
        self.capture_due(0.0, unasked=unasked)

    def refuse_uncaptured(self, what: str) -> None:
        """Raise StoreError, saying that *what*, if capture_all() has left something that is in no version."""
        for inode in self._dirty:
            path = os.fsdecode(self._table.path(inode))
            raise StoreError(f"{path} cannot be recorded as it is now: {what}")

    def sync(self) -> None:
        """Capture every dirty file; raises OSError, after the last, if one cannot be."""
        self.capture_all()
        if self._dirty:
            raise OSError(errno.EIO, "not every file can be recorded")

    def whole(self, inode: Inode, path_fd: int) -> Frozen:
        """Freeze all of *inode*, a file that is in no version yet; raises OSError.

        Nothing of it is dirty then: the caller records it.
        """
        size = os.fstat(path_fd).st_size
        fd = os.open(by_fd(path_fd), os.O_RDONLY | os.O_CLOEXEC)
        try:
            frozen = self._frozen(inode, fd, ((0, size),) if size else (), size)
        finally:
            os.close(fd)
        inode.recorded_size = size
        for handle in inode.handles or ():
            handle.dirty.clear()
            handle.wrote = False
        self._dirty.pop(inode, None)
        return frozen
