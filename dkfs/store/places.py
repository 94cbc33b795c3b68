"""The places of many blobs, in 81 bytes each, in the order in which they lie on the disk."""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from dkfs.core.location import BlobLocation
from dkfs.model.ids import BlobId
from dkfs.store.verified import Place

_ENTRY: Final = struct.Struct(
    ">QQI32s"
)  # segment, offset, stored length, id: in order of the place


class BlobPlace(NamedTuple):
    """A blob and where it was."""

    at: Place
    stored_length: int
    blob: BlobId


class Places:
    """A list of places that is sorted once."""

    def __init__(self) -> None:
        self.stored_bytes = 0
        self._entries: list[bytes] = []
        self._is_sorted = True

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, blob: BlobId, at: BlobLocation) -> None:
        """Add the place of *blob*."""
        self._entries.append(_ENTRY.pack(at.segment, at.offset, at.stored_length, blob))
        self._is_sorted = False
        self.stored_bytes += at.stored_length

    def in_order(self) -> Iterator[BlobPlace]:
        """Yield all of them, as they lie on the disk."""
        if not self._is_sorted:
            self._entries.sort()
            self._is_sorted = True
        for entry in self._entries:
            segment, offset, stored_length, blob = _ENTRY.unpack(entry)
            yield BlobPlace(Place(segment, offset), stored_length, BlobId(blob))
