"""GETATTR, SETATTR, STATX, STATFS, ACCESS and extended attributes: bytes in, bytes out."""

import errno
import os
import stat
import struct
import time
from pathlib import Path

import pytest

from tests.fuse.kernel import wire
from tests.fuse.kernel.kernel_side import DAY_S, KernelSide, kernel_side
from tests.fuse.kernel.wire import ROOT, Fattr, Op

NS = 1_000_000_000
FLAGS_OF_31 = 0x07FF_FFFF  # up to FUSE_MAP_ALIGNMENT


def setattr_body(valid: int, **values: int) -> bytes:
    """Return a SETATTR; what is not named is filled with what must not be taken."""
    names = (
        *("valid", "padding", "fh", "size", "lock_owner", "atime", "mtime", "ctime"),
        *("atimensec", "mtimensec", "ctimensec", "mode", "unused4", "uid", "gid", "unused5"),
    )
    junk = dict.fromkeys(names, 77) | {"valid": valid, "mode": 0o100077}
    values = junk | values
    return wire.SETATTR.pack(*(values[name] for name in names))


def set_attributes(kernel: KernelSide, node: int, valid: int, **values: int) -> wire.Attr:
    return wire.attr_of(kernel.done(Op.SETATTR, node, setattr_body(valid, **values)))


def test_getattr_tells_everything(kernel: KernelSide) -> None:
    entry = kernel.file(b"file", b"12345")
    os.utime(kernel.top / "file", ns=(1_500_000_001_000_000_002, 1_600_000_003_000_000_004))
    status = (kernel.top / "file").stat()
    data = kernel.done(Op.GETATTR, entry.nodeid, wire.GETATTR.pack(0, 0, 0))

    assert struct.unpack_from("<QII", data) == (DAY_S, 0, 0)
    assert wire.attr_of(data) == (
        *(status.st_ino, 5, status.st_blocks),
        *(1_500_000_001, 1_600_000_003, status.st_ctime_ns // NS),
        *(2, 4, status.st_ctime_ns % NS),
        *(status.st_mode, 1, status.st_uid, status.st_gid, 0, status.st_blksize, 0),
    )


def test_getattr_through_a_handle_reaches_what_has_no_name(kernel: KernelSide) -> None:
    entry, fh = kernel.create(b"file", b"123")
    kernel.done(Op.UNLINK, ROOT, wire.name(b"file"))
    data = kernel.done(Op.GETATTR, entry.nodeid, wire.GETATTR.pack(1, 0, fh))

    assert (wire.attr_of(data).size, wire.attr_of(data).nlink) == (3, 0)


def test_getattr_of_the_root_says_it_is_inode_1(kernel: KernelSide) -> None:
    attr = kernel.attr(ROOT)

    assert stat.S_ISDIR(attr.mode)
    assert attr.mode == kernel.top.stat().st_mode


def test_getattr_of_the_history_is_not_to_be_remembered(kernel: KernelSide) -> None:
    number = kernel.lookup(b".dkfs").nodeid
    data = kernel.done(Op.GETATTR, number, wire.GETATTR.pack(0, 0, 0))

    assert struct.unpack_from("<QII", data) == (0, 0, 0)
    assert wire.attr_of(data).mode == stat.S_IFDIR | 0o555


def test_setattr_without_any_bit_changes_nothing(kernel: KernelSide) -> None:
    entry = kernel.file(b"file", b"data")
    before = (kernel.top / "file").stat()
    attr = set_attributes(kernel, entry.nodeid, 0)

    assert (attr.mode, attr.uid, attr.gid, attr.size) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
        4,
    )
    assert (kernel.top / "file").stat().st_mtime_ns == before.st_mtime_ns


def test_setattr_changes_the_mode_only(kernel: KernelSide) -> None:
    entry = kernel.file(b"file", b"data")
    attr = set_attributes(kernel, entry.nodeid, Fattr.MODE, mode=stat.S_IFREG | 0o4751)

    assert attr.mode == stat.S_IFREG | 0o4751 == (kernel.top / "file").stat().st_mode
    assert attr.size == 4


