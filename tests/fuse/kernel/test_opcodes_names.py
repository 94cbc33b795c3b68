"""LOOKUP, FORGET, and every opcode that makes, moves or takes away a name: bytes in, bytes out."""

import errno
import os
import stat

import pytest

from tests.fuse.kernel import wire
from tests.fuse.kernel.kernel_side import DAY_S, KernelSide
from tests.fuse.kernel.wire import ROOT, Op


def test_lookup_tells_everything_of_what_it_finds(kernel: KernelSide) -> None:
    path = kernel.top / "file"
    path.write_bytes(b"x" * 5000)
    os.utime(path, ns=(1_500_000_001_000_000_002, -3_000_000_004))
    status = path.stat()
    entry = kernel.lookup(b"file")

    generation = kernel.driver.fs.table[entry.nodeid].generation
    assert entry[:6] == (status.st_ino, generation, DAY_S, DAY_S, 0, 0)
    assert 0 < generation < 1 << 32  # the kernel keeps 32 bits and compares 64
    assert entry.attr == (
        *(status.st_ino, 5000, status.st_blocks),
        *(1_500_000_001, (1 << 64) - 4, int(status.st_ctime_ns // 10**9)),
        *(2, 999_999_996 + 0, status.st_ctime_ns % 10**9),
        *(status.st_mode, 1, status.st_uid, status.st_gid, 0, status.st_blksize, 0),
    )
    assert kernel.lookups(entry.nodeid) == 1


def test_lookup_of_what_is_not_there_is_an_entry_of_nothing_to_be_remembered(
    kernel: KernelSide,
) -> None:
    body = kernel.done(Op.LOOKUP, ROOT, wire.name(b"missing"))

    assert len(body) == wire.ENTRY_SIZE
    entry = wire.entry_of(body)
    assert (entry.nodeid, entry.entry_valid, entry.entry_valid_nsec) == (0, DAY_S, 0)


@pytest.mark.parametrize(
    ("name", "code"),
    [(b"n" * 256, errno.ENAMETOOLONG), (b"", errno.EINVAL), (b"a/b", errno.EINVAL)],
)
def test_lookup_of_what_cannot_be_a_name_is_refused(
    kernel: KernelSide, name: bytes, code: int
) -> None:
    assert kernel.ask(Op.LOOKUP, ROOT, wire.name(name)) == (code, b"")


def test_lookup_in_what_nobody_knows_is_stale(kernel: KernelSide) -> None:
    assert kernel.ask(Op.LOOKUP, 987_654_321, wire.name(b"x")) == (errno.ESTALE, b"")


def test_lookup_below_a_file_is_no_directory(kernel: KernelSide) -> None:
    entry = kernel.file(b"file")

    assert kernel.ask(Op.LOOKUP, entry.nodeid, wire.name(b"x")) == (errno.ENOTDIR, b"")


def test_lookup_of_the_history_is_not_to_be_remembered(kernel: KernelSide) -> None:
    top = kernel.lookup(b".dkfs")
    tags = kernel.lookup(b"tags", top.nodeid)

    assert top.nodeid >= 1 << 62
    assert stat.S_ISDIR(top.attr.mode)
    for entry in (top, tags):
        assert entry[2:6] == (0, 0, 0, 0)
        assert entry.attr.ino == entry.nodeid
    assert kernel.ask(Op.LOOKUP, tags.nodeid, wire.name(b"none")).error == errno.ENOENT


def test_two_lookups_take_two_references_and_forget_gives_them_back(kernel: KernelSide) -> None:
    (kernel.top / "file").touch()
    kernel.lookup(b"file")
    number = kernel.lookup(b"file").nodeid
    seen = [kernel.lookups(number)]
    kernel.tell(Op.FORGET, number, wire.FORGET.pack(1))
    seen.append(kernel.lookups(number))
    kernel.tell(Op.FORGET, number, wire.FORGET.pack(1))

    assert [*seen, kernel.lookups(number)] == [2, 1, 0]
    assert kernel.ask(Op.GETATTR, number, wire.GETATTR.pack(0, 0, 0)).error == errno.ESTALE


def test_batch_forget_gives_back_references_of_many(kernel: KernelSide) -> None:
    for name in ("a", "b", "c"):
        (kernel.top / name).touch()
    a, b, c = (kernel.lookup(name).nodeid for name in (b"a", b"b", b"c"))
    history = kernel.lookup(b".dkfs").nodeid
    pairs = ((a, 1), (123_456, 5), (history, 1), (c, 1))
    body = wire.BATCH_FORGET.pack(len(pairs), 0)
    kernel.tell(Op.BATCH_FORGET, 0, body + b"".join(wire.FORGET_ONE.pack(*pair) for pair in pairs))

    assert [kernel.lookups(number) for number in (a, b, c)] == [0, 1, 0]


def test_forget_of_too_many_or_of_nobody_does_no_harm(kernel: KernelSide) -> None:
    entry = kernel.file(b"file")
    kernel.tell(Op.FORGET, entry.nodeid, wire.FORGET.pack(1 << 63))
    kernel.tell(Op.FORGET, 999, wire.FORGET.pack(1))
    kernel.tell(Op.FORGET, (1 << 62) + 7, wire.FORGET.pack(1))
    kernel.tell(Op.FORGET, ROOT, wire.FORGET.pack(5))

    assert kernel.lookup(b"file").nodeid == entry.nodeid
    assert stat.S_ISDIR(kernel.attr(ROOT).mode)


def test_mkdir_makes_a_directory_of_the_mode_that_the_kernel_masked(kernel: KernelSide) -> None:
    body = wire.MKDIR.pack(0o1750, 0o022) + wire.name(b"dir")
    data = kernel.done(Op.MKDIR, ROOT, body)
    entry = wire.entry_of(data)

    assert len(data) == wire.ENTRY_SIZE
    assert entry.attr.mode == stat.S_IFDIR | 0o1750 == (kernel.top / "dir").stat().st_mode
    assert (entry.entry_valid, entry.attr_valid) == (DAY_S, DAY_S)
    assert kernel.lookups(entry.nodeid) == 1
    assert kernel.ask(Op.MKDIR, ROOT, body).error == errno.EEXIST


@pytest.mark.root
def test_what_a_user_makes_belongs_to_them(kernel: KernelSide) -> None:
    body = wire.MKDIR.pack(0o755, 0) + wire.name(b"dir")
    made = wire.entry_of(kernel.done(Op.MKDIR, ROOT, body, uid=4711))
    body = wire.MKNOD.pack(stat.S_IFREG | 0o600, 0, 0, 0) + wire.name(b"file")
    also = wire.entry_of(kernel.done(Op.MKNOD, ROOT, body, uid=4711))

    assert [(e.attr.uid, e.attr.gid) for e in (made, also)] == [(4711, 4711)] * 2
    assert (kernel.top / "file").stat().st_uid == 4711


@pytest.mark.parametrize(
    "kind",
    [
        stat.S_IFREG,
        stat.S_IFIFO,
        stat.S_IFSOCK,
        pytest.param(stat.S_IFCHR, marks=pytest.mark.root),
        pytest.param(stat.S_IFBLK, marks=pytest.mark.root),
    ],
)
def test_mknod_makes_what_is_asked_for(kernel: KernelSide, kind: int) -> None:
    # The kernel's encoding of device 300, 70000: minor 8 bits, major 12, the rest of the minor.
    is_device = kind in (stat.S_IFCHR, stat.S_IFBLK)
    rdev = (70000 & 0xFF) | (300 << 8) | ((70000 & ~0xFF) << 12) if is_device else 0
    body = wire.MKNOD.pack(kind | 0o640, rdev, 0o022, 0) + wire.name(b"node")
    entry = wire.entry_of(kernel.done(Op.MKNOD, ROOT, body))
    status = (kernel.top / "node").lstat()

    assert entry.attr.mode == status.st_mode == kind | 0o640
    assert entry.attr.rdev == rdev
    assert status.st_rdev == (os.makedev(300, 70000) if is_device else 0)


def test_symlink_and_readlink_carry_any_bytes(kernel: KernelSide) -> None:
    target = b"../\xff\xfe" + b"x" * 4000
    data = kernel.done(Op.SYMLINK, ROOT, wire.name(b"link", target))
    entry = wire.entry_of(data)

    assert len(data) == wire.ENTRY_SIZE
    assert stat.S_ISLNK(entry.attr.mode)
    assert entry.attr.size == len(target)
    assert os.readlink(os.fsencode(kernel.top / "link")) == target
    assert kernel.done(Op.READLINK, entry.nodeid) == target


def test_readlink_of_a_file_is_invalid(kernel: KernelSide) -> None:
    entry = kernel.file(b"file")

    assert kernel.ask(Op.READLINK, entry.nodeid) == (errno.EINVAL, b"")


def test_link_gives_a_second_name_and_takes_a_reference(kernel: KernelSide) -> None:
    entry = kernel.file(b"file", b"data")
    data = kernel.done(Op.LINK, ROOT, wire.LINK.pack(entry.nodeid) + wire.name(b"other"))
    linked = wire.entry_of(data)

    assert len(data) == wire.ENTRY_SIZE
    assert (linked.nodeid, linked.attr.nlink) == (entry.nodeid, 2)
    assert kernel.lookups(entry.nodeid) == 2
    assert (kernel.top / "other").read_bytes() == b"data"
    body = wire.LINK.pack(entry.nodeid) + wire.name(b"other")
    assert kernel.ask(Op.LINK, ROOT, body).error == errno.EEXIST


def test_unlink_is_answered_with_nothing_and_takes_the_name_away(kernel: KernelSide) -> None:
    kernel.file(b"file")

    assert kernel.done(Op.UNLINK, ROOT, wire.name(b"file")) == b""
    assert not (kernel.top / "file").exists()
    assert kernel.ask(Op.UNLINK, ROOT, wire.name(b"file")).error == errno.ENOENT


def test_rmdir_takes_only_empty_directories_away(kernel: KernelSide) -> None:
    entry = kernel.mkdir(b"dir")
    kernel.mkdir(b"inner", entry.nodeid)

    assert kernel.ask(Op.RMDIR, ROOT, wire.name(b"dir")).error == errno.ENOTEMPTY
    assert kernel.done(Op.RMDIR, entry.nodeid, wire.name(b"inner")) == b""
    assert kernel.done(Op.RMDIR, ROOT, wire.name(b"dir")) == b""
    assert list(kernel.top.iterdir()) == []


def test_unlink_of_a_directory_and_rmdir_of_a_file_are_refused(kernel: KernelSide) -> None:
    kernel.mkdir(b"dir")
    kernel.file(b"file")

    assert kernel.ask(Op.UNLINK, ROOT, wire.name(b"dir")).error == errno.EISDIR
    assert kernel.ask(Op.RMDIR, ROOT, wire.name(b"file")).error == errno.ENOTDIR


def test_rename_moves_between_directories(kernel: KernelSide) -> None:
    entry = kernel.file(b"old", b"data")
    directory = kernel.mkdir(b"dir")
    body = wire.RENAME.pack(directory.nodeid) + wire.name(b"old", b"new")

    assert kernel.done(Op.RENAME, ROOT, body) == b""
    assert (kernel.top / "dir/new").read_bytes() == b"data"
    assert kernel.lookup(b"new", directory.nodeid).nodeid == entry.nodeid
    assert kernel.ask(Op.RENAME, ROOT, body).error == errno.ENOENT


def test_rename2_keeps_what_is_there_exchanges_or_refuses(kernel: KernelSide) -> None:
    kernel.file(b"a", b"a")
    kernel.file(b"b", b"b")
    noreplace, exchange, unknown = (
        wire.RENAME2.pack(ROOT, flags, 0) + wire.name(b"a", b"b") for flags in (1, 2, 1 << 20)
    )

    assert kernel.ask(Op.RENAME2, ROOT, noreplace).error == errno.EEXIST
    assert kernel.done(Op.RENAME2, ROOT, exchange) == b""
    assert (kernel.top / "a").read_bytes() == b"b"
    assert kernel.ask(Op.RENAME2, ROOT, unknown).error == errno.EINVAL


@pytest.mark.root
def test_rename2_leaves_a_whiteout_behind(kernel: KernelSide) -> None:
    kernel.file(b"a", b"a")
    body = wire.RENAME2.pack(ROOT, 4, 0) + wire.name(b"a", b"b")

    assert kernel.done(Op.RENAME2, ROOT, body) == b""
    assert (kernel.top / "b").read_bytes() == b"a"
    assert stat.S_ISCHR((kernel.top / "a").lstat().st_mode)
    assert (kernel.top / "a").lstat().st_rdev == 0


@pytest.mark.parametrize("op", [Op.MKDIR, Op.MKNOD, Op.SYMLINK, Op.LINK, Op.UNLINK, Op.RMDIR])
def test_the_name_of_the_history_cannot_be_taken_or_removed(kernel: KernelSide, op: Op) -> None:
    entry = kernel.file(b"file")
    bodies = {
        Op.MKDIR: wire.MKDIR.pack(0o755, 0) + wire.name(b".dkfs"),
        Op.MKNOD: wire.MKNOD.pack(stat.S_IFREG, 0, 0, 0) + wire.name(b".dkfs"),
        Op.SYMLINK: wire.name(b".dkfs", b"target"),
        Op.LINK: wire.LINK.pack(entry.nodeid) + wire.name(b".dkfs"),
    }
    reply = kernel.ask(op, ROOT, bodies.get(op, wire.name(b".dkfs")))

    assert reply.error in (errno.EEXIST, errno.EPERM, errno.EROFS)
    assert sorted(os.listdir(kernel.top)) == ["file"]


def test_mkdir_and_rmdir_in_tags_make_and_remove_a_tag(kernel: KernelSide) -> None:
    tags = kernel.lookup(b"tags", kernel.lookup(b".dkfs").nodeid).nodeid
    made = wire.entry_of(
        kernel.done(Op.MKDIR, tags, wire.MKDIR.pack(0o755, 0) + wire.name(b"first"))
    )

    assert made.nodeid >= 1 << 62
    assert (made.entry_valid, made.attr_valid) == (0, 0)
    assert kernel.lookup(b"first", tags).nodeid == made.nodeid
    assert kernel.done(Op.RMDIR, tags, wire.name(b"first")) == b""
    assert kernel.ask(Op.LOOKUP, tags, wire.name(b"first")).error == errno.ENOENT


def test_nothing_is_made_moved_or_linked_in_the_history(kernel: KernelSide) -> None:
    entry = kernel.file(b"file")
    top = kernel.lookup(b".dkfs").nodeid
    asked = [
        (Op.MKNOD, top, wire.MKNOD.pack(stat.S_IFREG, 0, 0, 0) + wire.name(b"x")),
        (Op.MKDIR, top, wire.MKDIR.pack(0o755, 0) + wire.name(b"x")),
        (Op.SYMLINK, top, wire.name(b"x", b"y")),
        (Op.LINK, top, wire.LINK.pack(entry.nodeid) + wire.name(b"x")),
        (Op.LINK, ROOT, wire.LINK.pack(top) + wire.name(b"x")),
        (Op.CREATE, top, wire.CREATE.pack(os.O_RDWR, 0o644, 0, 0) + wire.name(b"x")),
        (Op.UNLINK, top, wire.name(b"latest")),
        (Op.RENAME, top, wire.RENAME.pack(ROOT) + wire.name(b"latest", b"x")),
        (Op.RENAME, ROOT, wire.RENAME.pack(top) + wire.name(b"file", b"x")),
        (Op.RENAME2, ROOT, wire.RENAME2.pack(top, 1, 0) + wire.name(b"file", b"x")),
        (Op.TMPFILE, top, wire.CREATE.pack(os.O_RDWR, 0o644, 0, 0) + wire.name(b"x")),
        (Op.SETXATTR, top, wire.SETXATTR_EXT.pack(1, 0, 0, 0) + wire.name(b"user.x") + b"y"),
        (Op.REMOVEXATTR, top, wire.name(b"user.x")),
        (Op.SETATTR, top, wire.SETATTR.pack(wire.Fattr.MODE, *[0] * 15)),
    ]

    assert [kernel.ask(*each).error for each in asked] == [errno.EROFS] * len(asked)
    assert sorted(os.listdir(kernel.top)) == ["file"]
