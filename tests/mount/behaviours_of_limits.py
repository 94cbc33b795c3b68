"""The same as behaviours, for what is refused because of what else goes on, and for locks and watches."""

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.mount.behaviours import BEHAVIOURS, Seen, as_user, behaviour, make, open_directory, tried
from tests.mount.posix_naming import AT_SYMLINK_FOLLOW, linked

__all__ = ["BEHAVIOURS"]

_libc = ctypes.CDLL(None, use_errno=True)
_OTHER = Path("/dev/shm")  # another file system than any that tests are run on


def opened(path: Path, flags: int) -> None:
    os.close(os.open(path, flags))


@behaviour
def program_that_runs_cannot_be_written(top: Path) -> Seen:
    program = make(top / "program", Path("/bin/sleep").read_bytes(), 0o755)
    with subprocess.Popen([program, "60"]) as process:
        seen = [
            tried(partial(opened, program, flags))
            for flags in (os.O_WRONLY, os.O_RDWR | os.O_TRUNC, os.O_WRONLY | os.O_APPEND, 0)
        ]
        seen.append(tried(lambda: os.truncate(program, 3)))
        seen.append(tried(lambda: os.rename(program, top / "moved")))
        process.kill()
    seen.append(tried(lambda: opened(top / "moved", os.O_WRONLY)))
    return seen


@behaviour
def program_that_is_written_cannot_be_run(top: Path) -> Seen:
    program = make(top / "program", Path("/bin/true").read_bytes(), 0o755)
    with program.open("r+b"):
        seen = [tried(lambda: subprocess.run([program], check=True))]
    seen.append(tried(lambda: subprocess.run([program], check=True)))
    return seen


@behaviour
def script_is_run_by_its_interpreter(top: Path) -> Seen:
    script = make(top / "script", b"#!/bin/sh\necho $#\n", 0o755)
    broken = make(top / "broken", b"#!/no/such/interpreter\n", 0o755)
    plain = make(top / "plain", b"no program", 0o755)
    mute = make(top / "mute", b"#!/bin/sh\n", 0o644)
    return (
        subprocess.run([script, "a", "b"], capture_output=True, check=True).stdout,
        *(tried(partial(subprocess.run, [path], check=True)) for path in (broken, plain, mute)),
    )


@behaviour
def names_do_not_lead_from_one_file_system_to_another(top: Path) -> Seen:
    make(top / "file")
    (top / "dir").mkdir()
    outside = _OTHER / f"dkfs-test-{os.getpid()}"
    try:
        return [
            tried(partial(call, top / name, outside))
            for name in ("file", "dir")
            for call in (os.rename, os.link)
        ]
    finally:
        with contextlib.suppress(FileNotFoundError):
            outside.unlink()


@behaviour
def directory_in_use_can_be_removed_unless_something_is_mounted_there(top: Path) -> Seen:
    (top / "mounted").mkdir()
    (top / "current").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", top / "mounted"], check=True)
    try:
        seen = [tried(lambda: os.rmdir(top / "mounted"))]
        seen.append(tried(lambda: os.rename(top / "mounted", top / "moved")))
    finally:
        subprocess.run(["umount", top / "mounted"], check=True)
    here = os.open(top / "current", os.O_RDONLY)
    seen.append(tried(lambda: os.rmdir(top / "current")))
    seen.append(tried(lambda: opened_at(here, os.O_CREAT)))
    seen.append(str(os.listdir(here)))
    seen.append(str(os.fstat(here).st_nlink))
    os.close(here)
    return seen


def opened_at(directory: int, flags: int) -> None:
    os.close(os.open("new", flags | os.O_WRONLY, dir_fd=directory))


@behaviour
def file_may_not_outgrow_the_limit_of_the_process(top: Path) -> Seen:
    make(top / "file", b"x" * 100)
    open_directory(top)

    def grow() -> Seen:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        fd = os.open(top / "mine", os.O_CREAT | os.O_RDWR, 0o600)
        return (
            os.pwrite(fd, b"x" * 100, 4950),
            tried(lambda: os.pwrite(fd, b"x", 5000)),
            tried(lambda: os.ftruncate(fd, 5001)),
            tried(lambda: os.ftruncate(fd, 5000)),
            os.fstat(fd).st_size,
        )

    return as_user(1234, 1234, grow)


