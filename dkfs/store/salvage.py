"""Records found in a segment file by looking at its bytes alone, past any damage.

Every record that is yielded matches its checksum, or is one that the caller knows of. Where none begins, the next place
where one does is searched for: by its shape first, then by its checksum.
"""

import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self
from zlib import crc32

from dkfs.core.location import BLOB_LIMIT, JOURNAL
from dkfs.errors import StoreError
from dkfs.model.ids import BlobId
from dkfs.store.closing import close
from dkfs.store.segments import FOOTER, HEADER_SIZE, RECORD

_WINDOW: Final = 4 * 1024 * 1024  # bytes searched at once
_EFFORT: Final = (
    4 << 30
)  # bytes that are compared with checksums in searching one segment; some 4 s
_LENGTH: Final = rb"[\x00-\x40].{3}"  # a u32 up to 1 GiB, and a little more
# How a record can begin: stored length, CRC-32, encoding, plain length, id, then the stored bytes. Those of encodings
# 1 and 16 are zstd frames and begin with the magic number, those of a delta with the number of its bases; a plain
# record, of which none is empty, has the same length twice. The last is a footer.
_SHAPE: Final = re.compile(
    rb"(?s)(?=%(length)b.{4}[\x01\x10]%(length)b.{32}\x28\xb5\x2f\xfd"
    rb"|%(length)b.{4}[\x02-\x05]%(length)b.{32}[\x01-\x08]"
    rb"|(?!\x00{4})(%(length)b).{4}\x00\1"
    rb"|\xff{4}.{4}dkfs-end)" % {b"length": _LENGTH}
)
_CHECKED: Final = struct.Struct(">BI32s")  # what a record's checksum covers before the stored bytes
_FOOTER_MARK: Final = 0xFFFF_FFFF
_FOOTER_MAGIC: Final = b"dkfs-end"


@dataclass(frozen=True, slots=True)
class Record:
    """A record that is where it says."""

    blob: BlobId
    segment: int
    offset: int
    encoding: int
    length: int  # bytes, plain
    stored_length: int
    stored: bytes  # empty if it was not read, because the caller knows of it

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return self.offset + RECORD.size + self.stored_length


@dataclass(frozen=True, slots=True)
class Footer:
    """What a sealed segment ends with."""

    offset: int
    records: int

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.offset + FOOTER.size


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes that are no record: damage, or the rest of a transaction that never was."""

    offset: int
    end: int  # exclusive


def nothing(_: Record) -> bool:
    """Know of no record."""
    return False


class Salvage:
    """One segment file, open for looking; a context manager."""

    def __init__(self, path: Path, number: int) -> None:
        """Open the segment *number* at *path*; raises StoreError."""
        self.number = number
        self._effort = _EFFORT
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as exc:
            raise StoreError(f"segment {path} cannot be read: {exc.strerror}") from exc
        self.size = os.fstat(self._fd).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        close(self._fd)

    def records(
        self,
        start: int = HEADER_SIZE,
        end: int | None = None,
        *,
        knows: Callable[[Record], bool] = nothing,
    ) -> Iterator[Record | Footer | Gap]:
        """Yield what there is from *start*, where a record should begin, to *end*, by default of the file.

        Of a record that the caller *knows* only the header is read.
        """
        end = self.size if end is None else min(end, self.size)
        offset = start
        while offset < end:
            found: Record | Footer | Gap | None = self._head(offset)
            if not isinstance(found, Record) or not knows(found):
                found = self.record(offset) or self._footer(offset)
                found = found or Gap(offset, min(self._next(offset), end))
            yield found
            offset = found.end

    def record(self, offset: int) -> Record | None:
        """Return the record at *offset*, None if none is there that matches its checksum; raises StoreError."""
        head = self._head(offset)
        if head is None:
            return None
        crc = int.from_bytes(self._read(offset + 4, 4), "big")
        stored = self._read(offset + RECORD.size, head.stored_length)
        covered = _CHECKED.pack(head.encoding, head.length, head.blob)
        if len(stored) < head.stored_length or crc != crc32(stored, crc32(covered)):
            return None
        return replace(head, stored=stored)

    def _head(self, offset: int) -> Record | None:
        """Return what may be a record at *offset*, by its header alone."""
        head = self._read(offset, RECORD.size)
        if len(head) < RECORD.size:
            return None
        stored_length, _, encoding, length, blob = RECORD.unpack(head)
        end = offset + RECORD.size + stored_length
        if max(stored_length, length) > BLOB_LIMIT or end > self.size or encoding > JOURNAL:
            return None
        return Record(BlobId(blob), self.number, offset, encoding, length, stored_length, b"")

    def _footer(self, offset: int) -> Footer | None:
        data = self._read(offset, FOOTER.size)
        if len(data) < FOOTER.size:
            return None
        mark, crc, magic, records, length = FOOTER.unpack(data)
        if (mark, magic, length) != (_FOOTER_MARK, _FOOTER_MAGIC, offset) or crc != crc32(data[8:]):
            return None
        return Footer(offset, records)

    def _next(self, offset: int) -> int:
        """Return where the next record or footer behind *offset* begins; the end if there is none."""
        head = self._read(offset, RECORD.size)
        if len(head) == RECORD.size:
            # If only the stored bytes are damaged, the next record is where it should be.
            after: int = offset + RECORD.size + RECORD.unpack(head)[0]
            if after == self.size or self._begins(after):
                return after
        start = offset + 1
        while start < self.size:
            window = self._read(start, _WINDOW + RECORD.size + 4)
            for match in _SHAPE.finditer(window):
                at = start + match.start()
                if match.start() >= _WINDOW:
                    break
                claimed = int.from_bytes(window[match.start() : match.start() + 4], "big")
                self._effort -= RECORD.size + (claimed if at + claimed <= self.size else 0)
                if self._effort < 0:
                    return self.size  # made to look like records everywhere
                if self._begins(at):
                    return at
            start += _WINDOW
        return self.size

    def _begins(self, offset: int) -> bool:
        return self._footer(offset) is not None or self.record(offset) is not None

    def _read(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._fd, length, offset)
            while 0 < len(data) < length:  # one call reads at most 2 GiB, and may be interrupted
                more = os.pread(self._fd, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as exc:
            raise StoreError(
                f"segment {self._path} cannot be read at {offset}: {exc.strerror}"
            ) from exc
        return data
