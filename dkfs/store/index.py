"""The index: the only module that opens LMDB environments.

LMDB allows one environment per file and process, and none across fork: a process opens its stores after it has
daemonised. Stores of one process that name the same files share one Index through a registry kept here.
"""

import errno
import logging
import os
import stat
import threading
from pathlib import Path
from typing import Final

import lmdb

from dkfs.errors import (
    CorruptError,
    DkfsError,
    IndexFullError,
    SameProcessError,
    StoreBusyError,
    StoreError,
    StoreFormatError,
)
from dkfs.failpoints import failpoint
from dkfs.store.closing import close
from dkfs.store.lock import may_enter
from dkfs.store.pages import Verification, check_length, check_pages
from dkfs.store.rows import FORMAT, FORMAT_KEY, INTENT_FORMAT, OLD_FORMAT, unseal

INDEX_NAME: Final = "index.lmdb"
OLD_TABLES: Final = ("meta", "log", "nodes", "names", "blobs", "tags", "moves")  # of OLD_FORMAT
TABLES: Final = (*OLD_TABLES, "segments")
_MAP_USUAL: Final = 1 << 38  # bytes of address space; as many as these are not used up in years ...
_MAP_LEAST: Final = 1 << 30
_ROOM: Final = 4  # ... and a map has room for an index that is so many times as large
_MAX_READERS: Final = 126  # as LMDB has it; its table takes 64 bytes for each

log = logging.getLogger(__name__)


