"""Whether every blob is where its row says, and every delta has the bases that it needs, as deep as its row says."""

import os
from pathlib import Path
from typing import Final

from dkfs.core.location import LOST, BlobLocation, decode_blob_location
from dkfs.errors import CorruptError, StoreError
from dkfs.model.ids import BlobId
from dkfs.store.closing import close
from dkfs.store.damage import DamageKind, Notes
from dkfs.store.places import Places
from dkfs.store.reader import Reader
from dkfs.store.rows import unseal
from dkfs.store.segments import RECORD, segment_path

_OPEN_FILES: Final = 32


class BlobChecker:
    """Checks the table blobs; *usable* is how far each segment goes."""

    def __init__(
        self,
        reader: Reader,
        directory: Path,
        usable: dict[int, int],
        places: Places,
        notes: Notes,
    ) -> None:
        """Put into *places* where the blobs are that can be read."""
        self.count = 0
        self._places = places
        self._reader = reader
        self._directory = directory
        self._usable = usable
        self._notes = notes
        self._files: dict[int, int] = {}

    def run(self, *, known: int) -> None:
        """Check every row; *known* blobs were seen to be where their rows say."""
        for key, value in self._reader.rows("blobs"):
            self.count += 1
            blob = BlobId(key)
            row = ("blobs", key)
            with self._notes.noting(blob=blob, row=row):
                at = decode_blob_location(unseal("blobs", key, value))
                with self._notes.noting(blob=blob, kind=DamageKind.BLOB, row=row):
                    self._check(blob, at)
        if known < len(self._places):
            self._look_at_each()

    def _check(self, blob: BlobId, at: BlobLocation) -> None:
        if at.encoding == LOST:
            message = f"blob {blob.hex()} is lost: a repair gave it up"
            self._notes.add(message, blob=blob, kind=DamageKind.LOST)
            return
        if at.offset + RECORD.size + at.stored_length > self._usable.get(at.segment, 0):
            raise CorruptError(f"blob {blob.hex()} is behind the end of {at.segment}")
        self._places.add(blob, at)
        if at.depth:
            self._check_bases(blob, at)

    def _check_bases(self, blob: BlobId, at: BlobLocation) -> None:
        for base in self._reader.bases(blob, at):
            found = self._reader.location(base)
            if found is None:
                message = f"base {base.hex()} of blob {blob.hex()} is not in the store"
                self._notes.add(message, blob=base, kind=DamageKind.BLOB)
            elif found.depth >= at.depth:
                # As depths decrease from delta to base, no delta can be its own base.
                raise CorruptError(
                    f"blob {blob.hex()} is {at.depth} deltas deep, its base {base.hex()} {found.depth}"
                )

    def _look_at_each(self) -> None:
        """Name the blobs that are not where their rows say."""
        try:
            for place in self._places.in_order():
                at = self._reader.location(place.blob)
                if at is None:
                    continue
                with self._notes.noting(blob=place.blob, kind=DamageKind.BLOB):
                    head = os.pread(self._file(at.segment), RECORD.size, at.offset)
                    fields = RECORD.unpack(head) if len(head) == RECORD.size else ()
                    if fields[:1] + fields[2:] != (
                        at.stored_length,
                        at.encoding,
                        at.length,
                        place.blob,
                    ):
                        raise CorruptError(
                            f"blob {place.blob.hex()} in segment {at.segment} at {at.offset}:"
                            " the record's header is not that of the blob"
                        )
        finally:
            for fd in self._files.values():
                close(fd)
            self._files.clear()

    def _file(self, segment: int) -> int:
        found = self._files.get(segment)
        if found is None:
            if len(self._files) >= _OPEN_FILES:
                close(self._files.pop(next(iter(self._files))))
            path = segment_path(self._directory, segment)
            try:
                found = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError as exc:
                raise StoreError(f"segment {path} cannot be read: {exc.strerror}") from exc
            self._files[segment] = found
        return found
