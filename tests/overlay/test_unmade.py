"""What was made in the backing directory goes again if the answer is an error."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from dkfs.errors import CorruptError, DkfsError
from tests.overlay.driver import ME, Driver, driven

FLAGS = os.O_CREAT | os.O_EXCL | os.O_RDWR
NO_SPACE = os.strerror(errno.EDQUOT)
MAKE: dict[str, Callable[[Driver], object]] = {
    "create": lambda it: it.fs.names.create(it.root, b"name", 0o644, FLAGS, ME),
    "mkdir": lambda it: it.fs.names.mkdir(it.root, b"name", 0o755, ME),
    "mknod": lambda it: it.fs.names.mknod(it.root, b"name", stat.S_IFIFO | 0o644, 0, ME),
    "symlink": lambda it: it.fs.names.symlink(it.root, b"name", b"target", ME),
}


def fails(exc: BaseException) -> Callable[..., None]:
    """Return a function that raises *exc*."""

    def fail(*_: object, **__: object) -> None:
        raise exc

    return fail


def fds() -> int:
    """Return how many fds are open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize("exc", [OSError(errno.EDQUOT, NO_SPACE), CorruptError("damaged")])
@pytest.mark.parametrize("place", ["owner", "journal"])
def test_what_is_made_and_not_recorded_is_removed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Driver], object],
    exc: OSError | DkfsError,
    place: str,
) -> None:
    with driven(tmp_path) as it:
        it.create(b"first")
        before, known = fds(), len(it.fs.table.known())
        with monkeypatch.context() as patch:
            if place == "owner":
                patch.setattr(it.fs.names, "_own", fails(exc))
            else:
                patch.setattr(it.fs.names._journal, "created", fails(exc))
            with pytest.raises(type(exc)):
                make(it)

        assert os.listdir(it.top) == ["first"]
        assert (fds(), len(it.fs.table.known())) == (before, known)
        make(it)  # nothing is in its way


@pytest.mark.parametrize("name", ["mkdir", "mknod", "symlink"])
def test_what_cannot_be_opened_once_it_is_made_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with driven(tmp_path) as it:
        it.fs.table.fd(it.root)
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", fails(OSError(errno.EMFILE, os.strerror(errno.EMFILE))))
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                MAKE[name](it)

        assert os.listdir(it.top) == []


def test_a_nameless_file_that_cannot_be_opened_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with driven(tmp_path) as it:
        before, known = fds(), len(it.fs.table.known())
        monkeypatch.setattr(it.fs.files, "opened", fails(CorruptError("damaged")))
        with pytest.raises(CorruptError):
            it.fs.names.tmpfile(it.root, 0o600, os.O_RDWR, ME)

        assert (fds(), len(it.fs.table.known()), it.fs.table.pinned) == (before, known, 0)


def test_the_fd_of_a_nameless_file_that_cannot_be_known_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with driven(tmp_path) as it:
        before = fds()
        monkeypatch.setattr(it.fs.table, "nameless", fails(CorruptError("damaged")))
        with pytest.raises(CorruptError):
            it.fs.names.tmpfile(it.root, 0o600, os.O_RDWR, ME)

        assert fds() == before


def test_a_new_file_that_is_recorded_stays_if_it_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with driven(tmp_path) as it:
        before = fds()
        with monkeypatch.context() as patch:
            patch.setattr(it.fs.files, "opened", fails(CorruptError("damaged")))
            with pytest.raises(CorruptError):
                MAKE["create"](it)

        assert fds() == before
        assert it.recorded(b"name") == b""
        assert it.lookup(b"name").lookups == 1
