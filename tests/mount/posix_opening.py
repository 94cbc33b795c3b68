"""Calls that open, read and look: the tables for open, stat, access, readlink, truncate, exec and their like."""

import os
import socket
import stat
from collections.abc import Callable
from functools import partial

from tests.mount.posix_scene import Call

# Never waits for the other end of a FIFO.
QUIET = os.O_NONBLOCK | os.O_NOCTTY


def open_it(flags: int, mode: int, path: bytes) -> object:
    fd = os.open(path, flags | QUIET, mode)
    try:
        s = os.fstat(fd)
        size = 0 if stat.S_ISDIR(s.st_mode) else s.st_size
        return f"{s.st_mode:o}", s.st_uid, s.st_gid, s.st_nlink, size
    finally:
        os.close(fd)


def open_and_read(path: bytes) -> object:
    fd = os.open(path, os.O_RDONLY | QUIET)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def open_and_write(flags: int, path: bytes) -> object:
    fd = os.open(path, flags | QUIET, 0o666)
    try:
        return os.write(fd, b"written")
    finally:
        os.close(fd)


def cut_open(flags: int, length: int, path: bytes) -> None:
    fd = os.open(path, flags | QUIET)
    try:
        os.ftruncate(fd, length)
    finally:
        os.close(fd)


def enter(path: bytes) -> object:
    here = os.open(b".", os.O_RDONLY)
    try:
        os.chdir(path)
        return sorted(os.listdir(b"."))[:3]
    finally:
        os.fchdir(here)
        os.close(here)


def looked(look: Callable[[bytes], os.stat_result], path: bytes) -> object:
    s = look(path)
    size = 0 if stat.S_ISDIR(s.st_mode) else s.st_size
    return f"{s.st_mode:o}", s.st_uid, s.st_gid, s.st_nlink, size, s.st_rdev


def run_it(path: bytes) -> object:
    pid = os.fork()
    if pid == 0:
        try:
            os.execv(path, ["program"])
        except OSError as exc:
            os._exit(exc.errno or 255)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def bind(path: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


def connect(path: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


_FLAGS = {
    "O_RDONLY": os.O_RDONLY,
    "O_WRONLY": os.O_WRONLY,
    "O_RDWR": os.O_RDWR,
    "O_CREAT": os.O_WRONLY | os.O_CREAT,
    "O_CREAT|O_RDONLY": os.O_RDONLY | os.O_CREAT,
    "O_CREAT|O_EXCL": os.O_RDWR | os.O_CREAT | os.O_EXCL,
    "O_CREAT|O_TRUNC": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "O_CREAT|O_NOFOLLOW": os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW,
    "O_CREAT|O_DIRECTORY": os.O_CREAT | os.O_DIRECTORY,
    "O_TRUNC": os.O_WRONLY | os.O_TRUNC,
    "O_TRUNC|O_RDONLY": os.O_RDONLY | os.O_TRUNC,
    "O_APPEND": os.O_WRONLY | os.O_APPEND,
    "O_APPEND|O_TRUNC": os.O_RDWR | os.O_APPEND | os.O_TRUNC,
    "O_DIRECTORY": os.O_DIRECTORY,
    "O_DIRECTORY|O_RDWR": os.O_DIRECTORY | os.O_RDWR,
    "O_NOFOLLOW": os.O_NOFOLLOW,
    "O_NOFOLLOW|O_RDWR": os.O_NOFOLLOW | os.O_RDWR,
    "O_NOATIME": os.O_NOATIME,
    "O_PATH": os.O_PATH,
    "O_PATH|O_NOFOLLOW": os.O_PATH | os.O_NOFOLLOW,
    "O_DIRECT": os.O_DIRECT,
    "O_SYNC": os.O_RDWR | os.O_SYNC,
    "no access": 3,
}
_HUGE = 1 << 62

OPENING: dict[str, Call] = {
    **{f"open {name}": partial(open_it, flags, 0o666) for name, flags in _FLAGS.items()},
    "open O_CREAT, 07777": partial(open_it, os.O_RDWR | os.O_CREAT, 0o7777),
    "open O_CREAT, 0": partial(open_it, os.O_RDWR | os.O_CREAT, 0),
    "read": open_and_read,
    "write": partial(open_and_write, os.O_WRONLY),
    "create and write": partial(open_and_write, os.O_WRONLY | os.O_CREAT),
    "append": partial(open_and_write, os.O_WRONLY | os.O_APPEND),
    "rewrite": partial(open_and_write, os.O_WRONLY | os.O_TRUNC | os.O_CREAT),
    "truncate 0": partial(lambda size, path: os.truncate(path, size), 0),
    "truncate 5": partial(lambda size, path: os.truncate(path, size), 5),
    "truncate 100000": partial(lambda size, path: os.truncate(path, size), 100_000),
    "truncate -1": partial(lambda size, path: os.truncate(path, size), -1),
    "truncate 2^62": partial(lambda size, path: os.truncate(path, size), _HUGE),
    "ftruncate": partial(cut_open, os.O_RDWR, 3),
    "ftruncate O_RDONLY": partial(cut_open, os.O_RDONLY, 3),
    "ftruncate -1": partial(cut_open, os.O_RDWR, -1),
    "ftruncate 2^62": partial(cut_open, os.O_RDWR, _HUGE),
    "stat": partial(looked, os.stat),
    "lstat": partial(looked, os.lstat),
    "access F_OK": partial(lambda how, path: os.access(path, how), os.F_OK),
    "access R_OK": partial(lambda how, path: os.access(path, how), os.R_OK),
    "access W_OK": partial(lambda how, path: os.access(path, how), os.W_OK),
    "access X_OK": partial(lambda how, path: os.access(path, how), os.X_OK),
    "readlink": os.readlink,
    "readdir": lambda path: sorted(os.listdir(path)),
    "chdir": enter,
    "statvfs": lambda path: (os.statvfs(path).f_namemax, os.statvfs(path).f_bsize),
    "execve": run_it,
    "bind": bind,
    "connect": connect,
}
