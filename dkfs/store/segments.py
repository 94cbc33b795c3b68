"""Segment files: append-only runs of blob records; how they are written.

A segment is a header, records, and a footer once it is full. Nothing before the tail that the index knows is ever
written again; what lies behind it is the rest of a transaction that never was, and is cut off.
"""

import logging
import os
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zlib import crc32

from dkfs.core.location import JOURNAL, BlobLocation, SegmentRow
from dkfs.errors import CorruptError, StoreError
from dkfs.failpoints import failpoint
from dkfs.model.ids import BlobId
from dkfs.store.closing import close
from dkfs.store.rows import TAIL

SEGMENTS_NAME: Final = "segments"
UNFINISHED: Final = ".new"  # ends the name of a segment that is being made beside the writer
SEGMENT_LIMIT: Final = 256 * 1024 * 1024  # bytes; a segment is sealed when it has this many

FORMAT: Final = 2
FORMATS: Final = (1, FORMAT)  # that are read; they differ in which encodings there are
MAGIC: Final = b"dkfs-seg"
HEADER: Final = struct.Struct(">8sII16s")  # magic, format, number, store uuid; then CRC-32 of these
RECORD: Final = struct.Struct(">IIBI32s")  # stored length, CRC-32, encoding, plain length, blob id
FOOTER: Final = struct.Struct(">II8sQQ")  # 0xffffffff, CRC-32, magic, records, length of all before
HEADER_SIZE: Final = HEADER.size + 4
_FOOTER_MARK: Final = 0xFFFF_FFFF
_FOOTER_MAGIC: Final = b"dkfs-end"

_BUFFER_LIMIT: Final = 1024 * 1024  # bytes held back before they are written


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tail:
    """Where the next record goes: what the index knows of the newest segment."""

    segment: int  # 0: there is none yet
    length: int  # bytes
    records: int
    txn: int = 0  # transactions that wrote to the segments
    journal_bytes: int = 0  # of the segment, in records of journals

    @property
    def row(self) -> SegmentRow:
        """What is known of the newest segment: its journals are never older than the last transaction."""
        return SegmentRow(self.length, self.journal_bytes, self.txn if self.journal_bytes else 0)


def pack_tail(tail: Tail) -> bytes:
    """Return the record of *tail*."""
    return TAIL.pack(tail.segment, tail.length, tail.records, tail.txn, tail.journal_bytes)


