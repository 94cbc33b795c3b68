"""The intent log: what was synced and is not in the index yet.  One file beside it, written over and over.

A record is written in one go, past the page cache where the file system can, into room that is on the disk already: it is durable
when the disk has flushed its cache.  sync() has it do so, and so may the sync of another file: see flushing.  It stays until the versions in it
are committed; the next record may take its place after that.  Records begin at multiples of a page, so that a write that
is torn damages none but itself.  Bytes: docs/format.md.
"""

import errno
import fcntl
import logging
import mmap
import os
import struct
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Self
from zlib import crc32

from dkfs.errors import CorruptError, StoreError, StoreFormatError
from dkfs.failpoints import failpoint
from dkfs.model.ids import Seq
from dkfs.store.closing import close
from dkfs.store.flushing import Disk, disk_of
from dkfs.store.segments import sync_directory

INTENT_NAME: Final = "intent"
PAGE: Final = 4096  # bytes; what disks write at once, or a multiple of it
RECORD_LIMIT: Final = 1024 * 1024  # bytes of a record in the file
LIMIT: Final = 64 * 1024 * 1024  # bytes of the file
_KEPT: Final = 4 * 1024 * 1024  # bytes of it while nothing in it is needed
_GROW: Final = (
    512 * 1024
)  # bytes; room is written before it is used: then fdatasync has to note no size

_MAGIC: Final = b"dkfs-int"
_FORMAT: Final = 2
# magic, format, uuid of the store, key; then CRC-32 of these.  The key is made anew with each file, and is in its records:
# what an application has written is in them too, and shall never look like one.
_HEADER: Final = struct.Struct(">8sI16s16s")
# key, CRC-32 of the rest of the head and the payload, bytes of the payload; then what Span says
_RECORD: Final = struct.Struct(">16sII")
_SPAN: Final = struct.Struct(">QQqQ")
_SPAN_1: Final = struct.Struct(
    ">QQq"
)  # in format 1, whose records were durable before the next was written
_HEAD: Final = _RECORD.size + _SPAN.size
PAYLOAD_LIMIT: Final = RECORD_LIMIT - _HEAD  # bytes

log = logging.getLogger(__name__)


class Span(NamedTuple):
    """The versions of a record."""

    first: Seq
    last: Seq
    before_ns: int  # the time of the version before the first: so it is known that the record goes on from there
    safe: Seq  # up to this version all were durable when this was written; what is missing after it was promised to nobody


class IntentRecord(NamedTuple):
    """One record as it was found."""

    span: Span
    payload: bytes


