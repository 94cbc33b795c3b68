"""The inodes that the kernel knows: their numbers, their places, and its references to them.

How they are held by fds, and what threads may do, is in overlay.descriptors.
"""

import errno
import itertools
import os
import sys
from collections import OrderedDict, deque
from collections.abc import Callable

from dkfs.model.ids import Seq
from dkfs.overlay.descriptors import Descriptors
from dkfs.overlay.inode import Inode, devices_of

__all__ = ["ROOT_ID", "Inode", "InodeTable"]

ROOT_ID = 1  # the kernel's name for the root inode
_SECOND_ONE = 1 << 61  # for a file that has the number which the kernel keeps for the root
_FOLDED = _SECOND_ONE | 1 << 60  # and 60 bits, of a number that is larger: virtual ones are above
_MIX = 0x9E3779B97F4A7C15  # odd: what differs before differs after, in 64 bits
_U64 = (1 << 64) - 1
_U32 = (1 << 32) - 1
_SPARSE_LEAST = 1 << 20  # bytes of a dictionary that is worth looking at
_SPARSE = 400  # bytes for each entry: one that has grown to be full has 30 to 100

Place = tuple[int, bytes, int]  # the number of a directory, a name in it, the generation


class InodeTable(Descriptors):
    """All known inodes, by the kernel's id."""

    def __init__(
        self,
        root_fd: int,
        *,
        committed: Callable[[], Seq],
        most_fds: int | None = None,
        is_shared: bool = False,
        generation: int = 1,
    ) -> None:
        """Start with the root, held by *root_fd*, which stays the caller's.

        *committed* tells the last version in the store: until an inode's last operation is there,
        only this table knows which node it is.  *is_shared*: others move what is in the directory, too.
        *generation*: the first one, not often the same, so that a file handle of another mount is stale.
        """
        status = os.fstat(root_fd)
        super().__init__(Inode(ROOT_ID, status, status.st_dev), most=most_fds)
        self.root.fd = root_fd
        self.root.pinned = True
        self.root.lookups = 1
        self._committed = committed
        self._is_shared = is_shared
        self._lingering: deque[Inode] = deque()
        self._by_id: dict[int, Inode] = {ROOT_ID: self.root}
        self._devices: dict[int, int] = {status.st_dev: 0}
        # The kernel's numbers, by device and inode, of what is too large and collides with another.
        self._colliding: dict[tuple[int, int], int] = {}
        self._spares = itertools.count(_SECOND_ONE + 1)
        # Of what has a number that was free before.  The same for many: it changes when a number becomes free.
        self._generation = generation & _U32
        # Where inodes were that the kernel has forgotten, see overlay.forgotten; they keep their generations.
        self.places: OrderedDict[int, Place] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_id)

    def __getitem__(self, number: int) -> Inode:
        """Return the inode that the kernel calls *number*; raises OSError(ESTALE)."""
        try:
            return self._by_id[number]
        except KeyError:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None

    def get(self, status: os.stat_result) -> Inode | None:
        """Return the known inode with the device and inode number of *status*."""
        return self._by_id.get(self.number(status))

    def foreign_device(self, number: int) -> int | None:
        """Return the device of what the kernel calls *number*; None if it is the root's, or nothing here."""
        inode = self._by_id.get(number)
        return None if inode is None or inode.dev == self.root.dev else inode.dev

    def devices(self, number: int) -> frozenset[int]:
        """Return the devices that a change of what the kernel calls *number* is about; the root's if it is nothing here."""
        return devices_of(self._by_id.get(number, self.root))

    def devices_above(self, number: int) -> frozenset[int]:
        """Return the devices of what the kernel calls *number* and of the directories above it."""
        inode: Inode | None = self._by_id.get(number, self.root)
        found = set()
        while inode is not None:
            found.add(inode.dev)
            inode = inode.parent
        return frozenset(found)

    def known(self) -> tuple[Inode, ...]:
        """Return every known inode."""
        with self._mutex:
            return tuple(self._by_id.values())

    def found(self, parent: Inode, name: bytes, status: os.stat_result) -> Inode:
        """Return the inode that *name* in *parent* leads to, known from now on."""
        number = self.number(status)
        with self._mutex:
            inode = self._found(number, parent, name, status)
        self._let_go()
        return inode

    def referred(self, parent: Inode, name: bytes, status: os.stat_result) -> Inode:
        """Return what found() does, referenced by the kernel once more."""
        number = self.number(status)
        with self._mutex:
            inode = self._found(number, parent, name, status)
            inode.lookups += 1
        if self._given_up or self._dropped:
            self._let_go()
        return inode

    def _found(self, number: int, parent: Inode, name: bytes, status: os.stat_result) -> Inode:
        inode = self._by_id.get(number)
        if inode is None:
            device = parent.dev if parent.dev == status.st_dev else status.st_dev
            inode = self._by_id[number] = self._made(number, status, device)
            self._put(inode, parent, name)
        elif inode.parent is None and inode is not self.root:
            self._put(inode, parent, name)
        elif self._is_shared and (inode.parent is not parent or inode.name != name):
            self._found_elsewhere(inode, parent, name)
        return inode

    def _made(self, number: int, status: os.stat_result, device: int) -> Inode:
        place = self.places.get(number)
        generation = self._generation if place is None else place[2]
        return Inode(number, status, device, generation)

    def _found_elsewhere(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """Note where somebody moved *inode* to, unless it is known to be above *parent*, which was moved too then."""
        above: Inode | None = parent
        while above is not None and above is not inode:
            above = above.parent
        if above is None:
            self._move(inode, parent, name)

    def moved(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """Note that *inode* is now *name* in *parent*."""
        with self._mutex:
            self._move(inode, parent, name)
        self._let_go()

    def _move(self, inode: Inode, parent: Inode, name: bytes) -> None:
        old = inode.parent
        self._put(inode, parent, name)
        if old is not None:
            old.children -= 1
            self._drop_if_unused(old)

    def _put(self, inode: Inode, parent: Inode, name: bytes) -> None:
        inode.parent = parent
        inode.name = name
        parent.children += 1

    def number(self, status: os.stat_result) -> int:
        """Return what the kernel is to call the inode with *status*."""
        number = status.st_ino
        if status.st_dev != self.root.dev:
            number ^= self._device(status.st_dev) << 48
        elif number == self.root.ino:
            return ROOT_ID
        if number >= _SECOND_ONE:  # overlayfs, 9p and others use the high bits
            return self._folded(status)
        return number if number != ROOT_ID else _SECOND_ONE

    def _device(self, device: int) -> int:
        index = self._devices.get(device)
        if index is None:
            with self._mutex:
                index = self._devices.setdefault(device, len(self._devices))
        return index

    def _folded(self, status: os.stat_result) -> int:
        """Return 60 bits of a number that is too large: always the same, unless another has them this moment."""
        key = status.st_dev, status.st_ino
        with self._mutex:
            number = self._colliding.get(key)
            if number is None:
                number = _FOLDED | ((key[1] ^ key[0] * _MIX) * _MIX & _U64) >> 4
                other = self._by_id.get(number)
                if other is not None and not self.is_it(other, status):
                    number = self._colliding[key] = next(self._spares)
        return number

    def path(self, inode: Inode) -> bytes:
        """Return the path by which *inode* is known, for people and the kernel, not to be trusted."""
        names = []
        while inode.parent is not None:
            names.append(inode.name)
            inode = inode.parent
        return b"/".join(reversed(names))

    def unnamed(self, inode: Inode) -> None:
        """Note that the name by which *inode* is known is gone; it must be pinned."""
        with self._mutex:
            parent, inode.parent = inode.parent, None
            if parent is not None:
                parent.children -= 1
                self._drop_if_unused(parent)
        self._let_go()

    def nameless(self, fd: int, status: os.stat_result) -> Inode:
        """Return the new inode that *fd*, an O_PATH one, is to hold: it has no name."""
        number = self.number(status)
        with self._mutex:
            inode = self._by_id[number] = self._made(number, status, status.st_dev)
            inode.fd = fd
            inode.pinned = inode.unlinked = True
            self.pinned += 1
        return inode

    # References

    def refer(self, inode: Inode) -> None:
        """Give the kernel one more reference to *inode*, which something else keeps known."""
        with self._mutex:
            inode.lookups += 1

    def refer_to(self, number: int) -> Inode | None:
        """Return what the kernel calls *number*, referenced once more; None if it is not known."""
        with self._mutex:
            inode = self._by_id.get(number)
            if inode is not None:
                inode.lookups += 1
        return inode

    def forget(self, inode: Inode, lookups: int) -> None:
        """Take back *lookups* references of the kernel."""
        with self._mutex:
            inode.lookups -= lookups
            self._drop_if_unused(inode)
        if self._given_up or self._dropped:
            self._let_go()

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
        """Forget what only waited for its last operation to be committed, and give back the room of what was forgotten."""
        for _ in range(len(self._lingering)):
            self.forget(self._lingering.popleft(), 0)
        with self._mutex:
            # A dictionary never gets smaller by itself: 84 MB after a million.
            if sys.getsizeof(self._by_id) > _SPARSE_LEAST + _SPARSE * len(self._by_id):
                self._by_id = dict(self._by_id)

    def forget_places(self) -> None:
        """Hear that files were removed that nobody here knew: what has one of their numbers is another."""
        with self._mutex:
            self.places.clear()
            self._generation = self._generation + 1 & _U32

    def _drop(self, inode: Inode) -> None:
        del self._by_id[inode.id]
        if self._colliding:
            self._colliding.pop((inode.dev, inode.ino), None)
        if inode.unlinked:  # the number is free
            self.places.pop(inode.id, None)
            self._generation = self._generation + 1 & _U32
        if inode.fd >= 0:
            if inode.pinned:
                self.pinned -= 1
            else:
                del self._open[inode]
            # No request is about it any more, so that no call uses its fd: not even while others are kept.
            self._dropped.append(inode.fd)
            inode.fd = -1

    def close(self) -> None:
        """Close every fd but the root's."""
        for inode in self.known():
            if inode is not self.root and inode.fd >= 0:
                self._close_fd(inode)
        self._open.clear()
        self.keep_fds(keep=False)
