"""Where inodes were that the kernel has forgotten: who holds a file handle of one (NFS, name_to_handle_at) may ask for it again."""

import errno
import os
from typing import Final

from dkfs.overlay.inodes import Inode, InodeTable

_MOST: Final = 65_536  # inodes, about 200 bytes each: a handle that is older is stale
_GONE: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ESTALE))


class Forgotten:
    """See the module.  What lost its name is not here: its handles are stale.

    So are they when its number belongs to another file, which has another generation: see InodeTable.places.
    """

    def __init__(self, table: InodeTable, *, most: int = _MOST) -> None:
        """Remember the last *most*."""
        self._table = table
        self._places = table.places
        self._most = most

    def __len__(self) -> int:
        return len(self._places)

    def note(self, inode: Inode) -> None:
        """Hear that the kernel gives up references to *inode*, perhaps the last one."""
        parent = inode.parent
        self._places.pop(inode.id, None)  # each step stands by itself: several threads may forget
        if parent is None or inode.unlinked:
            return
        self._places[inode.id] = parent.id, inode.name, inode.generation
        if len(self._places) > self._most:
            self._places.popitem(last=False)

    def find(self, number: int) -> Inode:
        """Return the inode that the kernel calls, or has called, *number*, referenced once more.

        Raises OSError, ESTALE if it is not there.
        """
        below: list[int] = []  # what is to be found again, from the wanted one upwards
        at = number
        while (inode := self._table.refer_to(at)) is None:
            place = self._places.get(at)
            if place is None or len(below) > len(self._places):  # it would be in itself
                raise _stale()
            below.append(at)
            at = place[0]
        for each in reversed(below):
            inode = self._found(inode, each)
        return inode

    def _found(self, parent: Inode, number: int) -> Inode:
        """Return what was called *number* in *parent*, referenced; the reference to *parent* is taken back."""
        place = self._places.get(number)
        try:
            if place is None:
                raise _stale()
            status = os.stat(place[1], dir_fd=self._table.fd(parent), follow_symlinks=False)
            if self._table.number(status) != number:
                raise _stale()
            return self._table.referred(parent, place[1], status)
        except OSError as exc:
            if exc.errno not in _GONE:
                raise
            self._places.pop(number, None)
            raise _stale() from None
        finally:
            self._table.forget(parent, 1)


def _stale() -> OSError:
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))
