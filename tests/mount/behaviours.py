"""Things that applications do to a directory; each returns what it saw, to be compared with a plain directory."""

import contextlib
import errno
import mmap
import os
import pickle
import stat
import subprocess
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


# ---- rights


@behaviour
def directory_gives_its_group_with_setgid(top: Path) -> Seen:
    seen: list[Seen] = []
    for group in (GROUP, 0):
        directory = top / f"of-{group}"
        directory.mkdir()
        os.chown(directory, 0, group)
        directory.chmod(0o2777)

        def create(directory: Path = directory) -> None:
            os.umask(0o022)
            make(directory / "file")
            (directory / "dir").mkdir()
            os.symlink("x", directory / "link")
            os.mkfifo(directory / "fifo")
            os.close(os.open(directory / "program", os.O_CREAT, 0o2775))

        seen.append(as_user(USER, USER, create))
        names = ("file", "dir", "link", "fifo", "program")
        seen += [(name, owner(directory / name), mode(directory / name)) for name in names]
    return seen


@behaviour
def umask_counts_and_the_creator_owns(top: Path) -> Seen:
    open_directory(top)

    def create() -> None:
        os.umask(0o027)
        os.close(os.open(top / "file", os.O_CREAT, 0o666))
        os.mkdir(top / "dir", 0o777)
        os.mkfifo(top / "fifo", 0o666)

    result = as_user(USER, GROUP, create)
    return result, [(owner(top / name), mode(top / name)) for name in ("file", "dir", "fifo")]