class SegmentWriter:
    """Appends records behind the tail; used by the one writer of a store, one transaction at a time."""

    def __init__(
        self, directory: Path, uuid: bytes, tail: Tail, *, limit: int, known: Collection[int] = ()
    ) -> None:
        """Cut off what is behind *tail*, and remove segments that are not in *known*; raises StoreError."""
        self._directory = directory
        self._uuid = uuid
        self.limit = limit
        self._next = max(known, default=0) + 1  # the smallest number that no segment ever had
        self._made: list[int] = []  # segments begun since the last keep()
        self._fd = -1
        self.kept = tail  # the tail as the index knows it
        self._segment, self._length, self._records = tail.segment, tail.length, tail.records
        self._txn = tail.txn
        self._buffer = bytearray()
        self.left: dict[int, SegmentRow] = {}  # segments that were given up since the last keep()
        self._journal_bytes, self._journal_txn = tail.journal_bytes, tail.row.journal_txn
        self._is_touched = False
        self._unsynced: list[int] = []  # fds of files written since the last sync, newest last
        self._is_new_file = False
        self._is_abandoned = False
        with self._failing("restored"):
            self._drop_strangers(tail, known)
            for path in directory.glob(f"*{UNFINISHED}"):
                path.unlink()
        self.restore(tail)

    def _drop_strangers(self, tail: Tail, known: Collection[int]) -> None:
        """Unlink the segments of this store that the index does not know."""
        # Without the tail's own row the table of segments is damaged, or was rebuilt, and says nothing of the others.
        oldest = 0 if tail.segment in known else max(tail.segment, *known, 0)
        for number, path in list_segments(self._directory):
            if number <= oldest or number == tail.segment or number in known:
                continue
            with path.open("rb") as file:
                head = file.read(HEADER_SIZE)
            if head[:8] == MAGIC and len(head) == HEADER_SIZE and self._uuid not in head:
                log.warning("segment %s is of another store and left alone", path)
            else:
                failpoint("segment.drop")
                path.unlink()

    @property
    def tail(self) -> Tail:
        """Where the next record goes."""
        txn = self._txn + 1 if self._is_touched else self._txn
        return Tail(self._segment, self._length, self._records, txn, self._journal_bytes)

    @property
    def is_touched(self) -> bool:
        """Whether anything was written since the last keep()."""
        return self._is_touched

    def append(self, blob: BlobId, stored: bytes, *, encoding: int, length: int) -> BlobLocation:
        """Add a record, perhaps only to the buffer, and return where it is; raises StoreError."""
        if self._length >= self.limit or self._fd < 0:
            self.roll()
        location = BlobLocation(self._segment, self._length, len(stored), length, encoding)
        checksum = record_checksum(encoding, length, blob, stored)
        self._buffer += RECORD.pack(len(stored), checksum, encoding, length, blob)
        self._buffer += stored  # as record(), without a copy
        self._length += RECORD.size + len(stored)
        self._records += 1
        self._is_touched = True
        if encoding == JOURNAL:
            self._journal_bytes += RECORD.size + len(stored)
            self._journal_txn = self._txn + 1
        if len(self._buffer) >= _BUFFER_LIMIT:
            self.flush()
        return location

    def flush(self) -> None:
        """Write the buffer to the file, so that it can be read back; raises StoreError."""
        if self._buffer:
            self._write(self._buffer, self._length - len(self._buffer))
            self._buffer = bytearray()

    def sync(self) -> None:
        """Make all that was appended durable; raises StoreError."""
        self.flush()
        # After a failed fdatasync the kernel takes the pages for clean, and the next one would succeed without having
        # written them: nothing more may go to that file.
        self._is_abandoned = True
        with self._failing("synced"):
            for fd in self._unsynced:
                failpoint("segment.sync")
                os.fdatasync(fd)
            if self._is_new_file:
                sync_directory(self._directory)
        self._is_abandoned = False
        self._close_unsynced()
        self._is_new_file = False

    def allocate(self) -> int:
        """Return the number for a segment that is made by somebody else; nobody else gets it."""
        number = max(self._next, self._segment + 1)
        self._next = number + 1
        return number

    def keep(self) -> None:
        """Take note that the index now knows the tail."""
        self.kept = self.tail
        self._made = []
        self._txn = self.kept.txn
        self.left = {}
        self._is_touched = False

    def forget(self) -> None:
        """Take back what was appended since the last keep()."""
        if self.tail != self.kept:
            self.restore(self.kept)

    def ensure_readable(self, location: BlobLocation) -> None:
        """Write the buffer if what is at *location* is still in it; raises StoreError."""
        if location.segment == self._segment and location.offset >= self._length - len(
            self._buffer
        ):
            self.flush()

    def restore(self, tail: Tail) -> None:
        """Continue behind *tail*, which is what the index knows; raises StoreError."""
        self._buffer = bytearray()
        self._close_unsynced()
        self._close_file()
        self.kept = tail
        self._segment, self._length, self._records = tail.segment, tail.length, tail.records
        self._txn = tail.txn
        self._journal_bytes, self._journal_txn = tail.journal_bytes, tail.row.journal_txn
        self.left = {}
        self._is_touched = False
        with self._failing("restored"):
            for number in self._made:
                if number > tail.segment:
                    segment_path(self._directory, number).unlink(missing_ok=True)
            self._made = []
            self._open_tail()

    def close(self) -> None:
        """Close the files; what was not synced is forgotten."""
        self._close_unsynced()
        self._close_file()

    def _open_tail(self) -> None:
        """Open the newest segment for appending, or leave it when it is damaged."""
        if not self._segment:
            return
        path = segment_path(self._directory, self._segment)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            size = 0
        else:
            try:
                size = os.fstat(fd).st_size
                if size > self._length:
                    failpoint("segment.cut")
                    os.ftruncate(fd, self._length)
            except BaseException:
                close(fd)
                raise
            if size >= self._length and not self._is_abandoned:
                self._fd = fd
            else:
                close(fd)
        if size < self._length:
            log.warning(
                "segment %s has %d bytes, need %d: blobs are lost", path, size, self._length
            )
        self._is_abandoned = False

    def roll(self) -> None:
        """Seal the newest segment and begin another; raises StoreError."""
        if self._fd >= 0:
            self._seal()
        if self._segment:
            row = SegmentRow(self._length, self._journal_bytes, self._journal_txn)
            self.left[self._segment] = row
        with self._failing("made"):
            number = self.allocate()
            self._made.append(number)
            path = segment_path(self._directory, number)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            failpoint("segment.make")
            self._fd = os.open(path, flags, 0o600)
            os.fchmod(self._fd, 0o600)  # the umask may have taken bits away
        self._segment, self._records = number, 0
        self._journal_bytes = self._journal_txn = 0
        self._is_new_file = self._is_touched = True
        self._buffer += header(number, self._uuid)
        self._length = HEADER_SIZE

    def _seal(self) -> None:
        failpoint("segment.seal")
        self._buffer += footer(self._records, self._length)
        self._length += FOOTER.size
        self._is_touched = True
        self.flush()
        if self._fd not in self._unsynced:
            self._unsynced.append(self._fd)
        self._fd = -1

    def _write(self, data: bytes | bytearray, offset: int) -> None:
        with self._failing("written"), memoryview(data) as view:
            failpoint("segment.write")
            done = 0
            while done < len(view):
                done += os.pwrite(self._fd, view[done:], offset + done)
        if self._fd not in self._unsynced:
            self._unsynced.append(self._fd)

    def _close_unsynced(self) -> None:
        for fd in self._unsynced:
            if fd != self._fd:
                close(fd)
        self._unsynced = []

    def _close_file(self) -> None:
        if self._fd >= 0:
            close(self._fd)
            self._fd = -1

    @contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            error = StoreError(
                f"segment {self._segment} in {self._directory} cannot be {what}: {exc.strerror}"
            )
            error.errno = exc.errno or error.errno  # ENOSPC is told apart from EIO
            raise error from exc


