"""Which times a call moves: of what it is made on, of the directory, and of what it makes."""

import ctypes
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.mount.posix_attributes import ACL
from tests.mount.posix_naming import AT_FDCWD, linked
from tests.mount.twin import EXCHANGE, renameat2

OLD_NS = 1_000_000_000 * 10**9  # 2001
TICK_S = 0.02  # longer than the kernel's coarse clock stands still

Step = Callable[[Path], object]


def _open(flags: int, path: Path) -> None:
    os.close(os.open(path, flags | os.O_NONBLOCK, 0o644))


def _read(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 10)
    os.close(fd)


def _read_nothing(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.pread(fd, 10, 100)
    os.close(fd)


def _write(data: bytes, path: Path) -> None:
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, data)
    os.close(fd)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def _cut(size: int, path: Path) -> None:
    fd = os.open(path, os.O_WRONLY)
    os.ftruncate(fd, size)
    os.close(fd)


def _utime(atime: str, mtime: str) -> Step:
    special = {"now": (0, (1 << 30) - 1), "omit": (0, (1 << 30) - 2), "set": (5, 6)}
    libc = ctypes.CDLL(None)

    def step(path: Path) -> None:
        times = (ctypes.c_long * 4)(*special[atime], *special[mtime])
        assert libc.utimensat(AT_FDCWD, os.fsencode(path / "file"), times, 0) == 0

    return step


# Each is called with a directory that holds what _prepare makes.
STEPS: dict[str, Step] = {
    "lstat": lambda d: os.lstat(d / "file"),
    "stat": lambda d: os.stat(d / "file"),
    "access": lambda d: os.access(d / "file", os.R_OK),
    "open O_RDONLY": lambda d: _open(os.O_RDONLY, d / "file"),
    "open O_RDWR": lambda d: _open(os.O_RDWR, d / "file"),
    "open O_TRUNC": lambda d: _open(os.O_WRONLY | os.O_TRUNC, d / "file"),
    "open O_TRUNC, empty": lambda d: _open(os.O_WRONLY | os.O_TRUNC, d / "zero"),
    "open O_CREAT, there": lambda d: _open(os.O_WRONLY | os.O_CREAT, d / "file"),
    "open O_CREAT": lambda d: _open(os.O_WRONLY | os.O_CREAT, d / "made"),
    "open O_CREAT|O_TRUNC": lambda d: _open(os.O_WRONLY | os.O_CREAT | os.O_TRUNC, d / "file"),
    "read": lambda d: _read(d / "file"),
    "read nothing": lambda d: _read_nothing(d / "file"),
    "write": lambda d: _write(b"new", d / "file"),
    "write nothing": lambda d: _write(b"", d / "file"),
    "truncate": lambda d: os.truncate(d / "file", 3),
    "truncate, same size": lambda d: os.truncate(d / "file", 10),
    "truncate, longer": lambda d: os.truncate(d / "file", 9999),
    "ftruncate": lambda d: _cut(3, d / "file"),
    "ftruncate, same size": lambda d: _cut(10, d / "file"),
    "chmod": lambda d: (d / "file").chmod(0o600),
    "chmod, same mode": lambda d: (d / "file").chmod(0o644),
    "chmod of a directory": lambda d: (d / "dir").chmod(0o700),
    "chown": lambda d: os.chown(d / "file", 5, 6),
    "chown -1 -1": lambda d: os.chown(d / "file", -1, -1),
    "lchown": lambda d: os.lchown(d / "link", 5, 6),
    "mkdir": lambda d: (d / "made").mkdir(),
    "rmdir": lambda d: (d / "other").rmdir(),
    "unlink": lambda d: (d / "file").unlink(),
    "unlink of one of two": lambda d: (d / "hard").unlink(),
    "mkfifo": lambda d: os.mkfifo(d / "made"),
    "mknod": lambda d: os.mknod(d / "made", stat.S_IFREG | 0o644),
    "symlink": lambda d: (d / "made").symlink_to("x"),
    "readlink": lambda d: (d / "link").readlink(),
    "stat through a link": lambda d: (d / "link").stat(),
    "link": lambda d: linked(0, os.fsencode(d / "file"), os.fsencode(d / "made")),
    "link elsewhere": lambda d: linked(0, os.fsencode(d / "file"), os.fsencode(d / "dir/made")),
    "rename": lambda d: (d / "file").rename(d / "made"),
    "rename elsewhere": lambda d: (d / "file").rename(d / "dir" / "made"),
    "rename over": lambda d: (d / "file").rename(d / "zero"),
    "rename over one of two": lambda d: (d / "file").rename(d / "hard"),
    "rename of one of two to the other": lambda d: (d / "one").rename(d / "hard"),
    "rename of a directory": lambda d: (d / "dir").rename(d / "other" / "made"),
    "exchange": lambda d: renameat2(os.fsencode(d / "file"), os.fsencode(d / "dir/in"), EXCHANGE),
    "readdir": lambda d: os.listdir(d / "dir"),
    "readdir, empty": lambda d: os.listdir(d / "other"),
    "setxattr": lambda d: os.setxattr(d / "file", "user.a", b"1"),
    "setxattr, same value": lambda d: os.setxattr(d / "file", "user.there", b"1"),
    "getxattr": lambda d: os.getxattr(d / "file", "user.there"),
    "removexattr": lambda d: os.removexattr(d / "file", "user.there"),
    "setxattr of a directory": lambda d: os.setxattr(d / "dir", "user.x", b""),
    "set an ACL": lambda d: os.setxattr(d / "file", "system.posix_acl_access", ACL),
    "fsync": lambda d: _sync(d / "file"),
    **{
        f"utimensat {a} {m}": _utime(a, m)
        for a in ("now", "omit", "set")
        for m in ("now", "omit", "set")
    },
}


