"""Files that are written past dkfs: which there are, what each was when it was last recorded, and who looks.

A file is watched from its first open that the kernel passes through for writing until nobody can write it
any more and what it became is recorded; that may be after the last close, because a map outlives it.
"""

import errno
import logging
import os
import threading
import time
from collections.abc import Container
from queue import SimpleQueue

from dkfs.core.extents import Range
from dkfs.core.io_mode import OpenKind
from dkfs.errors import DkfsError
from dkfs.history.frozen import COPY_MOST
from dkfs.overlay import clones
from dkfs.overlay.handles import Handle
from dkfs.overlay.inodes import Inode
from dkfs.overlay.looking import Found, Look, Stamp, stamp_of

log = logging.getLogger(__name__)

# Where the kernel gives a change after a look a time of its own, however soon it comes (multigrain
# timestamps); elsewhere times move every 1 to 10 ms only.
_EXACT_SINCE = (6, 13)
_EXACT = frozenset((0xEF53, 0x58465342, 0x9123683E, clones.TMPFS))  # ext4, xfs, btrfs, tmpfs
_GRAIN_NS = 20_000_000
# A clone made at an open waits for the disk: only if so little is to be written.
_UNWRITTEN_MOST = 256  # pages


class Watch:
    """One file that is written past dkfs."""

    def __init__(self, inode: Inode) -> None:
        self.inode = inode
        self.writers = 0  # opens for writing that the kernel passes through
        self.blind = False  # since the last look some of them wrote unseen
        self.is_quiet = False  # a store through a map does not move the file's time: tmpfs
        self.stamp: Stamp | None = None  # of the file as it is recorded; None: not known
        self.seen: Stamp | None = None  # after the last change through dkfs; None: not known
        self.base = -1  # a clone of it, an fd; -1: none
        self.last: Handle | None = None  # after the last release: kept open until all is recorded
        self.looks = 0  # under way
        self._found: tuple[object, Found | OSError] | None = None
        self._mutex = threading.Lock()
        self._ended = threading.Condition(self._mutex)
        self._is_over = False
        self._recorded = 0  # times

    def is_same(self, status: os.stat_result) -> bool:
        """Return whether the file, which has *status*, is as it is recorded."""
        return self.stamp == stamp_of(status)

    def key(self) -> object:
        """Return what stays equal for as long as what a look finds may be recorded."""
        dirty: list[Range] = []
        for handle in self.inode.handles or ():
            dirty += handle.dirty
        return self._recorded, self.writers, tuple(dirty)

    def begin(self) -> None:
        """Note a look, which ends with deposit()."""
        with self._mutex:
            self.looks += 1

    def deposit(self, key: object, found: Found | OSError | None) -> None:
        """Leave what was found, None if the store fails, for the loop's thread; in any thread."""
        with self._mutex:
            self.looks -= 1
            self._ended.notify_all()
            if found is None:
                return
            if self._is_over:
                _drop(found)
                return
            if self._found is not None:
                if self._found[0] == key and _is_newer(self._found[1], found):
                    _drop(found)
                    return
                _drop(self._found[1])
            self._found = key, found

    def wait(self) -> None:
        """Wait until no look is under way."""
        with self._mutex:
            self._ended.wait_for(lambda: not self.looks)

    def take(self, status: os.stat_result, *, is_new: bool) -> Found | None:
        """Return what was left, None if nothing is that may be recorded; raises OSError, that of the look.

        Unless it *is new* enough, it has to be what the file, which has *status*, still is.
        """
        with self._mutex:
            if self._found is None:
                return None
            (key, found), self._found = self._found, None
        if isinstance(found, OSError):
            raise found
        was = found.status
        is_fit = (was.st_mode, was.st_uid, was.st_gid) == (
            *(status.st_mode, status.st_uid, status.st_gid),
        )
        if key == self.key() and is_fit and (is_new or stamp_of(was) == stamp_of(status)):
            return found
        found.drop()
        return None

    @property
    def has_found(self) -> bool:
        """Whether something was left."""
        return self._found is not None

    @property
    def is_found(self) -> bool:
        """Whether something was left that may still be recorded, or an error that will come again."""
        with self._mutex:
            if self._found is None:
                return False
            key, found = self._found
        if isinstance(found, OSError):
            return not isinstance(found, BlockingIOError)
        return key == self.key()

    def recorded(self, stamp: Stamp | None, base: int) -> None:
        """Note that the file is recorded as it was when it had *stamp*; take over its clone *base*."""
        self._recorded += 1
        self.settled(stamp, stamp)
        if self.base >= 0:
            os.close(self.base)
        self.base = base

    def settled(self, stamp: Stamp | None, seen: Stamp | None) -> None:
        """Note that the file as it is recorded has *stamp*, and after what is known of it *seen*; None: not known."""
        self.stamp, self.seen = stamp, seen

    def close(self) -> None:
        """Let go."""
        with self._mutex:
            self._is_over = True
            if self._found is not None:
                _drop(self._found[1])
                self._found = None
        self.recorded(None, -1)


