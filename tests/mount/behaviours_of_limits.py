"""The same as behaviours, for what is refused because of what else goes on, and for locks and watches."""

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tests.mount.behaviours import (
    BEHAVIOURS,
    GROUP,
    OTHER,
    USER,
    Seen,
    as_user,
    behaviour,
    make,
    mode,
    open_directory,
    tried,
)

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


# ---- set-id bits


def changed_by_copy(path: Path) -> None:
    with path.open("r+b") as file:
        os.copy_file_range(file.fileno(), file.fileno(), 100, 0, 5000)


def changed_by_write(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"x")


CHANGES = (changed_by_write, changed_by_copy)


@behaviour
def set_id_bits_go_with_a_change_by_another_user(top: Path) -> Seen:
    """Bit for bit: without the right to run it set-group-id means locking, which members of the group keep."""
    cut, emptied = partial(os.truncate, length=9), partial(opened, flags=os.O_WRONLY | os.O_TRUNC)
    return bits_left(top, (*CHANGES, cut, emptied))


def bits_left(top: Path, changes: Sequence[Callable[[Path], object]]) -> Seen:
    """Return the mode of a file after each of *changes* by who does not own it, in its group or not."""
    open_directory(top)
    seen = []
    for bits in (0o6777, 0o2767, 0o4777, 0o2777, 0o6666):
        for number, change in enumerate(changes):
            for groups in ((), (GROUP,)):
                path = make(top / "file", bytes(10_000))
                os.chown(path, USER, GROUP)
                path.chmod(bits)
                as_user(OTHER, OTHER, partial(change, path), groups)
                seen.append((f"{bits:o}", number, groups, mode(path)))
                path.unlink()
    return seen