def segment_path(directory: Path, number: int) -> Path:
    """Return the path of segment *number*."""
    return directory / f"{number:08d}.seg"


def list_segments(directory: Path) -> list[tuple[int, Path]]:
    """Return every segment file with its number, in order; other files are ignored."""
    return sorted(
        (int(path.stem), path)
        for path in directory.iterdir()
        if path.suffix == ".seg" and path.stem.isdecimal()
    )


def header(number: int, uuid: bytes) -> bytes:
    """Return what segment *number* of the store *uuid* starts with."""
    head = HEADER.pack(MAGIC, FORMAT, number, uuid)
    return head + crc32(head).to_bytes(4, "big")


def footer(records: int, length: int) -> bytes:
    """Return what a segment of *records* in *length* bytes ends with when it is sealed."""
    body = _FOOTER_MAGIC + struct.pack(">QQ", records, length)
    return struct.pack(">II", _FOOTER_MARK, crc32(body)) + body


def record(blob: BlobId, stored: bytes, *, encoding: int, length: int) -> bytes:
    """Return the record of *blob*, *length* bytes when plain."""
    checksum = record_checksum(encoding, length, blob, stored)
    return RECORD.pack(len(stored), checksum, encoding, length, blob) + stored


def check_header(path: Path, number: int, uuid: bytes) -> None:
    """Raise CorruptError unless the file at *path* is segment *number* of the store *uuid*."""
    try:
        with path.open("rb") as file:
            data = file.read(HEADER_SIZE)
    except OSError as exc:
        raise CorruptError(f"segment {path} cannot be read: {exc.strerror}") from exc
    good = [HEADER.pack(MAGIC, fmt, number, uuid) for fmt in FORMATS]
    if data not in [header + crc32(header).to_bytes(4, "big") for header in good]:
        raise CorruptError(f"segment {path} does not start with the header of segment {number}")


def damaged(blob: BlobId, location: BlobLocation, why: str) -> CorruptError:
    """Return the error that names *blob* and where it is."""
    return CorruptError(
        f"blob {blob.hex()} in segment {location.segment} at {location.offset}: {why}"
    )


def record_checksum(encoding: int, length: int, blob: BlobId, stored: bytes) -> int:
    """Return the CRC-32 of a record."""
    return crc32(stored, crc32(struct.pack(">BI32s", encoding, length, blob)))


def sync_directory(directory: Path) -> None:
    """Make the entries of *directory* durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        close(fd)
