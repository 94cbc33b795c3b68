"""A bounded number of open fds that hold inodes.

An inode is held by an O_PATH fd or, beyond the bound, by the directory it is in and its name there:
it is opened again from its directory's fd, and device and inode number are checked.  What lost the
one name that was known, and has others, is opened again by its file handle, where there are such and
dkfs may.  All else that has no name keeps its fd until the kernel forgets it.

Threads: while stand-ins serve (fuse.kernel.standin), several of them look at things at the same time, and the loop
may come back in the middle.  What is found and changed here is so under one mutex; no system call that may be
slow is made under it.  An fd that was given out stays open for whoever uses it: see keep_fds().
"""

import errno
import itertools
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping

from dkfs.overlay.backing import O_PATH, file_handle, open_by_handle
from dkfs.overlay.inode import Inode

_Place = tuple[Inode, bytes]  # a directory, a name in it
_Step = tuple[Inode, Inode | None, bytes]  # an inode, its directory, its name there
_ATTEMPTS = 4  # to open what another thread moves just now; it is at one of two places


class Descriptors:
    """See the module."""

    def __init__(self, root: Inode, *, most: int | None) -> None:
        """Hold at most *most* inodes by fds that are not pinned; the fd of *root* stays the caller's."""
        self.root = root
        self._mutex = threading.Lock()
        self._open: OrderedDict[Inode, None] = OrderedDict()  # unpinned, least recently used first
        self._most = most if most is not None else default_fds()
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # For inodes and open files; the rest is for the store, for directories being read, and for
        # who asks on the control socket.
        self._all = soft - min(128, soft // 4)
        self.files = 0  # fds that open files hold
        self.pinned = 0
        self._given_up: list[int] = []  # fds to be closed
        self._dropped: list[int] = []  # fds to be closed, even then
        self._keeps = False  # they are closed later
        self._uses_handles = True  # until one is refused
        self._moving: Mapping[Inode, _Place] = {}  # where what is being moved may be already

    def fd(self, inode: Inode) -> int:
        """Return an O_PATH fd of *inode*, valid until the next call; raises OSError."""
        fd = inode.fd
        if fd < 0:
            return self._reopened(inode)
        if not inode.pinned:
            try:
                self._open.move_to_end(inode)
            except KeyError:
                pass  # given up by another thread this moment, and not closed yet
        return fd

    def begin_moving(self, places: Mapping[Inode, _Place]) -> None:
        """Hear that inodes may soon be at new *places*, before the table is told that they were moved."""
        with self._mutex:
            self._moving = {**self._moving, **places}

    def end_moving(self, places: Mapping[Inode, _Place]) -> None:
        """Hear that the table knows where the inodes of *places* are."""
        with self._mutex:
            self._moving = {k: v for k, v in self._moving.items() if k not in places}

    def place(self, inode: Inode) -> tuple[int, bytes] | None:
        """Return an fd of the directory of *inode* and its name there, valid until the next call.

        None if an fd of the inode itself is at hand, or nothing else leads to it.  Cheaper than fd()
        for what needs one system call only; who opens something compares it with is_it().
        """
        if inode.fd >= 0:
            return None
        with self._mutex:
            parent, name = inode.parent, inode.name
        if parent is None:
            return None
        return self.fd(parent), name

    @staticmethod
    def is_it(inode: Inode, status: os.stat_result) -> bool:
        """Return whether *status* is that of *inode*."""
        return (status.st_ino, status.st_dev) == (inode.ino, inode.dev)

    def _reopened(self, inode: Inode) -> int:
        """Open *inode* again, and the directories above it as far as needed."""
        fd = -1
        for attempt in itertools.count():
            moving = self._moving
            steps, fd = self._way(inode, moving if attempt % 2 else {})
            try:
                for step in steps:
                    fd = self._reopen(*step, fd)
            except OSError:
                if attempt > _ATTEMPTS or not self._have_moved(steps, moving):
                    raise
                continue
            break
        return fd

    def _way(self, inode: Inode, moving: Mapping[Inode, _Place]) -> tuple[list[_Step], int]:
        """Return the steps to *inode* from what has an fd, and that fd, -1 if there is none."""
        steps: list[_Step] = []
        at: Inode | None = inode
        fd = -1
        with self._mutex:
            while at is not None and (fd := at.fd) < 0:
                parent, name = moving.get(at) or (at.parent, at.name)
                steps.append((at, parent, name))
                at = parent
        steps.reverse()
        return steps, fd

    def _have_moved(self, steps: list[_Step], moving: Mapping[Inode, _Place]) -> bool:
        """Return whether *steps* may have failed because another thread moves something."""
        with self._mutex:
            return any(
                each in moving or (each.parent, each.name) != (parent, name)
                for each, parent, name in steps
            )

    def _reopen(self, inode: Inode, parent: Inode | None, name: bytes, directory: int) -> int:
        if parent is not None:
            try:
                fd = self._with_fds(lambda: os.open(name, O_PATH, dir_fd=directory), directory)
            except FileNotFoundError:  # not of a name that somebody asks for
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None
        elif (handle := inode.handle) is not None:
            fd = self._with_fds(lambda: open_by_handle(self.root.fd, handle), -1)
        else:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        if not self.is_it(inode, os.fstat(fd)):
            os.close(fd)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        with self._mutex:
            if inode.fd >= 0:  # another thread was faster
                self._given_up.append(fd)
                fd = inode.fd
            else:
                inode.fd = fd
                if not inode.pinned:
                    self._open[inode] = None
            self._close_oldest(keep=inode)
        self._let_go()
        return fd

    def _with_fds(self, work: Callable[[], int], directory: int) -> int:
        """Return what *work* opens, in *directory*."""
        try:
            return work()
        except OSError as exc:
            if exc.errno not in (errno.EMFILE, errno.ENFILE) or not self._open:
                raise
        # The application holds the fds that the bound left for it: give back half of ours,
        # but not the directory that is being walked.
        with self._mutex:
            for inode in list(self._open)[: max(1, len(self._open) // 2)]:
                if inode.fd != directory:
                    self._close(inode)
        self._let_go()
        return work()

    # The bound

    def _close_oldest(self, *, keep: Inode | None = None) -> None:
        """Close what is beyond the bound, but not *keep*.  With the mutex."""
        most = max(0, min(self._most, self._all - self.files - self.pinned))
        while len(self._open) > most:
            oldest = self._oldest()
            if oldest is keep:
                return
            self._close(oldest)

    def _oldest(self) -> Inode:
        while True:
            try:
                return next(iter(self._open))
            except RuntimeError:
                continue  # fd() of another thread, which takes no mutex, has moved one between the two calls

    def make_room(self) -> None:
        """Make room for one more open file; raises OSError(EMFILE) if it is wanted for others."""
        left = self._all - self.files - self.pinned
        if left <= 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if len(self._open) > min(self._most, left):
            with self._mutex:
                self._close_oldest()
            self._let_go()

    def count_file(self, change: int) -> None:
        """Count files that hold an fd each: *change* more."""
        with self._mutex:
            self.files += change

    def spare_fds(self) -> bool:
        """Close what can be opened again, because an open failed for want of fds; False if nothing."""
        with self._mutex:
            found = list(self._open)
            for inode in found:
                self._close(inode)
        self._let_go()
        return bool(found)

    def _close(self, inode: Inode) -> None:
        """Give up the fd of *inode*, which is not pinned.  With the mutex."""
        del self._open[inode]
        self._close_fd(inode)

    def _close_fd(self, inode: Inode) -> None:
        self._given_up.append(inode.fd)
        inode.fd = -1

    def _let_go(self) -> None:
        """Close what was given up, unless it is kept.  Without the mutex: the last fd of a large file takes time."""
        for fds in (self._dropped, self._given_up):
            while fds and not (self._keeps and fds is self._given_up):
                try:
                    fd = fds.pop()
                except IndexError:  # another thread has it
                    break
                os.close(fd)

    def keep_fds(self, *, keep: bool) -> None:
        """Close no fd that is given up, because a call may still use it; or close them now."""
        self._keeps = keep
        self._let_go()

    # Pins

    def pair(self, first: Inode, second: Inode) -> tuple[int, int]:
        """Return O_PATH fds of both, valid until the next call; raises OSError."""
        fd = self.fd(first)
        if first is second:
            return fd, fd
        if first.pinned:
            return fd, self.fd(second)
        with self._mutex:
            self._open.pop(first, None)
            first.pinned = True
        try:
            return fd, self.fd(second)
        finally:
            with self._mutex:
                first.pinned = False
                if first.fd >= 0:
                    self._open[first] = None

    def pin(self, inode: Inode) -> None:
        """Hold *inode* by an fd until the kernel forgets it: its name is about to go."""
        while not inode.pinned:
            self.fd(inode)
            with self._mutex:
                if inode.fd >= 0 and not inode.pinned:  # else another thread was faster
                    self._open.pop(inode, None)
                    inode.pinned = True
                    self.pinned += 1

    def unpin(self, inode: Inode) -> None:
        """Take a pin() back if *inode* can be opened again."""
        if not inode.pinned or inode is self.root:
            return
        if inode.parent is None:
            inode.handle = None if inode.unlinked else self._handle(inode)
            if inode.handle is None:
                return
        with self._mutex:
            inode.pinned = False
            self.pinned -= 1
            self._open[inode] = None
            self._close_oldest(keep=inode)
        self._let_go()

    def _handle(self, inode: Inode) -> bytes | None:
        """Return a handle that has been seen to work: it takes a privilege."""
        handle = file_handle(inode.fd)
        if handle is None or not self._uses_handles:
            return None
        try:
            os.close(open_by_handle(self.root.fd, handle))
        except OSError:
            self._uses_handles = False
            return None
        return handle


def default_fds() -> int:
    """Return how many fds inodes may hold: half of the limit, the rest is for open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, min(soft // 2, 8192))
