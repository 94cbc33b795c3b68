"""Calls that make, move and remove names: mkdir, mknod, symlink, link, rename, unlink, rmdir."""

import ctypes
import os
import stat
from functools import partial

from tests.mount.posix_scene import NULL, Call
from tests.mount.twin import EXCHANGE, NOREPLACE, renameat2

WHITEOUT = 4
AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_FOLLOW = -100, 0x200, 0x400

_libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def linked(flags: int, one: bytes, other: bytes) -> int:
    return checked(_libc.linkat(AT_FDCWD, one, AT_FDCWD, other, flags))


def removed(flags: int, path: bytes) -> int:
    return checked(_libc.unlinkat(AT_FDCWD, path, flags))


def moved_away_and_back(path: bytes) -> None:
    os.rename(path, b"open/moved")
    os.rename(b"open/moved", path)


def exchanged_twice(path: bytes) -> None:
    renameat2(path, b"open/here", EXCHANGE)
    renameat2(path, b"open/here", EXCHANGE)


def with_file(call: Call, path: bytes) -> object:
    """Make *call* with a file open/here there."""
    os.close(os.open(b"open/here", os.O_CREAT | os.O_WRONLY, 0o666))
    return call(path)


def with_directory(call: Call, path: bytes) -> object:
    """Make *call* with a directory open/dir there."""
    os.makedirs(b"open/dir", 0o777, exist_ok=True)
    return call(path)


def _rename_rows() -> dict[str, Call]:
    return {
        "rename away": moved_away_and_back,
        "rename away for good": lambda path: os.rename(path, b"open/%d" % hash_of(path)),
        "rename a file to it": partial(with_file, lambda path: os.rename(b"open/here", path)),
        "rename a directory to it": partial(with_directory, lambda p: os.rename(b"open/dir", p)),
        "rename file": lambda path: os.rename(b"file", path),
        "rename full": lambda path: os.rename(b"full", path),
        "rename to itself": lambda path: os.rename(path, path),
        "rename into itself": lambda path: os.rename(path, path + b"/below"),
        "rename something below to it": lambda path: os.rename(path + b"/in", path),
        "rename none": lambda path: os.rename(b"none", path),
        "rename from sticky": lambda path: os.rename(b"sticky/others", path),
        "rename NOREPLACE away": lambda path: renameat2(path, b"open/there", NOREPLACE),
        "rename NOREPLACE to it": partial(
            with_file, lambda path: renameat2(b"open/here", path, NOREPLACE)
        ),
        "rename EXCHANGE": partial(with_file, exchanged_twice),
        "rename EXCHANGE with a directory": partial(
            with_directory, lambda path: renameat2(path, b"open/dir", EXCHANGE)
        ),
        "rename EXCHANGE|NOREPLACE": lambda path: renameat2(path, b"file", EXCHANGE | NOREPLACE),
        "rename, unknown flag": lambda path: renameat2(path, b"open/flag", 1 << 8),
    }


def hash_of(path: bytes) -> int:
    """Return a number for a name of its own, the same in every process."""
    return int.from_bytes(path[-6:], "little") + len(path)


NAMING: dict[str, Call] = {
    "mkdir": os.mkdir,
    "mkdir 0": lambda path: os.mkdir(path, 0),
    "mkdir 07777": lambda path: os.mkdir(path, 0o7777),
    "mkdir below": lambda path: os.mkdir(path + b"/below"),
    "mkdir/": lambda path: os.mkdir(path + b"/"),
    "mknod file": lambda path: os.mknod(path, stat.S_IFREG | 0o640),
    "mknod file below": lambda path: os.mknod(path + b"/below", stat.S_IFREG | 0o6777),
    "mknod fifo": lambda path: os.mknod(path, stat.S_IFIFO | 0o666),
    "mknod socket below": lambda path: os.mknod(path + b"/below", stat.S_IFSOCK | 0o666),
    "mknod device": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, NULL),
    "mknod device 0:0": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, 0),
    "mknod directory": lambda path: os.mknod(path, stat.S_IFDIR | 0o777),
    "mknod symlink": lambda path: os.mknod(path, stat.S_IFLNK | 0o777),
    "symlink": lambda path: os.symlink(b"target", path),
    "symlink below": lambda path: os.symlink(b"target", path + b"/below"),
    "symlink, no target": lambda path: os.symlink(b"", path),
    "symlink, long target": lambda path: os.symlink(b"t" * 4095, path),
    "symlink, too long a target": lambda path: os.symlink(b"t" * 4096, path),
    "symlink to it": lambda path: os.symlink(path, b"open/%d" % hash_of(path)),
    "link it": lambda path: os.link(path, b"open/%d" % hash_of(path), follow_symlinks=False),
    "link what it leads to": lambda path: linked(
        AT_SYMLINK_FOLLOW, path, b"open/%d" % hash_of(path)
    ),
    "link file to it": lambda path: os.link(b"file", path, follow_symlinks=False),
    "link all to it": lambda path: os.link(b"all", path, follow_symlinks=False),
    "link fifo below": lambda path: os.link(b"fifo", path + b"/below", follow_symlinks=False),
    "link a directory to it": lambda path: os.link(b"full", path, follow_symlinks=False),
    "link none to it": lambda path: os.link(b"none", path, follow_symlinks=False),
    "unlink": os.unlink,
    "unlink below": lambda path: os.unlink(path + b"/in"),
    "rmdir": os.rmdir,
    "rmdir below": lambda path: os.rmdir(path + b"/dir"),
    "rmdir/": lambda path: os.rmdir(path + b"/"),
    "rmdir/.": lambda path: os.rmdir(path + b"/."),
    "unlinkat AT_REMOVEDIR": partial(removed, AT_REMOVEDIR),
    "unlinkat, unknown flag": partial(removed, 1),
    **_rename_rows(),
}

# What only an engine that speaks the kernel's protocol itself can do.
NAMING_OF_KERNEL: dict[str, Call] = {
    "rename WHITEOUT": partial(with_file, lambda path: renameat2(path, b"open/whiteout", WHITEOUT)),
    "rename WHITEOUT|NOREPLACE": partial(
        with_file, lambda path: renameat2(b"open/here", path, WHITEOUT | NOREPLACE)
    ),
}
