"""A segment that is made beside the writer: the records that are still needed of others, as they are.

It grows under another name and appears under its own, whole and synced, in the transaction that makes it part of the
store.  What a collection that was ended leaves under the other name is removed by the next one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from dkfs.core.location import JOURNAL
from dkfs.errors import StoreError
from dkfs.failpoints import failpoint
from dkfs.model.ids import BlobId
from dkfs.store.closing import close
from dkfs.store.segments import (
    FOOTER,
    HEADER_SIZE,
    UNFINISHED,
    footer,
    header,
    segment_path,
    sync_directory,
)
from dkfs.store.segments import record as record_bytes

EMPTY_SIZE: Final = HEADER_SIZE + FOOTER.size  # bytes of a sealed segment without records

_READ_MOST: Final = 1024 * 1024  # bytes at once
_SYNC_EVERY: Final = 8 * 1024 * 1024  # bytes; all at once would keep others waiting for the disk


@dataclass(frozen=True, slots=True)
class Copied:
    """A finished segment that is not yet part of the store."""

    directory: Path
    number: int
    length: int  # bytes
    records: int
    journal_bytes: int
    journal_txn: int

    def appear(self) -> None:
        """Give the file its name, durably; raises StoreError."""
        with failing(self.number, "named"):
            path = segment_path(self.directory, self.number)
            failpoint("gc.appear")
            path.with_suffix(UNFINISHED).rename(path)
            sync_directory(self.directory)

    def vanish(self) -> None:
        """Remove the file, if it did not appear."""
        with suppress(OSError):  # the next collection removes it
            segment_path(self.directory, self.number).with_suffix(UNFINISHED).unlink()


class SegmentCopy:
    """Writes one segment; a context manager, which removes what was not finished."""

    def __init__(self, directory: Path, uuid: bytes, number: int) -> None:
        """Begin segment *number*; raises StoreError."""
        self.number = number
        self._directory = directory
        self._path = segment_path(directory, number).with_suffix(UNFINISHED)
        self._sources: dict[int, int] = {}
        self._records = 0
        self._journal_bytes = self._journal_txn = 0
        self._buffer = bytearray(header(number, uuid))
        self._written = 0
        self._unsynced = 0
        self._is_finished = False
        with failing(number, "made"):
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._path, flags, 0o600)
            os.fchmod(self._fd, 0o600)  # the umask may have taken bits away

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self._fd, *self._sources.values()):
            close(fd)
        if not self._is_finished:
            with suppress(OSError):  # the next collection removes it
                self._path.unlink()

    @property
    def length(self) -> int:
        """How long the segment is by now."""
        return self._written + len(self._buffer)

    def copy(self, segment: int, offset: int, size: int, *, records: int) -> int:
        """Append *records* records that lie side by side in *segment*; return where. Raises StoreError."""
        at, end = self.length, offset + size
        while offset < end:
            data = self._read(segment, offset, min(end - offset, _READ_MOST))
            self._buffer += data
            offset += len(data)
            self._flush(_READ_MOST)
        self._records += records
        return at

    def add(self, blob: BlobId, stored: bytes, *, encoding: int, length: int) -> int:
        """Append a record and return where it is; raises StoreError."""
        at = self.length
        self._buffer += record_bytes(blob, stored, encoding=encoding, length=length)
        self._records += 1
        self._flush(_READ_MOST)
        return at

    def add_journal(self, blob: BlobId, stored: bytes, *, length: int, txn: int) -> None:
        """Append a record of a journal that transaction *txn*, or one before it, wrote; raises StoreError."""
        at = self.add(blob, stored, encoding=JOURNAL, length=length)
        self._journal_bytes += self.length - at
        self._journal_txn = max(self._journal_txn, txn)

    def finish(self) -> Copied:
        """Seal the segment and make it durable; raises StoreError."""
        self._buffer += footer(self._records, self.length)
        self._flush(1)
        with failing(self.number, "synced"):
            failpoint("gc.sync")
            os.fdatasync(self._fd)
        self._is_finished = True
        return Copied(
            self._directory,
            self.number,
            self.length,
            self._records,
            self._journal_bytes,
            self._journal_txn,
        )

    def _read(self, segment: int, offset: int, size: int) -> bytes:
        with failing(segment, "read"):
            fd = self._sources.get(segment)
            if fd is None:
                flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
                fd = os.open(segment_path(self._directory, segment), flags)
                self._sources[segment] = fd
            data = os.pread(fd, size, offset)
        if not data:
            raise StoreError(
                f"segment {segment} ends at {offset}: it is damaged, and left as it is"
            )
        return data

    def _flush(self, least: int) -> None:
        if len(self._buffer) < least:
            return
        with failing(self.number, "written"), memoryview(self._buffer) as view:
            failpoint("gc.write")
            done = 0
            while done < len(view):
                done += os.pwrite(self._fd, view[done:], self._written + done)
            self._unsynced += done
            if self._unsynced >= _SYNC_EVERY:
                os.fdatasync(self._fd)
                self._unsynced = 0
        self._written += len(self._buffer)
        self._buffer = bytearray()


def remove_unfinished(directory: Path) -> None:
    """Remove what collections that were ended have left in *directory*; raises StoreError."""
    with failing(0, "removed"):
        for path in directory.glob(f"*{UNFINISHED}"):
            path.unlink(missing_ok=True)


@contextmanager
def failing(segment: int, what: str) -> Iterator[None]:
    """Turn an OSError into a StoreError that keeps its errno: a full disk is told apart from a broken one."""
    try:
        yield
    except OSError as exc:
        error = StoreError(f"segment {segment} cannot be {what}: {exc.strerror}")
        error.errno = exc.errno or error.errno
        raise error from exc
