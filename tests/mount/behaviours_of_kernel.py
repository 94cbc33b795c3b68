"""The same as behaviours, for what a daemon of pyfuse3 is not asked for; engine=kernel serves it."""

import ctypes
import errno
import fcntl
import mmap
import os
import stat
import struct
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.mount.behaviours import Seen, make, mode, tried
from tests.mount.behaviours_of_limits import bits_left, changed_by_write, opened
from tests.mount.behaviours_of_rights import facl
from tests.mount.posix_naming import AT_SYMLINK_FOLLOW, linked
from tests.mounting import PATIENCE_S

_libc = ctypes.CDLL(None, use_errno=True)

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
    seen += [(top / "named").read_bytes(), tried(partial(opened, top / "named", os.O_RDWR))]
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
    for how, offset, length in (
        *((0, 0, 50_000), (1, 50_000, 50_000), (3, 4096, 8192), (16, 0, 100), (17, 90_000, 5)),
        *((2, 0, 4096), (3, 0, 0), (3, -1, 5), (0, 0, 1 << 62), (0x40, 0, 4096), (3, 1 << 40, 9)),
    ):
        offset_, length_ = ctypes.c_int64(offset), ctypes.c_int64(length)
        failed = _libc.fallocate64(fd, how, offset_, length_)
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


@of_kernel
def default_acl_takes_the_place_of_the_umask(top: Path) -> Seen:
    (top / "none").mkdir()
    (top / "acl").mkdir()
    rules = "d:u:1234:rwx,d:g::r-x,d:o::---"
    subprocess.run(["setfacl", "-m", rules, top / "acl"], check=True)
    os.umask(0o027)
    seen: list[Seen] = []
    for directory in (top / "none", top / "acl"):
        opened(directory / "file", os.O_CREAT | os.O_WRONLY)
        (directory / "dir").mkdir()
        os.mkfifo(directory / "fifo", 0o666)
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o666)
        seen.append(f"{os.fstat(fd).st_mode:o}")
        os.close(fd)
        seen += [
            (mode(directory / name), facl(directory / name)) for name in ("file", "dir", "fifo")
        ]
    subprocess.run(["setfacl", "-k", top / "acl"], check=True)
    (top / "acl" / "later").mkdir()
    return seen, mode(top / "acl" / "later")


def changed_by_hole(path: Path) -> None:
    with path.open("r+b") as file:
        _libc.fallocate64(file.fileno(), 3, ctypes.c_int64(0), ctypes.c_int64(4096))


def changed_by_map(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096) as mapped:
        mapped[0] = 1


@of_kernel
def set_id_bits_go_with_a_hole_and_stay_with_a_map(top: Path) -> Seen:
    return bits_left(top, [changed_by_hole, changed_by_map])


@of_kernel
def capability_goes_with_a_change(top: Path) -> Seen:
    seen = []
    for change in (changed_by_write, changed_by_hole):
        path = make(top / change.__name__, bytes(4096))
        os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 1, 0, 0, 0))
        change(path)
        seen.append("security.capability" in os.listxattr(path))
    return seen


@of_kernel
def copy_to_what_only_appends_or_no_longer_does(top: Path) -> Seen:
    make(top / "source", b"s" * 100)
    make(top / "target", b"t" * 100)
    source = os.open(top / "source", os.O_RDONLY)
    target = os.open(top / "target", os.O_WRONLY | os.O_APPEND)
    seen = [tried(lambda: os.copy_file_range(source, target, 10, 0, 0))]
    fcntl.fcntl(target, fcntl.F_SETFL, 0)
    seen.append(tried(lambda: os.copy_file_range(source, target, 10, 0, 0)))
    os.close(target)
    os.close(source)
    return [*seen, (top / "target").read_bytes()]


# ---- file handles, which NFS servers and backup programs keep


def handle_of(path: Path) -> bytes:
    buffer = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
    where = ctypes.c_int()
    assert _libc.name_to_handle_at(-100, os.fsencode(path), buffer, ctypes.byref(where), 0) == 0
    return buffer.raw


def read_by_handle(top: Path, handle: bytes) -> Seen:
    directory = os.open(top, os.O_RDONLY)
    fd = _libc.open_by_handle_at(directory, handle, os.O_RDONLY)
    os.close(directory)
    if fd < 0:
        return errno.errorcode[ctypes.get_errno()]
    try:
        status = os.fstat(fd)
        found: Seen = sorted(os.listdir(fd)) if stat.S_ISDIR(status.st_mode) else os.read(fd, 50)
        return found, status.st_nlink
    finally:
        os.close(fd)


def forget() -> None:
    """Let the kernel forget all inodes that nobody has open."""
    Path("/proc/sys/vm/drop_caches").write_text("2")


@of_kernel
def handles_lead_to_what_they_led_to(top: Path) -> Seen:
    (top / "dir" / "below").mkdir(parents=True)
    make(top / "dir" / "below" / "file", b"contents")
    make(top / "gone", b"x")
    names = ("dir", "dir/below", "dir/below/file", "gone")
    handles = {name: handle_of(top / name) for name in names}
    seen: list[Seen] = [read_by_handle(top, handle) for handle in handles.values()]
    forget()
    seen += [read_by_handle(top, handle) for handle in handles.values()]
    (top / "gone").unlink()
    forget()
    seen.append(_read_once_closed(top, handles["gone"]))
    os.rename(top / "dir" / "below", top / "moved")
    forget()
    seen += [read_by_handle(top, handles[name]) for name in names[1:3]]
    with (top / "moved" / "file").open("rb"):
        (top / "moved" / "file").unlink()
        seen.append(read_by_handle(top, handles["dir/below/file"]))
    return [*seen, _read_once_closed(top, handles["dir/below/file"])]


def _read_once_closed(top: Path, handle: bytes) -> Seen:
    """Read a file that was removed by its handle, which the kernel lets nobody do after it has heard of the last close."""
    deadline_s = time.monotonic() + PATIENCE_S
    while (seen := read_by_handle(top, handle)) != "ESTALE" and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return seen


@of_kernel
def handle_of_what_was_removed_leads_to_nothing_else(top: Path) -> Seen:
    """File systems use a number again, some at once."""
    seen = []
    for number in range(8):
        os.mknod(top / "file", stat.S_IFREG | 0o644)
        old = handle_of(top / "file")
        (top / "file").unlink()
        os.mknod(top / "file", stat.S_IFREG | 0o644)
        if number % 2:
            forget()
        seen += [read_by_handle(top, old), read_by_handle(top, handle_of(top / "file"))]
        (top / "file").unlink()
    return seen
