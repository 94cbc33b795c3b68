"""The index without its free pages: they are used again, but only a copy gives them back to the disk.

The copy takes the place of the index, so nobody else may have it open.  Its transactions are counted from 1 again, and
a table of readers belongs to one count: so the copy comes with a table of its own, which takes its place first.  Who
opens the index in between sees that its files have become others, and opens it again (see open_index).
"""

import errno
import fcntl
import logging
import os
from pathlib import Path
from typing import Final

import lmdb

from dkfs.errors import StoreError
from dkfs.store.index import INDEX_NAME, close_index, index_error, lock_path, open_env, open_index
from dkfs.store.lock import StoreLock
from dkfs.store.segments import sync_directory

LEAST: Final = 64 * 1024  # bytes: less is not worth a copy

_NEW_NAME: Final = f"{INDEX_NAME}.new"

log = logging.getLogger(__name__)


def compact(store: Path, *, max_unused: float) -> int:
    """Give back the free pages of the index of *store* if more than *max_unused* of it is free; return how many bytes.

    0 if somebody has it open, or if there is no room for the copy.  Raises StoreBusyError, StoreError.
    """
    path = store / INDEX_NAME
    try:
        with StoreLock(store):
            before = path.stat().st_size
            if not _copy(path, max_unused=max_unused):
                return 0
            try:
                is_replaced = _replace(path)
            finally:
                _remove_copy(path)
            return before - path.stat().st_size if is_replaced else 0
    except lmdb.Error as exc:
        raise index_error(exc) from exc
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            log.warning("no room for a smaller copy of the index %s", path)
            return 0
        raise StoreError(f"index {path} cannot be made smaller: {exc.strerror}") from exc


def unused_bytes(size: int, used: int, *, max_unused: float) -> int:
    """Return how many bytes compact() gives back of an index of *size* bytes of which *used* are."""
    unused = size - used
    return unused if unused >= max(LEAST, max_unused * size) else 0


def _copy(path: Path, *, max_unused: float) -> bool:
    """Make the copy; return whether it is worth it."""
    _remove_copy(path)
    new = path.with_name(_NEW_NAME)
    index = open_index(path, writable=True)
    try:
        size = path.stat().st_size
        if not unused_bytes(size, index.used_bytes(), max_unused=max_unused):
            return False
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)  # the umask may have taken bits away
            os.posix_fallocate(fd, 0, index.used_bytes())
            index.copy(fd)
            os.fsync(fd)
        except BaseException:
            _remove_copy(path)
            raise
        finally:
            os.close(fd)
    finally:
        close_index(index)
    return True


def _replace(path: Path) -> bool:
    """Put the copy in the place of the index; return False if somebody has that open."""
    new = path.with_name(_NEW_NAME)
    table = os.open(lock_path(path), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        try:
            # LMDB holds a shared lock of this byte as long as an environment is open, in any process.
            fcntl.lockf(table, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
        except (BlockingIOError, PermissionError):
            log.info("the index %s is open elsewhere, and is left as it is", path)
            return False
        with open_env(new, writable=True):
            os.chmod(lock_path(new), 0o600)
            lock_path(new).rename(lock_path(path))
            new.rename(path)
            sync_directory(path.parent)
        return True
    finally:
        os.close(table)


def _remove_copy(path: Path) -> None:
    new = path.with_name(_NEW_NAME)
    for each in (new, lock_path(new)):
        each.unlink(missing_ok=True)
