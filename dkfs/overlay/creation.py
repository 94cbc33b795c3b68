"""Making things in the backing directory and in the log: create, mkdir, mknod, symlink, link, tmpfile."""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Mapping

from dkfs.failpoints import failpoint
from dkfs.history.change import Link, NameChange, NodeChange
from dkfs.model.operation import OpKind
from dkfs.overlay import backing
from dkfs.overlay.backing import by_fd, xattrs_of
from dkfs.overlay.files import backing_flags
from dkfs.overlay.inodes import Inode
from dkfs.overlay.lookups import Found, Lookups
from dkfs.overlay.origin import Caller
from dkfs.overlay.privileges import DEFAULT_ACL, is_plain

_SUID_SGID = stat.S_ISUID | stat.S_ISGID


class Creation(Lookups):
    """See the module."""

    def create(
        self,
        parent: Inode,
        name: bytes,
        mode: int,
        flags: int,
        caller: Caller,
        *,
        umask: int = 0,
    ) -> tuple[int, Inode, os.stat_result]:
        """Create a regular file and open it; return (handle, inode, status).  Raises OSError.

        *umask*, here and below: what is to be taken off *mode* unless the directory has a default ACL.
        """
        self._check(parent, name)
        mode = self._masked(parent, mode, umask)
        wanted = backing_flags(flags)
        if flags & os.O_ACCMODE == os.O_WRONLY and self._euid == 0:
            wanted |= os.O_NOATIME  # only captures will read through it
        self._table.make_room()
        directory = self._table.fd(parent)
        try:
            failpoint("backing.create")
            fd = os.open(name, wanted | os.O_CREAT | os.O_EXCL, mode & 0o7777, dir_fd=directory)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            inode, status = self.lookup(parent, name)
            try:
                return self._files.open(inode, flags & ~os.O_CREAT, caller), inode, status
            except BaseException:
                self._table.forget(inode, 1)
                raise
        made = None
        try:
            status = self._own(fd, directory, mode, caller)
            made = self._created(OpKind.CREATE, caller, parent, name, status, xattrs_of(fd))
            return self._files.opened(made, fd, flags, caller, 0), made, status
        except BaseException:
            os.close(fd)
            if made is None:
                self._unmake(parent, name)
            else:
                self._table.forget(made, 1)  # it is recorded, and stays
            raise

    def tmpfile(
        self, parent: Inode, mode: int, flags: int, caller: Caller, *, umask: int = 0
    ) -> tuple[int, Inode, os.stat_result]:
        """Create a file without a name, as O_TMPFILE; return as create().  Raises OSError.

        Nothing of it is recorded, unless link() gives it a name.
        """
        mode = self._masked(parent, mode, umask)
        wanted = backing_flags(flags) | os.O_TMPFILE
        self._table.make_room()
        directory = self._table.fd(parent)
        failpoint("backing.tmpfile")
        fd = os.open(b".", wanted, mode & 0o7777, dir_fd=directory)
        inode = None
        try:
            status = self._own(fd, directory, mode, caller)
            held = os.open(by_fd(fd), os.O_PATH | os.O_CLOEXEC)
            try:
                inode = self._table.nameless(held, status)
            except BaseException:
                os.close(held)
                raise
            self._table.refer(inode)
            inode.plain = is_plain(status, xattrs_of(fd))
            return self._files.opened(inode, fd, flags, caller, 0), inode, status
        except BaseException:
            os.close(fd)
            if inode is not None:
                self._table.forget(inode, 1)
            raise

    def mkdir(
        self, parent: Inode, name: bytes, mode: int, caller: Caller, *, umask: int = 0
    ) -> Found:
        """Create a directory; raises OSError."""
        mode = self._masked(parent, mode, umask)
        return self._make(
            OpKind.MKDIR,
            parent,
            name,
            mode,
            caller,
            lambda directory: os.mkdir(name, mode & 0o7777, dir_fd=directory),
        )

    def mknod(
        self, parent: Inode, name: bytes, mode: int, rdev: int, caller: Caller, *, umask: int = 0
    ) -> Found:
        """Create a fifo, socket, device or regular file; raises OSError."""
        mode = self._masked(parent, mode, umask)
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

    def _masked(self, parent: Inode, mode: int, umask: int) -> int:
        if not mode & umask:
            return mode
        if not parent.plain:
            fd = self._table.fd(parent)
            xattrs = xattrs_of(by_fd(fd))
            parent.plain = is_plain(os.fstat(fd), xattrs)
            if DEFAULT_ACL in xattrs:
                return mode
        return mode & ~umask

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
        failpoint("backing.make")
        make(directory)
        try:
            fd = os.open(name, backing.O_PATH, dir_fd=directory)
            try:
                status = self._own(fd, directory, mode, caller)
                inode = self._created(
                    kind, caller, parent, name, status, xattrs_of(by_fd(fd)), target=target
                )
            finally:
                os.close(fd)
        except BaseException:
            self._unmake(parent, name, is_directory=kind is OpKind.MKDIR)
            raise
        return inode, status

    def _unmake(self, parent: Inode, name: bytes, *, is_directory: bool = False) -> None:
        """Remove what was just made and is not recorded: the answer is an error."""
        with contextlib.suppress(OSError):
            remove = os.rmdir if is_directory else os.unlink
            remove(name, dir_fd=self._table.fd(parent))

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
        failpoint("backing.own")
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
        inode = self._table.referred(parent, name, status)
        inode.plain = is_plain(status, xattrs)
        try:
            self._journal.created(
                kind,
                caller,
                inode,
                status,
                os.fstat(self._table.fd(parent)),
                xattrs=xattrs,
                target=target,
            )
        except BaseException:
            self._table.forget(inode, 1)
            raise
        self._count.change(0 if inode.is_dir else 1)
        return inode

    def link(self, inode: Inode, parent: Inode, name: bytes, caller: Caller) -> Found:
        """Give *inode* one more name, or its first; raises OSError."""
        self._check(parent, name)
        self._refuse_other_mount(inode, parent)
        if inode.unlinked and not inode.node:
            return self._link_first(inode, parent, name, caller)
        self._captures.capture(inode, self._journal.origin(caller))
        node, directory_node = self._journal.node(inode), self._journal.node(parent)
        source, directory = self._table.pair(inode, parent)
        failpoint("backing.link")
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
        self._table.refer(inode)
        self._count.change(1, status.st_size)
        return inode, status

    def _refuse_other_mount(self, one: Inode, other: Inode) -> None:
        """Raise OSError(EXDEV) if they are on different mounts: as the kernel does, before one of them is asked and hangs."""
        if one.dev == other.dev:
            return
        mount = backing.mount_of(self._table.fd(one))
        if mount != backing.mount_of(self._table.fd(other)):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    def _link_first(self, inode: Inode, parent: Inode, name: bytes, caller: Caller) -> Found:
        """Give a file from tmpfile() its name: from now on it is in the history, with all its contents."""
        self._journal.node(parent)
        source, directory = self._table.pair(inode, parent)
        contents = self._captures.whole(inode, source)
        try:
            failpoint("backing.link-first")
            os.link(by_fd(source), name, dst_dir_fd=directory, follow_symlinks=True)
        except OSError:
            contents.release()
            raise
        status = os.fstat(source)
        inode.unlinked = False
        self._table.moved(inode, parent, name)
        self._table.unpin(inode)
        self._table.refer(inode)
        self._count.change(1, status.st_size)
        self._journal.created(
            OpKind.CREATE,
            caller,
            inode,
            status,
            os.fstat(directory),
            xattrs=xattrs_of(by_fd(source)),
            contents=contents,
        )
        return inode, status