@pytest.mark.root
def test_setattr_changes_the_owner_the_group_or_both(kernel: KernelSide) -> None:
    entry = kernel.file(b"file")
    seen = [
        set_attributes(kernel, entry.nodeid, Fattr.UID, uid=5, gid=6),
        set_attributes(kernel, entry.nodeid, Fattr.GID, uid=7, gid=8),
        set_attributes(kernel, entry.nodeid, Fattr.UID | Fattr.GID, uid=9, gid=10),
    ]

    assert [(attr.uid, attr.gid) for attr in seen] == [(5, kernel.gid), (5, 8), (9, 10)]
    assert (kernel.top / "file").stat().st_uid == 9


def test_setattr_truncates_with_and_without_a_handle(kernel: KernelSide) -> None:
    entry, fh = kernel.create(b"file", b"1234567890")
    sizes = [
        set_attributes(kernel, entry.nodeid, Fattr.SIZE | Fattr.FH, size=5, fh=fh).size,
        set_attributes(kernel, entry.nodeid, Fattr.SIZE, size=20).size,
        set_attributes(kernel, entry.nodeid, Fattr.SIZE | Fattr.LOCKOWNER, size=4).size,
    ]

    assert sizes == [5, 20, 4]
    assert (kernel.top / "file").read_bytes() == b"1234"


def test_setattr_sets_times_to_the_nanosecond_also_before_1970(kernel: KernelSide) -> None:
    entry = kernel.file(b"file")
    attr = set_attributes(
        kernel,
        entry.nodeid,
        Fattr.ATIME | Fattr.MTIME,
        atime=1_500_000_000,
        atimensec=999_999_999,
        mtime=-5,
        mtimensec=1,
    )
    status = (kernel.top / "file").stat()

    assert (status.st_atime_ns, status.st_mtime_ns) == (1_500_000_000_999_999_999, -5 * NS + 1)
    assert (attr.atime, attr.atimensec) == (1_500_000_000, 999_999_999)
    assert (attr.mtime, attr.mtimensec) == ((1 << 64) - 5, 1)


@pytest.mark.parametrize("which", ["atime", "mtime"])
def test_setattr_sets_one_time_and_leaves_the_other(kernel: KernelSide, which: str) -> None:
    entry = kernel.file(b"file")
    os.utime(kernel.top / "file", ns=(10 * NS, 20 * NS))
    valid = Fattr.ATIME if which == "atime" else Fattr.MTIME
    set_attributes(kernel, entry.nodeid, valid, **{which: 30, f"{which}nsec": 4})
    status = (kernel.top / "file").stat()

    expected = (30 * NS + 4, 20 * NS) if which == "atime" else (10 * NS, 30 * NS + 4)
    assert (status.st_atime_ns, status.st_mtime_ns) == expected


def test_setattr_takes_now_from_the_clock_and_not_from_the_request(kernel: KernelSide) -> None:
    entry = kernel.file(b"file")
    os.utime(kernel.top / "file", ns=(0, 0))
    before_s = int(time.time()) - 1
    valid = Fattr.ATIME | Fattr.ATIME_NOW | Fattr.MTIME | Fattr.MTIME_NOW
    attr = set_attributes(kernel, entry.nodeid, valid, atime=1, mtime=1)

    assert attr.atime >= before_s
    assert attr.mtime >= before_s


@pytest.mark.parametrize("which", ["both", "mtime"])
def test_setattr_to_now_is_not_before_the_time_that_the_file_has(
    kernel: KernelSide, which: str
) -> None:
    entry = kernel.file(b"file")
    valid = Fattr.MTIME | Fattr.MTIME_NOW
    if which == "both":
        valid |= Fattr.ATIME | Fattr.ATIME_NOW
    for _ in range(50):
        (kernel.top / "file").write_bytes(b"x")
        earlier_ns = (kernel.top / "file").stat().st_mtime_ns
        set_attributes(kernel, entry.nodeid, valid, atime=1, mtime=1)
        status = (kernel.top / "file").stat()

        assert status.st_mtime_ns >= earlier_ns
        assert status.st_mtime_ns == status.st_ctime_ns


def test_setattr_cannot_set_the_ctime(kernel: KernelSide) -> None:
    entry = kernel.file(b"file")
    attr = set_attributes(kernel, entry.nodeid, Fattr.CTIME, ctime=5)

    assert attr.ctime > 5


def test_setattr_of_the_size_takes_set_id_bits_when_told_so(kernel: KernelSide) -> None:
    entry = kernel.file(b"file", b"12345")
    (kernel.top / "file").chmod(0o6755)
    set_attributes(kernel, entry.nodeid, Fattr.MODE, mode=stat.S_IFREG | 0o6755)
    attr = set_attributes(kernel, entry.nodeid, Fattr.SIZE | Fattr.KILL_SUIDGID, size=1)

    assert attr.mode == stat.S_IFREG | 0o755


