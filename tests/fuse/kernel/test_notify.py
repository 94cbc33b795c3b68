"""What the kernel is told, byte by byte, and that trouble with it is not hidden."""

import errno
import os
import struct
import threading

import pytest

from dkfs.fuse.kernel.notify import Notifier

HEADER = struct.Struct("<IiQ")  # len, code, 0


def told(work: str, *args: object) -> list[bytes]:
    """Return what a notifier writes when its method *work* is called."""
    said: list[bytes] = []
    getattr(Notifier(said.append), work)(*args)
    return said


def test_an_inode_is_named_with_a_range_of_its_pages() -> None:
    assert told("inode", 77, 4096, 8192) == [
        HEADER.pack(40, 2, 0) + struct.pack("<Qqq", 77, 4096, 8192)
    ]


def test_an_inode_is_by_default_named_with_all_its_pages() -> None:
    assert told("inode", 77) == [HEADER.pack(40, 2, 0) + struct.pack("<Qqq", 77, 0, 0)]


def test_a_negative_offset_means_attributes_only() -> None:
    assert told("inode", 77, -1) == [HEADER.pack(40, 2, 0) + struct.pack("<Qqq", 77, -1, 0)]


def test_a_name_is_told_with_its_directory_and_a_zero_behind_it() -> None:
    assert told("entry", 5, b"n\xffme") == [
        HEADER.pack(37, 3, 0) + struct.pack("<QII", 5, 4, 0) + b"n\xffme\0"
    ]


@pytest.mark.parametrize(("work", "args"), [("inode", (7,)), ("entry", (7, b"x"))])
def test_what_the_kernel_does_not_know_is_no_error(work: str, args: tuple[object, ...]) -> None:
    def refuse(_: bytes) -> None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    getattr(Notifier(refuse), work)(*args)


def test_another_error_is_raised() -> None:
    def refuse(_: bytes) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    with pytest.raises(OSError, match="No such device"):
        Notifier(refuse).inode(7)


def test_pages_that_a_write_holds_are_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dkfs.fuse.kernel.notify._PATIENCE_S", 0.01)
    answered = threading.Event()

    def wait(_: bytes) -> None:
        answered.wait(60)

    Notifier(wait).drop_pages(7)
    answered.set()


def test_pages_are_dropped_in_another_thread_than_the_one_that_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dkfs.fuse.kernel.notify._PATIENCE_S", 60.0)
    said: list[tuple[bytes, threading.Thread]] = []
    Notifier(lambda data: said.append((data, threading.current_thread()))).drop_pages(7, 4096, 10)

    assert said[0][0] == HEADER.pack(40, 2, 0) + struct.pack("<Qqq", 7, 4096, 10)
    assert said[0][1] is not threading.current_thread()