class Index:
    """The open environment with its tables; made by open_index()."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        """Open the index at *path*, which open_index() has looked at."""
        self.path = path
        self.writable = writable
        self.format = FORMAT
        self.tables: dict[str, lmdb._Database] = {}
        self._lock = threading.Lock()
        self._map_size = 0  # bytes that the map has at least
        self._open()

    def begin(self, *, write: bool) -> "lmdb.Transaction[bytes]":
        """Begin a transaction; raises StoreError.

        After a failed commit, or when another process has made the map greater, the environment is opened again: open
        transactions raise StoreError when next used.
        """
        env = self._env
        try:
            return env.begin(write=write)
        except lmdb.Error as exc:
            try:
                failed = isinstance(exc, (lmdb.PanicError, lmdb.MapResizedError))
                if self._has_other_env(env, failed=failed):
                    return self._env.begin(write=write)
            except lmdb.Error as again:
                raise index_error(again) from again
            raise index_error(exc) from exc

    def check_there(self) -> None:
        """Raise StoreError or StoreFormatError if what is open has not its name any more: nobody would find it."""
        if check_file(self.path) != self._identity:
            raise StoreError(f"store {self.path.parent} is gone")

    def meta(self, key: bytes) -> bytes | None:
        """Return the row *key* of the table meta; raises CorruptError, StoreError."""
        with self.begin(write=False) as txn:
            value = txn.get(key, db=self.tables["meta"])
        return None if value is None else unseal("meta", key, value)

    def cover(self) -> None:
        """Make the file as long as its last page number says: then what looks like a truncated file is one.

        LMDB leaves it short when the last pages of a transaction were freed in it (21 of 4,500 random ones).
        """
        info, page_size = self._env.info(), self._env.stat()["psize"]
        try:
            failpoint("index.cover")
            _grow(self.path, (info["last_pgno"] + 1) * page_size)
        except OSError as exc:
            # Then the next opening looks at every page instead.
            log.warning("index %s cannot grow: %s", self.path, exc.strerror)

    def oldest_reader(self) -> int | None:
        """Return the oldest transaction of which any process has a view open, None if there is none."""
        try:
            self._env.reader_check()  # who was killed reads no more
            table = self._env.readers()
        except lmdb.Error as exc:
            raise index_error(exc) from exc
        # A heading, then pid, thread and transaction of each that may read; "-" for one that does not just now.
        fields = (line.split() for line in table.splitlines()[1:])
        return min(
            (int(field[2]) for field in fields if field[2:] and field[2] != "-"), default=None
        )

    def reopen(self) -> None:
        """Give back the pages that LMDB keeps of its largest transaction, while nothing is read or written."""
        with self._lock:
            self._env.close()
            self._open()

    def grow(self) -> None:
        """Open the environment again with a map that has room, after a transaction, ended, found none; raises StoreError.

        As after a failed commit, transactions that are open raise StoreError when next used.
        """
        self._map_size = _ROOM * self._env.info()["map_size"]
        log.info("index %s fills its map and gets one of %d bytes", self.path, self._map_size)
        self.reopen()

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _has_other_env(self, env: lmdb.Environment, *, failed: bool) -> bool:
        """Open the environment again if *failed*; return whether it is another than *env* now."""
        with self._lock:  # so that an opening by another thread is waited for
            if failed and self._env is env:
                log.warning(
                    "index %s failed in a commit, or outgrew its map, and is opened again",
                    self.path,
                )
                env.close()
                check_length(self.path)
                self._open()
            return self._env is not env

    def _open(self) -> None:
        try:
            self._identity = check_file(self.path)
            self._env = open_env(self.path, writable=self.writable, map_size=self._map_size)
            try:
                self._open_tables()
            except (lmdb.Error, DkfsError):
                self._env.close()
                raise
        except lmdb.Error as exc:
            raise index_error(exc) from exc

    def _open_tables(self) -> None:
        try:
            meta = self._env.open_db(b"meta", create=False)
            with self._env.begin() as txn:
                found = txn.get(FORMAT_KEY, db=meta)
            if found is None:
                raise lmdb.NotFoundError(str(self.path))
            self.format = int.from_bytes(found, "big")
            if self.format == INTENT_FORMAT:
                self.format = FORMAT  # whoever opens the store looks for the intent log
            self._check_format()
            for table in TABLES if self.format == FORMAT else OLD_TABLES:
                self.tables[table] = self._env.open_db(table.encode(), create=False)
            if self.writable:
                self._env.reader_check()  # readers that were killed would keep pages from being reused
        except lmdb.NotFoundError:
            raise StoreFormatError(f"index {self.path} is not that of a dkfs store") from None

    def _check_format(self) -> None:
        store = self.path.parent
        if self.format not in {OLD_FORMAT, FORMAT}:
            raise StoreFormatError(
                f"store {store} has format {self.format}, this dkfs reads {OLD_FORMAT} and {FORMAT}"
            )
        if self.writable and self.format != FORMAT:
            raise outdated(store, self.format)


def outdated(store: Path, found: int) -> StoreFormatError:
    """Return the error that says what a *store* of the old format *found* needs first."""
    return StoreFormatError(
        f"store {store} has format {found}: run `dkfs migrate --store {store}` first"
    )


def index_error(exc: lmdb.Error) -> DkfsError:
    """Return the error that says what *exc*, raised by LMDB, means to dkfs; ENOSPC keeps its errno."""
    damaged = (
        *(lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.BadDbiError),
        *(lmdb.InvalidError, lmdb.IncompatibleError),
    )
    if isinstance(exc, lmdb.LockError):  # LMDB tells readers apart by that
        return SameProcessError(f"process {os.getpid()} of another container reads it: try again")
    if isinstance(exc, damaged):
        return CorruptError(f"index: {exc}")
    if isinstance(exc, lmdb.MapFullError):
        return IndexFullError(f"index: {exc}")
    error = StoreError(f"index: {exc}")
    if isinstance(exc, lmdb.DiskError):
        error.errno = errno.ENOSPC
    return error


def create_index(path: Path, meta: dict[bytes, bytes]) -> None:
    """Create the index at *path* with *meta* in its first table; raises StoreError."""
    temporary = path.with_name(f"{path.name}.new")
    try:
        for each in (temporary, lock_path(temporary)):
            each.unlink(missing_ok=True)
        _make_files(temporary)
        with open_env(temporary, writable=True) as env:
            tables = {table: env.open_db(table.encode()) for table in TABLES}
            with env.begin(write=True) as txn:
                for key, value in meta.items():
                    txn.put(key, value, db=tables["meta"])
            last = env.info()["last_pgno"]
            _grow(temporary, (last + 1) * env.stat()["psize"])
        lock_path(temporary).unlink()
        failpoint("store.index-rename")
        temporary.rename(path)
    except lmdb.Error as exc:
        raise index_error(exc) from exc


def open_index(path: Path, *, writable: bool, verification: Verification | None = None) -> Index:
    """Return the index at *path*, shared within this process; to be given back with close_index()."""
    while True:
        key = _files(path)
        try:
            index = _open_index(path, writable=writable, verification=verification)
        except DkfsError:
            if _files(path) == key:
                raise
        else:
            try:
                if _files(path) == key:
                    return index
            except DkfsError:
                close_index(index)
                raise
            close_index(index)
        # A smaller index took the place of this one while it was being opened, see compact.


def _open_index(path: Path, *, writable: bool, verification: Verification | None) -> Index:
    with _registry_lock:
        key = check_file(path)
        found = _registry.get(key)
        if found is not None:
            index, users = found
            if writable and not index.writable:
                raise StoreBusyError(
                    f"store {path.parent} is open for reading in this process ({os.getpid()})"
                )
        else:
            check_length(path)
            check_pages(path, writable=writable, verification=verification)
            if writable:
                _make_files(path)
            index, users = Index(path, writable=writable), 0
        _registry[key] = (index, users + 1)
        return index


def close_index(index: Index) -> None:
    """Give back what open_index() returned; the last user closes it."""
    with _registry_lock:
        for key, (entry, users) in _registry.items():
            if entry is index:
                if users > 1:
                    _registry[key] = (entry, users - 1)
                else:
                    del _registry[key]
                    index.close()
                return


def lock_path(path: Path) -> Path:
    """Return where LMDB keeps its table of readers for the index at *path*."""
    return path.with_name(f"{path.name}-lock")


def check_file(path: Path) -> tuple[int, int]:
    """Return what tells the file at *path* from others; raises StoreFormatError, StoreError."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise StoreFormatError(f"{path.parent} is not a dkfs store: no {path.name} in it") from None
    except OSError as exc:
        raise StoreError(f"store {path.parent} cannot be read: {exc.strerror}") from exc
    if not stat.S_ISREG(status.st_mode):
        raise StoreFormatError(f"index {path} is not a regular file")
    return status.st_dev, status.st_ino


