"""Attributes: getattr, setattr, extended attributes, statfs."""

import errno
import os
import stat
from collections.abc import Mapping
from typing import NamedTuple

from dkfs.failpoints import failpoint
from dkfs.history.change import NodeChange
from dkfs.model.ids import Seq
from dkfs.model.operation import OpKind, Origin
from dkfs.overlay.access import ACL_ACCESS
from dkfs.overlay.backing import Time, born, by_fd, set_times, xattrs_of
from dkfs.overlay.files import Files
from dkfs.overlay.inodes import Inode, InodeTable
from dkfs.overlay.journal import Journal
from dkfs.overlay.origin import Caller, is_admin, is_in_group
from dkfs.overlay.passed import PassedCaptures
from dkfs.overlay.privileges import CAPABILITY, drop, mode_after_chown

STORE_XATTR = b"user.dkfs.store"  # on the root: the path of the store; answered, never listed
_TRUSTED = b"trusted."
READ_ONLY_XATTR = b"user.dkfs.read-only"  # on the root of a mount that records nothing: b"1"


class NewAttributes(NamedTuple):
    """What setattr is to change; None leaves it as it is."""

    mode: int | None = None  # permission bits
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime: Time | None = None
    mtime: Time | None = None


_NOTHING = NewAttributes()