def test_setattr_of_all_at_once(kernel: KernelSide) -> None:
    entry = kernel.file(b"file", b"12345")
    attr = set_attributes(
        kernel,
        entry.nodeid,
        Fattr.MODE | Fattr.UID | Fattr.GID | Fattr.SIZE | Fattr.MTIME,
        mode=0o100640,
        uid=kernel.uid,
        gid=kernel.gid,
        size=2,
        mtime=3,
        mtimensec=0,
    )

    assert (attr.mode, attr.size, attr.mtime) == (stat.S_IFREG | 0o640, 2, 3)


def test_setattr_of_a_handle_that_is_not_open_is_refused(kernel: KernelSide) -> None:
    entry = kernel.file(b"file", b"12345")
    body = setattr_body(Fattr.SIZE | Fattr.FH, size=0, fh=99_999)

    assert kernel.ask(Op.SETATTR, entry.nodeid, body).error == errno.EBADF
    assert (kernel.top / "file").stat().st_size == 5


def test_statx_tells_the_time_of_birth_too(kernel: KernelSide) -> None:
    entry = kernel.file(b"file", b"12345")
    status = (kernel.top / "file").stat()
    data = kernel.done(Op.STATX, entry.nodeid, wire.STATX.pack(0, 0, 0, 0, 0xFFF))
    found = wire.statx_of(data)

    assert wire.STATX_OUT.unpack_from(data) == (DAY_S, 0, 0, 0, 0)
    assert found.mask & 0x7FF == 0x7FF
    assert (found.nlink, found.uid, found.gid) == (1, status.st_uid, status.st_gid)
    assert (found.mode, found.ino, found.size) == (status.st_mode, entry.nodeid, 5)
    assert (found.blksize, found.blocks) == (status.st_blksize, status.st_blocks)
    assert (found.atime, found.mtime, found.ctime) == (
        *(status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns),
    )
    if found.mask & 0x800:
        assert 0 < found.btime <= found.ctime


def test_statx_of_the_history_has_no_time_of_birth(kernel: KernelSide) -> None:
    number = kernel.lookup(b".dkfs").nodeid
    found = wire.statx_of(kernel.done(Op.STATX, number, wire.STATX.pack(0, 0, 0, 0, 0xFFF)))

    assert found.mask == 0x7FF
    assert (found.mode, found.btime) == (stat.S_IFDIR | 0o555, 0)


def test_statfs_gives_the_figures_of_the_backing_file_system(kernel: KernelSide) -> None:
    figures = os.statvfs(kernel.top)
    data = kernel.done(Op.STATFS, ROOT)
    fields = wire.STATFS_OUT.unpack(data)

    assert (fields[0], fields[3]) == (figures.f_blocks, figures.f_files)
    assert fields[5:9] == (figures.f_bsize, figures.f_namemax, figures.f_frsize, 0)
    assert fields[2] <= fields[1] <= fields[0]
    assert fields[9:] == (0,) * 6
    assert kernel.done(Op.STATFS, 0) != b""  # the kernel does not always say of which inode


def test_access_is_left_to_the_kernel(kernel: KernelSide) -> None:
    assert kernel.ask(Op.ACCESS, ROOT, wire.ACCESS.pack(4, 0)) == (0, b"")


def test_setxattr_has_a_longer_layout_once_it_was_agreed_on(kernel: KernelSide) -> None:
    entry = kernel.file(b"file")
    body = wire.SETXATTR_EXT.pack(5, 0, 0, 0) + wire.name(b"user.key") + b"a\0b\0c"

    assert kernel.done(Op.SETXATTR, entry.nodeid, body) == b""
    assert os.getxattr(kernel.top / "file", "user.key") == b"a\0b\0c"


def test_setxattr_has_the_old_layout_without_that(tmp_path: Path) -> None:
    with kernel_side(tmp_path) as kernel:
        kernel.init(minor=31, flags=FLAGS_OF_31)
        entry = kernel.file(b"file")
        body = wire.SETXATTR.pack(5, 0) + wire.name(b"user.key") + b"a\0b\0c"

        assert kernel.done(Op.SETXATTR, entry.nodeid, body) == b""
        assert os.getxattr(kernel.top / "file", "user.key") == b"a\0b\0c"