@behaviour
def calls_on_fds_that_are_not_for_them(top: Path) -> Seen:
    make(top / "file", b"0123456789")
    reading, writing = os.open(top / "file", os.O_RDONLY), os.open(top / "file", os.O_WRONLY)
    directory, path = os.open(top, os.O_RDONLY), os.open(top / "file", os.O_PATH)
    attempts: tuple[Callable[[], object], ...] = (
        *(lambda: os.write(reading, b"x"), lambda: os.read(writing, 1)),
        *(lambda: os.ftruncate(reading, 0), lambda: os.ftruncate(directory, 0)),
        *(lambda: os.read(directory, 1), lambda: os.pread(reading, 1, -1)),
        *(lambda: os.lseek(reading, -1, os.SEEK_SET), lambda: os.lseek(reading, 1, 99)),
        *(lambda: os.lseek(reading, 100, os.SEEK_DATA), lambda: os.read(path, 1)),
        *(lambda: os.fchmod(path, 0), lambda: os.fsync(directory), lambda: os.fsync(reading)),
        *(lambda: os.posix_fallocate(reading, 0, 1), lambda: os.posix_fallocate(writing, 0, 0)),
        *(lambda: os.pwrite(writing, b"x", (1 << 63) - 1), lambda: os.fdatasync(writing)),
        lambda: os.copy_file_range(writing, reading, 5),
        lambda: os.posix_fadvise(reading, 0, 0, os.POSIX_FADV_WILLNEED),
    )
    seen = [tried(attempt) for attempt in attempts]
    for fd in (reading, writing, directory, path):
        os.close(fd)
    return seen, (top / "file").read_bytes()


# ---- locks and watches


def in_another(program: str, path: Path) -> str:
    """Return the last line of a Python program that has *path* as its argument."""
    words = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().rpartition("\n")[2]


FLOCK = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
for how in (fcntl.LOCK_SH, fcntl.LOCK_EX):
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
        print("taken", end=" ")
    except OSError as exc:
        print(exc.errno, end=" ")
"""
POSIX = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
for start in (0, 50, 100):
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, start)
        print("taken", end=" ")
    except OSError as exc:
        print(exc.errno, end=" ")
"""


@behaviour
def locks_keep_other_processes_out(top: Path) -> Seen:
    path = make(top / "file", bytes(200))
    seen = []
    with path.open("r+b") as file:
        for how in (fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN):
            fcntl.flock(file, how)
            seen.append(in_another(FLOCK, path))
        fcntl.lockf(file, fcntl.LOCK_EX, 20, 45)
        seen.append(in_another(POSIX, path))
        os.close(os.open(path, os.O_RDONLY))  # which gives POSIX locks up
        seen.append(in_another(POSIX, path))
        open_file = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
        fcntl.fcntl(file, _OFD_SETLK, open_file)
        seen.append(in_another(POSIX, path))
    seen.append(in_another(POSIX, path))
    return seen


_OFD_SETLK = 37  # fcntl.h: F_OFD_SETLK


@contextlib.contextmanager
def watched(path: Path) -> Iterator[Callable[[], list[tuple[int, bytes]]]]:
    """Watch *path* by inotify; give what returns the events since, each a mask and a name."""
    fd = _libc.inotify_init1(os.O_NONBLOCK)
    assert _libc.inotify_add_watch(fd, os.fsencode(path), 0xFFF) >= 0

    def events() -> list[tuple[int, bytes]]:
        found = []
        with contextlib.suppress(BlockingIOError):
            data = os.read(fd, 65536)
            while data:
                _, mask, _, length = struct.unpack_from("iIII", data)
                found.append((mask, data[16 : 16 + length].rstrip(b"\0")))
                data = data[16 + length :]
        return found

    try:
        yield events
    finally:
        os.close(fd)


@behaviour
def watchers_hear_of_every_change(top: Path) -> Seen:
    with watched(top) as events:
        make(top / "file", b"x", 0o600)
        os.rename(top / "file", top / "moved")
        (top / "dir").mkdir()
        os.symlink("x", top / "link")
        os.link(top / "moved", top / "linked")
        os.setxattr(top / "moved", "user.a", b"b")
        os.utime(top / "moved", ns=(1, 2))
        os.truncate(top / "moved", 0)
        os.unlink(top / "moved")
        (top / "dir").rmdir()
        return events()


# ---- what a daemon of pyfuse3 is not asked for; seen by engine=kernel only

OF_KERNEL: list[Callable[[Path], Seen]] = []


def of_kernel(function: Callable[[Path], Seen]) -> Callable[[Path], Seen]:
    OF_KERNEL.append(function)
    return function


