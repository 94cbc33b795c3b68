"""Open files: CREATE, TMPFILE, OPEN, READ, WRITE, FLUSH, FSYNC, RELEASE and what changes ranges; bytes in, bytes out."""

import errno
import os
import stat

import pytest

from tests.fuse.kernel import wire
from tests.fuse.kernel.kernel_side import DAY_S, KernelSide
from tests.fuse.kernel.wire import ROOT, Op

KEEP_CACHE = 2  # FOPEN_KEEP_CACHE
PUNCH_HOLE, KEEP_SIZE, ZERO_RANGE = 2, 1, 16  # FALLOC_FL_*


def test_create_opens_what_it_makes(kernel: KernelSide) -> None:
    head = wire.CREATE.pack(os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o100640, 0o022, 0)
    body = kernel.done(Op.CREATE, ROOT, head + wire.name(b"file"))
    entry = wire.entry_of(body)
    fh, flags, backing = wire.OPEN_OUT.unpack_from(body, wire.ENTRY_SIZE)

    assert len(body) == 144
    assert entry.attr.mode == stat.S_IFREG | 0o640
    assert (entry.entry_valid, entry.attr_valid) == (DAY_S, DAY_S)
    assert flags & KEEP_CACHE
    assert backing == 0
    assert kernel.write(entry.nodeid, fh, 0, b"data") == 4
    assert kernel.lookups(entry.nodeid) == 1
    assert kernel.ask(Op.CREATE, ROOT, head + wire.name(b"file")).error == errno.EEXIST


def test_create_without_excl_opens_what_is_there(kernel: KernelSide) -> None:
    first, _ = kernel.create(b"file", b"data")
    second, fh = kernel.create(b"file")

    assert second.nodeid == first.nodeid
    assert kernel.lookups(first.nodeid) == 2
    assert kernel.read(second.nodeid, fh, 0, 100) == b"data"


@pytest.mark.root
def test_create_gives_the_file_to_who_asked(kernel: KernelSide) -> None:
    head = wire.CREATE.pack(os.O_RDWR | os.O_CREAT, 0o100600, 0o022, 0)
    entry = wire.entry_of(kernel.done(Op.CREATE, ROOT, head + wire.name(b"file"), uid=4711))

    assert (entry.attr.uid, entry.attr.gid) == (4711, 4711)


def test_tmpfile_is_open_and_has_no_name(kernel: KernelSide) -> None:
    head = wire.CREATE.pack(os.O_RDWR, 0o100600, 0o022, 0)
    reply = kernel.ask(Op.TMPFILE, ROOT, head + wire.name(b"#1234"))
    if reply.error == errno.EOPNOTSUPP:
        pytest.skip("the file system below has no O_TMPFILE")
    entry = wire.entry_of(reply.body)
    fh, _, _ = wire.OPEN_OUT.unpack_from(reply.body, wire.ENTRY_SIZE)

    assert (reply.error, len(reply.body)) == (0, 144)
    assert entry.attr.nlink == 0
    assert list(kernel.top.iterdir()) == []
    assert kernel.write(entry.nodeid, fh, 0, b"data") == 4
    kernel.done(Op.LINK, ROOT, wire.LINK.pack(entry.nodeid) + wire.name(b"named"))
    assert (kernel.top / "named").read_bytes() == b"data"


def test_open_is_answered_with_a_handle_and_the_cache_kept(kernel: KernelSide) -> None:
    entry = kernel.file(b"file", b"data")
    fh, flags, backing = wire.OPEN_OUT.unpack(
        kernel.done(Op.OPEN, entry.nodeid, wire.OPEN.pack(os.O_RDONLY, 0))
    )

    assert fh != 0
    assert flags & KEEP_CACHE
    assert backing == 0


def test_open_truncates_by_itself(kernel: KernelSide) -> None:
    entry = kernel.file(b"file", b"data")
    kernel.open(entry.nodeid, os.O_WRONLY | os.O_TRUNC)

    assert (kernel.top / "file").stat().st_size == 0


def test_open_takes_set_id_bits_when_told_so(kernel: KernelSide) -> None:
    entry = kernel.file(b"file", b"data")
    body = wire.SETATTR.pack(wire.Fattr.MODE, *[0] * 10, 0o104755, *[0] * 4)
    kernel.done(Op.SETATTR, entry.nodeid, body)
    kernel.done(Op.OPEN, entry.nodeid, wire.OPEN.pack(os.O_WRONLY | os.O_TRUNC, 1))

    assert (kernel.top / "file").stat().st_mode == stat.S_IFREG | 0o755


