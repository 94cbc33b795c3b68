"""Reads and sets owner, mode, extended attributes and times of one file of a real directory.

A file is given as an open fd, or, where it cannot be opened (symlinks, fifos, sockets, devices), as the path in /proc
of an O_PATH fd, which leads to that very inode whatever its name is.
"""

import ctypes
import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dkfs.model.node import Kind, NodeState

_PERMISSION = frozenset((errno.EPERM, errno.EACCES))
_UNSUPPORTED = frozenset((errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL))
_NO_ATTRIBUTE = frozenset((errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ELOOP))
# The kernel's and its security modules': they come by themselves and cannot be taken away.
_KEPT_XATTRS = frozenset(
    (b"security.selinux", b"security.ima", b"security.evm", b"security.SMACK64")
)

_LISTXATTRAT = 465  # system call, on every architecture; since Linux 6.13
_AT_SYMLINK_NOFOLLOW = 0x100

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_size_t,
)

Handle = int | bytes


@contextmanager
def held(name: bytes, dir_fd: int) -> Iterator[bytes]:
    """Give a path that leads to *name* in *dir_fd*, whatever it is, and to nothing else; raises OSError."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        yield b"/proc/self/fd/%d" % fd
    finally:
        os.close(fd)


def path_in(name: bytes, dir_fd: int) -> bytes:
    """Return a path to *name* in *dir_fd*, for calls that take no directory fd and follow no symlink."""
    return b"/proc/self/fd/%d/%b" % (dir_fd, name)


def has_xattrs(name: bytes, dir_fd: int) -> bool:
    """Return whether *name* in *dir_fd* has extended attributes; raises OSError."""
    # 2.3 microseconds, against 4.8 through /proc: a scan asks it of every file.
    found: int = _syscall(_LISTXATTRAT, dir_fd, name, _AT_SYMLINK_NOFOLLOW, None, 0)
    if found >= 0:
        return found > 0
    return bool(read_xattrs(path_in(name, dir_fd), follow=False))


def read_xattrs(path: Handle, *, follow: bool = True) -> dict[bytes, bytes]:
    """Return all extended attributes; {} where there are none to read; raises OSError."""
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except OSError as exc:
        if exc.errno in _NO_ATTRIBUTE:
            return {}
        raise
    found = {}
    for name in names:
        try:
            found[os.fsencode(name)] = os.getxattr(path, name, follow_symlinks=follow)
        except OSError as exc:
            if exc.errno not in (errno.ENODATA, errno.EPERM, errno.EACCES):
                raise
    return found


def is_settled(
    name: bytes,
    dir_fd: int,
    status: os.stat_result,
    *,
    state: NodeState,
    xattrs: Mapping[bytes, bytes],
) -> bool:
    """Return whether *name* in *dir_fd*, of which lstat(2) told *status*, has what settle() would give it."""
    attr = state.attr
    if (status.st_uid, status.st_gid, status.st_mtime_ns) != (attr.uid, attr.gid, attr.mtime_ns):
        return False
    if attr.kind is not Kind.SYMLINK and status.st_mode & 0o7777 != attr.mode:
        return False
    if not has_xattrs(name, dir_fd):
        return not xattrs
    there = read_xattrs(path_in(name, dir_fd), follow=False)
    return {n: v for n, v in there.items() if n in xattrs or n not in _KEPT_XATTRS} == xattrs


class OwnerRefused(str):
    """The problem that who is not root cannot give files to others: cp -p, tar and restic make none of it."""

    __slots__ = ()


def settle(
    handle: Handle, state: NodeState, xattrs: Mapping[bytes, bytes], *, fresh: bool
) -> list[str]:
    """Give what *handle* leads to the metadata of *state*; return what was refused; raises OSError.

    *fresh*: it was just made in a directory without a default ACL, so there is nothing to take away.
    """
    problems: list[str] = []
    attr = state.attr
    status = os.stat(handle)
    # The order matters: a new owner clears setuid and capabilities, an ACL may clear setgid, all but the last
    # change ctime only.
    if (status.st_uid, status.st_gid) != (attr.uid, attr.gid):
        _set_owner(handle, attr.uid, attr.gid, problems)
    if xattrs or not fresh:
        _set_xattrs(handle, xattrs, problems)
    if attr.kind is not Kind.SYMLINK and (
        not fresh or xattrs or attr.mode & 0o6000 or status.st_mode & 0o7777 != attr.mode
    ):
        _set_mode(handle, attr.mode, problems)
    if not fresh:
        status = os.stat(handle)
    if status.st_mtime_ns != attr.mtime_ns:
        try:
            os.utime(handle, ns=(status.st_atime_ns, attr.mtime_ns))
        except OSError as exc:
            if exc.errno not in _PERMISSION:
                raise
            problems.append(f"time not set: {exc.strerror}")
        except OverflowError:
            problems.append(f"time not set: {attr.mtime_ns} ns is out of range")
    return problems


def _set_owner(handle: Handle, uid: int, gid: int, problems: list[str]) -> None:
    try:
        os.chown(handle, uid, gid)
    except OSError as exc:
        if exc.errno not in _PERMISSION | _UNSUPPORTED:
            raise
        text = f"owner {uid}:{gid} not set: {exc.strerror}"
        is_usual = exc.errno == errno.EPERM and os.geteuid() != 0
        problems.append(OwnerRefused(text) if is_usual else text)
        try:
            os.chown(handle, -1, gid)  # one may give a file to a group that one is in
        except OSError as second:
            if second.errno not in _PERMISSION | _UNSUPPORTED:
                raise
    except OverflowError:
        problems.append(f"owner {uid}:{gid} not set: out of range")


def _set_mode(handle: Handle, mode: int, problems: list[str]) -> None:
    try:
        if os.stat(handle).st_mode & 0o7777 != mode:
            os.chmod(handle, mode)
    except OSError as exc:
        if exc.errno not in _PERMISSION:
            raise
        problems.append(f"mode {mode:o} not set: {exc.strerror}")


def _set_xattrs(handle: Handle, wanted: Mapping[bytes, bytes], problems: list[str]) -> None:
    there = read_xattrs(handle)
    for name in there.keys() - wanted.keys() - _KEPT_XATTRS:
        try:
            os.removexattr(handle, name)
        except OSError as exc:
            if exc.errno not in _NO_ATTRIBUTE | {errno.ENODATA}:
                raise
            problems.append(f"attribute {os.fsdecode(name)!r} not removed: {exc.strerror}")
    for name, value in wanted.items():
        if there.get(name) == value:
            continue
        try:
            os.setxattr(handle, name, value)
        except OSError as exc:
            if exc.errno not in _NO_ATTRIBUTE | _UNSUPPORTED | {errno.ERANGE, errno.E2BIG}:
                raise
            problems.append(f"attribute {os.fsdecode(name)!r} not set: {exc.strerror}")
