"""The inodes that the kernel knows, and a bounded number of open fds that hold them.

An inode is held by an O_PATH fd or, beyond the bound, by the directory it is in and its name there:
it is opened again from its directory's fd, and device and inode number are checked.  What lost the
one name that was known, and has others, is opened again by its file handle, where there are such and
dkfs may.  All else that has no name keeps its fd until the kernel forgets it.
"""

import errno
import os
import resource
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from dkfs.model.ids import NO_NODE, NodeId, Seq
from dkfs.overlay.backing import O_PATH, file_handle, open_by_handle

if TYPE_CHECKING:
    from dkfs.history.frozen import FrozenFile
    from dkfs.overlay.handles import Handle

ROOT_ID = 1  # the kernel's name for the root inode
_SECOND_ONE = 1 << 61  # for a file that has the number which the kernel keeps for the root


class Inode:
    """A file, directory, ... of the backing directory that the kernel, or a child, refers to."""

    __slots__ = (
        "bypassed",
        "children",
        "dev",
        "fd",
        "frozen",
        "handle",
        "handles",
        "id",
        "ino",
        "is_dir",
        "last",
        "lookups",
        "name",
        "node",
        "parent",
        "pinned",
        "plain",
        "recorded_size",
        "synced",
        "unlinked",
    )

    def __init__(self, number: int, status: os.stat_result, device: int) -> None:
        self.id = number  # the kernel's node id
        self.dev = device  # a million may be known: the same object in each
        self.ino = number if number == status.st_ino else status.st_ino
        self.is_dir = (status.st_mode & 0o170000) == 0o040000
        self.fd = -1  # O_PATH, or -1
        self.pinned = False  # the fd is not closed to save fds
        self.handle: bytes | None = None  # of what has lost its known name and has others
        self.parent: Inode | None = None
        self.name = b""
        self.children = 0  # inodes whose parent is this
        self.lookups = 0  # references of the kernel
        self.node: NodeId = NO_NODE  # in the history, once known
        self.last = Seq(0)  # the last operation that concerned it
        self.unlinked = False
        self.synced = False  # an application has asked for its contents to be durable
        self.plain = False  # known to have no set-id bits and no security.capability
        self.bypassed = False  # the kernel's pages may be older than the file that it went past
        self.handles: list[Handle] | None = None  # open for writing
        self.frozen: list[FrozenFile] | None = None  # contents being recorded
        self.recorded_size = 0  # bytes, of the contents last frozen; valid while handles is set