def _prepare(top: Path) -> None:
    (top / "dir").mkdir(parents=True)
    (top / "other").mkdir()
    (top / "dir" / "in").write_bytes(b"0123456789")
    (top / "file").write_bytes(b"0123456789")
    (top / "zero").write_bytes(b"")
    (top / "one").write_bytes(b"0123456789")
    os.link(top / "one", top / "hard")
    (top / "link").symlink_to("file")
    os.setxattr(top / "file", "user.there", b"1")
    for path in _all(top):
        os.utime(path, ns=(OLD_NS, OLD_NS), follow_symlinks=False)


def _all(top: Path) -> Iterator[Path]:
    yield from (
        top / name
        for name in ("dir/in", "file", "zero", "one", "hard", "link", "dir", "other", ".")
    )


def _times(top: Path) -> dict[Path, tuple[int, int, int]]:
    """Return the times of all that is in *top*, by what it was made as."""
    found = {}
    for name in (
        "dir/in",
        "dir/made",
        "file",
        "made",
        "zero",
        "one",
        "hard",
        "link",
        "dir",
        "other",
        "other/made",
        ".",
    ):
        try:
            s = os.lstat(top / name)
        except FileNotFoundError:
            continue
        found[Path(name)] = (s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns)
    return found


def moved_by_each(top: Path) -> dict[str, object]:
    """Do every step in a directory of its own in *top*; return which times of what it moved."""
    for name in STEPS:
        _prepare(top / name)
    before = {name: _times(top / name) for name in STEPS}
    time.sleep(TICK_S)
    for name, step in STEPS.items():
        step(top / name)
    return {
        f"{name}: {path}": _moved(before[name].get(path), times)
        for name in STEPS
        for path, times in _times(top / name).items()
    }


def _moved(before: tuple[int, int, int] | None, after: tuple[int, int, int]) -> str:
    """Return which of the three are not what they were; of something new, which are alike."""
    if before is None:
        atime, mtime, ctime = after
        return f"new {atime == mtime} {mtime == ctime} {atime > OLD_NS}"
    return "".join(letter for letter, a, b in zip("amc", before, after, strict=True) if a != b)
