"""Finding names in the backing directory: lookup and reading directories."""

import errno
import os

from dkfs.overlay.backing import by_fd
from dkfs.overlay.captures import Captures
from dkfs.overlay.counting import FileCount
from dkfs.overlay.files import Files
from dkfs.overlay.flags import ioctl
from dkfs.overlay.handles import DirHandle, HandleTable
from dkfs.overlay.inodes import Inode, InodeTable
from dkfs.overlay.journal import Journal

Found = tuple[Inode, os.stat_result]


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
        inode = self._table.found(parent, name, status)
        inode.lookups += 1
        return inode, status

    def opendir(self, inode: Inode) -> int:
        """Open a directory; return the number of its handle."""
        return self.directories.add(DirHandle(inode))

    def names(self, number: int, *, again: bool) -> list[bytes]:
        """Return the names in an open directory, read anew if *again*; raises OSError."""
        handle = self.directories[number]
        if again:
            fd = self._open_again(handle.inode)
            try:
                found = [os.fsencode(name) for name in os.listdir(fd)]
            finally:
                os.close(fd)
            if handle.inode is self._table.root and self._reserved is not None:
                found = [name for name in found if name != self._reserved]
                found += [self._reserved] if self._is_listed else []
            handle.names = found
        return handle.names

    def inode_of(self, number: int) -> Inode:
        """Return the inode of an open directory."""
        return self.directories[number].inode

    def releasedir(self, number: int) -> None:
        """Close an open directory."""
        self.directories.remove(number)

    def ioctl(self, number: int, command: int, data: bytes, room: int) -> bytes:
        """Do *command* on an open directory, as Files.ioctl() on a file; raises OSError."""
        fd = self._open_again(self.inode_of(number))
        try:
            return ioctl(fd, command, data, room)
        finally:
            os.close(fd)

    def _open_again(self, inode: Inode) -> int:
        """Return an fd of a directory for reading it, the caller's to close; raises OSError."""
        path = by_fd(self._table.fd(inode))
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _check(self, parent: Inode, name: bytes) -> None:
        if parent is self._table.root and name == self._reserved:
            raise OSError(errno.EPERM, f"{os.fsdecode(name)} is dkfs's own name here")
