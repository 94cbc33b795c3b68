"""Taking away what a change of contents must take away: set-id bits and security.capability.

The kernel leaves that to dkfs (FUSE_HANDLE_KILLPRIV_V2).  Whether the caller has CAP_FSETID, which keeps
the bits, it says with a flag that pyfuse3 does not hand on, and not for fallocate and copy_file_range:
there, as root has it and others do not, the user decides.
"""

import functools
import logging
import os
import stat
from collections.abc import Container

from dkfs.failpoints import failpoint
from dkfs.history.change import NodeChange
from dkfs.model.operation import OpKind, Origin
from dkfs.overlay.backing import xattrs_of
from dkfs.overlay.inodes import Inode
from dkfs.overlay.journal import Journal
from dkfs.overlay.origin import is_in_group

log = logging.getLogger(__name__)

CAPABILITY = b"security.capability"
DEFAULT_ACL = b"system.posix_acl_default"


def is_plain(status: os.stat_result, xattrs: Container[bytes]) -> bool:
    """Return whether a file with *status* and *xattrs* has nothing to lose, or a directory no default ACL to give."""
    if stat.S_ISDIR(status.st_mode):
        return DEFAULT_ACL not in xattrs and CAPABILITY not in xattrs
    return not status.st_mode & (stat.S_ISUID | stat.S_ISGID) and CAPABILITY not in xattrs


def drop(
    journal: Journal, inode: Inode, fd: int, origin: Origin, *, kill: bool | None = None
) -> None:
    """Take the privileges of *inode*, open as *fd*, because *origin* changes its contents.

    *kill*: whether the kernel says that set-id bits go; None if it has said nothing.  What dkfs's user may
    not take away the backing file system does, with the change itself.
    """
    status = os.fstat(fd)
    xattrs = xattrs_of(fd)
    if kill is None:
        kill = origin.uid != 0
    bits = _bits(status, origin) if kill else 0
    failpoint("backing.privileges")
    if bits:
        try:
            os.fchmod(fd, stat.S_IMODE(status.st_mode) & ~bits)
        except PermissionError as exc:
            _say("set-id bits", exc.strerror)
    had_capability = xattrs.pop(CAPABILITY, None) is not None
    if had_capability:
        try:
            os.removexattr(fd, CAPABILITY)
        except PermissionError as exc:
            _say("capabilities", exc.strerror)
    if (bits or had_capability) and not inode.unlinked:
        status = os.fstat(fd)
        change = NodeChange(journal.node(inode), status, None, None, xattrs)
        journal.changed(OpKind.SETATTR, origin, inode, change)
    inode.plain = is_plain(status, xattrs)


@functools.cache  # once is enough
def _say(what: str, why: str) -> None:
    log.warning("%s of changed files are left to the backing file system: %s", what, why)


def mode_after_chown(status: os.stat_result, origin: Origin) -> int | None:
    """Return the mode that a file is to have after *origin* gave it away; None if the kernel sees to it.

    It does not where it keeps the set-group-id bit for dkfs, who is root, and would not for *origin*.
    """
    bits = _bits(status, origin) & stat.S_ISGID
    if origin.uid == 0 or not bits or status.st_mode & stat.S_IXGRP or stat.S_ISDIR(status.st_mode):
        return None
    return stat.S_IMODE(status.st_mode) & ~(stat.S_ISUID | bits)


def _bits(status: os.stat_result, origin: Origin) -> int:
    """Return the set-id bits that a change of contents by *origin* clears.

    Without the right to run it the set-group-id bit means locking, see chmod(2): the group's members keep it.
    """
    mode = status.st_mode
    bits = mode & stat.S_ISUID
    if mode & stat.S_IXGRP or (mode & stat.S_ISGID and not is_in_group(origin.pid, status.st_gid)):
        bits |= mode & stat.S_ISGID
    return bits
