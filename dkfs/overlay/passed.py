"""Captures of files that are written past dkfs: what has changed unseen is looked for, and then captured as all else."""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping

from dkfs.core.io_mode import OpenKind
from dkfs.errors import DkfsError
from dkfs.history.frozen import COPY_MOST
from dkfs.model.operation import OpKind, Origin
from dkfs.overlay.captures import Captures, May, always
from dkfs.overlay.counting import FileCount
from dkfs.overlay.handles import Handle
from dkfs.overlay.inodes import Inode, InodeTable
from dkfs.overlay.journal import Journal
from dkfs.overlay.looking import Found, Known, Look, stamp_of
from dkfs.overlay.unseen import Unseen, Watch, look_for
from dkfs.overlay.writers import for_reading, may_be_written

log = logging.getLogger(__name__)

_LOOKS_MOST = (
    3  # in threads for one request; then it is looked in the loop's, where nothing overtakes it
)


class _Now(threading.local):
    """What is true of the request, or the tick, that a thread is in."""

    looked = 0  # see PassedCaptures
    takes_older = False  # likewise, if it was found since the last timer


class PassedCaptures(Captures):
    """See Captures, and the module."""

    def __init__(self, table: InodeTable, journal: Journal, count: FileCount) -> None:
        super().__init__(table, journal, count)
        self.unseen = Unseen(table.root.fd)
        self._now = _Now()

    def capture(self, inode: Inode, origin: Origin, *, unasked: bool = False) -> None:
        """See Captures.

        Requests for which a file is captured hold its write(2) off.  *Unasked* that is not so: raises
        BlockingIOError if a file that is written past dkfs changes faster than it can be read.
        """
        watch = self.unseen.get(inode)
        if watch is None:
            super().capture(inode, origin)
            return
        if self._capture_unseen(watch, origin, unasked=unasked) or inode not in self._dirty:
            return
        super().capture(inode, origin)
        assert inode.handles
        fd = inode.handles[0].fd
        watch.recorded(self.unseen.stamp_now(fd), -1)

    @property
    def looked(self) -> int:
        """How often it was looked for the request that this thread handles: what was found is new enough for it."""
        return self._now.looked

    @looked.setter
    def looked(self, times: int) -> None:
        self._now.looked = times

    def capture_due(self, older_than_s: float, *, unasked: bool = True, may: May = always) -> None:
        """See Captures."""
        since = time.monotonic() if older_than_s else 0.0
        for watch in self.unseen.all():
            if may(watch.inode):
                self._note_changed(watch, since)
        self._now.takes_older = older_than_s > 0
        try:
            super().capture_due(older_than_s, unasked=unasked, may=may)
        finally:
            self._now.takes_older = False
        for watch in self.unseen.all():
            if may(watch.inode) and self.unseen.get(watch.inode) is watch:
                self._let_go_if_still(watch)

    def close(self) -> None:
        """Watch nothing any more."""
        self.unseen.close()

    def passed(self, handle: Handle) -> None:
        """Note that the kernel passes *handle* through: its reads, and perhaps its writes, are not seen."""
        if not handle.writable:
            return
        self.stirs()
        watch = self.unseen.begin(handle, is_recorded=handle.inode.id not in self._missed)
        if watch.last is not None:  # it was closed by all, but not captured yet
            handle.dirty.update(watch.last.dirty)
            self._drop(watch.last)
            watch.last = None

    def before_write(self, handle: Handle) -> None:
        """Note whether a map has stored something since the last change through dkfs: that moves the file's time.

        A truncation is such a change too, whatever the handle.
        """
        watch = self.unseen.get(handle.inode)
        assert watch is not None
        if watch.seen != stamp_of(os.fstat(handle.fd)):
            watch.blind = True

    def after_write(self, handle: Handle) -> None:
        """Note the time that a change through dkfs has left."""
        watch = self.unseen.get(handle.inode)
        assert watch is not None
        watch.seen = stamp_of(os.fstat(handle.fd))

    def passed_release(self, handle: Handle) -> None:
        """Close *handle*, which is no more in the table and was passed(); its file is captured soon after."""
        watch = self.unseen.get(handle.inode)
        assert watch is not None
        watch.writers -= 1
        self._note_changed(watch, 0.0)
        if watch.writers:
            others = (each for each in handle.inode.handles or () if each is not handle)
            next(others).dirty.update(handle.dirty)
            self._drop(handle)
            return
        watch.last = handle
        try:
            fd = for_reading(handle.fd)
        except OSError:
            pass  # no fds: then it looks as if it might be written until there are some
        else:
            os.close(handle.fd)
            handle.fd = fd
        if not self._is_slow(watch):
            try:
                self.capture(handle.inode, handle.origin, unasked=True)
            except (OSError, DkfsError) as exc:
                log.debug("left to the timer: %s", exc)
        self._let_go_if_still(watch)

    def before(self, inode: Inode, *, unasked: bool = False) -> Callable[[], None] | None:
        """Return what is to be done, in any thread, before a capture of *inode* that is to be quick; None if nothing.

        Then it is to be asked again, with looked set, and the capture has to follow at once when there is nothing
        more to be done.  *unasked*: see capture().
        """
        watch = self.unseen.get(inode)
        if watch is None or not inode.handles or not self._is_slow(watch):
            return None
        if self.looked and (watch.is_found or self.looked >= _LOOKS_MOST):
            return None  # often what was found has been overtaken by an open, a close or another capture
        look, key = self._look(watch, unasked=unasked), watch.key()
        watch.begin()
        return lambda: look_for(watch, key, look)

    def before_all(self, *, unasked: bool = False) -> Callable[[], None] | None:
        """See before(), for a capture of every file."""
        slow = []
        for watch in self.unseen.all():
            try:
                work = self.before(watch.inode, unasked=unasked)
            except (OSError, DkfsError) as exc:  # the others have begun: they have to be done
                log.debug("left to the capture: %s", exc)
                continue
            if work is not None:
                slow.append(work)
        if not slow:
            return None

        def look() -> None:
            for work in slow:
                work()

        return look

    def settled(self, inode: Inode) -> Callable[[], None]:
        """Return what to call when dkfs itself has changed the times of *inode*."""
        watch = self.unseen.get(inode)
        if watch is None or not inode.handles:
            return _nothing
        fd = inode.handles[0].fd
        before = os.fstat(fd)
        is_same, is_seen = watch.is_same(before), watch.seen == stamp_of(before)

        def settle() -> None:
            stamp = self.unseen.stamp_now(fd)
            # What a map has stored before stays to be looked for.
            watch.settled(stamp if is_same else None, stamp if is_seen else None)

        return settle

    def recorded_all(self, sizes: Mapping[Inode, int]) -> None:
        """See Captures."""
        super().recorded_all(sizes)
        for inode in sizes:
            self.rolled_back(inode)

    def rolled_back(self, inode: Inode) -> None:
        """Note that the contents of *inode* are others now, and recorded."""
        watch = self.unseen.get(inode)
        if watch is not None and inode.handles:
            watch.recorded(None, -1)

    def _capture_unseen(self, watch: Watch, origin: Origin, *, unasked: bool) -> bool:
        """Capture what has changed unseen; return whether nothing is left to be captured."""
        inode = watch.inode
        assert inode.handles
        status = os.fstat(inode.handles[0].fd)
        is_quiet = watch.is_quiet and watch.blind and not self._now.takes_older
        if not status.st_nlink or not (is_quiet or self._has_changed(watch, status)):
            return False
        try:
            found = watch.take(status, is_new=self.looked > 0 or self._now.takes_older)
        except BlockingIOError:  # a look for the timer, which takes not just anything
            if unasked:
                raise
            found = None
        if found is None:
            found = self._look(watch, unasked=unasked).run()
        if found is None:  # the store fails
            self._missed.add(inode.id)
            return True
        self._record(watch, found, origin)
        return True

    def _has_changed(self, watch: Watch, status: os.stat_result) -> bool:
        """Return whether the file, which has *status*, has to be looked at."""
        inode = watch.inode
        if inode.id in self._missed:
            return True
        if watch.is_same(status):
            return False
        # Of what is written through dkfs it is known where; it moves the times too.
        if watch.blind or watch.seen != stamp_of(status):
            return True
        return not any(handle.dirty for handle in inode.handles or ())

    def _is_slow(self, watch: Watch) -> bool:
        """Return whether a capture has to read, or to write to the disk, more than the loop should wait for."""
        inode = watch.inode
        assert inode.handles
        fd = inode.handles[0].fd
        status = os.fstat(fd)
        if status.st_size <= COPY_MOST or not self._has_changed(watch, status):
            return False
        return bool(inode.recorded_size) or watch.last is None or may_be_written(fd)

    def _look(self, watch: Watch, *, unasked: bool) -> Look:
        inode = watch.inode
        assert inode.handles
        fd = inode.handles[0].fd
        is_small = os.fstat(fd).st_size <= COPY_MOST
        is_still = watch.last is not None and not is_small and not may_be_written(fd)
        journal = self._journal
        known = None
        is_worth_it = not is_small or watch.is_quiet
        if is_worth_it and inode.recorded_size and inode.id not in self._missed:
            known = Known(journal.store, journal.recorder, journal.node(inode), inode.last)
        return Look(
            fd,
            self._table.root.fd,
            known,
            base=watch.base,
            no_clones=None if is_small or (is_still and watch.base < 0) else self.unseen.no_clones,
            is_still=is_still,
            takes_any=not unasked,
        )

    def _record(self, watch: Watch, found: Found, origin: Origin) -> None:
        inode = watch.inode
        assert inode.handles
        size, stamp = found.size, watch.stamp
        is_new = size != inode.recorded_size or any(handle.dirty for handle in inode.handles)
        if found.ranges or is_new or (stamp and found.status.st_mtime_ns != stamp.mtime_ns):
            self._missed.add(inode.id)
            fd = inode.handles[0].fd
            self._journal.node(inode)  # may record what it was found to be
            frozen = found.frozen or self._frozen(inode, fd, found.ranges, size)
            self._append(inode, found.status, frozen, OpKind.WRITE, origin)
        elif found.frozen is not None:
            found.frozen.release()
        for handle in inode.handles:
            handle.dirty.clear()
            handle.wrote = False
        self._dirty.pop(inode, None)
        watch.blind = any(handle.kind is OpenKind.PASSTHROUGH for handle in inode.handles)
        stamp = self.unseen.stamp(found.status, inode.handles[0].fd, found.asked_ns)
        watch.recorded(stamp, found.clone)

    def _note_changed(self, watch: Watch, since: float) -> None:
        handles = watch.inode.handles
        if handles and not watch.is_same(os.fstat(handles[0].fd)):
            self._dirty.setdefault(watch.inode, since)

    def _has_to_wait(self, inode: Inode) -> bool:
        """See Captures: a look is begun if it was not."""
        watch = self.unseen.get(inode)
        if watch is None or watch.has_found:
            return False
        if not watch.looks and self._is_slow(watch):
            self.unseen.ask(watch, self._look(watch, unasked=True))
        return bool(watch.looks)

    def _let_go_if_still(self, watch: Watch) -> None:
        """Stop watching a file that was closed by all, is captured, and cannot be written any more."""
        handle = watch.last
        if handle is None or watch.looks or may_be_written(handle.fd):
            return
        status = os.fstat(handle.fd)
        if status.st_nlink and (watch.inode in self._dirty or self._has_changed(watch, status)):
            return
        self.unseen.end(watch)
        self._drop(handle)

    def _drop(self, handle: Handle) -> None:
        os.close(handle.fd)
        self._table.count_file(-1)
        self.closed(handle)
        self._table.forget(handle.inode, 0)


def _nothing() -> None:
    """Do nothing."""
