"""Ranges, flags, whiteouts and files without a name: what is recorded, and the same errno as without dkfs."""

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from dkfs.history.tree import Tree
from dkfs.model.operation import OpKind
from dkfs.overlay import backing, flags
from dkfs.overlay import ranges as of_files
from dkfs.overlay.attributes import NewAttributes
from dkfs.overlay.ranges import (
    COLLAPSE_RANGE,
    INSERT_RANGE,
    KEEP_SIZE,
    PUNCH_HOLE,
    UNSHARE_RANGE,
    ZERO_RANGE,
)
from tests.disks import disk
from tests.overlay.driver import ME, Driver, driven

MIB = 1 << 20
PAGE = 4096
APPEND_ONLY = 0x20  # FS_APPEND_FL, linux/fs.h
IMMUTABLE = 0x10
NO_DUMP = 0x40
WRITE_ZEROES = 0x80  # of fallocate(2), since Linux 6.17


def outcome(attempt: Callable[[], object]) -> object:
    """Return what *attempt* gives, or its errno."""
    try:
        return attempt()
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]


def seed_data(length: int) -> bytes:
    return random.Random(length).randbytes(length)


SHIFTS = {
    "punch": (PUNCH_HOLE | KEEP_SIZE, MIB + 17, 2 * MIB),
    "punch to the end": (PUNCH_HOLE | KEEP_SIZE, MIB + 17, 20 * MIB),
    "zero": (ZERO_RANGE, 3 * MIB - 5, 4 * MIB),
    "zero and keep the size": (ZERO_RANGE | KEEP_SIZE, MIB, 20 * MIB),
    "collapse": (COLLAPSE_RANGE, MIB, MIB),
    "insert": (INSERT_RANGE, MIB, 2 * MIB),
    "grow": (0, MIB, 19 * MIB),
}


@pytest.mark.parametrize("what", SHIFTS)
@pytest.mark.parametrize("size", [3 * MIB, 12 * MIB])  # saved at once; waited for
def test_what_fallocate_does_while_a_large_capture_waits_does_not_tear_it(
    tmp_path: Path, what: str, size: int
) -> None:
    data = seed_data(size)
    mode, offset, length = SHIFTS[what]
    with driven(tmp_path) as it:
        inode = it.create(b"file")
        number = it.open(inode)
        it.fs.files.write(number, 0, data)
        _, seq = it.fs.files.fsync(number)
        it.fs.files.fallocate(number, mode, offset, length)
        it.close(number)
        it.flush()

        assert it.recorded(b"file", seq) == data
        now = (tmp_path / "top" / "file").read_bytes()
        assert it.recorded(b"file") == now
        assert now != data
        assert it.fs.captures._missed == set()


