"""Open files: when their contents become versions, and whose."""

import errno
import os
from pathlib import Path

import pytest

from dkfs.model.operation import OpKind
from dkfs.overlay.files import backing_flags
from tests.overlay.driver import ME, driven


def test_what_was_written_is_a_version_when_it_is_closed(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        it.create(b"file", b"data")

        assert it.kinds() == [OpKind.CREATE, OpKind.WRITE]
        assert it.recorded(b"file") == b"data"


def test_several_writes_before_a_close_are_one_version(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        number = it.open(it.create(b"file"))
        for offset in (0, 200_000, 100):
            it.fs.files.write(number, offset, b"x" * 10)
        it.close(number)

        assert it.kinds() == [OpKind.CREATE, OpKind.WRITE]
        assert len(it.recorded(b"file")) == 200_010


def test_a_file_that_was_only_read_makes_no_version(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file", b"data")
        number = it.open(inode, os.O_RDONLY)
        assert it.fs.files.read(number, 1, 2) == b"at"
        it.close(number)

        assert it.kinds() == [OpKind.CREATE, OpKind.WRITE]


def test_truncating_an_open_file_is_recorded_when_it_is_released(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file", b"data")
        number = it.open(inode, os.O_WRONLY | os.O_TRUNC)
        it.fs.files.flush(number)  # a shell's `> file` does so before it runs the program
        assert it.kinds() == [OpKind.CREATE, OpKind.WRITE, OpKind.WRITE]
        it.fs.files.release(number)

        assert it.recorded(b"file") == b""


def test_an_empty_file_that_is_truncated_gets_its_new_mtime(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file")
        os.utime(tmp_path / "top" / "file", ns=(1, 1))
        it.close(it.open(inode, os.O_WRONLY | os.O_TRUNC))
        node = it.node(b"file")
        with it.store.read() as reader:
            state = reader.node(node, reader.last)

        assert state is not None
        assert state.attr.mtime_ns == (tmp_path / "top" / "file").stat().st_mtime_ns


def test_fsync_names_the_version_that_holds_what_was_written(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        number = it.open(it.create(b"file"))
        it.fs.files.write(number, 0, b"synced")
        _, seq = it.fs.files.fsync(number)
        assert it.recorder.wait(seq)

        assert it.recorded(b"file", seq) == b"synced"
        it.close(number)


def test_a_file_without_a_name_makes_no_version(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file", b"data")
        number = it.open(inode)
        it.fs.names.unlink(it.root, b"file", ME)
        it.fs.files.write(number, 0, b"gone")
        assert it.fs.files.read(number, 0, 10) == b"gone"
        it.close(number)

        assert it.kinds()[-1] is OpKind.UNLINK


def test_a_handle_that_is_not_there_is_ebadf(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        with pytest.raises(OSError) as refused:
            it.fs.files.read(99, 0, 1)

        assert refused.value.errno == errno.EBADF


def test_too_many_open_files_are_refused_before_the_last_fd_is_gone(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        inode = it.create(b"file")
        it.fs.table.files += 10**9
        with pytest.raises(OSError) as refused:
            it.open(inode)
        it.fs.table.files -= 10**9

        assert refused.value.errno == errno.EMFILE


def test_what_is_written_can_be_read_again_for_its_capture() -> None:
    assert backing_flags(os.O_WRONLY) & os.O_ACCMODE == os.O_RDWR
    assert not backing_flags(os.O_RDWR | os.O_APPEND | os.O_DIRECT | os.O_SYNC) & (
        os.O_APPEND | os.O_DIRECT | os.O_SYNC
    )


def test_an_open_that_linux_does_not_ask_for_opens_the_file_all_the_same() -> None:
    assert backing_flags(0x7FFFFFFF) & (os.O_PATH | os.O_TMPFILE) == os.O_DIRECTORY
