"""Makes one node in a real directory from its state in the history."""

import errno
import os
import stat
from collections.abc import Mapping

from dkfs.errors import CorruptError
from dkfs.history import content, fileout
from dkfs.history.metadata import held, settle
from dkfs.model.node import Kind, NodeState
from dkfs.store import Reader

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE = 0o600  # until the owner is set
_TYPES = {
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
    Kind.CHAR: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
}


def create(
    reader: Reader,
    state: NodeState,
    name: bytes,
    dir_fd: int,
    *,
    sync: bool = False,
    xattrs: Mapping[bytes, bytes] | None = None,
    fresh: bool = True,
) -> tuple[int, list[str]]:
    """Make *name* in *dir_fd*, anything but a directory, complete with metadata; it must not be there.

    *xattrs*: instead of those of *state*.  Not *fresh*: the directory may have a default ACL.
    Return the bytes written and what was refused.  Raises CorruptError, PermissionError (a device without privilege)
    and OSError; nothing is left then.
    """
    if xattrs is None:
        xattrs = content.xattrs(reader, state)
    kind = state.attr.kind
    if kind is Kind.FILE:
        fd = os.open(name, _NEW, _PRIVATE, dir_fd=dir_fd)
        try:
            written = fileout.write_new(fd, reader, state) if state.attr.size else 0
            problems = settle(fd, state, xattrs, fresh=fresh)
            if sync:
                os.fsync(fd)
        except BaseException:
            os.unlink(name, dir_fd=dir_fd)
            raise
        finally:
            os.close(fd)
        return written, problems
    if kind is Kind.SYMLINK:
        if not state.target or b"\0" in state.target:
            raise CorruptError(f"symlink target {state.target!r} is none")
        os.symlink(state.target, name, dir_fd=dir_fd)
    else:
        os.mknod(name, _TYPES[kind] | _PRIVATE, device=state.attr.rdev, dir_fd=dir_fd)
    try:
        with held(name, dir_fd) as path:
            _check_made(path, name, state)
            return 0, settle(path, state, xattrs, fresh=fresh)
    except BaseException:
        os.unlink(name, dir_fd=dir_fd)
        raise


def _check_made(path: bytes, name: bytes, state: NodeState) -> None:
    """Raise PermissionError if what *path* leads to is not what was just made.

    Whoever may write to the directory could have put another file's name there, whose owner would be changed.
    """
    status = os.stat(path)
    kind = stat.S_IFLNK if state.attr.kind is Kind.SYMLINK else _TYPES[state.attr.kind]
    if stat.S_IFMT(status.st_mode) != kind or status.st_nlink != 1:
        raise PermissionError(errno.EPERM, "changed by another process while it was made", name)
