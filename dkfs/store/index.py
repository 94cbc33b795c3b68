"""The index: the only module that opens LMDB environments.

LMDB allows one environment per file and process, and none across fork: a process opens its stores after it has
daemonised. Stores of one process that name the same files share one Index through a registry kept here.
"""

import errno
import logging
import os
import stat
import struct
import threading
from pathlib import Path
from typing import Final

import lmdb
from lmdb.verify import VerifyError, verify

from dkfs.errors import (
    CorruptError,
    DkfsError,
    SameProcessError,
    StoreBusyError,
    StoreError,
    StoreFormatError,
)
from dkfs.failpoints import failpoint
from dkfs.store.lock import may_enter
from dkfs.store.rows import FORMAT, FORMAT_KEY, INTENT_FORMAT, OLD_FORMAT, unseal

INDEX_NAME: Final = "index.lmdb"
OLD_TABLES: Final = ("meta", "log", "nodes", "names", "blobs", "tags", "moves")  # of OLD_FORMAT
TABLES: Final = (*OLD_TABLES, "segments")
_MAP_SIZES: Final = tuple(1 << bits for bits in (38, 36, 34, 32, 30))  # bytes; address space only
_MAX_READERS: Final = 126  # as LMDB has it; its table takes 64 bytes for each

# The meta pages 0 and 1 of LMDB 0.9 on 64 bits: magic, version, page size; then last page and transaction.
_MAGIC: Final = 0xBEEFC0DE
_META_HEAD: Final = struct.Struct("=16xII8x8xI")
_META_TAIL: Final = struct.Struct("=QQ")
_META_TAIL_OFFSET: Final = 136
_VERIFIED_SIZE: Final = 8 << 20  # bytes; 60 ms
_VERIFY_ATTEMPTS: Final = 5  # a live writer may commit while the file is being verified

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
        self._open()

    def begin(self, *, write: bool) -> "lmdb.Transaction[bytes]":
        """Begin a transaction; raises StoreError.

        After a failed commit the environment is opened again: open transactions raise StoreError when next used.
        """
        env = self._env
        try:
            return env.begin(write=write)
        except lmdb.Error as exc:
            try:
                if self._has_other_env(env, failed=isinstance(exc, lmdb.PanicError)):
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

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _has_other_env(self, env: lmdb.Environment, *, failed: bool) -> bool:
        """Open the environment again if *failed*; return whether it is another than *env* now."""
        with self._lock:  # so that an opening by another thread is waited for
            if failed and self._env is env:
                log.warning("index %s failed in a commit and is opened again", self.path)
                env.close()
                check_length(self.path)
                self._open()
            return self._env is not env

    def _open(self) -> None:
        try:
            self._identity = check_file(self.path)
            self._env = open_env(self.path, writable=self.writable)
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


def open_index(path: Path, *, writable: bool) -> Index:
    """Return the index at *path*, shared within this process; to be given back with close_index()."""
    while True:
        key = _files(path)
        try:
            index = _open_index(path, writable=writable)
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


def _open_index(path: Path, *, writable: bool) -> Index:
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
            check_pages(path, writable=writable)
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


def check_length(path: Path) -> None:
    """Raise CorruptError if the file at *path* lacks pages: LMDB would die of SIGBUS reading them.

    A file that is shorter than its meta pages say may still be whole (see Index.cover), so then every page that the
    trees lead to is looked at, without LMDB.
    """
    size, need, _ = _measure(path)
    problems = verify_pages(path) if size < need else []
    if problems:
        raise CorruptError(f"index {path} is {size} bytes, need {need}: {problems[0]}")


def check_pages(path: Path, *, writable: bool) -> None:
    """Raise CorruptError if the index at *path* has pages that LMDB had better not see.

    It follows what it finds. Of 1,000 indexes with a page that was zeroed, swapped or filled with junk, 233 ended the
    process that read them, all of them among the 750 that are refused here. A writer always looks, whoever only reads
    does if that takes no time worth speaking of.
    """
    if writable or path.stat().st_size <= _VERIFIED_SIZE:
        problems = verify_pages(path)
        if problems:
            raise CorruptError(f"index {path}: {problems[0]}; `dkfs check --repair` makes it anew")


def verify_pages(path: Path) -> list[str]:
    """Return what is wrong with the pages of the index at *path*, read without LMDB.

    Nothing if it cannot be told because of a writer at work.
    """
    for _ in range(_VERIFY_ATTEMPTS):
        before = _measure(path)[2]
        try:
            # py-lmdb has no types for it
            problems = list(verify(os.fspath(path), subdir=False))  # type: ignore[no-untyped-call]
        except VerifyError as exc:
            problems = [str(exc)]
        if not problems:
            return []
        if _measure(path)[2] == before:
            return problems
    return []


def lock_path(path: Path) -> Path:
    """Return where LMDB keeps its table of readers for the index at *path*."""
    return path.with_name(f"{path.name}-lock")


def _measure(path: Path) -> tuple[int, int, int]:
    """Return the size of the file, the size that its meta pages need, and their transaction."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        need = newest = 0
        offset = 0
        for _ in range(2):
            head = os.pread(file.fileno(), _META_TAIL_OFFSET + _META_TAIL.size, offset)
            if len(head) < _META_TAIL_OFFSET + _META_TAIL.size:
                raise CorruptError(f"index {path} is {size} bytes, less than its two meta pages")
            magic, version, page_size = _META_HEAD.unpack_from(head)
            if magic != _MAGIC:
                raise StoreFormatError(f"index {path} is not an LMDB file")
            if version != 1 or not 256 <= page_size <= 65536:
                raise StoreFormatError(f"index {path} is of LMDB format {version}, need 1")
            last_page, txn = _META_TAIL.unpack_from(head, _META_TAIL_OFFSET)
            need, newest = max(need, (last_page + 1) * page_size), max(newest, txn)
            offset = page_size
        return size, need, newest


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


def open_env(path: Path, *, writable: bool, sync: bool = True) -> lmdb.Environment:
    """Open the environment at *path* with as much address space as the process may have."""
    for map_size in _MAP_SIZES:
        try:
            return lmdb.open(
                os.fspath(path),
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
            if map_size == _MAP_SIZES[-1] or map_size // 4 < path.stat().st_size:
                raise
    raise AssertionError("unreachable")


def _make_files(path: Path) -> None:
    """Make the files that LMDB would make, with a mode that the umask cannot change."""
    for each in (path, lock_path(path)):
        if not each.exists():
            fd = os.open(each, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.fchmod(fd, 0o600)
            os.close(fd)


def _grow(path: Path, size: int) -> None:
    if path.stat().st_size < size:
        os.truncate(path, size)


_registry: dict[tuple[int, int], tuple[Index, int]] = {}
_registry_lock = threading.Lock()
