"""Real directories for tests: random ones, and a picture of everything that a directory holds."""

import os
import random
import socket
import stat
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

NAMES = (b"a", b"b", b"c", b"dir", b"x.txt", b"\xff\xfe", b"n" * 255, b" ", b"new\nline")
# Version 2; user::rw-, user:1234:r--, group::r--, mask::r--, other::---.
ACL_ACCESS = bytes.fromhex(
    "02000000 01000600ffffffff 02000400d2040000 04000400ffffffff 10000400ffffffff 20000000ffffffff"
)


_VERBS = [
    "file",
    "file",
    "mkdir",
    "special",
    "symlink",
    "link",
    "write",
    "write",
    "rename",
    "rename",
    "swap",
    "remove",
    "metadata",
    "metadata",
    "xattr",
    "time",
    "replace",
]


class Picture(NamedTuple):
    """What there is to know of one name."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    rdev: int
    data: bytes  # contents, or where a symlink leads
    xattrs: tuple[tuple[str, bytes], ...]
    names: tuple[bytes, ...]  # all names of a file with several links


def picture(top: Path) -> dict[bytes, Picture]:
    """Return everything in and of *top*, by path; the root is b"."."""
    found: dict[bytes, os.stat_result] = {}
    groups: defaultdict[int, list[bytes]] = defaultdict(list)
    root = os.fsencode(top)
    stack = [b"."]
    while stack:
        path = stack.pop()
        status = os.lstat(os.path.join(root, path))
        found[path] = status
        if stat.S_ISDIR(status.st_mode):
            stack += [os.path.join(path, name) for name in os.listdir(os.path.join(root, path))]
        else:
            groups[status.st_ino].append(path)
    return {
        path: _one(os.path.join(root, path), status, sorted(groups[status.st_ino]))
        for path, status in found.items()
    }


def _one(path: bytes, status: os.stat_result, names: list[bytes]) -> Picture:
    data = b""
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            data = file.read()
    elif stat.S_ISLNK(status.st_mode):
        data = os.readlink(path)
    return Picture(
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        rdev=status.st_rdev,
        data=data,
        xattrs=tuple(
            (name, os.getxattr(path, name, follow_symlinks=False))
            for name in sorted(os.listxattr(path, follow_symlinks=False))
        ),
        names=tuple(names),
    )


class RandomTree:
    """Does random things to a real directory."""

    def __init__(self, top: Path, rng: random.Random) -> None:
        self._top = os.fsencode(top)
        self._rng = rng

    def change(self, count: int) -> None:
        """Do *count* things."""
        for _ in range(count):
            verb = self._rng.choice(_VERBS)
            try:
                getattr(self, f"_{verb}")()
            except (
                FileExistsError,
                IsADirectoryError,
                NotADirectoryError,
                FileNotFoundError,
                PermissionError,
            ):
                continue
            except OSError as exc:
                if exc.errno not in (22, 39, 95):  # into itself, not empty, no xattr on this
                    raise

    def _paths(self, *, directories: bool) -> list[bytes]:
        found = [self._top] if directories else []
        for above, below, files in os.walk(self._top):
            found += [os.path.join(above, name) for name in (below if directories else files)]
        return found

    def _free(self) -> bytes:
        above = self._rng.choice(
            [p for p in self._paths(directories=True) if p[len(self._top) :].count(b"/") < 4]
        )
        return os.path.join(above, self._rng.choice(NAMES))

    def _any(self) -> bytes:
        found = self._paths(directories=False) + self._paths(directories=True)[1:]
        if not found:
            raise FileNotFoundError
        return self._rng.choice(found)

    def _data(self) -> bytes:
        rng = self._rng
        size = rng.choice((0, 1, 100, 65_536, 65_537, 200_000))
        return rng.randbytes(size) if rng.random() < 0.7 else bytes(size)

    def _file(self) -> None:
        with open(self._free(), "xb") as file:
            file.write(self._data())

    def _mkdir(self) -> None:
        os.mkdir(self._free())

    def _special(self) -> None:
        kind = self._rng.choice((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK))
        if kind in (stat.S_IFCHR, stat.S_IFBLK) and os.geteuid():
            return
        os.mknod(self._free(), kind | 0o640, os.makedev(1, self._rng.choice((3, 5))))

    def _symlink(self) -> None:
        os.symlink(self._rng.choice((b"a", b"/nowhere", b"../\xff", b"t" * 1000)), self._free())

    def _link(self) -> None:
        os.link(self._any(), self._free(), follow_symlinks=False)

    def _write(self) -> None:
        path = self._any()
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return
        with open(path, "r+b") as file:
            file.seek(self._rng.choice((0, 10, 65_536, 150_000, 300_000)))
            file.write(self._data())
            if self._rng.random() < 0.3:
                file.truncate(self._rng.choice((0, 5, 65_536, 100_000, 400_000)))

    def _rename(self) -> None:
        os.rename(self._any(), self._free())

    def _swap(self) -> None:
        one, other = self._any(), self._any()
        spare = os.path.join(self._top, b"spare")
        os.rename(one, spare)
        try:
            os.rename(other, one)
        except OSError:
            os.rename(spare, one)
            raise
        os.rename(spare, other)

    def _replace(self) -> None:
        spare = os.path.join(self._top, b"spare")
        with open(spare, "xb") as file:
            file.write(self._data())
        try:
            os.rename(spare, self._any())
        except OSError:
            os.unlink(spare)
            raise

    def _remove(self) -> None:
        path = self._any()
        if stat.S_ISDIR(os.lstat(path).st_mode):
            for above, below, files in os.walk(path, topdown=False):
                for name in files:
                    os.unlink(os.path.join(above, name))
                for name in below:
                    each = os.path.join(above, name)
                    if os.path.islink(each):
                        os.unlink(each)
                    else:
                        os.rmdir(each)
            os.rmdir(path)
        else:
            os.unlink(path)

    def _metadata(self) -> None:
        path = self._any()
        if os.geteuid() == 0:
            os.chown(
                path,
                self._rng.choice((0, 1, 70_000)),
                self._rng.choice((0, 2)),
                follow_symlinks=False,
            )
        if not os.path.islink(path):
            os.chmod(path, self._rng.choice((0o644, 0o4755, 0o2775, 0o1777, 0o700, 0o6711)))

    def _xattr(self) -> None:
        path = self._any()
        if os.path.islink(path):
            os.setxattr(path, "trusted.t", b"1", follow_symlinks=False)
            return
        name = self._rng.choice(("user.one", "user.two", "acl"))
        if name == "acl":
            which = "default" if os.path.isdir(path) and self._rng.random() < 0.5 else "access"
            os.setxattr(path, f"system.posix_acl_{which}", ACL_ACCESS)
        elif self._rng.random() < 0.5:
            os.setxattr(path, name, self._rng.randbytes(self._rng.choice((0, 10, 500))))
        elif name in os.listxattr(path):
            os.removexattr(path, name)

    def _time(self) -> None:
        mtime_ns = self._rng.choice((0, 1, 1_600_000_000_123_456_789, 10**18 + 7))
        os.utime(self._any(), ns=(0, mtime_ns), follow_symlinks=False)


def bind_socket(path: Path) -> None:
    """Make a socket at *path*."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fspath(path))