def test_space_without_a_size_changes_no_contents(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        number = it.open(it.create(b"file", b"data"))
        it.fs.files.fallocate(number, KEEP_SIZE, 0, MIB)
        it.fs.files.flush(number)

        status = (tmp_path / "top" / "file").stat()
        assert status.st_blocks * 512 >= MIB
        assert it.recorded(b"file") == b"data"
        with it.store.read() as reader:
            tree = Tree(reader, reader.last)
            attr = tree.state(tree.resolve(b"file")).attr
        assert (attr.size, attr.mtime_ns) == (4, status.st_mtime_ns)
        it.close(number)


def test_what_is_not_known_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        number = it.open(it.create(b"file", b"data"))

        assert outcome(lambda: it.fs.files.fallocate(number, WRITE_ZEROES, 0, 10)) == "ENOTSUP"
        assert it.recorded(b"file") == b"data"
        it.close(number)


FALLOCATIONS = [
    *((mode, 0, 0) for mode in (0, PUNCH_HOLE | KEEP_SIZE)),
    *((0, -1, 10), (0, 10, -1), (0, 0, 1 << 62), (0, (1 << 63) - 1, 1), (KEEP_SIZE, 0, 1 << 50)),
    *((PUNCH_HOLE, 0, PAGE), (PUNCH_HOLE | ZERO_RANGE | KEEP_SIZE, 0, PAGE)),
    *((COLLAPSE_RANGE, 1, PAGE), (COLLAPSE_RANGE, 0, 5 * PAGE), (COLLAPSE_RANGE, 8 * PAGE, PAGE)),
    *((COLLAPSE_RANGE | KEEP_SIZE, 0, PAGE), (COLLAPSE_RANGE, 0, PAGE)),
    *((INSERT_RANGE, 1, PAGE), (INSERT_RANGE, 5 * PAGE, PAGE), (INSERT_RANGE, PAGE, PAGE)),
    *((UNSHARE_RANGE, 0, PAGE), (1 << 12, 0, PAGE)),
]


@pytest.mark.parametrize("readable", [os.O_RDWR, os.O_RDONLY])
@pytest.mark.parametrize(("mode", "offset", "length"), FALLOCATIONS)
def test_fallocate_is_refused_as_without_dkfs(
    tmp_path: Path, mode: int, offset: int, length: int, readable: int
) -> None:
    twin = tmp_path / "twin"
    twin.write_bytes(b"d" * 5 * PAGE)
    with driven(tmp_path) as it, twin.open("r+b" if readable == os.O_RDWR else "rb") as raw:
        number = it.open(it.create(b"file", b"d" * 5 * PAGE), readable)
        here = outcome(lambda: it.fs.files.fallocate(number, mode, offset, length))
        there = outcome(lambda: backing.fallocate(raw.fileno(), mode, offset, length))

        assert here == there or (here, there) == ("EINVAL", "EBADF")  # which comes first
        assert it.recorded(b"file") == twin.read_bytes()
        it.fs.files.release(number)


def test_what_was_done_to_a_range_is_recorded_when_an_fd_is_closed(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        source, target = copier(tmp_path, it)
        files = it.fs.files
        files.fallocate(target, PUNCH_HOLE | KEEP_SIZE, 0, 100)
        files.flush(target)
        assert it.kinds()[-1] is OpKind.WRITE
        before = len(it.kinds())
        files.copy_range(source, 0, target, 0, 100)
        files.flush(target)

        assert len(it.kinds()) == before + 1
        it.close(source)
        it.close(target)


def test_data_and_holes_are_where_they_are(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        number = it.open(it.create(b"file"))
        it.fs.files.write(number, MIB, b"data")
        seek = it.fs.files.seek

        assert seek(number, 0, os.SEEK_DATA) == MIB
        assert seek(number, 0, os.SEEK_HOLE) == 0
        assert seek(number, MIB, os.SEEK_HOLE) == MIB + 4
        assert outcome(lambda: seek(number, MIB + 4, os.SEEK_DATA)) == "ENXIO"
        assert outcome(lambda: seek(number, MIB + 5, os.SEEK_HOLE)) == "ENXIO"
        assert outcome(lambda: seek(number, -1, os.SEEK_HOLE)) == "ENXIO"
        assert outcome(lambda: seek(number, 0, os.SEEK_SET)) == "EINVAL"
        it.close(number)


def copier(tmp_path: Path, it: Driver) -> tuple[int, int]:
    """Return handles of a file with data in it and of one that another copy waits for."""
    source = it.open(it.create(b"source", seed_data(3 * MIB)), os.O_RDONLY)
    target = it.open(it.create(b"target", b"t" * 4 * MIB), os.O_WRONLY)
    return source, target


@pytest.mark.parametrize("failure", [None, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_copy_is_in_the_version_after_it_and_not_in_the_one_before(
    tmp_path: Path, failure: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with driven(tmp_path) as it:
        source, target = copier(tmp_path, it)
        if failure is not None:

            def fail(*_: int) -> int:
                raise OSError(failure, os.strerror(failure))

            monkeypatch.setattr(os, "copy_file_range", fail)
        it.fs.files.write(target, 0, b"T")
        _, seq = it.fs.files.fsync(target)
        done = 0
        while done < 2 * MIB:
            copied = it.fs.files.copy_range(source, done, target, MIB + 5 + done, 2 * MIB - done)
            assert copied > 0
            done += copied
        it.close(target)
        it.flush()

        assert it.recorded(b"target", seq) == b"T" + b"t" * (4 * MIB - 1)
        expected = b"T" + b"t" * (MIB + 4) + seed_data(3 * MIB)[: 2 * MIB]
        assert it.recorded(b"target") == expected + b"t" * (MIB - 5)
        it.close(source)


def test_a_copy_ends_with_its_source(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        source, target = copier(tmp_path, it)
        copy = it.fs.files.copy_range

        assert copy(source, 3 * MIB - 10, target, 5 * MIB, 1 << 40) == 10
        assert copy(source, 3 * MIB, target, 0, 10) == 0
        assert copy(source, 0, target, 0, 0) == 0
        it.close(target)
        it.close(source)
        assert it.recorded(b"target")[4 * MIB :] == bytes(MIB) + seed_data(3 * MIB)[-10:]


def test_a_large_copy_is_made_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_files, "_COPY_MOST", 1000)
    with driven(tmp_path) as it:
        source, target = copier(tmp_path, it)

        # ext4 and tmpfs share nothing, so that a clone is tried once; others would share all of it
        assert it.fs.files.copy_range(source, 1, target, 0, MIB) in (1000, MIB)
        it.close(target)
        it.close(source)
        assert it.recorded(b"target")[:1000] == seed_data(3 * MIB)[1:1001]


def test_a_copy_is_refused_as_without_dkfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with driven(tmp_path) as it:
        source, target = copier(tmp_path, it)
        both = it.open(it.lookup(b"target"))
        copy = it.fs.files.copy_range
        attempts: tuple[tuple[str, Callable[[], int]], ...] = (
            ("EBADF", lambda: copy(target, 0, both, 0, 10)),  # not open for reading
            ("EBADF", lambda: copy(source, 0, source, 50, 10)),
            ("EBADF", lambda: copy(source, 0, 12345, 0, 10)),
            ("EINVAL", lambda: copy(both, 0, both, 5, 10)),
            ("EINVAL", lambda: copy(both, -1, both, 5, 10)),
        )

        assert [outcome(attempt) for _, attempt in attempts] == [code for code, _ in attempts]
        assert copy(both, 0, both, 10, 10) == 10
        monkeypatch.setattr(of_files, "_COPY_MOST", 10)
        assert outcome(lambda: copy(both, 0, both, 50, 100)) == "EINVAL"  # not its first 10 bytes
        for number in (source, target, both):
            it.close(number)


def test_space_taken_away_is_recorded_though_what_follows_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "no")

    with driven(tmp_path) as it:
        number = it.open(it.create(b"file", b"x" * 20000))
        it.flush()
        it.fs.files.handles[number].inode.plain = False
        monkeypatch.setattr("dkfs.overlay.ranges.drop", fails)
        punch = PUNCH_HOLE | KEEP_SIZE
        assert outcome(lambda: it.fs.files.fallocate(number, punch, 0, 8192)) == "EIO"
        monkeypatch.undo()
        it.close(number)

        assert it.recorded(b"file") == bytes(8192) + b"x" * (20000 - 8192)


def test_flags_are_read_and_set_and_all_else_is_no_ioctl(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        number = it.open(it.create(b"file"))
        ioctl = it.fs.files.ioctl
        before = int.from_bytes(ioctl(number, flags.GETFLAGS, b"", 4), "little")
        assert ioctl(number, flags.SETFLAGS, (before | NO_DUMP).to_bytes(4, "little"), 0) == b""

        assert int.from_bytes(ioctl(number, flags.GETFLAGS, b"", 4), "little") == before | NO_DUMP
        extended = ioctl(number, flags.FSGETXATTR, b"", 28)
        assert len(extended) == 28
        assert ioctl(number, flags.FSSETXATTR, extended, 0) == b""
        assert outcome(lambda: ioctl(number, flags.SETFLAGS, b"12", 0)) == "EINVAL"
        generation = outcome(lambda: ioctl(number, flags.GETVERSION, b"", 8))
        assert generation == "ENOTTY" or isinstance(generation, bytes)
        assert outcome(lambda: ioctl(number, 0x80087602, b"", 8)) == "ENOTTY"
        it.close(number)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="chattr +a takes CAP_LINUX_IMMUTABLE")


@needs_root
def test_a_file_that_can_only_be_appended_to_is_appended_to_and_nothing_else(
    tmp_path: Path,
) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file", b"12345")
        number = it.open(inode)
        it.fs.files.ioctl(number, flags.SETFLAGS, APPEND_ONLY.to_bytes(4, "little"), 0)
        try:
            appending = it.open(inode, os.O_WRONLY | os.O_APPEND)
            it.fs.files.write(appending, 5, b"678")
            assert outcome(lambda: it.fs.files.write(appending, 0, b"map")) == "EPERM"
            it.close(appending)

            assert it.recorded(b"file") == b"12345678"
            assert outcome(lambda: it.open(inode, os.O_WRONLY)) == "EPERM"
            assert outcome(lambda: it.open(inode, os.O_WRONLY | os.O_TRUNC)) == "EPERM"
            assert outcome(lambda: it.fs.names.unlink(it.root, b"file", ME)) == "EPERM"
        finally:
            it.fs.files.ioctl(number, flags.SETFLAGS, bytes(4), 0)
            it.close(number)


@needs_root
def test_an_immutable_file_cannot_be_changed(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file", b"12345")
        number = it.open(inode)
        before = it.kinds()
        it.fs.files.ioctl(number, flags.SETFLAGS, IMMUTABLE.to_bytes(4, "little"), 0)
        try:
            append = os.O_WRONLY | os.O_APPEND
            assert outcome(lambda: it.open(inode, append)) == "EPERM"
            assert outcome(lambda: it.fs.files.write(number, 0, b"x")) == "EPERM"
            assert outcome(lambda: it.fs.files.fallocate(number, 0, 0, 100)) == "EPERM"
            assert outcome(lambda: it.fs.names.link(inode, it.root, b"x", ME)) == "EPERM"
            assert it.kinds() == before
        finally:
            it.fs.files.ioctl(number, flags.SETFLAGS, bytes(4), 0)
            it.close(number)


@needs_root
def test_an_immutable_file_is_not_truncated_by_its_name_though_it_is_open(tmp_path: Path) -> None:
    with disk("tmpfs", tmp_path) as top, driven(top) as it:  # ext4 refuses it to the open fd, too
        inode = it.create(b"file", b"12345")
        number = it.open(inode)
        empty = NewAttributes(size=0)
        it.fs.files.ioctl(number, flags.SETFLAGS, IMMUTABLE.to_bytes(4, "little"), 0)

        assert outcome(lambda: it.fs.attributes.set(inode, empty, None, ME)) == "EPERM"
        assert it.fs.attributes.set(inode, empty, number, ME).st_size == 0
        it.fs.files.ioctl(number, flags.SETFLAGS, bytes(4), 0)
        it.close(number)


@needs_root
def test_a_truncation_to_the_size_that_a_file_has_leaves_its_times_as_without_dkfs(
    tmp_path: Path,
) -> None:
    with disk("xfs", tmp_path) as top, driven(top) as it:
        inode = it.create(b"file", b"12345")
        os.utime(it.top / "file", ns=(1, 1))
        before = it.fs.attributes.get(inode)
        os.truncate(it.top / "file", 5)
        assert it.fs.attributes.get(inode).st_mtime_ns == before.st_mtime_ns

        it.fs.attributes.set(inode, NewAttributes(size=5), None, ME)
        after = it.fs.attributes.get(inode)
        assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)


def test_a_birth_is_when_the_file_was_made(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file", b"data")
        born = it.fs.attributes.born(inode)

        assert born is None or 0 < born <= it.fs.attributes.get(inode).st_mtime_ns
