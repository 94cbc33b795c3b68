"""Finding names in the backing directory: lookup and reading directories."""

import errno
import os
from collections.abc import Iterator
from itertools import islice

from dkfs.overlay.backing import by_fd
from dkfs.overlay.captures import Captures
from dkfs.overlay.counting import FileCount
from dkfs.overlay.files import Files
from dkfs.overlay.handles import DirHandle, HandleTable
from dkfs.overlay.inodes import Inode, InodeTable
from dkfs.overlay.journal import Journal
from dkfs.overlay.listing import Listed

Found = tuple[Inode, os.stat_result]
_AFTER_RESERVED = (1 << 62) + 1  # a position that no file system uses


class Lookups:
    """See the module."""

    def __init__(
        self,
        table: InodeTable,
        journal: Journal,
        captures: Captures,
        files: Files,
        *,
        count: FileCount,
        reserved: bytes | None,
        is_listed: bool = False,
    ) -> None:
        """*reserved*, listed or not, is a name in the root that is not the backing directory's."""
        self._table = table
        self._journal = journal
        self._captures = captures
        self._files = files
        self._reserved = reserved
        self._is_listed = is_listed
        self._count = count
        self._euid = os.geteuid()
        self.directories: HandleTable[DirHandle] = HandleTable()

    def lookup(self, parent: Inode, name: bytes) -> Found:
        """Return what *name* in *parent* is, referenced once more; raises OSError."""
        status = os.stat(name, dir_fd=self._table.fd(parent), follow_symlinks=False)
        return self._table.referred(parent, name, status), status

    def opendir(self, inode: Inode) -> int:
        """Open a directory; return the number of its handle."""
        return self.directories.add(DirHandle(inode))

    def listing(self, number: int, position: int) -> Iterator[Listed]:
        """Find the names in an open directory from *position* on, 0: all as they are now; raises OSError.

        "." and ".." are among them.
        """
        handle = self.directories[number]
        reserved = self._reserved if handle.inode is self._table.root else None
        if position == 0 and reserved is not None and self._is_listed:
            yield Listed(reserved, _AFTER_RESERVED)
        if position == _AFTER_RESERVED:
            position = 0
        window = handle.window
        index = window.start(position) if position else -1
        while index >= 0 or self._fill(handle, position):
            found = window.found()
            for each in islice(found, max(index, 0), None):
                if each.name != reserved:
                    yield each
            position, index = found[-1].after, -1

    def _fill(self, handle: DirHandle, position: int) -> bool:
        fd = self._open_again(handle.inode)
        try:
            return handle.window.fill(fd, position)
        finally:
            os.close(fd)

    def inode_of(self, number: int) -> Inode:
        """Return the inode of an open directory."""
        return self.directories[number].inode

    def releasedir(self, number: int) -> None:
        """Close an open directory."""
        self.directories.remove(number)

    def _open_again(self, inode: Inode) -> int:
        """Return an fd of a directory for reading it, the caller's to close; raises OSError."""
        path = by_fd(self._table.fd(inode))
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _check(self, parent: Inode, name: bytes) -> None:
        if parent is self._table.root and name == self._reserved:
            raise OSError(errno.EPERM, f"{os.fsdecode(name)} is dkfs's own name here")
