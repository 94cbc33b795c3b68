"""Things that applications do to a directory; each returns what it saw, to be compared with a plain directory."""

import contextlib
import errno
import mmap
import os
import pickle
import stat
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

Seen = object
Behaviour = Callable[[Path], Seen]
BEHAVIOURS: list[Behaviour] = []
USER, OTHER, GROUP = 1234, 2345, 3456


def behaviour(function: Behaviour) -> Behaviour:
    BEHAVIOURS.append(function)
    return function


def tried(attempt: Callable[[], object]) -> str:
    """Return the name of the errno that *attempt* ends with; "" if it succeeds."""
    try:
        attempt()
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]
    return ""


def as_user(uid: int, gid: int, function: Callable[[], Seen], groups: tuple[int, ...] = ()) -> Seen:
    """Return what *function* returns in a process of *uid*; an OSError as the name of its errno."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        seen: Seen = "died"
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            seen = function()
        except OSError as exc:
            seen = errno.errorcode[exc.errno or 0]
        finally:
            os.write(writing, pickle.dumps(seen))
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        data = file.read()
    os.waitpid(pid, 0)
    return pickle.loads(data)


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.lstat().st_mode):o}"


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def make(path: Path, data: bytes = b"", bits: int = 0o644) -> Path:
    path.write_bytes(data)
    path.chmod(bits)
    return path


def open_directory(directory: Path) -> Path:
    directory.chmod(0o777)
    return directory


# ---- links and names


@behaviour
def hard_links_are_one_inode(top: Path) -> Seen:
    one, two = make(top / "one", b"1"), top / "two"
    os.link(one, two)
    two.write_bytes(b"22")
    two.chmod(0o600)
    same = one.stat().st_ino == two.stat().st_ino
    counted = one.stat().st_nlink
    one.unlink()
    return same, counted, two.read_bytes(), two.stat().st_nlink, mode(two)


@behaviour
def symlinks_can_be_hard_linked_and_owned(top: Path) -> Seen:
    os.symlink("nowhere", top / "one")
    os.link(top / "one", top / "two", follow_symlinks=False)
    os.chown(top / "two", 5, 6, follow_symlinks=False)
    os.utime(top / "two", ns=(1, 123_456_789_012_345_678), follow_symlinks=False)
    return os.readlink(top / "two"), owner(top / "one"), (top / "one").lstat().st_mtime_ns


@behaviour
def times_keep_their_nanoseconds(top: Path) -> Seen:
    make(top / "file")
    (top / "dir").mkdir()
    os.mkfifo(top / "fifo")
    seen = []
    for ns in (0, 1, 999_999_999, 1_700_000_000_123_456_789, 4_000_000_000_000_000_001):
        for name in ("file", "dir", "fifo"):
            os.utime(top / name, ns=(ns, ns + 1))
            status = (top / name).stat()
            seen.append((status.st_atime_ns, status.st_mtime_ns))
    return seen


@behaviour
def names_up_to_255_bytes(top: Path) -> Seen:
    longest = top / ("n" * 255)
    make(longest, b"x")
    too_long = top / ("n" * 256)
    return (
        longest.read_bytes(),
        tried(lambda: too_long.write_bytes(b"")),
        tried(too_long.lstat),
        tried(lambda: os.rename(longest, too_long)),
        tried(lambda: os.symlink("x", too_long)),
    )


@behaviour
def names_of_any_bytes(top: Path) -> Seen:
    names = [b"\xff\xfe", b"\xc3\x28", b" ", b"new\nline", b"\x01", b"-rf", b"a\\b", b'"']
    for name in names:
        with open(os.path.join(os.fsencode(top), name), "wb") as file:
            file.write(name)
    seen = sorted(os.listdir(os.fsencode(top)))
    return seen, [Path(os.path.join(str(top), os.fsdecode(n))).read_bytes() == n for n in seen]


@behaviour
def paths_deeper_than_a_path_can_say(top: Path) -> Seen:
    here = os.open(top, os.O_RDONLY)
    for depth in range(50):  # 50 x 200 bytes
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        with os.fdopen(os.open("f", os.O_CREAT | os.O_RDWR, dir_fd=here), "w+b") as file:
            file.write(b"%d" % depth)
    with os.fdopen(os.open("f", os.O_RDONLY, dir_fd=here), "rb") as file:
        deepest = file.read()
    os.close(here)
    near = 4095 - len(os.fsencode(top))
    path = Path(os.path.join(top, *(["d" * 200] * (near // 201))))
    too_long = str(top) + "/" + "d/" * 2048 + "x"
    return deepest, min(os.listdir(path))[:1], tried(lambda: os.stat(too_long))


@behaviour
def directory_renamed_with_open_children(top: Path) -> Seen:
    (top / "old" / "in").mkdir(parents=True)
    with (top / "old" / "in" / "file").open("w+b", buffering=0) as file:
        file.write(b"before ")
        here = os.open(top / "old" / "in", os.O_RDONLY)
        os.rename(top / "old", top / "new")
        file.write(b"after")
        os.mkdir("made", dir_fd=here)
        os.close(here)
    return (top / "new" / "in" / "file").read_bytes(), sorted(os.listdir(top / "new" / "in"))


@behaviour
def rename_refuses_what_rename_refuses(top: Path) -> Seen:
    (top / "a" / "b").mkdir(parents=True)
    (top / "full").mkdir()
    make(top / "full" / "x")
    make(top / "file")
    return [
        tried(partial(os.rename, top / one, top / other))
        for one, other in (
            *(("a", "a/b/c"), ("a", "full"), ("file", "a"), ("a", "file"), ("none", "x")),
            *(("a/b", "a"), ("file", "file"), ("full", "a/b")),
        )
    ]


@behaviour
def directory_read_while_it_is_emptied(top: Path) -> Seen:
    for number in range(3000):
        os.close(os.open(top / f"{number:04}", os.O_CREAT))
    seen = []
    with os.scandir(top) as entries:
        for entry in entries:
            seen.append(entry.name)
            os.unlink(entry.path)
    return len(seen), len(set(seen)), os.listdir(top)


# ---- open files


@behaviour
def unlinked_file_lives_while_it_is_open(top: Path) -> Seen:
    path = make(top / "file", b"0123")
    with path.open("r+b", buffering=0) as file:
        path.unlink()
        file.seek(4)
        file.write(b"4567")
        os.fchmod(file.fileno(), 0o640)
        os.fchown(file.fileno(), 7, 8)
        os.setxattr(file.fileno(), "user.x", b"y")
        os.ftruncate(file.fileno(), 6)
        os.utime(file.fileno(), ns=(5, 6))
        status = os.fstat(file.fileno())
        file.seek(0)
        return (
            file.read(),
            status.st_nlink,
            f"{status.st_mode:o}",
            (status.st_uid, status.st_gid, status.st_mtime_ns),
            os.getxattr(file.fileno(), "user.x"),
            tried(path.stat),
            tried(lambda: os.fsync(file.fileno())),
        )


@behaviour
def rename_over_an_open_file(top: Path) -> Seen:
    make(top / "new", b"new")
    with make(top / "file", b"old").open("r+b", buffering=0) as file:
        os.rename(top / "new", top / "file")
        old = file.read()
        file.write(b"er")
        file.seek(0)
        return old, file.read(), os.fstat(file.fileno()).st_nlink, (top / "file").read_bytes()


@behaviour
def appends_of_several_writers_do_not_overlap(top: Path) -> Seen:
    path = make(top / "log")

    def append(letter: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        for _ in range(100):
            os.write(fd, letter * 99 + b"\n")
        os.close(fd)

    threads = [threading.Thread(target=append, args=(bytes([letter]),)) for letter in b"abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = path.read_bytes().splitlines()
    return len(lines), {(line[:1], len(set(line)), len(line)) for line in lines}


@behaviour
def append_ignores_where_the_file_was_truncated(top: Path) -> Seen:
    with (top / "log").open("ab", buffering=0) as log:
        log.write(b"12345")
        os.truncate(top / "log", 2)
        log.write(b"6")
    return (top / "log").read_bytes()


@behaviour
def direct_writes_aligned_or_not(top: Path) -> Seen:
    fd = os.open(top / "file", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    page = mmap.mmap(-1, 8192)
    page.write(b"d" * 8192)
    seen = [os.pwrite(fd, memoryview(page)[:4096], 4096), os.preadv(fd, [page], 0)]
    seen.append(bytes(page[:4096]).count(0))
    # An unaligned one is refused by a disk, and served by dkfs: only that it harms nobody is the same.
    with contextlib.suppress(OSError):
        os.pwrite(fd, b"odd", 4096)
    os.close(fd)
    return seen, (top / "file").stat().st_size


@behaviour
def shared_map_and_writes_see_each_other(top: Path) -> Seen:
    path = make(top / "file", bytes(8192))
    with path.open("r+b", buffering=0) as file, mmap.mmap(file.fileno(), 8192) as mapped:
        mapped[0:5] = b"store"
        seen = [path.read_bytes()[:5]]
        os.pwrite(file.fileno(), b"write", 4096)
        seen.append(mapped[4096:4101])
        mapped.flush()
    seen.append(path.read_bytes()[:6])
    return seen


@behaviour
def store_through_a_map_moves_the_times(top: Path) -> Seen:
    path, seen = make(top / "file", bytes(8192)), []
    for offset in (0, 4096):
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 8192) as mapped:
            os.utime(path, (1, 2))
            before = path.stat()
            mapped[offset] = 1
            mapped.flush()
            after = path.stat()
        seen.append(
            (after.st_mtime_ns > before.st_mtime_ns, after.st_ctime_ns > before.st_ctime_ns)
        )
    return seen


@behaviour
def store_through_a_map_is_no_hole_any_more(top: Path) -> Seen:
    with (top / "file").open("w+b", buffering=0) as file:
        file.truncate(1 << 20)
        with mmap.mmap(file.fileno(), 1 << 20) as mapped:
            mapped[500_000] = 1
            data = os.lseek(file.fileno(), 0, os.SEEK_DATA)
            hole = os.lseek(file.fileno(), 500_000, os.SEEK_HOLE)
    return data <= 500_000, hole > 500_000


@behaviour
def flags_of_open(top: Path) -> Seen:
    make(top / "file", b"123")
    make(top / "mute", b"123", 0o200)
    os.symlink("file", top / "link")
    os.mkfifo(top / "fifo")
    flags = (
        *(("file", os.O_CREAT | os.O_EXCL), ("link", os.O_NOFOLLOW), ("file", os.O_DIRECTORY)),
        *(("none", os.O_RDONLY), (".", os.O_WRONLY), ("link", os.O_CREAT | os.O_EXCL)),
        *(("fifo", os.O_WRONLY | os.O_NONBLOCK), ("file/x", os.O_RDONLY)),
        *(("mute", os.O_WRONLY), ("link", os.O_RDWR | os.O_TRUNC)),
    )

    def open_it(name: str, flag: int) -> None:
        os.close(os.open(top / name, flag))

    seen = [tried(partial(open_it, name, flag)) for name, flag in flags]
    return seen, (top / "file").stat().st_size


@behaviour
def space_is_reserved_and_copied_in_other_ways(top: Path) -> Seen:
    with (top / "file").open("w+b", buffering=0) as file, (top / "copy").open("wb") as copy:
        file.write(b"x" * 10)
        os.posix_fallocate(file.fileno(), 5, 100_000)
        copied = os.copy_file_range(file.fileno(), copy.fileno(), 100, 0, 0)
    data = (top / "file").read_bytes()
    return copied > 0, len(data), data[:11], (top / "copy").read_bytes()[:11]


@behaviour
def holes_take_no_space(top: Path) -> Seen:
    with (top / "file").open("wb") as file:
        file.seek(1 << 32)
        file.write(b"end")
    status = (top / "file").stat()
    with (top / "file").open("rb") as file:
        file.seek((1 << 32) - 3)
        return status.st_size, status.st_blocks < 100, file.read()