@behaviour
def other_users_need_the_right(top: Path) -> Seen:
    open_directory(top)
    make(top / "mine", b"x", 0o600)
    make(top / "read", b"x", 0o644)
    (top / "closed").mkdir(0o700)
    make(top / "closed" / "in", b"x", 0o644)

    def try_all() -> Seen:
        return [
            tried(attempt)
            for attempt in (
                *((top / "mine").read_bytes, (top / "read").read_bytes),
                lambda: (top / "read").write_bytes(b"y"),
                (top / "closed" / "in").read_bytes,
                lambda: os.listdir(top / "closed"),
                lambda: (top / "read").chmod(0o777),
                lambda: os.chown(top / "read", USER, USER),
                lambda: os.utime(top / "read", ns=(1, 1)),
                lambda: os.setxattr(top / "read", "user.x", b"y"),
                lambda: os.getxattr(top / "mine", "user.x"),
                lambda: os.mknod(top / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
                lambda: os.truncate(top / "read", 0),
                lambda: os.link(top / "read", top / "linked"),
                lambda: os.rename(top / "read", top / "renamed"),
            )
        ]

    return as_user(USER, USER, try_all), sorted(os.listdir(top))


@behaviour
def sticky_directory_protects_what_is_in_it(top: Path) -> Seen:
    top.chmod(0o1777)
    as_user(USER, USER, lambda: make(top / "file", b"", 0o666))

    def attempts() -> Seen:
        return (
            tried((top / "file").unlink),
            tried(lambda: os.rename(top / "file", top / "x")),
            tried(lambda: (top / "file").write_bytes(b"ok")),
        )

    return as_user(OTHER, OTHER, attempts), as_user(USER, USER, (top / "file").unlink)


@behaviour
def set_user_id_goes_when_another_user_writes(top: Path) -> Seen:
    seen = []
    for how in ("write", "truncate", "chown", "by root"):
        path = make(top / how, b"0123456789")
        os.chown(path, USER, USER)
        path.chmod(0o6777)

        def change(path: Path = path, how: str = how) -> None:
            if how == "truncate":
                os.truncate(path, 3)
            elif how != "chown":
                with path.open("r+b") as file:
                    file.write(b"x")

        if how == "chown":
            os.chown(path, OTHER, OTHER)
        elif how == "by root":
            change()
        else:
            as_user(OTHER, OTHER, change)
        seen.append((how, mode(path)))
    return seen


@behaviour
def acls_give_and_take(top: Path) -> Seen:
    open_directory(top)
    make(top / "file", b"secret", 0o640)
    subprocess.run(["setfacl", "-m", f"u:{USER}:r,g:{GROUP}:rw", top / "file"], check=True)
    seen: list[Seen] = [mode(top / "file"), facl(top / "file")]
    reads = (top / "file").read_bytes
    seen += [as_user(uid, uid, reads) for uid in (USER, OTHER)]
    seen.append(as_user(OTHER, OTHER, reads, groups=(GROUP,)))
    seen.append(as_user(OTHER, OTHER, lambda: make(top / "file", b"by group"), groups=(GROUP,)))
    (top / "file").chmod(0o600)
    seen += [as_user(USER, USER, reads), facl(top / "file")]
    return seen


@behaviour
def default_acls_are_inherited(top: Path) -> Seen:
    rules = f"d:u:{USER}:rwx,d:g::r,d:o::-,u:{USER}:rwx"
    subprocess.run(["setfacl", "-m", rules, top], check=True)
    # pyfuse3 does not ask for FUSE_DONT_MASK: with a umask the mount masks the ACL too (facts, 6).
    os.umask(0)
    os.close(os.open(top / "file", os.O_CREAT, 0o666))
    (top / "dir").mkdir(0o777)
    (top / "dir" / "deep").mkdir()
    names = ("file", "dir", "dir/deep")
    return [(mode(top / name), facl(top / name)) for name in names]


def facl(path: Path) -> str:
    words = ["getfacl", "--omit-header", "--numeric", "--absolute-names", os.fspath(path)]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


# ---- attributes


@behaviour
def xattrs_are_created_or_replaced(top: Path) -> Seen:
    path = make(top / "file")
    return (
        tried(lambda: os.setxattr(path, "user.a", b"1", os.XATTR_REPLACE)),
        tried(lambda: os.setxattr(path, "user.a", b"1", os.XATTR_CREATE)),
        tried(lambda: os.setxattr(path, "user.a", b"2", os.XATTR_CREATE)),
        tried(lambda: os.setxattr(path, "user.a", b"3", os.XATTR_REPLACE)),
        tried(lambda: os.setxattr(path, "user.empty", b"")),
        tried(lambda: os.setxattr(path, "none.such", b"")),
        tried(lambda: os.removexattr(path, "user.none")),
        sorted((name, os.getxattr(path, name)) for name in os.listxattr(path)),
        tried(lambda: os.getxattr(path, "user.none")),
        tried(lambda: os.setxattr(path, "user." + "n" * 251, b"")),
    )


@behaviour
def devices_and_fifos_are_made(top: Path) -> Seen:
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(top / "disk", stat.S_IFBLK | 0o600, os.makedev(250, 17))
    os.mknod(top / "plain", stat.S_IFREG | 0o640)
    os.mkfifo(top / "fifo")
    (top / "null").write_bytes(b"gone")
    reading = os.open(top / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    (top / "fifo").write_bytes(b"through")
    through = os.read(reading, 10)
    os.close(reading)
    names = ("null", "disk", "plain", "fifo")
    return through, [(f"{(top / n).stat().st_mode:o}", (top / n).stat().st_rdev) for n in names]


@behaviour
def numbers_of_the_file_system_are_the_backing_ones(top: Path) -> Seen:
    status = os.statvfs(top)
    return status.f_namemax, status.f_blocks, status.f_files, status.f_bsize, status.f_frsize


@behaviour
def modes_of_every_kind(top: Path) -> Seen:
    path, directory = make(top / "file"), top / "dir"
    directory.mkdir()
    seen = []
    for bits in (0, 0o7777, 0o4711, 0o2070, 0o1000, 0o644):
        for one in (path, directory):
            one.chmod(bits)
            seen.append(mode(one))
    return seen