class Attributes:
    """The metadata of inodes."""

    def __init__(
        self,
        table: InodeTable,
        journal: Journal,
        captures: PassedCaptures,
        files: Files,
        *,
        store_path: bytes,
        is_read_only: bool = False,
    ) -> None:
        self._table = table
        self._journal = journal
        self._captures = captures
        self._files = files
        self._store_path = store_path
        self._is_read_only = is_read_only

    def get(self, inode: Inode) -> os.stat_result:
        """Return the status of *inode*; raises OSError."""
        place = self._table.place(inode)
        if place is not None:
            try:
                status = os.stat(place[1], dir_fd=place[0], follow_symlinks=False)
            except FileNotFoundError:
                status = None
            if status is not None and self._table.is_it(inode, status):
                return status
            # Another thread has moved it this moment; or somebody behind the mount, which fd() finds out.
        return os.fstat(self._table.fd(inode))

    def born(self, inode: Inode) -> int | None:
        """Return the time of birth in ns since the epoch, None if there is none; raises OSError."""
        return born(self._table.fd(inode))

    def set(
        self,
        inode: Inode,
        new: NewAttributes,
        number: int | None,
        caller: Caller,
        *,
        kill: bool | None = None,
    ) -> os.stat_result:
        """Change attributes, through handle *number* if there is one; return the new status.

        *kill*, of a truncation: see privileges.drop().  Raises OSError.
        """
        if new.size is not None:
            self._truncate(inode, new.size, number, self._journal.origin(caller), kill=kill)
        if new._replace(size=None, atime=None) != _NOTHING:
            # The contents come before the attributes: no version shows the new ones with older bytes.
            self._captures.capture(inode, self._journal.origin(caller))
        fd, path = self._target(inode)
        settled = self._captures.settled(inode)
        failpoint("backing.setattr")
        changes_owner = new.uid is not None or new.gid is not None
        if new == _NOTHING and not inode.is_dir:
            # chown(path, -1, -1), which takes privileges away, or the kernel's notice before a write,
            # of which files.Files takes care.  It has not asked who may: for root, whose writes take
            # no set-id bits, and for users who do not own the file, nothing is the safe answer.
            changes_owner = caller.uid == os.fstat(fd).st_uid != 0
        if changes_owner:
            kept = mode_after_chown(os.fstat(fd), self._journal.origin(caller))
            os.chown(path, -1 if new.uid is None else new.uid, -1 if new.gid is None else new.gid)
            if kept is not None:
                os.chmod(path, kept)
        if new.mode is not None:
            # After chown, which clears the set-user-id bits.
            os.chmod(path, new.mode)
            inode.plain = False  # until somebody looks
        if new.atime is not None or new.mtime is not None:
            set_times(path, new.atime, new.mtime)
        status = os.fstat(fd)
        if changes_owner or new._replace(size=None, atime=None) != _NOTHING:
            # chmod changes the mask of an ACL; before chown the kernel has removed security.capability.
            xattrs = xattrs_of(path) if new.mode is not None else None
            self._record(OpKind.SETATTR, inode, status, caller, xattrs)
        settled()
        return status

    def _target(self, inode: Inode) -> tuple[int, int | bytes]:
        """Return an fd of *inode* for fstat, and what names it in calls that take an fd or a path."""
        if inode.handles:
            # What is open is cheaper than a walk through /proc: programs that copy set attributes
            # before they close.
            return inode.handles[0].fd, inode.handles[0].fd
        fd = self._table.fd(inode)
        return fd, by_fd(fd)

    def _truncate(
        self, inode: Inode, size: int, number: int | None, origin: Origin, *, kill: bool | None
    ) -> None:
        handle = None if number is None else self._files.handles[number]
        if handle is None and inode.handles:
            handle = inode.handles[0]
        if handle is not None and handle.writable:
            if not inode.plain:
                drop(self._journal, inode, handle.fd, origin, kill=kill)
            self._captures.before_truncate(inode, size)
            before = os.fstat(handle.fd).st_size
            past = inode in self._captures.unseen.files
            if past:
                self._captures.before_write(handle)
            failpoint("backing.truncate")
            # By its name it is refused what an open fd is not: if the file is immutable.
            os.truncate(handle.fd if number is not None else by_fd(handle.fd), size)
            if past:
                self._captures.after_write(handle)
            # What is cut off is dirty: the file may grow again before it is captured.
            self._captures.written(handle, size, before)
            return
        fd = self._files.open_for_truncation(inode)
        try:
            if not inode.plain:
                drop(self._journal, inode, fd, origin, kill=kill)
            self._captures.before_truncate(inode, size)
            before = os.fstat(fd).st_size
            failpoint("backing.truncate-by-name")
            # By its name: to the size that it has, xfs then leaves the times alone, as for who asked.
            os.truncate(by_fd(fd), size)
            self._captures.truncated(inode, fd, before, origin)
        finally:
            os.close(fd)

    def _record(
        self,
        kind: OpKind,
        inode: Inode,
        status: os.stat_result,
        caller: Caller,
        xattrs: Mapping[bytes, bytes] | None,
    ) -> None:
        if inode.unlinked:
            return
        node = self._journal.node(inode)
        change = NodeChange(node, status, None, None, xattrs)
        self._journal.changed(kind, self._journal.origin(caller), inode, change)

    # Extended attributes

    def getxattr(self, inode: Inode, name: bytes) -> bytes:
        """Return the value of *name*; raises OSError."""
        if name == STORE_XATTR and inode is self._table.root:
            return self._store_path
        if name == READ_ONLY_XATTR and self._is_read_only and inode is self._table.root:
            return b"1"
        if name == CAPABILITY and inode.plain:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        path, follow = self._path(inode)
        return os.getxattr(path, name, follow_symlinks=follow)

    def _path(self, inode: Inode) -> tuple[bytes, bool]:
        """Return a path of *inode*, and whether its last part is to be followed."""
        place = self._table.place(inode)
        if place is None:
            return by_fd(self._table.fd(inode)), True
        return b"%s/%s" % (by_fd(place[0]), place[1]), False

    def listxattr(self, inode: Inode, caller: Caller) -> list[bytes]:
        """Return the names of the extended attributes that *caller* may know of; raises OSError."""
        path, follow = self._path(inode)
        names = [os.fsencode(name) for name in os.listxattr(path, follow_symlinks=follow)]
        if any(name.startswith(_TRUSTED) for name in names) and not is_admin(caller):
            # The kernel leaves that to the file system; who reads one it checks itself.
            names = [name for name in names if not name.startswith(_TRUSTED)]
        return names

    def setxattr(
        self,
        inode: Inode,
        name: bytes,
        value: bytes,
        caller: Caller,
        *,
        flags: int = 0,
        kills_setgid: bool = False,
    ) -> None:
        """Set *name* to *value*, with *flags* of setxattr(2); raises OSError.

        *kills_setgid*: *name* is an ACL, set by who may not keep the set-group-id bit.
        """
        self._refuse_reserved(inode, name)
        fd = self._table.fd(inode)
        failpoint("backing.setxattr")
        os.setxattr(by_fd(fd), name, value, flags)
        mode = os.fstat(fd).st_mode
        if kills_setgid and mode & stat.S_ISGID:
            os.chmod(by_fd(fd), stat.S_IMODE(mode) & ~stat.S_ISGID)
        inode.plain = False
        # Setting an ACL changes the mode.
        self._record(OpKind.SETXATTR, inode, os.fstat(fd), caller, xattrs_of(by_fd(fd)))

    def is_foreign_acl(self, inode: Inode, name: bytes, caller: Caller) -> bool:
        """Return whether *name* is an ACL and *caller* may not keep set-group-id, as far as an engine is not told of it."""
        if name != ACL_ACCESS or caller.uid == 0:
            return False
        group = self.get(inode).st_gid
        return caller.gid != group and not is_in_group(caller.pid, group)

    def removexattr(self, inode: Inode, name: bytes, caller: Caller) -> None:
        """Remove *name*; raises OSError."""
        self._refuse_reserved(inode, name)
        fd = self._table.fd(inode)
        failpoint("backing.removexattr")
        os.removexattr(by_fd(fd), name)
        self._record(OpKind.REMOVEXATTR, inode, os.fstat(fd), caller, xattrs_of(by_fd(fd)))

    def _refuse_reserved(self, inode: Inode, name: bytes) -> None:
        if name == STORE_XATTR and inode is self._table.root:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    # The rest

    def readlink(self, inode: Inode) -> bytes:
        """Return what the symbolic link *inode* points to; raises OSError."""
        fd = self._table.fd(inode)
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return os.readlink(b"", dir_fd=fd)

    def statfs(self) -> os.statvfs_result:
        """Return the figures of the backing file system; raises OSError."""
        return os.fstatvfs(self._table.root.fd)

    def fsyncdir(self, inode: Inode) -> tuple[int, Seq]:
        """Return an fd of the directory, to be synced and closed, and the version to wait for."""
        fd = os.open(by_fd(self._table.fd(inode)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return fd, self._journal.recorder.last

    def syncfs(self) -> Seq:
        """Capture everything that was written; return the version to wait for.

        Raises OSError if something cannot be captured.  The backing file system is the caller's to sync.
        """
        self._captures.sync()
        return self._journal.recorder.last