def _is_newer(one: Found | OSError, other: Found | OSError) -> bool:
    if isinstance(one, Found) and isinstance(other, Found):
        return one.asked_ns > other.asked_ns
    return isinstance(one, Found)


def _drop(found: Found | OSError) -> None:
    if isinstance(found, Found):
        found.drop()


class Unseen:
    """The watched files, and a thread that looks at them unasked."""

    def __init__(self, directory: int) -> None:
        """*directory* is where files without a name may be made."""
        self._directory = directory
        self._watches: dict[Inode, Watch] = {}
        self.files: Container[Inode] = self._watches  # that are watched
        self.no_clones: set[int] = set()  # devices
        self._exact: dict[int, bool] = {}  # by device
        self._queue: SimpleQueue[tuple[Watch, object, Look] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._watches)

    def get(self, inode: Inode) -> Watch | None:
        """Return the watch on *inode*, None if all its writes are seen."""
        return self._watches.get(inode)

    def all(self) -> tuple[Watch, ...]:
        """Return every watch."""
        return tuple(self._watches.values())

    def begin(self, handle: Handle, *, is_recorded: bool) -> Watch:
        """Watch the file of *handle*, which the kernel passes through for writing from now on.

        *is_recorded*: what it is, but for the dirty extents, is recorded.
        """
        watch = self._watches.get(handle.inode)
        if watch is None:
            watch = self._watches[handle.inode] = Watch(handle.inode)
            watch.is_quiet = clones.file_system(handle.fd) == clones.TMPFS
            if is_recorded:
                stamp = self.stamp_now(handle.fd)
                watch.recorded(stamp, self._base(handle.fd))
        watch.writers += 1
        watch.blind = watch.blind or handle.kind is OpenKind.PASSTHROUGH
        return watch

    def end(self, watch: Watch) -> None:
        """Stop watching."""
        del self._watches[watch.inode]
        watch.close()

    def stamp(self, status: os.stat_result, fd: int, asked_ns: int) -> Stamp | None:
        """Return the stamp of *status*, asked of *fd* at that time; None if a change at once might not change it."""
        exact = self._exact.get(status.st_dev)
        if exact is None:
            exact = self._exact[status.st_dev] = _is_exact(fd)
        if exact or asked_ns - status.st_mtime_ns > _GRAIN_NS:
            return stamp_of(status)
        return None

    def stamp_now(self, fd: int) -> Stamp | None:
        """See stamp(), for what *fd* is now."""
        asked_ns = time.time_ns()
        return self.stamp(os.fstat(fd), fd, asked_ns)

    def _base(self, fd: int) -> int:
        """Return a clone of the file *fd* as it is, -1 if that is not worth it or would take long."""
        status = os.fstat(fd)
        if status.st_size <= COPY_MOST or status.st_dev in self.no_clones:
            return -1
        if clones.unwritten_pages(fd) > _UNWRITTEN_MOST:
            return -1
        try:
            return clones.clone(fd, self._directory)
        except OSError as exc:
            if exc.errno in clones.NO_CLONES:
                self.no_clones.add(status.st_dev)
            return -1

    def ask(self, watch: Watch, look: Look) -> None:
        """Have *look* done by the thread, at once if there can be none; what it finds is left with *watch*."""
        watch.begin()
        task = watch, watch.key(), look
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="looker", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # pids.max, RLIMIT_NPROC
                look_for(*task)
                return
            self._thread = thread
        self._queue.put(task)

    def _run(self) -> None:
        while (task := self._queue.get()) is not None:
            look_for(*task)

    def close(self) -> None:
        """End the thread and every watch."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        for watch in self.all():
            self.end(watch)


def look_for(watch: Watch, key: object, look: Look) -> None:
    """Do *look* and leave what it finds with *watch*; in any thread."""
    try:
        found: Found | OSError | None = look.run()
    except (OSError, DkfsError) as exc:
        found = exc if isinstance(exc, OSError) else OSError(errno.EIO, str(exc))
    except Exception as exc:  # an edge: the thread would end, and nobody would look any more
        log.exception("a look at a file failed by an internal error")
        found = OSError(errno.EIO, repr(exc))
    watch.deposit(key, found)


def _is_exact(fd: int) -> bool:
    release = os.uname().release.split(".")
    version = tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in release[:2])
    return version >= _EXACT_SINCE and clones.file_system(fd) in _EXACT