def test_open_of_what_is_gone_is_stale(kernel: KernelSide) -> None:
    assert kernel.ask(Op.OPEN, 424_242, wire.OPEN.pack(0, 0)) == (errno.ESTALE, b"")


def test_read_gives_what_is_there_and_stops_at_the_end(kernel: KernelSide) -> None:
    data = bytes(range(256)) * 40
    entry, fh = kernel.create(b"file", data)

    assert kernel.read(entry.nodeid, fh, 0, 4096) == data[:4096]
    assert kernel.read(entry.nodeid, fh, 10_001, 4096) == data[10_001:]
    assert kernel.read(entry.nodeid, fh, 50_000, 4096) == b""
    assert kernel.read(entry.nodeid, fh, 0, 0) == b""


def test_a_large_read_and_a_large_write_arrive_whole(kernel: KernelSide) -> None:
    data = os.urandom(1 << 20)
    entry, fh = kernel.create(b"file", data)

    assert kernel.read(entry.nodeid, fh, 0, 1 << 20) == data
    assert (kernel.top / "file").read_bytes() == data


def test_read_of_a_handle_that_is_not_open_is_refused(kernel: KernelSide) -> None:
    entry = kernel.file(b"file", b"data")
    body = wire.READ.pack(77_777, 0, 100, 0, 0, 0, 0)

    assert kernel.ask(Op.READ, entry.nodeid, body) == (errno.EBADF, b"")


def test_read_at_an_offset_that_no_file_has_is_refused(kernel: KernelSide) -> None:
    entry, fh = kernel.create(b"file", b"data")
    body = wire.READ.pack(fh, (1 << 64) - 1, 100, 0, 0, 0, 0)

    assert kernel.ask(Op.READ, entry.nodeid, body) == (errno.EINVAL, b"")


def test_write_says_how_much_and_puts_it_there(kernel: KernelSide) -> None:
    entry, fh = kernel.create(b"file", b"0123456789")
    body = wire.WRITE.pack(fh, 3, 4, 0, 0, os.O_RDWR, 0) + b"abcd"

    assert kernel.done(Op.WRITE, entry.nodeid, body) == b"\4\0\0\0\0\0\0\0"
    assert (kernel.top / "file").read_bytes() == b"012abcd789"


def test_write_from_the_page_cache_is_a_write(kernel: KernelSide) -> None:
    entry, fh = kernel.create(b"file", b"0123456789")
    kernel.write(entry.nodeid, fh, 8, b"xyz", write_flags=1)

    assert (kernel.top / "file").read_bytes() == b"01234567xyz"


def test_write_takes_set_id_bits_when_told_so(kernel: KernelSide) -> None:
    entry, fh = kernel.create(b"file", b"data")
    body = wire.SETATTR.pack(wire.Fattr.MODE, *[0] * 10, 0o106755, *[0] * 4)
    kernel.done(Op.SETATTR, entry.nodeid, body)
    kernel.write(entry.nodeid, fh, 0, b"x")
    kept = (kernel.top / "file").stat().st_mode
    kernel.write(entry.nodeid, fh, 0, b"x", write_flags=4)

    assert kept & 0o6000 == (0o6000 if kernel.uid == 0 else 0)
    assert (kernel.top / "file").stat().st_mode == stat.S_IFREG | 0o755


@pytest.mark.parametrize("said", [3, 5, 0xFFFF_FFFF])
def test_write_of_another_length_than_it_says_is_refused(kernel: KernelSide, said: int) -> None:
    entry, fh = kernel.create(b"file", b"0123456789")
    body = wire.WRITE.pack(fh, 0, said, 0, 0, os.O_RDWR, 0) + b"abcd"

    assert kernel.ask(Op.WRITE, entry.nodeid, body) == (errno.EINVAL, b"")
    assert (kernel.top / "file").read_bytes() == b"0123456789"


def test_write_to_a_handle_for_reading_is_refused(kernel: KernelSide) -> None:
    entry = kernel.file(b"file", b"data")
    fh = kernel.open(entry.nodeid, os.O_RDONLY)
    body = wire.WRITE.pack(fh, 0, 1, 0, 0, os.O_RDONLY, 0) + b"x"

    assert kernel.ask(Op.WRITE, entry.nodeid, body).error == errno.EBADF