def _files(path: Path) -> tuple[tuple[int, int], int]:
    """Return what tells the index at *path*, with its table of readers, from others; raises as check_file()."""
    try:
        return check_file(path), lock_path(path).stat().st_ino
    except OSError:
        return check_file(path), 0


def open_env(
    path: Path, *, writable: bool, sync: bool = True, map_size: int = 0
) -> lmdb.Environment:
    """Open the environment at *path* with as much address space as the process may have: *map_size*, or what is usual."""
    size = path.stat().st_size if path.exists() else 0
    map_size = max(_MAP_USUAL, map_size, 1 << (_ROOM * size).bit_length())
    while True:
        try:
            return lmdb.open(
                os.fsencode(path),
                map_size=map_size,
                subdir=False,
                readonly=not writable,
                mode=0o600,
                create=writable,
                sync=sync,
                readahead=False,
                max_readers=_MAX_READERS,
                max_dbs=len(TABLES),
                lock=writable or may_enter(lock_path(path)),
                lib_version=0,  # the format of LMDB 0.9
            )
        except lmdb.MemoryError:
            map_size //= _ROOM
            if map_size < max(_MAP_LEAST, size):
                raise


def _make_files(path: Path) -> None:
    """Make the files that LMDB would make, with a mode that the umask cannot change."""
    for each in (path, lock_path(path)):
        if not each.exists():
            fd = os.open(each, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.fchmod(fd, 0o600)
            close(fd)


def _grow(path: Path, size: int) -> None:
    if path.stat().st_size < size:
        os.truncate(path, size)


_registry: dict[tuple[int, int], tuple[Index, int]] = {}
_registry_lock = threading.Lock()
