"""What a restore finds in its target, and how it puts a file in its place: always one name in an open directory.

Nothing is followed, nothing is written to that could be known under a name elsewhere, and a name gets its file at
once, complete.
"""

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Mapping
from enum import Enum

from dkfs.errors import ExistsError
from dkfs.history import creation, fileout
from dkfs.history.metadata import held, is_settled, settle
from dkfs.history.places import open_directory
from dkfs.model.node import Kind, NodeState
from dkfs.store import Reader

# What cannot be done to one name, mostly because another process changes the directory at the same time: no reason to
# leave the rest undone.
IN_THE_WAY = frozenset(
    (
        errno.EACCES,
        errno.EBUSY,
        errno.EEXIST,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENOTEMPTY,
        errno.ENXIO,
        errno.EPERM,
        errno.ESTALE,
        errno.ETXTBSY,
    )
)

_TEMPORARY = b".dkfs-restore-"
_LEFTOVER = re.compile(re.escape(_TEMPORARY) + rb"[0-9a-f]{16}")
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIR,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
}

Inode = tuple[int, int]  # device, inode number


class Match(Enum):
    """How what is there relates to what is wanted."""

    SAME = "same"
    METADATA = "metadata"  # the contents are, owner, mode, time or attributes are not
    OTHER = "other"


def look(name: bytes, dir_fd: int) -> os.stat_result | None:
    """Return what lstat(2) says of *name* in *dir_fd*, None if there is nothing; raises OSError."""
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def kind_of(status: os.stat_result) -> Kind:
    """Return the kind of what lstat(2) told *status* of."""
    return _KINDS[stat.S_IFMT(status.st_mode)]


def inode_of(status: os.stat_result) -> Inode:
    """Return what tells one file from all others."""
    return status.st_dev, status.st_ino


def is_leftover(name: bytes) -> bool:
    """Return whether *name* is one that put() had in use when its process was killed."""
    return _LEFTOVER.fullmatch(name) is not None


def compare(
    reader: Reader,
    state: NodeState,
    xattrs: Mapping[bytes, bytes],
    *,
    name: bytes,
    dir_fd: int,
    status: os.stat_result,
    trust: bool,
) -> Match:
    """Return how *name* in *dir_fd*, no directory, relates to *state*; raises CorruptError, OSError.

    *trust*: a file of the same size and time is taken to have the same contents.
    """
    kind = state.attr.kind
    if kind_of(status) is not kind:
        return Match.OTHER
    if kind is Kind.FILE:
        is_same = _has_contents(reader, state, name, dir_fd, status, trust=trust)
    elif kind is Kind.SYMLINK:
        is_same = os.readlink(name, dir_fd=dir_fd) == state.target
    else:
        is_same = kind not in (Kind.CHAR, Kind.BLOCK) or status.st_rdev == state.attr.rdev
    if not is_same:
        return Match.OTHER
    if is_settled(name, dir_fd, status, state=state, xattrs=xattrs):
        return Match.SAME
    return Match.METADATA


def _has_contents(
    reader: Reader,
    state: NodeState,
    name: bytes,
    dir_fd: int,
    status: os.stat_result,
    *,
    trust: bool,
) -> bool:
    if status.st_size != state.attr.size:
        return False
    if trust and status.st_mtime_ns == state.attr.mtime_ns:
        return True
    try:
        fd = open_file(name, dir_fd, inode_of(status))
    except PermissionError:
        return False  # what cannot be read is replaced
    try:
        return fileout.is_equal(fd, reader, state)
    finally:
        os.close(fd)


def open_file(name: bytes, dir_fd: int, inode: Inode) -> int:
    """Open the file *name* in *dir_fd* for reading; raises OSError, ESTALE if it is another than *inode*."""
    fd = os.open(name, _LOOK, dir_fd=dir_fd)
    if inode_of(os.fstat(fd)) != inode:
        os.close(fd)
        raise OSError(errno.ESTALE, "changed by another process", name)
    return fd


def put(
    reader: Reader,
    state: NodeState,
    xattrs: Mapping[bytes, bytes],
    *,
    name: bytes,
    dir_fd: int,
    fresh: bool,
) -> tuple[int, list[str], Inode]:
    """Make *name* in *dir_fd* under another name, and give it its own when it is complete, over what has it.

    Return the bytes written, what was refused, and which file it is.  Raises CorruptError and OSError; nothing has
    changed then.
    """
    temporary = temporary_name()
    written, problems = creation.create(
        reader, state, temporary, dir_fd, xattrs=xattrs, fresh=fresh
    )
    try:
        inode = inode_of(os.stat(temporary, dir_fd=dir_fd, follow_symlinks=False))
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        os.unlink(temporary, dir_fd=dir_fd)
        raise
    return written, problems, inode


def settle_file(
    name: bytes,
    dir_fd: int,
    status: os.stat_result,
    *,
    state: NodeState,
    xattrs: Mapping[bytes, bytes],
) -> list[str]:
    """Give *name* in *dir_fd* the metadata of *state*; return what was refused; raises OSError.

    ESTALE if it is no longer the file, with this one name, of which lstat(2) told *status*.
    """
    with held(name, dir_fd) as path:
        now = os.stat(path)
        if inode_of(now) != inode_of(status) or now.st_nlink != 1:
            raise OSError(errno.ESTALE, "changed by another process", name)
        return settle(path, state, xattrs, fresh=False)


def link(source: bytes, source_fd: int, name: bytes, dir_fd: int, *, inode: Inode) -> None:
    """Make *name* in *dir_fd* a further name of *inode*, which *source* is, over what has it; raises OSError."""
    temporary = temporary_name()
    os.link(source, temporary, src_dir_fd=source_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
    try:
        status = os.stat(temporary, dir_fd=dir_fd, follow_symlinks=False)
        if inode_of(status) != inode:
            raise OSError(errno.ESTALE, "changed by another process", source)
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        os.unlink(temporary, dir_fd=dir_fd)
        raise


def make_room(name: bytes, dir_fd: int, *, dry_run: bool) -> None:
    """Remove the directory *name*, which must be empty; raises OSError."""
    if not dry_run:
        os.rmdir(name, dir_fd=dir_fd)
        return
    fd = open_directory(name, dir_fd)
    try:
        if os.listdir(fd):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), name)
    finally:
        os.close(fd)


def drop_default_acl(fd: int) -> None:
    """Take away what everything made in the directory *fd* would inherit; raises OSError."""
    try:
        os.removexattr(fd, "system.posix_acl_default")
    except OSError as exc:
        if exc.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
            raise


def is_written(fd: int, reader: Reader, state: NodeState) -> bool:
    """Return whether the disk has the contents of *state* for the file *fd*; raises CorruptError, OSError."""
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # or the cache would answer, not the disk
    return fileout.is_equal(fd, reader, state)


def temporary_name() -> bytes:
    """Return a name that nothing has."""
    return _TEMPORARY + secrets.token_hex(8).encode()


def lock(fd: int) -> None:
    """Keep every other restore out of the directory *fd* until it is closed; raises ExistsError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ExistsError("another restore is writing to the target: expected none") from None
    except OSError:
        return  # a file system without locks: nothing else depends on it
