"""Where contents are written to: a file that appears under its name when it is complete, or standard output."""

import errno
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

_UNSUPPORTED: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of *path* at the end of the block, unless that raises; raises OSError.

    Until then it has no name, where the file system can do that, so that a kill leaves nothing.
    """
    directory = path.parent
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError as exc:
        if exc.errno not in _UNSUPPORTED or not directory.is_dir():
            exc.filename = os.fspath(path)
            raise
        with _named(path) as file:
            yield file
        return
    with os.fdopen(fd, "w+b") as file:
        yield file
        file.flush()
        _appear(fd, path)


@contextmanager
def standard_output() -> Iterator[BinaryIO]:
    """Yield standard output, which is named if it cannot be written to."""
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except OSError as exc:
        exc.filename = exc.filename or "standard output"
        raise


def _appear(fd: int, path: Path) -> None:
    # os.link() follows the link in /proc only if it is told a directory, which an absolute path makes no use of.
    source, root = f"/proc/self/fd/{fd}", os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        try:
            os.link(source, path, src_dir_fd=root)
        except FileExistsError:
            temporary = _beside(path)
            os.link(source, temporary, src_dir_fd=root)
            temporary.rename(path)
    finally:
        os.close(root)


@contextmanager
def _named(path: Path) -> Iterator[BinaryIO]:
    temporary = _beside(path)
    try:
        try:
            file = temporary.open("xb")
        except OSError as exc:
            exc.filename = os.fspath(path)  # and not a name that nobody has heard of
            raise
        with file:
            yield file
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}")