@pytest.mark.parametrize("op", [Op.FSYNC, Op.FSYNCDIR])
@pytest.mark.parametrize("flags", [0, 1])
def test_fsync_returns_when_all_before_it_is_recorded(
    kernel: KernelSide, op: Op, flags: int
) -> None:
    entry, fh = kernel.create(b"file", b"data")
    node, handle = (entry.nodeid, fh) if op == Op.FSYNC else (ROOT, kernel.opendir())
    assert kernel.done(op, node, wire.FSYNC.pack(handle, flags, 0)) == b""
    recorder = kernel.driver.recorder

    assert recorder.committed == recorder.last > 1


def test_syncfs_returns_when_everything_is_recorded(kernel: KernelSide) -> None:
    kernel.create(b"file", b"data")
    assert kernel.done(Op.SYNCFS, ROOT, wire.SYNCFS.pack(0)) == b""
    at = kernel.driver.recorder.committed

    assert kernel.driver.recorded(b"file", at) == b"data"


def test_flush_and_release_are_answered_with_nothing(kernel: KernelSide) -> None:
    entry, fh = kernel.create(b"file", b"data")

    assert kernel.done(Op.FLUSH, entry.nodeid, wire.FLUSH.pack(fh, 0, 0, 5)) == b""
    assert kernel.done(Op.RELEASE, entry.nodeid, wire.RELEASE.pack(fh, os.O_RDWR, 1, 5)) == b""
    assert kernel.ask(Op.FLUSH, entry.nodeid, wire.FLUSH.pack(fh, 0, 0, 5)).error == errno.EBADF
    assert kernel.ask(Op.RELEASE, entry.nodeid, wire.RELEASE.pack(fh, 0, 0, 0)).error == errno.EBADF
    assert kernel.driver.recorded(b"file") == b"data"


def test_fallocate_makes_room_holes_and_zeros(kernel: KernelSide) -> None:
    entry, fh = kernel.create(b"file", b"x" * 16384)

    def ask(offset: int, length: int, mode: int) -> int:
        body = wire.FALLOCATE.pack(fh, offset, length, mode, 0)
        return kernel.ask(Op.FALLOCATE, entry.nodeid, body).error

    assert ask(0, 20000, 0) == 0
    assert kernel.attr(entry.nodeid).size == 20000
    assert ask(4096, 4096, PUNCH_HOLE | KEEP_SIZE) == 0
    assert ask(100, 50, ZERO_RANGE) in (0, errno.EOPNOTSUPP)
    assert kernel.read(entry.nodeid, fh, 4000, 4300) == b"x" * 96 + bytes(4096) + b"x" * 108
    assert ask(0, 100, 1 << 30) == errno.EOPNOTSUPP
    assert ask(0, 0, 0) == errno.EINVAL


def test_lseek_finds_data_and_holes(kernel: KernelSide) -> None:
    entry, fh = kernel.create(b"file")
    os.truncate(kernel.top / "file", 1 << 20)
    kernel.write(entry.nodeid, fh, 65536, b"x" * 4096)

    def ask(offset: int, whence: int) -> tuple[int, bytes]:
        return kernel.ask(Op.LSEEK, entry.nodeid, wire.LSEEK.pack(fh, offset, whence, 0))

    assert ask(0, os.SEEK_DATA) == (0, wire.LSEEK_OUT.pack(65536))
    assert ask(65536, os.SEEK_HOLE) == (0, wire.LSEEK_OUT.pack(69632))
    assert ask(80000, os.SEEK_DATA) == (errno.ENXIO, b"")
    assert ask(0, 77) == (errno.EINVAL, b"")


@pytest.mark.parametrize("op", [Op.COPY_FILE_RANGE, Op.COPY_FILE_RANGE_64])
def test_copy_file_range_copies_and_says_how_much(kernel: KernelSide, op: Op) -> None:
    source, fh_in = kernel.create(b"source", b"0123456789")
    target, fh_out = kernel.create(b"target", b"abcdefghij")
    body = wire.COPY_FILE_RANGE.pack(fh_in, 2, target.nodeid, fh_out, 4, 3, 0)
    answer = kernel.done(op, source.nodeid, body)

    size = wire.WRITE_OUT.pack(3, 0) if op == Op.COPY_FILE_RANGE else wire.COPIED.pack(3)
    assert answer == size
    assert (kernel.top / "target").read_bytes() == b"abcd234hij"
    assert kernel.driver.recorded(b"target") == b"abcd234hij"


