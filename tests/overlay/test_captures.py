"""Captures: a version holds what a file was at one instant, however it is written meanwhile."""

import errno
import os
import random
from pathlib import Path

import pytest

from dkfs.model.operation import OpKind
from dkfs.overlay.attributes import NewAttributes
from dkfs.overlay.ranges import INSERT_RANGE, KEEP_SIZE, PUNCH_HOLE
from tests.overlay.driver import ME, driven

MIB = 1 << 20


def test_what_stays_open_is_captured_when_it_is_due(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        number = it.open(it.create(b"file"))
        it.fs.files.write(number, 0, b"data")
        it.fs.tick(3600.0)
        assert len(it.fs.captures) == 1
        it.fs.tick(0.0)

        assert len(it.fs.captures) == 0
        assert it.recorded(b"file") == b"data"
        it.close(number)


def test_a_write_while_a_large_capture_waits_does_not_tear_it(tmp_path: Path) -> None:
    rng = random.Random(3)
    with driven(tmp_path) as it:
        number = it.open(it.create(b"file"))
        expected = []
        data = bytearray(3 * MIB)
        for _ in range(6):
            for _ in range(40):
                at, piece = rng.randrange(3 * MIB), rng.randbytes(rng.randrange(1, 90_000))
                piece = piece[: 3 * MIB - at]
                it.fs.files.write(number, at, piece)
                data[at : at + len(piece)] = piece
            _, seq = it.fs.files.fsync(number)
            expected.append((seq, it.fs.files.read(number, 0, 3 * MIB)))
        it.close(number)
        it.flush()

        for seq, contents in expected:
            assert it.recorded(b"file", seq) == contents


@pytest.mark.parametrize("size", [0, 100, MIB + 1, 5 * MIB])
def test_a_truncation_while_a_large_capture_waits_does_not_tear_it(
    tmp_path: Path, size: int
) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file")
        number = it.open(inode)
        it.fs.files.write(number, 0, b"t" * (3 * MIB))
        _, seq = it.fs.files.fsync(number)
        it.fs.attributes.set(inode, NewAttributes(size=size), number, ME)
        it.close(number)

        assert it.recorded(b"file") == (b"t" * (3 * MIB) + bytes(5 * MIB))[:size]
        assert it.recorded(b"file", seq) == b"t" * (3 * MIB)


def test_a_truncation_by_name_is_one_version(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file", b"0123456789")
        it.fs.attributes.set(inode, NewAttributes(size=3), None, ME)

        assert it.kinds()[-1] is OpKind.TRUNCATE
        assert it.recorded(b"file") == b"012"


def test_what_a_truncation_cut_off_stays_off_when_the_file_grows_again(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file", b"x" * 200_000)
        number = it.open(inode)
        it.close(it.open(inode, os.O_RDONLY | os.O_TRUNC))
        it.fs.files.write(number, 150_000, b"end")
        it.close(number)
        assert it.recorded(b"file") == bytes(150_000) + b"end"

        number = it.open(inode)
        it.fs.attributes.set(inode, NewAttributes(size=149_999), number, ME)
        it.fs.attributes.set(inode, NewAttributes(size=10), None, ME)
        it.fs.attributes.set(inode, NewAttributes(size=150_003), number, ME)
        it.close(number)
        assert it.recorded(b"file") == bytes(150_003)


def test_what_appeared_behind_the_old_end_is_recorded_though_nobody_wrote_it_here(
    tmp_path: Path,
) -> None:
    with driven(tmp_path) as it:
        number = it.open(it.create(b"file", b"old"))
        with open(tmp_path / "top" / "file", "ab") as file:
            file.write(b" and new")
        it.fs.files.write(number, 0, b"O")
        it.close(number)

        assert it.recorded(b"file") == b"Old and new"


def test_two_writers_of_a_file_make_versions_of_all_that_is_in_it(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file")
        one, two = it.open(inode), it.open(inode)
        it.fs.files.write(one, 0, b"one")
        it.fs.files.write(two, 3, b"two")
        it.close(one)
        assert it.recorded(b"file") == b"onetwo"
        it.fs.files.write(two, 0, b"ONE")
        it.close(two)

        assert it.recorded(b"file") == b"ONEtwo"


def test_a_sparse_file_is_recorded_without_reading_its_holes(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        number = it.open(it.create(b"file"))
        it.fs.files.write(number, 1 << 40, b"far")
        it.close(number)
        node = it.node(b"file")
        with it.store.read() as reader:
            state = reader.node(node, reader.last)

        assert state is not None
        assert state.attr.size == (1 << 40) + 3
        assert os.stat(tmp_path / "top" / "file").st_blocks < 100


def test_a_change_of_much_that_is_not_recorded_yet_says_what_to_wait_for(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file")
        number = it.open(inode)
        waiting, ranges = it.fs.captures.waiting, it.fs.files.ranges
        handle = it.fs.files.handles[number]
        it.fs.files.write(number, 0, b"w" * (12 * MIB))
        assert it.recorder.flush()
        with it.store.write():  # the recorder cannot
            it.fs.files.fsync(number)
            assert waiting(inode, 5 * MIB) is None  # few enough to be saved
            assert waiting(inode, MIB, 3 * MIB) is None
            assert ranges.reallocating(handle, 0, 0, 12 * MIB) is None  # changes nothing
            waits = (
                waiting(inode, 0),
                ranges.reallocating(handle, PUNCH_HOLE | KEEP_SIZE, 0, 10 * MIB),
                ranges.reallocating(handle, INSERT_RANGE, 0, 4096),
                ranges.copying(handle, 0, 12 * MIB),
            )
        for wait in waits:
            assert wait is not None
            wait()

        assert waiting(inode, 0) is None
        it.close(number)


@pytest.mark.parametrize("left", [10, 0])
def test_what_a_truncation_cut_off_is_zeros_when_the_file_grew_before_it_could_be_captured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file", b"x" * 100)
        number = it.open(inode)

        def full(*_: object) -> None:
            raise OSError(errno.EMFILE, "no more")

        with monkeypatch.context() as patch:
            patch.setattr(it.fs.captures, "_frozen", full)
            if left:
                it.fs.attributes.set(inode, NewAttributes(size=left), None, ME)
            else:
                with pytest.raises(OSError, match="no more"):
                    it.open(inode, os.O_RDONLY | os.O_TRUNC)
        os.truncate(it.top / "file", 100)
        it.flush()

        assert it.recorded(b"file") == b"x" * left + bytes(100 - left)
        it.close(number)


def test_what_could_not_even_be_looked_at_when_it_was_closed_is_recorded_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file", b"x" * 100)
        number = it.open(inode)
        it.fs.files.write(number, 10, b"later")
        real = os.fstat
        fd = it.fs.files.handles[number].fd

        def fails(of: int) -> os.stat_result:
            if of == fd:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(of)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fstat", fails)
            for attempt in (it.fs.files.flush, it.fs.files.release):
                with pytest.raises(OSError, match="Input/output"):
                    attempt(number)
        it.fs.tick(0.0)
        it.flush()

        assert it.recorded(b"file") == b"x" * 10 + b"later" + b"x" * 85
