"""The store: a directory with an index, segment files and a lock. See dkfs/docs/format.md for the bytes."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import UUID, uuid4

from dkfs.errors import DkfsError, ExistsError, StoreBusyError, StoreError, StoreFormatError
from dkfs.failpoints import failpoint
from dkfs.model.ids import BlobId
from dkfs.store.blobs import BlobSource, Encoder, HashAlgo, hash_function
from dkfs.store.collect_sweep import Sweep
from dkfs.store.encoders import DEFAULT, EncodingPolicy
from dkfs.store.index import (
    INDEX_NAME,
    Index,
    check_file,
    close_index,
    create_index,
    open_index,
)
from dkfs.store.intent import INTENT_NAME
from dkfs.store.lock import LOCK_NAME, StoreLock
from dkfs.store.opening import check_age, check_counters, measure_segments
from dkfs.store.pages import Verification, verify_pages
from dkfs.store.promised import Recover, await_writer, take_in
from dkfs.store.reader import Reader
from dkfs.store.rows import FORMAT, FORMAT_KEY, HASH_KEY, UUID_KEY, seal
from dkfs.store.segment_reader import SegmentReader
from dkfs.store.segments import (
    SEGMENT_LIMIT,
    SEGMENTS_NAME,
    SegmentWriter,
    check_header,
    list_segments,
    segment_path,
    sync_directory,
)
from dkfs.store.side import WriteSide
from dkfs.store.writer import Writer

# What a directory may hold that becomes a store: the rest of a creation that was interrupted, and what mkfs leaves.
_NOT_IN_THE_WAY = {
    LOCK_NAME,
    SEGMENTS_NAME,
    f"{INDEX_NAME}.new",
    f"{INDEX_NAME}.new-lock",
    "lost+found",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreSize:
    """How much room a store takes."""

    index_bytes: int  # with the intent log
    segment_bytes: int


class Store:
    """An open store. Close it, or use it as a context manager; do not carry it across a fork."""

    def __init__(
        self,
        path: Path,
        index: Index,
        lock: StoreLock | None,
        encoding: EncodingPolicy,
        segment_limit: int,
    ) -> None:
        """Take over *index* and *lock*; made by Store.open()."""
        self.path = path
        self._index = index
        self._lock = lock
        self.segments = path / SEGMENTS_NAME
        self.uuid = UUID(bytes=_meta(index, UUID_KEY))
        self.hash_algo = _meta(index, HASH_KEY).decode()
        self._hash = hash_function(self.hash_algo)
        self._blobs = BlobSource(SegmentReader(self.segments), self._hash)
        self._write_side: WriteSide | None = None
        sizes = measure_segments(self.segments)  # before the view begins: it knows of no less
        with self.read() as reader:
            check_age(reader, self.segments, self.uuid.bytes, sizes)
            if lock is None:
                return
            check_counters(reader, self.segments, self.uuid.bytes)
            tail, known = reader.tail(), reader.segment_numbers()
        output = SegmentWriter(
            self.segments, self.uuid.bytes, tail, limit=segment_limit, known=known
        )
        self._write_side = WriteSide(output, encoding, Encoder(encoding.level))

    @classmethod
    def create(cls, path: Path, *, hash_algo: HashAlgo = "blake3") -> None:
        """Make an empty store at *path*, with the directories above it; raises ExistsError, StoreError.

        The index is what makes a directory a store, and it appears last and at once.
        """
        hash_function(hash_algo)
        try:
            failpoint("store.make")
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_if_used(path)
            path.chmod(0o700)  # the umask may have taken bits away
            with StoreLock(path):
                _refuse_if_used(path)
                segments = path / SEGMENTS_NAME
                segments.mkdir(mode=0o700, exist_ok=True)
                segments.chmod(0o700)
                uuid = uuid4().bytes
                meta = {
                    FORMAT_KEY: FORMAT.to_bytes(4, "big"),
                    UUID_KEY: seal(UUID_KEY, uuid),
                    HASH_KEY: seal(HASH_KEY, hash_algo.encode()),
                }
                failpoint("store.index")
                create_index(path / INDEX_NAME, meta)
                sync_directory(path)
            sync_directory(path.parent)
        except OSError as exc:
            raise StoreError(f"store {path} cannot be made: {exc.strerror}") from exc

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        writable: bool,
        encoding: EncodingPolicy = DEFAULT,
        segment_limit: int = SEGMENT_LIMIT,
        recover: Recover | None = None,
        is_brief: bool = False,
        verification: Verification | None = None,
    ) -> Self:
        """Open the store at *path*; raises StoreError, StoreFormatError, StoreBusyError, CorruptError.

        *encoding* says how blobs are stored from now on. For writing, what a crash left behind the tail of the
        segments is cut off, and segments that ended are removed; what is only in the intent log, *recover* takes in. For reading
        no lock is taken. *is_brief* is as in StoreLock. *verification* is a look at the pages of the index that has begun.
        """
        path = path.absolute()
        if not path.exists():
            raise StoreError(f"store {path} does not exist")
        if not path.is_dir():
            raise StoreFormatError(f"{path} is not a dkfs store: not a directory")
        check_file(path / INDEX_NAME)
        lock = StoreLock(path, is_brief=is_brief) if writable else None
        try:
            index = open_index(path / INDEX_NAME, writable=writable, verification=verification)
            try:
                store = cls(path, index, lock, encoding, segment_limit)
            except BaseException:
                close_index(index)
                raise
            try:
                if writable:
                    take_in(store, recover)
                    store.bury_quietly()
                else:
                    await_writer(store)
            except BaseException:
                store.close()
                raise
            else:
                return store
        except BaseException as exc:
            if lock is not None:
                lock.close()
            if isinstance(exc, OSError):
                raise StoreError(f"store {path} cannot be opened: {exc.strerror}") from exc
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything; views and transactions must have ended."""
        if self._write_side is not None:
            self._write_side.output.close()
            self._write_side = None
        self._blobs.close()
        close_index(self._index)
        if self._lock is not None:
            self._lock.close()

    def let_go(self) -> None:
        """Close the segments that are only open to be read again soon: removed ones keep their room until then."""
        self._blobs.close()

    def read(self) -> Reader:
        """Begin a consistent view, to be used as a context manager by one thread; raises StoreError."""
        return Reader(self._index, self._blobs)

    def write(self) -> Writer:
        """Begin a transaction when no other is under way, to be used as a context manager; raises StoreError.

        Leaving it normally commits durably, an exception aborts.
        """
        return Writer(self._index, self._blobs, self._writing())

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """For the length of the block, remember what puts rely on; raises StoreBusyError if that is so already."""
        side = self._writing()
        with side.mutex:
            if side.touched is not None:
                raise StoreBusyError(f"store {self.path} is being collected already")
            side.touched = set()
        try:
            yield
        finally:
            with side.mutex:
                side.touched = None

    def sweep(self) -> Sweep:
        """Begin a transaction of a collection; otherwise like write()."""
        return Sweep(self._index, self._blobs, self._writing())

    @property
    def segment_limit(self) -> int:
        """The bytes at which a segment is full."""
        return self._writing().output.limit

    def bury(self, at: Callable[[str], None] = lambda _: None) -> int:
        """Remove segments that ended, and that nobody reads any more; return how many bytes that gives back.

        *at* hears that the index does not know them any more.  Raises StoreError.
        """
        with self.read() as reader:
            if not any(row.is_dead for _, row in reader.segments()):
                return 0
        freed = 0
        with self.sweep() as sweep:
            # The transaction itself is no reader, and whoever begins to read now sees that they ended.
            numbers = sweep.bury(self._index.oldest_reader())
        at("rows of segments removed")
        self._blobs.close()  # an open file keeps its room
        for number in numbers:
            path = segment_path(self.segments, number)
            try:
                freed += path.stat().st_size
                failpoint("segment.unlink")
                path.unlink()
            except OSError as exc:
                log.warning("segment %s is left for the next opening: %s", path, exc.strerror)
        return freed

    def cut(self, number: int, length: int, txn: int) -> bool:
        """Cut segment *number*, which has *length* bytes since transaction *txn*; return False if somebody reads more.

        Raises StoreError.
        """
        oldest = self._index.oldest_reader()
        if oldest is not None and oldest < txn:
            return False
        path = segment_path(self.segments, number)
        try:
            failpoint("segment.truncate")
            os.truncate(path, length)
        except OSError as exc:
            raise StoreError(f"segment {path} cannot be cut: {exc.strerror}") from exc
        return True

    def trim(self) -> None:
        """Cut what lies behind the ends of segments because a collection was killed; raises StoreError."""
        with self.read() as reader:
            newest = reader.tail().segment
            rows = {n: row.length for n, row in reader.segments() if n != newest}
        for number, size in self.segment_sizes().items():
            if size > rows.get(number, size) and self._index.oldest_reader() is None:
                self.cut(number, rows[number], 0)

    def bury_quietly(self) -> None:
        """Remove segments that ended, unless the store refuses that: it is worth no failure of anything else."""
        try:
            self.bury()
        except DkfsError as exc:
            log.warning("segments that ended are left where they are: %s", exc)

    def check_there(self) -> None:
        """Raise StoreError if the store was removed, or moved, since it was opened."""
        self._index.check_there()

    def reopen_index(self) -> None:
        """Give back the memory that large transactions have taken, while nothing is read or written; raises StoreError."""
        self._index.reopen()

    def size(self) -> StoreSize:
        """Return how much room the store takes; raises StoreError."""
        try:
            index_bytes = (self.path / INDEX_NAME).stat().st_size
        except OSError as exc:
            raise StoreError(f"store {self.path} cannot be read: {exc.strerror}") from exc
        with suppress(FileNotFoundError):
            index_bytes += (self.path / INTENT_NAME).stat().st_size
        return StoreSize(index_bytes, sum(self.segment_sizes().values()))

    def segment_sizes(self) -> dict[int, int]:
        """Return the size of every segment file in bytes, by number; raises StoreError."""
        sizes: dict[int, int] = {}
        try:
            for number, path in list_segments(self.segments):
                with suppress(FileNotFoundError):  # it went meanwhile
                    sizes[number] = path.stat().st_size
        except OSError as exc:
            raise StoreError(f"store {self.path} cannot be read: {exc.strerror}") from exc
        return sizes

    def check_segment(self, number: int) -> None:
        """Raise CorruptError unless segment *number* starts with the header it must have."""
        check_header(segment_path(self.segments, number), number, self.uuid.bytes)

    def verify_index(self) -> list[str]:
        """Return what is wrong with the pages of the index; empty if a writer never lets them rest."""
        return verify_pages(self.path / INDEX_NAME)

    def _writing(self) -> WriteSide:
        if self._write_side is None:
            raise StoreError(f"store {self.path} is not open for writing")
        return self._write_side

    def hash(self, data: bytes) -> BlobId:
        """Return the id that names *data* in this store."""
        return BlobId(self._hash(data))


