"""The namespace: lookup, create, unlink, rename, ... on the backing directory and in the log."""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping

from dkfs.history.change import Link, NameChange, NodeChange
from dkfs.model.ids import NO_NODE, Seq
from dkfs.model.operation import OpKind
from dkfs.overlay import backing
from dkfs.overlay.backing import by_fd, xattrs_of
from dkfs.overlay.captures import Captures
from dkfs.overlay.counting import FileCount
from dkfs.overlay.files import Files, backing_flags
from dkfs.overlay.handles import DirHandle, HandleTable
from dkfs.overlay.inodes import Inode, InodeTable
from dkfs.overlay.journal import Journal
from dkfs.overlay.origin import Caller
from dkfs.overlay.privileges import is_plain

Found = tuple[Inode, os.stat_result]
_SUID_SGID = stat.S_ISUID | stat.S_ISGID


class Names:
    """The names in the backing directory."""

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

    # Reading

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
            path = by_fd(self._table.fd(handle.inode))
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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

    # Creating

    def create(
        self, parent: Inode, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[int, Inode, os.stat_result]:
        """Create a regular file and open it; return (handle, inode, status).  Raises OSError."""
        self._check(parent, name)
        wanted = backing_flags(flags)
        self._table.make_room()
        directory = self._table.fd(parent)
        try:
            fd = os.open(name, wanted | os.O_CREAT | os.O_EXCL, mode & 0o7777, dir_fd=directory)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            inode, status = self.lookup(parent, name)
            try:
                return self._files.open(inode, flags & ~os.O_CREAT, caller), inode, status
            except OSError:
                self._table.forget(inode, 1)
                raise
        try:
            status = self._own(fd, directory, mode, caller)
            inode = self._created(OpKind.CREATE, caller, parent, name, status, xattrs_of(fd))
            return self._files.opened(inode, fd, flags, caller, 0), inode, status
        except OSError:
            os.close(fd)
            raise

    def mkdir(self, parent: Inode, name: bytes, mode: int, caller: Caller) -> Found:
        """Create a directory; raises OSError."""
        return self._make(
            OpKind.MKDIR,
            parent,
            name,
            mode,
            caller,
            lambda directory: os.mkdir(name, mode & 0o7777, dir_fd=directory),
        )

    def mknod(self, parent: Inode, name: bytes, mode: int, rdev: int, caller: Caller) -> Found:
        """Create a fifo, socket, device or regular file; raises OSError."""
        return self._make(
            OpKind.CREATE if stat.S_ISREG(mode) else OpKind.MKNOD,
            parent,
            name,
            mode,
            caller,
            lambda directory: os.mknod(name, mode, rdev, dir_fd=directory),
        )

    def symlink(self, parent: Inode, name: bytes, target: bytes, caller: Caller) -> Found:
        """Create a symbolic link; raises OSError."""
        return self._make(
            OpKind.SYMLINK,
            parent,
            name,
            0o777,
            caller,
            lambda directory: os.symlink(target, name, dir_fd=directory),
            target=target,
        )

    def _make(
        self,
        kind: OpKind,
        parent: Inode,
        name: bytes,
        mode: int,
        caller: Caller,
        make: Callable[[int], None],
        *,
        target: bytes | None = None,
    ) -> Found:
        self._check(parent, name)
        directory = self._table.fd(parent)
        make(directory)
        fd = os.open(name, backing.O_PATH, dir_fd=directory)
        try:
            status = self._own(fd, directory, mode, caller)
            inode = self._created(
                kind, caller, parent, name, status, xattrs_of(by_fd(fd)), target=target
            )
        finally:
            os.close(fd)
        return inode, status

    def _own(self, fd: int, directory: int, mode: int, caller: Caller) -> os.stat_result:
        """Give what was just created in *directory* to the caller; return its status."""
        status = os.fstat(fd)
        if (caller.uid, caller.gid) == (status.st_uid, status.st_gid) or self._euid != 0:
            return status  # who is not root cannot give files away, and serves only itself
        uid = caller.uid if caller.uid != status.st_uid else -1
        gid = caller.gid if caller.gid != status.st_gid else -1
        if os.fstat(directory).st_mode & stat.S_ISGID:
            gid = -1  # the directory has given its own
        if (uid, gid) == (-1, -1):
            return status
        os.chown(by_fd(fd), uid, gid)
        if mode & _SUID_SGID and not stat.S_ISDIR(status.st_mode):
            os.chmod(by_fd(fd), status.st_mode & 0o7777)  # chown cleared the bits
        return os.fstat(fd)

    def _created(
        self,
        kind: OpKind,
        caller: Caller,
        parent: Inode,
        name: bytes,
        status: os.stat_result,
        xattrs: Mapping[bytes, bytes],
        *,
        target: bytes | None = None,
    ) -> Inode:
        inode = self._table.found(parent, name, status)
        inode.lookups += 1
        inode.plain = is_plain(status, xattrs)
        self._count.change(0 if inode.is_dir else 1)
        self._journal.created(
            kind,
            caller,
            inode,
            status,
            os.fstat(self._table.fd(parent)),
            xattrs=xattrs,
            target=target,
        )
        return inode

    def link(self, inode: Inode, parent: Inode, name: bytes, caller: Caller) -> Found:
        """Give *inode* one more name; raises OSError."""
        self._check(parent, name)
        self._captures.capture(inode, self._journal.origin(caller))
        node, directory_node = self._journal.node(inode), self._journal.node(parent)
        source, directory = self._table.pair(inode, parent)
        os.link(by_fd(source), name, dst_dir_fd=directory, follow_symlinks=True)
        status = os.fstat(source)
        self._journal.named(
            OpKind.LINK,
            caller,
            (inode, parent),
            Link(directory_node, name),
            # Every name of a node is in one of its states, or history.links could not find it.
            nodes=(
                NodeChange(node, status, Link(directory_node, name)),
                NodeChange(directory_node, os.fstat(directory)),
            ),
            names=(NameChange(directory_node, name, node),),
        )
        if inode.parent is None:
            self._table.moved(inode, parent, name)
        inode.lookups += 1
        self._count.change(1, status.st_size)
        return inode, status

    # Removing and moving

    def unlink(self, parent: Inode, name: bytes, caller: Caller) -> Seq | None:
        """Remove a name that is not a directory's; raises OSError.

        Return the version to wait for if the file was made durable: removing it may be how an
        application commits.  SQLite's rollback journal is removed so, and its directory not synced.
        """
        inode = self._remove(
            OpKind.UNLINK, parent, name, caller, lambda fd: os.unlink(name, dir_fd=fd)
        )
        return parent.last if inode is not None and inode.synced else None

    def rmdir(self, parent: Inode, name: bytes, caller: Caller) -> None:
        """Remove an empty directory; raises OSError."""
        self._remove(OpKind.RMDIR, parent, name, caller, lambda fd: os.rmdir(name, dir_fd=fd))

    def _remove(
        self,
        kind: OpKind,
        parent: Inode,
        name: bytes,
        caller: Caller,
        remove: Callable[[int], None],
    ) -> Inode | None:
        self._check(parent, name)
        inode = self._about_to_lose(parent, name)
        node = self._journal.node(parent)
        directory = self._table.fd(parent)
        with self._unpinned_on_error(inode):
            remove(directory)
        self._journal.named(
            kind,
            caller,
            (parent,),
            Link(node, name),
            nodes=(NodeChange(node, os.fstat(directory)),),
            names=(NameChange(node, name, NO_NODE),),
            node=inode.node if inode is not None else NO_NODE,
        )
        if inode is not None:
            self._lost(inode, parent, name)
        return inode

    def _about_to_lose(self, parent: Inode, name: bytes) -> Inode | None:
        """Return the known inode that *name* leads to, held by an fd so that it outlives the name."""
        try:
            status = os.stat(name, dir_fd=self._table.fd(parent), follow_symlinks=False)
        except FileNotFoundError:
            return None
        inode = self._table.get(status)
        if inode is not None:
            with contextlib.suppress(PermissionError):  # what may not be read is not in the history
                self._journal.node(inode)  # the name is how a node is found in the history
            self._table.pin(inode)
        return inode

    @contextlib.contextmanager
    def _unpinned_on_error(self, inode: Inode | None) -> Iterator[None]:
        try:
            yield
        except OSError:
            if inode is not None:
                self._table.unpin(inode)
            raise

    def _lost(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """Note that *name* in *parent* is no name of *inode* any more."""
        status = os.fstat(inode.fd)
        if inode.is_dir or status.st_nlink == 0:
            inode.unlinked = True
        if not inode.is_dir:
            # What was written since the last capture was not counted.
            size = inode.recorded_size if inode.handles else status.st_size
            self._count.change(-1, size)
        if inode.parent is parent and inode.name == name:
            self._table.unnamed(inode)
        self._table.unpin(inode)
        self._table.forget(inode, 0)

    def rename(
        self,
        old_parent: Inode,
        old: bytes,
        new_parent: Inode,
        new: bytes,
        flags: int,
        caller: Caller,
    ) -> None:
        """Rename as renameat2(2) with *flags*; raises OSError."""
        self._check(old_parent, old)
        self._check(new_parent, new)
        inode = self._source(old_parent, old)
        victim = self._about_to_lose(new_parent, new)
        if victim is inode:
            self._table.unpin(inode)
            return  # two names of one file: rename(2) does nothing
        # The contents come before the name: no version shows the new name with older bytes.
        exchanged = victim if flags & backing.RENAME_EXCHANGE else None
        for each in (inode, exchanged) if exchanged is not None else (inode,):
            self._captures.capture(each, self._journal.origin(caller))
        nodes = self._journal.node(inode), self._journal.node(old_parent)
        other = self._journal.node(exchanged) if exchanged is not None else NO_NODE
        new_directory = self._journal.node(new_parent)
        old_fd, new_fd = self._table.pair(old_parent, new_parent)
        with self._unpinned_on_error(victim):
            backing.rename(old_fd, old, new_fd, new, flags)
        status = os.stat(new, dir_fd=new_fd, follow_symlinks=False)
        changes = [
            NodeChange(nodes[0], status, Link(new_directory, new)),
            NodeChange(nodes[1], os.fstat(old_fd)),
        ]
        if new_parent is not old_parent:
            changes.append(NodeChange(new_directory, os.fstat(new_fd)))
        if exchanged is not None:
            status = os.stat(old, dir_fd=old_fd, follow_symlinks=False)
            changes.append(NodeChange(other, status, Link(nodes[1], old)))
        self._journal.named(
            OpKind.EXCHANGE if exchanged is not None else OpKind.RENAME,
            caller,
            (inode, old_parent, new_parent, *((exchanged,) if exchanged else ())),
            Link(nodes[1], old),
            Link(new_directory, new),
            nodes=tuple(changes),
            names=(NameChange(nodes[1], old, other), NameChange(new_directory, new, nodes[0])),
            node=nodes[0],
        )
        self._renamed(inode, (old_parent, old), (new_parent, new), victim, exchanged)

    def _source(self, parent: Inode, name: bytes) -> Inode:
        status = os.stat(name, dir_fd=self._table.fd(parent), follow_symlinks=False)
        return self._table.found(parent, name, status)

    def _renamed(
        self,
        inode: Inode,
        old: tuple[Inode, bytes],
        new: tuple[Inode, bytes],
        victim: Inode | None,
        exchanged: Inode | None,
    ) -> None:
        if exchanged is not None:
            if (exchanged.parent, exchanged.name) == new:
                self._table.moved(exchanged, *old)
            self._table.unpin(exchanged)
        elif victim is not None:
            self._lost(victim, *new)
        if (inode.parent, inode.name) == old or inode.parent is None:
            self._table.moved(inode, *new)

    def _check(self, parent: Inode, name: bytes) -> None:
        if parent is self._table.root and name == self._reserved:
            raise OSError(errno.EPERM, f"{os.fsdecode(name)} is dkfs's own name here")