class IntentFile:
    """The file, for the one writer of the store; for one thread at a time."""

    def __init__(self, store: Path, uuid: bytes, *, limit: int = LIMIT) -> None:
        """Make the file anew, of at most *limit* bytes; raises StoreError.

        Whatever is in it is no longer needed.
        """
        self._path = store / INTENT_NAME
        self._limit = limit
        self._key = os.urandom(16)
        self._buffer = mmap.mmap(
            -1, RECORD_LIMIT
        )  # which is where a page begins, as O_DIRECT asks for
        self._used: deque[tuple[int, int, Seq]] = (
            deque()
        )  # start and end of records that are needed, last version
        self._needed = 0  # bytes of these
        self._end = PAGE  # of the newest record
        self._size = 0
        self.is_failed = False  # nothing that is written to it is to be relied on
        head = _HEADER.pack(_MAGIC, _FORMAT, uuid, self._key)
        try:
            self._fd, is_direct = _open(self._path)
            try:
                self._buffer[:PAGE] = bytes(PAGE)
                self._buffer[: len(head) + 4] = head + crc32(head).to_bytes(4, "big")
                self._write(PAGE, 0)
                os.fdatasync(self._fd)
                self._size = PAGE
                sync_directory(store)
                self.disk: Disk | None = disk_of(self._fd) if is_direct else None
            except BaseException:
                close(self._fd)
                raise
        except OSError as exc:
            raise self._error("made", exc) from exc

    def append(self, span: Span, payload: Iterable[bytes]) -> bool:
        """Write a record, and leave it to sync() to make it durable; return whether there was room.  Raises StoreError."""
        view, at = self._buffer, _HEAD
        for part in payload:
            end = at + len(part)
            view[at:end] = part
            at = end
        room = -(-at // PAGE) * PAGE
        start = self._room(room)
        if start is None:
            return False
        view[at:room] = bytes(room - at)
        view[_RECORD.size : _HEAD] = _SPAN.pack(*span)
        with memoryview(view) as whole, whole[_RECORD.size : at] as covered:
            checksum = crc32(covered)
        view[: _RECORD.size] = _RECORD.pack(self._key, checksum, at - _HEAD)
        try:
            self._write(room, start)
        except OSError as exc:
            self.is_failed = True
            raise self._error("written", exc) from exc
        self._end = start + room
        self._used.append((start, self._end, span.last))
        self._needed += room
        return True

    def sync(self) -> None:
        """Make durable what was written; in any thread, but not beside close(); raises OSError."""
        os.fdatasync(self._fd)

    def free(self, committed: Seq) -> None:
        """Hear that everything up to version *committed* is in the index, durably."""
        used = self._used
        while used and used[0][2] <= committed:
            start, end, _ = used.popleft()
            self._needed -= end - start
        if not used:
            self._end = PAGE
            if self._size > _KEPT:
                with suppress(OSError):  # then it stays as long as it is
                    os.ftruncate(self._fd, _KEPT)
                    self._size = _KEPT

    @property
    def is_empty(self) -> bool:
        """Whether nothing in it is needed."""
        return not self._used

    @property
    def is_asked(self) -> bool:
        """Whether somebody waits to see in the index what is here; see Asking."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        except OSError:
            return True
        return False

    @property
    def is_tight(self) -> bool:
        """Whether more than half of the room is in use."""
        return self._needed * 2 > self._limit

    def close(self) -> None:
        """Close the file; it stays where it is."""
        close(self._fd)
        self._buffer.close()

    def _room(self, length: int) -> int | None:
        """Return where *length* bytes may go, None if nowhere; raises StoreError."""
        start, oldest = self._end, self._used[0][0] if self._used else self._limit
        if (
            self._used and start <= oldest
        ):  # the newest is at the beginning of the file, the oldest behind it
            return start if start + length <= oldest else None
        if start + length > self._limit:
            start = PAGE
            if self._used and start + length > oldest:
                return None
        if start + length > self._limit or not self._grow(start + length):
            return None
        return start

    def _grow(self, size: int) -> bool:
        """Make the file at least *size* bytes long; return False if the disk has no room for it."""
        if size <= self._size:
            return True
        end = min(max(size, self._size + _GROW), self._limit)
        try:
            with mmap.mmap(-1, end - self._size) as zeros:
                _write_all(self._fd, zeros, len(zeros), self._size)
            os.fdatasync(self._fd)
        except OSError as exc:
            if exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                return False
            self.is_failed = True
            raise self._error("made longer", exc) from exc
        self._size = end
        return True

    def _write(self, length: int, at: int) -> None:
        failpoint("intent.write")
        _write_all(self._fd, self._buffer, length, at)

    def _error(self, what: str, exc: OSError) -> StoreError:
        error = StoreError(f"intent log {self._path} cannot be {what}: {exc.strerror}")
        error.errno = exc.errno or error.errno
        return error


def read_intents(store: Path, uuid: bytes) -> list[IntentRecord]:
    """Return the records of the intent log of *store*, whole ones, by version; none if there is no log.

    Some may be of versions that are in the index.  Raises CorruptError if it cannot be told what is in it, StoreError.
    """
    path = store / INTENT_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise StoreError(f"intent log {path} cannot be read: {exc.strerror}") from exc
    if len(data) <= PAGE:
        return []  # it was being made
    magic, version, of, key = _HEADER.unpack_from(data)
    checksum = int.from_bytes(data[_HEADER.size : _HEADER.size + 4], "big")
    if magic != _MAGIC or crc32(data[: _HEADER.size]) != checksum:
        raise CorruptError(f"intent log {path} does not start with its header")
    if version not in (1, _FORMAT):
        raise StoreFormatError(f"intent log {path} has format {version}, this dkfs reads {_FORMAT}")
    if of != uuid:
        raise CorruptError(f"intent log {path} is of another store")
    spans = _SPAN if version == _FORMAT else _SPAN_1
    found = (_record(data, at, key, spans) for at in range(PAGE, len(data), PAGE))
    return sorted(record for record in found if record is not None)


class Asking:
    """Asks the writer of a store, for the length of the block, to commit what is in the intent log."""

    def __init__(self, store: Path) -> None:
        """Ask the writer of *store*; raises OSError if there is no log, or it cannot be read."""
        self._fd = os.open(store / INTENT_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            # The writer looks from time to time whether he could have it for himself; he lets go at once.
            fcntl.flock(self._fd, fcntl.LOCK_SH)
        except BaseException:
            close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        close(self._fd)


def set_aside(store: Path) -> Path:
    """Rename the intent log of *store*, of which not everything is in the index; return its new name; raises StoreError."""
    path, number = store / INTENT_NAME, 1
    while (kept := store / f"{INTENT_NAME}.damaged-{number}").exists():
        number += 1
    try:
        path.rename(kept)
        sync_directory(store)
    except OSError as exc:
        raise StoreError(f"intent log {path} cannot be renamed: {exc.strerror}") from exc
    return kept


def list_set_aside(store: Path) -> list[Path]:
    """Return the intent logs of *store* that were set aside, in no order."""
    return list(store.glob(f"{INTENT_NAME}.damaged-*"))


def has_intents(store: Path) -> bool:
    """Return whether *store* has an intent log, as far as can be seen."""
    try:
        return (store / INTENT_NAME).stat().st_size > PAGE
    except OSError:
        return False


def remove_intents(store: Path) -> None:
    """Remove the intent log of *store*, if there is one: all that is in it is in the index; raises StoreError."""
    path = store / INTENT_NAME
    try:
        with suppress(FileNotFoundError):
            path.unlink()
            sync_directory(store)
    except OSError as exc:
        raise StoreError(f"intent log {path} cannot be removed: {exc.strerror}") from exc


def _record(data: bytes, at: int, key: bytes, spans: struct.Struct) -> IntentRecord | None:
    """Return the record at *at*, None if none is there."""
    start = at + _RECORD.size
    payload = start + spans.size
    if data[at : at + len(key)] != key or payload > len(data):
        return None
    _, checksum, length = _RECORD.unpack_from(data, at)
    end = payload + length
    if end > len(data) or crc32(data[start:end]) != checksum:
        return None
    first, last, before_ns, *safe = spans.unpack_from(data, start)
    span = Span(Seq(first), Seq(last), before_ns, Seq(safe[0] if safe else first - 1))
    return IntentRecord(span, data[payload:end])


def _open(path: Path) -> tuple[int, bool]:
    """Open the file, empty; return also whether what is written to it goes past the page cache."""
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    is_direct = True
    try:
        # 90 us instead of 150 for write and fdatasync, and a failure is that of this very write.
        fd = os.open(path, flags | os.O_DIRECT, 0o600)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        fd = os.open(path, flags, 0o600)
        is_direct = False
    os.fchmod(fd, 0o600)  # the umask may have taken bits away
    return fd, is_direct


def _write_all(fd: int, data: mmap.mmap, length: int, at: int) -> None:
    done = 0
    with memoryview(data) as view:
        while done < length:
            with view[done:length] as rest:
                count = os.pwrite(fd, rest, at + done)
            if count % PAGE and done + count < length:
                raise OSError(errno.EIO, os.strerror(errno.EIO))  # what is left is not aligned
            done += count