def test_setxattr_creates_or_replaces_as_asked(kernel: KernelSide) -> None:
    entry = kernel.file(b"file")
    create, replace = (
        wire.SETXATTR_EXT.pack(1, flags, 0, 0) + wire.name(b"user.key") + b"v"
        for flags in (os.XATTR_CREATE, os.XATTR_REPLACE)
    )
    codes = [
        kernel.ask(Op.SETXATTR, entry.nodeid, body).error
        for body in (replace, create, create, replace)
    ]

    assert codes == [errno.ENODATA, 0, errno.EEXIST, 0]


@pytest.mark.root
@pytest.mark.parametrize("kills", [0, 1])
def test_setxattr_of_an_acl_takes_the_set_group_id_bit_when_told_so(
    kernel: KernelSide, kills: int
) -> None:
    entry = kernel.file(b"file")
    (kernel.top / "file").chmod(0o2755)
    acl = struct.pack("<I" + 5 * "HHI", 2, 1, 7, 0, 2, 7, 5, 4, 5, 0, 0x10, 7, 0, 0x20, 5, 0)
    head = wire.SETXATTR_EXT.pack(len(acl), 0, kills, 0)
    body = head + wire.name(b"system.posix_acl_access") + acl

    reply = kernel.ask(Op.SETXATTR, entry.nodeid, body)
    if reply.error == errno.EOPNOTSUPP:
        pytest.skip("the file system below has no ACLs")
    assert reply == (0, b"")
    assert kernel.attr(entry.nodeid).mode == stat.S_IFREG | (0o775 if kills else 0o2775)


@pytest.mark.parametrize(("size", "value"), [(9, b"short"), (1 << 31, b"x")])
def test_setxattr_of_fewer_bytes_than_it_says_is_refused(
    kernel: KernelSide, size: int, value: bytes
) -> None:
    entry = kernel.file(b"file")
    body = wire.SETXATTR_EXT.pack(size, 0, 0, 0) + wire.name(b"user.key") + value

    assert kernel.ask(Op.SETXATTR, entry.nodeid, body) == (errno.EINVAL, b"")
    assert os.listxattr(kernel.top / "file") == []


def test_getxattr_tells_the_size_the_value_or_that_there_is_no_room(kernel: KernelSide) -> None:
    entry = kernel.file(b"file")
    os.setxattr(kernel.top / "file", "user.key", b"value")

    def ask(size: int, name: bytes = b"user.key") -> tuple[int, bytes]:
        return kernel.ask(Op.GETXATTR, entry.nodeid, wire.GETXATTR.pack(size, 0) + wire.name(name))

    assert ask(0) == (0, wire.GETXATTR_OUT.pack(5, 0))
    assert ask(5) == (0, b"value")
    assert ask(4096) == (0, b"value")
    assert ask(4) == (errno.ERANGE, b"")
    assert ask(4096, b"user.none") == (errno.ENODATA, b"")


def test_listxattr_gives_names_each_ended_by_a_zero(kernel: KernelSide) -> None:
    entry = kernel.file(b"file")
    empty = kernel.ask(Op.LISTXATTR, entry.nodeid, wire.GETXATTR.pack(100, 0))
    os.setxattr(kernel.top / "file", "user.a", b"1")
    os.setxattr(kernel.top / "file", "user.bc", b"2")

    def ask(size: int) -> tuple[int, bytes]:
        return kernel.ask(Op.LISTXATTR, entry.nodeid, wire.GETXATTR.pack(size, 0))

    code, names = ask(15)
    assert empty == (0, b"")
    assert (code, sorted(names.split(b"\0"))) == (0, [b"", b"user.a", b"user.bc"])
    assert ask(0) == (0, wire.GETXATTR_OUT.pack(15, 0))
    assert ask(14) == (errno.ERANGE, b"")


def test_removexattr_is_answered_with_nothing(kernel: KernelSide) -> None:
    entry = kernel.file(b"file")
    os.setxattr(kernel.top / "file", "user.a", b"1")

    assert kernel.done(Op.REMOVEXATTR, entry.nodeid, wire.name(b"user.a")) == b""
    assert kernel.ask(Op.REMOVEXATTR, entry.nodeid, wire.name(b"user.a")).error == errno.ENODATA
