"""Where inodes were that the kernel has forgotten: who holds a file handle of one (NFS, name_to_handle_at) may ask for it again."""

import errno
import os
from collections import OrderedDict
from typing import Final

from dkfs.overlay.inodes import Inode, InodeTable

_MOST: Final = 65_536  # inodes, about 200 bytes each: a handle that is older is stale


class Forgotten:
    """See the module.  What lost its name is not here: its handles are stale."""

    def __init__(self, table: InodeTable, *, most: int = _MOST) -> None:
        """Remember the last *most*."""
        self._table = table
        self._most = most
        self._places: OrderedDict[int, tuple[int, bytes]] = (
            OrderedDict()
        )  # the directory's number, name

    def __len__(self) -> int:
        return len(self._places)

    def note(self, inode: Inode) -> None:
        """Hear that the kernel gives up references to *inode*, perhaps the last one."""
        if inode.parent is None or inode.unlinked:
            self._places.pop(inode.id, None)
            return
        self._places[inode.id] = inode.parent.id, inode.name
        if len(self._places) > self._most:
            self._places.popitem(last=False)

    def inode(self, number: int) -> Inode:
        """Return the inode that the kernel calls, or has called, *number*; raises OSError(ESTALE) if it is not there."""
        try:
            return self._table[number]
        except OSError:
            if number not in self._places:
                raise
        parent_number, name = self._places[number]
        parent = self.inode(parent_number)
        try:
            status = os.stat(name, dir_fd=self._table.fd(parent), follow_symlinks=False)
            if self._table.number(status) != number:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        except OSError:
            self._places.pop(number, None)
            self._table.forget(parent, 0)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None
        return self._table.found(parent, name, status)
