"""INIT, INTERRUPT, DESTROY, and messages that are cut off, too long or make no sense: bytes in, bytes out."""

import errno
import os
import random
from pathlib import Path

import pytest

from bench import fuzz_requests
from tests.fuse.kernel import wire
from tests.fuse.kernel.kernel_side import FLAGS, FLAGS2, KernelSide, kernel_side
from tests.fuse.kernel.wire import NO_REPLY, ROOT, UNIQUE, Op

AUTO_INVAL_DATA, WRITEBACK_CACHE, INIT_EXT = 1 << 12, 1 << 16, 1 << 30
EXPLICIT_INVAL_DATA, CACHE_SYMLINKS, ATOMIC_O_TRUNC = 1 << 25, 1 << 23, 1 << 3
SOUND = [(op, node, body) for op, node, body in fuzz_requests._bodies(1) if op != Op.DESTROY]


@pytest.mark.parametrize(("minor", "agreed"), [(31, 31), (36, 36), (40, 40), (45, 45), (99, 45)])
def test_init_agrees_on_the_lower_minor(tmp_path: Path, minor: int, agreed: int) -> None:
    with kernel_side(tmp_path) as kernel:
        answer = kernel.init(minor=minor)

    major, said, readahead, flags, background, congestion, max_write, granularity = answer[:8]
    assert (major, said, readahead) == (7, agreed, 1 << 20)
    assert 0 < congestion <= background
    assert (max_write, granularity) == (1 << 20, 1)
    assert answer[8] == 256  # max_pages
    assert not flags & (AUTO_INVAL_DATA | WRITEBACK_CACHE)
    assert flags & (EXPLICIT_INVAL_DATA | CACHE_SYMLINKS | ATOMIC_O_TRUNC) == (
        EXPLICIT_INVAL_DATA | CACHE_SYMLINKS | ATOMIC_O_TRUNC
    )


def test_init_takes_nothing_that_was_not_offered(tmp_path: Path) -> None:
    with kernel_side(tmp_path) as kernel:
        answer = kernel.init(flags=0, flags2=FLAGS2)

    assert (answer[3], answer[10], answer[11]) == (0, 0, 0)
    assert answer[6] == 128 * 1024  # without FUSE_MAX_PAGES a message has 32 pages


def test_init_of_7_31_has_no_second_field_of_flags(tmp_path: Path) -> None:
    with kernel_side(tmp_path) as kernel:
        body = wire.INIT_SHORT.pack(7, 31, 1 << 17, FLAGS & ~INIT_EXT)
        answer = wire.INIT_OUT.unpack(kernel.done(Op.INIT, 0, body))

    assert answer[:3] == (7, 31, 1 << 17)
    assert answer[10] == 0


def test_init_of_a_later_major_is_told_ours_and_asked_again(tmp_path: Path) -> None:
    with kernel_side(tmp_path) as kernel:
        body = wire.INIT_SHORT.pack(8, 0, 0, 0)
        assert wire.INIT_OUT.unpack(kernel.done(Op.INIT, 0, body))[:2] == (7, 45)
        assert kernel.init()[:2] == (7, 45)


@pytest.mark.parametrize(("major", "minor"), [(7, 30), (7, 8), (6, 99)])
def test_init_of_a_protocol_that_is_too_old_is_refused(
    tmp_path: Path, major: int, minor: int
) -> None:
    with kernel_side(tmp_path) as kernel:
        body = wire.INIT_SHORT.pack(major, minor, 0, 0)
        assert kernel.ask(Op.INIT, 0, body) == (errno.EPROTO, b"")


def test_interrupt_has_no_reply_whatever_it_is_about(kernel: KernelSide) -> None:
    for unique in (0, UNIQUE, (1 << 64) - 1):
        kernel.tell(Op.INTERRUPT, 0, wire.INTERRUPT.pack(unique))


def test_notify_reply_has_no_reply(kernel: KernelSide) -> None:
    kernel.tell(Op.NOTIFY_REPLY, ROOT, wire.RETRIEVED.pack(0, 0, 3, 0, 0, 0) + b"abc")


def test_destroy_is_answered_with_nothing(kernel: KernelSide) -> None:
    assert kernel.done(Op.DESTROY, 0) == b""


def test_a_request_has_one_reply_with_its_number(kernel: KernelSide) -> None:
    for unique in (2, (1 << 64) - 2):
        answer = kernel.raw(wire.request(Op.STATFS, unique=unique))

        assert answer is not None
        assert wire.OUT_HEADER.unpack_from(answer) == (96, 0, unique)


@pytest.mark.expect_logs("a request of .* bytes, need 40")
@pytest.mark.parametrize("length", [0, 1, 16, 39])
def test_less_than_a_header_has_no_reply(tmp_path: Path, length: int) -> None:
    with kernel_side(tmp_path) as kernel:
        assert kernel.raw(wire.request(Op.GETATTR)[:length]) is None
        kernel.meter.internal_errors = 0