def _meta(index: Index, key: bytes) -> bytes:
    value = index.meta(key)
    if value is None:
        raise StoreFormatError(f"index {index.path} has no {key.decode()}")
    return value


def is_absent(path: Path) -> bool:
    """Return whether Store.create() may make a store at *path*: nothing is there, or what a killed creation left.

    Raises StoreError.
    """
    try:
        return not path.exists() or (path.is_dir() and not _in_the_way(path))
    except OSError as exc:
        raise StoreError(f"store {path} cannot be read: {exc.strerror}") from None


def _in_the_way(path: Path) -> str:
    """Return what keeps the directory *path* from becoming a store, empty if nothing does."""
    names = set(os.listdir(path))
    segments = path / SEGMENTS_NAME
    if INDEX_NAME in names:
        return INDEX_NAME
    if SEGMENTS_NAME in names and (not segments.is_dir() or any(segments.iterdir())):
        return SEGMENTS_NAME  # of a store that lost its index
    return min(names - _NOT_IN_THE_WAY, default="")


def _refuse_if_used(path: Path) -> None:
    name = _in_the_way(path)
    if name == INDEX_NAME:
        raise ExistsError(f"store {path} exists already")
    if name:
        raise ExistsError(f"{path} is not empty ({name} is in it) and not a store")