class InodeTable:
    """All known inodes, by the kernel's id."""

    def __init__(
        self,
        root_fd: int,
        *,
        committed: Callable[[], Seq],
        most_fds: int | None = None,
        is_shared: bool = False,
    ) -> None:
        """Start with the root, held by *root_fd*, which stays the caller's.

        *committed* tells the last version in the store: until an inode's last operation is there,
        only this table knows which node it is.  *is_shared*: others move what is in the directory, too.
        """
        self._committed = committed
        self._is_shared = is_shared
        self._lingering: deque[Inode] = deque()
        status = os.fstat(root_fd)
        self.root = Inode(ROOT_ID, status, status.st_dev)
        self.root.fd = root_fd
        self.root.pinned = True
        self.root.lookups = 1
        self._by_id: dict[int, Inode] = {ROOT_ID: self.root}
        self._devices: dict[int, int] = {status.st_dev: 0}
        # The kernel's numbers, by device and inode, of what is too large: virtual ones are above.
        self._large: dict[tuple[int, int], int] = {}
        self._open: OrderedDict[Inode, None] = OrderedDict()  # unpinned, least recently used first
        self._most = most_fds if most_fds is not None else default_fds()
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # For inodes and open files; the rest is for the store, for directories being read, and for
        # who asks on the control socket.
        self._all = soft - min(128, soft // 4)
        self.files = 0  # fds that open files hold
        self.pinned = 0
        self._kept: list[int] | None = None  # fds to be closed later; None: they are closed at once
        self._uses_handles = True  # until one is refused

    def __len__(self) -> int:
        return len(self._by_id)

    def __getitem__(self, number: int) -> Inode:
        """Return the inode that the kernel calls *number*; raises OSError(ESTALE)."""
        try:
            return self._by_id[number]
        except KeyError:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None

    def get(self, status: os.stat_result) -> "Inode | None":
        """Return the known inode with the device and inode number of *status*."""
        return self._by_id.get(self.number(status))

    def known(self) -> tuple[Inode, ...]:
        """Return every known inode."""
        return tuple(self._by_id.values())

    def found(self, parent: Inode, name: bytes, status: os.stat_result) -> Inode:
        """Return the inode that *name* in *parent* leads to, known from now on."""
        number = self.number(status)
        inode = self._by_id.get(number)
        if inode is None:
            device = parent.dev if parent.dev == status.st_dev else status.st_dev
            inode = self._by_id[number] = Inode(number, status, device)
            self._place(inode, parent, name)
        elif inode.parent is None and inode is not self.root:
            self._place(inode, parent, name)
        elif self._is_shared and (inode.parent is not parent or inode.name != name):
            self._found_elsewhere(inode, parent, name)
        return inode

    def _found_elsewhere(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """Note where somebody moved *inode* to, unless it is known to be above *parent*, which was moved too then."""
        above: Inode | None = parent
        while above is not None and above is not inode:
            above = above.parent
        if above is None:
            self.moved(inode, parent, name)

    def moved(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """Note that *inode* is now *name* in *parent*."""
        old = inode.parent
        self._place(inode, parent, name)
        if old is not None:
            old.children -= 1
            self._drop_if_unused(old)

    def _place(self, inode: Inode, parent: Inode, name: bytes) -> None:
        inode.parent = parent
        inode.name = name
        parent.children += 1

    def number(self, status: os.stat_result) -> int:
        """Return what the kernel is to call the inode with *status*."""
        number = status.st_ino
        if status.st_dev != self.root.dev:
            number ^= self._devices.setdefault(status.st_dev, len(self._devices)) << 48
        elif number == self.root.ino:
            return ROOT_ID
        if number >= _SECOND_ONE:  # overlayfs, 9p and others use the high bits
            key = status.st_dev, status.st_ino
            return self._large.setdefault(key, _SECOND_ONE + 1 + len(self._large))
        return number if number != ROOT_ID else _SECOND_ONE

    def path(self, inode: Inode) -> bytes:
        """Return the path by which *inode* is known, for people and the kernel, not to be trusted."""
        names = []
        while inode.parent is not None:
            names.append(inode.name)
            inode = inode.parent
        return b"/".join(reversed(names))

    # File descriptors

    def fd(self, inode: Inode) -> int:
        """Return an O_PATH fd of *inode*, valid until the next call; raises OSError."""
        if inode.fd >= 0:
            if not inode.pinned:
                self._open.move_to_end(inode)
            return inode.fd
        chain = [inode]
        while (parent := chain[-1].parent) is not None and parent.fd < 0:
            chain.append(parent)
        for step in reversed(chain):
            self._reopen(step)
        return inode.fd

    def place(self, inode: Inode) -> tuple[int, bytes] | None:
        """Return an fd of the directory of *inode* and its name there, valid until the next call.

        None if an fd of the inode itself is at hand, or nothing else leads to it.  Cheaper than fd()
        for what needs one system call only; who opens something compares it with is_it().
        """
        if inode.fd >= 0 or inode.parent is None:
            return None
        return self.fd(inode.parent), inode.name

    @staticmethod
    def is_it(inode: Inode, status: os.stat_result) -> bool:
        """Return whether *status* is that of *inode*."""
        return (status.st_ino, status.st_dev) == (inode.ino, inode.dev)

    def _reopen(self, inode: Inode) -> None:
        if inode.parent is not None:
            directory = inode.parent.fd
            fd = self._with_fds(lambda: os.open(inode.name, O_PATH, dir_fd=directory), directory)
        elif (handle := inode.handle) is not None:
            fd = self._with_fds(lambda: open_by_handle(self.root.fd, handle), -1)
        else:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        status = os.fstat(fd)
        if not self.is_it(inode, status):
            os.close(fd)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        inode.fd = fd
        self._open[inode] = None
        self._close_oldest(keep=inode)

    def _with_fds(self, work: Callable[[], int], directory: int) -> int:
        """Return what *work* opens, in *directory*."""
        try:
            return work()
        except OSError as exc:
            if exc.errno not in (errno.EMFILE, errno.ENFILE) or not self._open:
                raise
        # The application holds the fds that the bound left for it: give back half of ours,
        # but not the directory that is being walked.
        for inode in list(self._open)[: max(1, len(self._open) // 2)]:
            if inode.fd != directory:
                self._close(inode)
        return work()

    def _close_oldest(self, *, keep: Inode | None = None) -> None:
        """Close what is beyond the bound, but not *keep*."""
        most = min(self._most, self._all - self.files - self.pinned)
        while len(self._open) > most:
            oldest = next(iter(self._open))
            if oldest is keep:
                return
            self._close(oldest)

    def make_room(self) -> None:
        """Make room for one more open file; raises OSError(EMFILE) if it is wanted for others."""
        if self.files + self.pinned >= self._all:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self._close_oldest()

    def _close(self, inode: Inode) -> None:
        del self._open[inode]
        self._close_fd(inode)

    def _close_fd(self, inode: Inode) -> None:
        if self._kept is None:
            os.close(inode.fd)
        else:
            self._kept.append(inode.fd)
        inode.fd = -1

    def keep_fds(self, *, keep: bool) -> None:
        """Close no fd that is given up, because a call may still use it; or close them now."""
        kept = self._kept or []
        self._kept = kept if keep else None
        for fd in () if keep else kept:
            os.close(fd)

    def spare_fds(self) -> bool:
        """Close what can be opened again, because an open failed for want of fds; False if nothing."""
        if not self._open:
            return False
        for inode in list(self._open):
            self._close(inode)
        return True

    def pair(self, first: Inode, second: Inode) -> tuple[int, int]:
        """Return O_PATH fds of both, valid until the next call; raises OSError."""
        fd = self.fd(first)
        if first.pinned:
            return fd, self.fd(second)
        del self._open[first]
        first.pinned = True
        try:
            return fd, self.fd(second)
        finally:
            first.pinned = False
            self._open[first] = None

    def pin(self, inode: Inode) -> None:
        """Hold *inode* by an fd until the kernel forgets it: its name is about to go."""
        if inode.pinned:
            return
        self.fd(inode)
        del self._open[inode]
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
        inode.pinned = False
        self.pinned -= 1
        self._open[inode] = None
        self._close_oldest(keep=inode)

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

    def unnamed(self, inode: Inode) -> None:
        """Note that the name by which *inode* is known is gone; it must be pinned."""
        parent, inode.parent = inode.parent, None
        if parent is not None:
            parent.children -= 1
            self._drop_if_unused(parent)

    def nameless(self, fd: int, status: os.stat_result) -> Inode:
        """Return the new inode that *fd*, an O_PATH one, is to hold: it has no name."""
        number = self.number(status)
        inode = self._by_id[number] = Inode(number, status, status.st_dev)
        inode.fd = fd
        inode.pinned = inode.unlinked = True
        self.pinned += 1
        return inode

    # References

    def forget(self, inode: Inode, lookups: int) -> None:
        """Take back *lookups* references of the kernel."""
        inode.lookups -= lookups
        self._drop_if_unused(inode)

    def _drop_if_unused(self, inode: Inode) -> None:
        while inode.lookups <= 0 and inode.children == 0 and inode is not self.root:
            if self._by_id.get(inode.id) is not inode or inode.handles:
                return
            if inode.last > self._committed() and not inode.unlinked:
                self._lingering.append(inode)
                return
            self._drop(inode)
            parent, inode.parent = inode.parent, None
            if parent is None:
                return
            parent.children -= 1
            inode = parent

    def sweep(self) -> None:
        """Forget what only waited for its last operation to be committed."""
        for _ in range(len(self._lingering)):
            self._drop_if_unused(self._lingering.popleft())

    def _drop(self, inode: Inode) -> None:
        del self._by_id[inode.id]
        if inode.fd >= 0:
            if inode.pinned:
                self.pinned -= 1
                self._close_fd(inode)
            else:
                self._close(inode)

    def close(self) -> None:
        """Close every fd but the root's."""
        for inode in self.known():
            if inode is not self.root and inode.fd >= 0:
                os.close(inode.fd)
                inode.fd = -1
        self._open.clear()


def default_fds() -> int:
    """Return how many fds inodes may hold: half of the limit, the rest is for open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, min(soft // 2, 8192))