def test_copy_file_range_with_flags_is_refused(kernel: KernelSide) -> None:
    source, fh = kernel.create(b"source", b"0123456789")
    body = wire.COPY_FILE_RANGE.pack(fh, 0, source.nodeid, fh, 5, 3, 1)

    assert kernel.ask(Op.COPY_FILE_RANGE, source.nodeid, body).error == errno.EINVAL


def test_ioctl_of_flags_of_files_works_and_others_are_no_typewriter(kernel: KernelSide) -> None:
    entry, fh = kernel.create(b"file")

    def ask(command: int, out: int, data: bytes = b"") -> tuple[int, bytes]:
        body = wire.IOCTL.pack(fh, 0, command, 0, len(data), out)
        return kernel.ask(Op.IOCTL, entry.nodeid, body + data)

    code, answer = ask(0x8008_6601, 4)  # FS_IOC_GETFLAGS: an int, whatever its name says
    if code != errno.ENOTTY:  # of a backing file system that has no flags
        assert (code, len(answer)) == (0, wire.IOCTL_OUT.size + 4)
        assert wire.IOCTL_OUT.unpack_from(answer) == (0, 0, 0, 0)
    assert ask(0x1234_5678, 0) == (errno.ENOTTY, b"")


@pytest.mark.parametrize(
    ("op", "body"),
    [
        (Op.GETLK, wire.LK.pack(1, 2, 0, 9, 1, 4, 0, 0)),
        (Op.SETLK, wire.LK.pack(1, 2, 0, 9, 1, 4, 0, 0)),
        (Op.SETLKW, wire.LK.pack(1, 2, 0, 9, 1, 4, 1, 0)),
        (Op.BMAP, wire.BMAP.pack(0, 4096, 0)),
        (Op.POLL, wire.POLL.pack(1, 2, 1, 1)),
        (Op.SETUPMAPPING, wire.SETUPMAPPING.pack(1, 0, 4096, 1, 0)),
        (Op.REMOVEMAPPING, wire.REMOVEMAPPING.pack(1, 0, 4096)),
        (Op.CUSE_INIT, bytes(16)),
        (7, b""),
        (19, b""),
        (54, bytes(64)),
        (4095, b""),
        (1 << 20, b""),
        (0, b""),
    ],
)
def test_what_dkfs_leaves_to_the_kernel_or_does_not_know_is_not_implemented(
    kernel: KernelSide, op: int, body: bytes
) -> None:
    kernel.create(b"file")

    assert kernel.ask(op, ROOT, body) == (errno.ENOSYS, b"")


def test_a_file_of_the_history_is_read_and_never_written(kernel: KernelSide) -> None:
    kernel.file(b"file", b"old contents")
    seq = kernel.driver.flush()
    top = kernel.lookup(b".dkfs").nodeid
    tree = kernel.lookup(b"%d" % seq, kernel.lookup(b"versions", top).nodeid)
    entry = kernel.lookup(b"file", tree.nodeid)
    fh = kernel.open(entry.nodeid)

    assert kernel.read(entry.nodeid, fh, 4, 100) == b"contents"
    seeks = [
        kernel.ask(Op.LSEEK, entry.nodeid, wire.LSEEK.pack(fh, offset, whence, 0))
        for offset, whence in ((5, os.SEEK_DATA), (5, os.SEEK_HOLE), (12, os.SEEK_DATA))
    ]
    assert seeks == [(0, wire.LSEEK_OUT.pack(5)), (0, wire.LSEEK_OUT.pack(12)), (errno.ENXIO, b"")]
    refused = [
        (Op.WRITE, wire.WRITE.pack(fh, 0, 1, 0, 0, 0, 0) + b"x"),
        (Op.FALLOCATE, wire.FALLOCATE.pack(fh, 0, 10, 0, 0)),
    ]
    for op, body in refused:
        assert kernel.ask(op, entry.nodeid, body).error in (errno.EROFS, errno.EBADF)
    assert kernel.ask(Op.OPEN, entry.nodeid, wire.OPEN.pack(os.O_RDWR, 0)).error == errno.EROFS
    kernel.release(entry.nodeid, fh)
