"""Reads records of segment files, wherever the index says that they are."""

import os
from pathlib import Path
from typing import Final

from dkfs.core.location import BlobLocation
from dkfs.errors import CorruptError, StoreError
from dkfs.model.ids import BlobId
from dkfs.store.closing import close
from dkfs.store.segments import RECORD, damaged, record_checksum, segment_path

_LARGE: Final = 1024 * 1024  # bytes of a record
_CACHED_FDS: Final = 64


class SegmentReader:
    """Reads records of a store's segments; may be used by many threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[int, _OpenFile] = {}

    def read(self, location: BlobLocation, blob: BlobId, *, strict: bool = False) -> bytes:
        """Return the stored bytes of *blob*; raises CorruptError, StoreError.

        They are compared with the record's checksum only if *strict*: what they decode to is hashed anyway.
        """
        record, checksum = self._record(location, blob, location.stored_length)
        stored = record[RECORD.size :]
        if strict and checksum != record_checksum(location.encoding, location.length, blob, stored):
            raise damaged(blob, location, "the record does not match its checksum")
        return stored

    def read_head(self, location: BlobLocation, blob: BlobId, length: int) -> bytes:
        """Return the first *length* of the stored bytes, or all; raises CorruptError, StoreError."""
        record, _ = self._record(location, blob, min(length, location.stored_length))
        return record[RECORD.size :]

    def _record(self, location: BlobLocation, blob: BlobId, length: int) -> tuple[bytes, int]:
        """Return the record's header with *length* stored bytes, and its checksum."""
        if location.segment in self._files:
            try:
                return self._record_of_file(location, blob, length)
            except CorruptError:
                # The open file may be one that was removed since, and whose number another got.
                self._files.pop(location.segment, None)
        return self._record_of_file(location, blob, length)

    def _record_of_file(
        self, location: BlobLocation, blob: BlobId, length: int
    ) -> tuple[bytes, int]:
        need = RECORD.size + length
        try:
            file = self._file(location.segment)
            # A row that asks for more than there is must not make the memory for it.
            if need > _LARGE and location.offset + need > os.fstat(file.fd).st_size:
                raise damaged(blob, location, f"the segment has no {need} bytes left")
            record = os.pread(file.fd, need, location.offset)
        except FileNotFoundError:
            raise damaged(blob, location, "the segment is missing") from None
        except OSError as exc:
            raise StoreError(
                f"segment {location.segment} cannot be read at {location.offset}: {exc.strerror}"
            ) from exc
        if len(record) != need:
            raise damaged(blob, location, f"{len(record)} bytes left, need {need}")
        stored_length, checksum, encoding, plain_length, found = RECORD.unpack_from(record)
        if (stored_length, encoding, plain_length, found) != (
            location.stored_length,
            location.encoding,
            location.length,
            blob,
        ):
            raise damaged(blob, location, "the record's header is not that of the blob")
        return record, checksum

    def close(self) -> None:
        """Close every file."""
        self._files.clear()

    def _file(self, segment: int) -> "_OpenFile":
        found = self._files.get(segment)
        if found is None:
            if len(self._files) >= _CACHED_FDS:
                # Another thread may be reading from one: each is closed when its last user lets go.
                self._files.clear()
            found = self._files[segment] = _OpenFile(segment_path(self._directory, segment))
        return found


class _OpenFile:
    """A file descriptor that is closed when nobody holds it any more."""

    __slots__ = ("fd",)

    def __init__(self, path: Path) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def __del__(self) -> None:
        if self.fd >= 0:
            close(self.fd)
