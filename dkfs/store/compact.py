"""The index with its rows packed: free pages are used again, but only a copy gives them back to the disk.

The copy takes the place of the index, so nobody else may have it open.  Its transactions are counted from 1 again, and
a table of readers belongs to one count: so the copy comes with a table of its own, which takes its place first.  Who
opens the index in between sees that its files have become others, and opens it again (see open_index).
"""

import errno
import fcntl
import logging
import math
import mmap
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import lmdb

from dkfs.errors import DkfsError, StoreError
from dkfs.failpoints import failpoint
from dkfs.store.closing import close
from dkfs.store.index import (
    INDEX_NAME,
    TABLES,
    Index,
    close_index,
    index_error,
    lock_path,
    open_env,
    open_index,
)
from dkfs.store.lock import StoreLock
from dkfs.store.segments import sync_directory

LEAST: Final = 64 * 1024  # bytes: less is not worth a copy

# At the end of a mount: 4 MiB of 6,000 versions become half as much in 0.1 s.
_SMALL: Final = 4 * 1024 * 1024  # bytes
_SMALL_LEAST: Final = 16 * 1024  # bytes that come back
_SMALL_UNUSED: Final = 0.2

_NEW_NAME: Final = f"{INDEX_NAME}.new"
_BATCH: Final = 100_000  # rows in one transaction

# How LMDB lays rows out: pages of so many bytes with a head; a row is its head, key and value, and a pointer to it.
_PAGE: Final = min(mmap.PAGESIZE, 32768)
_PAGE_HEAD: Final = 16
_ROW_HEAD: Final = 8 + 2
_ROW_MOST: Final = (
    _PAGE - _PAGE_HEAD
) // 2 - 2  # bytes; a greater one has its value in pages of its own
_NUMBER: Final = 8  # bytes that such a row keeps instead
_PAGES: Final = 2 + 2  # the two meta pages, and the table of tables
_BRANCHES: Final = 1.02  # pages in all to leaf pages, and what is left empty at the end of a leaf

log = logging.getLogger(__name__)


def compact_small(store: Path) -> int:
    """Pack the index of *store* if that takes no time worth speaking of; return how many bytes come back.

    Nothing is raised: whatever is in the way, the index is good as it is.
    """
    try:
        if (store / INDEX_NAME).stat().st_size > _SMALL:
            return 0
        return compact(store, max_unused=_SMALL_UNUSED, least=_SMALL_LEAST)
    except (DkfsError, OSError) as exc:
        log.info("the index of %s is not packed: %s", store, exc)
        return 0


def compact(store: Path, *, max_unused: float, least: int = LEAST) -> int:
    """Pack the index of *store* if *least* bytes and more than *max_unused* of it come back; return how many do.

    0 if somebody has it open, or if there is no room for the copy.  Raises StoreBusyError, StoreError.
    """
    path = store / INDEX_NAME
    try:
        with StoreLock(store):
            before = path.stat().st_size
            _remove_copy(path)
            try:
                _copy(path)
                after = path.with_name(_NEW_NAME).stat().st_size
                gain = worth(before, after, max_unused=max_unused, least=least)
                if not gain or not _replace(path):
                    return 0
            finally:
                _remove_copy(path)
            return gain
    except (lmdb.DiskError, OSError) as exc:
        if isinstance(exc, lmdb.DiskError) or exc.errno == errno.ENOSPC:
            log.warning("no room for a smaller copy of the index %s", path)
            return 0
        raise StoreError(f"index {path} cannot be made smaller: {exc.strerror}") from exc
    except lmdb.Error as exc:
        raise index_error(exc) from exc


def worth(size: int, packed: int, *, max_unused: float, least: int = LEAST) -> int:
    """Return how many bytes come back of an index of *size* bytes that has *packed* when packed, 0 if too few."""
    unused = size - packed
    return unused if unused >= max(least, max_unused * size) else 0


class Packed:
    """About how many bytes a table takes when it is packed."""

    def __init__(self) -> None:
        self.rows = 0.0
        self._leaves = 0.0  # bytes in leaf pages
        self._large = 0  # pages

    def add(self, key: int, value: int, *, times: float = 1.0) -> None:
        """Count a row, or *times* of them, with a key and a value of so many bytes."""
        self.rows += times
        size = _ROW_HEAD + key + value
        if size > _ROW_MOST:
            self._large += -(-(_PAGE_HEAD + value) // _PAGE)
            size = _ROW_HEAD + key + _NUMBER
        self._leaves += (size + (size & 1)) * times

    @property
    def pages(self) -> int:
        """The pages of the table."""
        return self._large + math.ceil(self._leaves / (_PAGE - _PAGE_HEAD) * _BRANCHES)


def packed_bytes(tables: Iterable[Packed]) -> int:
    """Return about how many bytes an index of *tables* takes when it is packed."""
    return (_PAGES + sum(table.pages for table in tables)) * _PAGE


def _copy(path: Path) -> None:
    """Make the copy, row by row in order of the keys: so every page becomes full."""
    new = path.with_name(_NEW_NAME)
    close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    new.chmod(0o600)  # the umask may have taken bits away
    index = open_index(path, writable=True)
    try:
        with open_env(new, writable=True, sync=False) as env:
            for table in TABLES:
                to = env.open_db(table.encode())
                rows = _rows(index, table)
                while batch := list(islice(rows, _BATCH)):
                    with env.begin(write=True, db=to) as txn, txn.cursor() as cursor:
                        cursor.putmulti(batch, append=True)
            env.sync(force=True)
            last = env.info()["last_pgno"]
    finally:
        close_index(index)
    failpoint("compact.copied")
    os.truncate(new, (last + 1) * _PAGE)  # as long as its meta pages say, see Index.cover()
    with new.open("rb") as file:
        os.fsync(file.fileno())


def _rows(index: Index, table: str) -> Iterator[tuple[bytes, bytes]]:
    with index.begin(write=False) as txn:
        yield from txn.cursor(db=index.tables[table])


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
            lock_path(new).chmod(0o600)
            failpoint("compact.rename-lock")
            lock_path(new).rename(lock_path(path))
            failpoint("compact.rename")
            new.rename(path)
            sync_directory(path.parent)
        return True
    finally:
        close(table)


def _remove_copy(path: Path) -> None:
    new = path.with_name(_NEW_NAME)
    for each in (new, lock_path(new)):
        each.unlink(missing_ok=True)