@of_kernel
def file_without_a_name_gets_one_or_goes(top: Path) -> Seen:
    (top / "setgid").mkdir()
    os.chown(top / "setgid", 0, 77)
    os.chmod(top / "setgid", 0o2755)
    fd = os.open(top / "setgid", os.O_TMPFILE | os.O_RDWR, 0o640)
    seen: list[Seen] = [os.write(fd, b"nameless"), os.fstat(fd).st_nlink, os.fstat(fd).st_gid]
    os.fchmod(fd, 0o600)
    os.setxattr(fd, "user.a", b"b")
    name_it(fd, top / "named")
    os.write(fd, b", once")
    os.close(fd)
    seen += [(top / "named").read_bytes(), (top / "named").stat().st_nlink]
    exclusive = os.open(top, os.O_TMPFILE | os.O_WRONLY | os.O_EXCL, 0o600)
    seen.append(tried(partial(name_it, exclusive, top / "no")))
    seen.append(tried(partial(opened, top, os.O_TMPFILE | os.O_RDONLY)))
    seen.append(tried(partial(opened, top / "named", os.O_TMPFILE | os.O_RDWR)))
    os.close(exclusive)
    return seen, sorted(os.listdir(top))


def name_it(fd: int, path: Path) -> None:
    linked(AT_SYMLINK_FOLLOW, b"/proc/self/fd/%d" % fd, os.fsencode(path))


@of_kernel
def flags_of_a_file_are_kept_and_heeded(top: Path) -> Seen:
    get, put = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS
    immutable, append = 0x10, 0x20
    path, seen = make(top / "file", b"0123"), []
    for flag in (immutable, append):
        with path.open("rb") as file:
            old = struct.unpack("q", fcntl.ioctl(file, get, bytes(8)))[0]
            fcntl.ioctl(file, put, struct.pack("q", old | flag))
            now = struct.unpack("q", fcntl.ioctl(file, get, bytes(8)))[0]
            seen.append(now & (immutable | append))
            seen += [tried(partial(opened, path, how)) for how in (os.O_RDWR, os.O_APPEND | 1, 0)]
            seen += [tried(path.unlink), tried(lambda: path.chmod(0o600))]
            fcntl.ioctl(file, put, struct.pack("q", old))
    with path.open("rb") as file:
        seen.append(tried(lambda: fcntl.ioctl(file, 0x12345678, bytes(8))))
    return seen


@of_kernel
def time_of_birth_is_told_and_stays(top: Path) -> Seen:
    path = make(top / "file")
    born = statx_birth(path)
    path.write_bytes(b"later")
    os.rename(path, top / "moved")
    return born is not None, statx_birth(top / "moved") == born, statx_birth(top) is not None


def statx_birth(path: Path) -> bytes | None:
    buffer = ctypes.create_string_buffer(256)
    assert _libc.statx(-100, os.fsencode(path), 0, 0xFFF, buffer) == 0
    mask = struct.unpack_from("I", buffer.raw)[0]
    return buffer.raw[80:92] if mask & 0x800 else None


@of_kernel
def space_is_reserved_and_given_back(top: Path) -> Seen:
    fd = os.open(make(top / "file", b"x" * 20_000), os.O_RDWR)
    seen: list[Seen] = []
    for mode, offset, length in (
        *((0, 0, 50_000), (1, 50_000, 50_000), (3, 4096, 8192), (16, 0, 100), (17, 90_000, 5)),
        *((2, 0, 4096), (3, 0, 0), (3, -1, 5), (0, 0, 1 << 62), (0x40, 0, 4096), (3, 1 << 40, 9)),
    ):
        offset_, length_ = ctypes.c_int64(offset), ctypes.c_int64(length)
        failed = _libc.fallocate64(fd, mode, offset_, length_)
        seen.append((errno.errorcode[ctypes.get_errno()] if failed else "", os.fstat(fd).st_size))
    seen += [
        os.fstat(fd).st_blocks,
        os.lseek(fd, 0, os.SEEK_HOLE),
        os.lseek(fd, 4096, os.SEEK_DATA),
    ]
    os.close(fd)
    return seen, (top / "file").read_bytes().count(b"x")


@of_kernel
def syncfs_and_the_rest_of_syncing(top: Path) -> Seen:
    fd = os.open(make(top / "file", b"x"), os.O_RDWR)
    seen = [_libc.syncfs(fd), tried(lambda: os.fsync(fd)), tried(lambda: os.fdatasync(fd))]
    seen.append(_libc.sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), 7))
    os.close(fd)
    return seen