@pytest.mark.parametrize(
    ("op", "node", "body"), SOUND, ids=[str(Op._value2member_map_.get(s[0], s[0])) for s in SOUND]
)
def test_a_request_that_is_cut_off_anywhere_is_refused_and_changes_nothing(
    kernel: KernelSide, op: int, node: int, body: bytes
) -> None:
    entry, _ = kernel.create(b"file", b"data")
    before = sorted(os.listdir(kernel.top))
    replies = []
    for length in range(len(body)):
        request = wire.request(op, entry.nodeid if node > 1 else node, body[:length])
        answer = kernel.raw(request)
        replies.append(-wire.OUT_HEADER.unpack_from(answer)[1] if answer is not None else None)

    if op in NO_REPLY:
        assert set(replies) <= {None}
    elif op in (Op.GETLK, Op.SETLK, Op.SETLKW, Op.BMAP, Op.POLL, Op.SETUPMAPPING) or op in (
        *(Op.REMOVEMAPPING, Op.CUSE_INIT),
    ):
        assert set(replies) == {errno.ENOSYS}
    elif op in (Op.SYMLINK, Op.TMPFILE):  # an empty target; the name of a file without one
        assert set(replies) <= {errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP, 0}
    else:
        assert set(replies) <= {errno.EINVAL}
    assert sorted(os.listdir(kernel.top)) == before
    assert (kernel.top / "file").read_bytes() == b"data"


@pytest.mark.parametrize("length", [0, 39, 41, 1 << 31])
def test_a_request_of_another_length_than_its_header_says_is_refused(
    kernel: KernelSide, length: int
) -> None:
    answer = kernel.raw(wire.request(Op.STATFS, length=length))

    assert answer == wire.OUT_HEADER.pack(16, -errno.EINVAL, UNIQUE)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/"])
@pytest.mark.parametrize("op", [Op.MKDIR, Op.MKNOD, Op.SYMLINK, Op.CREATE, Op.UNLINK, Op.RMDIR])
def test_no_name_leads_out_of_its_directory(kernel: KernelSide, op: Op, name: bytes) -> None:
    heads = {
        Op.MKDIR: wire.MKDIR.pack(0o755, 0),
        Op.MKNOD: wire.MKNOD.pack(0o100644, 0, 0, 0),
        Op.CREATE: wire.CREATE.pack(os.O_RDWR | os.O_CREAT, 0o100644, 0, 0),
    }
    tail = wire.name(b"target") if op == Op.SYMLINK else b""
    body = heads.get(op, b"") + wire.name(name) + tail

    assert kernel.ask(op, ROOT, body) == (errno.EINVAL, b"")


@pytest.mark.parametrize("names", [(b"..", b"x"), (b"file", b".."), (b"file", b"a/b"), (b"", b"")])
def test_no_rename_leads_out_of_its_directory(
    kernel: KernelSide, names: tuple[bytes, bytes]
) -> None:
    kernel.file(b"file")

    assert (
        kernel.ask(Op.RENAME, ROOT, wire.RENAME.pack(ROOT) + wire.name(*names)).error
        == errno.EINVAL
    )


def test_lookup_of_the_dots_stays_inside(kernel: KernelSide) -> None:
    directory = kernel.mkdir(b"dir")

    assert kernel.lookup(b".", directory.nodeid).nodeid == directory.nodeid
    assert kernel.lookup(b"..", directory.nodeid).nodeid == ROOT
    assert kernel.lookup(b"..").nodeid == ROOT


def test_a_handle_of_what_was_removed_is_stale_before_the_kernel_forgets_it(
    kernel: KernelSide,
) -> None:
    removed, directory = kernel.file(b"file"), kernel.mkdir(b"dir")
    kernel.done(Op.UNLINK, ROOT, wire.name(b"file"))
    kernel.done(Op.RMDIR, ROOT, wire.name(b"dir"))

    for entry, dot in ((removed, b"."), (directory, b"."), (directory, b"..")):
        before = kernel.lookups(entry.nodeid)
        assert kernel.ask(Op.LOOKUP, entry.nodeid, wire.name(dot)) == (errno.ESTALE, b"")
        assert kernel.lookups(entry.nodeid) == before


def test_a_name_without_an_end_is_refused(kernel: KernelSide) -> None:
    # What follows the message in the buffer is an older one, not its end.
    buffer = wire.request(Op.UNLINK, ROOT, b"file") + b"\0"
    kernel.file(b"file")
    answer = kernel.dispatcher.handle(buffer, len(buffer) - 1)

    assert answer == wire.OUT_HEADER.pack(16, -errno.EINVAL, UNIQUE)
    assert (kernel.top / "file").exists()


def test_a_bug_is_counted_and_answered_with_eio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with kernel_side(tmp_path) as kernel:
        monkeypatch.setattr(kernel.driver.fs.attributes, "statfs", lambda: 1 / 0)
        caplog.set_level("CRITICAL")
        assert kernel.ask(Op.STATFS) == (errno.EIO, b"")
        assert kernel.meter.internal_errors == 1
        kernel.meter.internal_errors = 0


def test_every_request_is_timed_under_its_name(kernel: KernelSide) -> None:
    kernel.file(b"file", b"data")

    assert kernel.meter.seen[-5:] == ["init", "create", "write", "flush", "release"]


# ---- anything


def test_sound_requests_in_any_order_are_borne() -> None:
    rng = random.Random(4)
    seeds = [*fuzz_requests.seeds()][1:]

    for _ in range(100):
        fuzz_requests.serve(b"".join(rng.choices(seeds, k=5)))
