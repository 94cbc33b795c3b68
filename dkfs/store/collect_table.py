"""Every blob of one view of the store, in few bytes: where each is, and what a collection found out about it.

A blob is known by its place in key order; what is kept of its id is the first 8 bytes.  Two ids that begin alike (one
pair in 2^65 / n^2 stores of n blobs) are marked together: a collection may keep too much, never too little.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from dkfs.core import location as locations
from dkfs.core.location import decode_blob_location
from dkfs.model.ids import BlobId
from dkfs.store.reader import Reader
from dkfs.store.rows import unseal
from dkfs.store.segments import RECORD

LIVE: Final = 1  # something refers to it
WALKED: Final = 2  # and what it refers to, as a node of a manifest, is live too
DELTA: Final = 4  # it is stored as a difference to others
LOST: Final = 8  # it is nowhere: a repair gave it up
BASE: Final = 16  # something that is alive is stored as a difference to it

_PREFIX: Final = 8  # bytes of an id
_TELL_EVERY: Final = 16384  # rows


class Row(NamedTuple):
    """A row of the table blobs, as it is: what a later transaction compares with."""

    blob: BlobId
    value: bytes


class BlobTable:
    """The blobs of one view, by number: 25 bytes each."""

    def __init__(self, reader: Reader, say: Callable[[int], None]) -> None:
        """Read the table; *say* hears how many rows were read. Raises CorruptError, StoreError."""
        self._prefixes = array("Q")
        self.segments = array("I")  # 0: it is lost
        self.offsets = array("Q")
        self.sizes = array("I")  # bytes of the record, with its header
        self.marks = bytearray()
        for done, (key, value) in enumerate(reader.rows("blobs")):
            if done % _TELL_EVERY == 0:
                say(done)
            location = decode_blob_location(unseal("blobs", key, value))
            is_lost = location.encoding == locations.LOST
            self._prefixes.append(_prefix(key))
            self.segments.append(0 if is_lost else location.segment)
            self.offsets.append(location.offset)
            self.sizes.append(0 if is_lost else RECORD.size + location.stored_length)
            self.marks.append(LOST if is_lost else DELTA if location.depth else 0)

    def __len__(self) -> int:
        return len(self._prefixes)

    def find(self, blob: bytes) -> range:
        """Return the numbers of the blobs that *blob* may be: as good as always one, none if it is not there."""
        prefixes, prefix = self._prefixes, _prefix(blob)
        first = last = bisect_left(prefixes, prefix)
        while last < len(prefixes) and prefixes[last] == prefix:
            last += 1
        return range(first, last)

    def dead(self) -> Iterator[int]:
        """Yield the blobs that nothing refers to."""
        marks = self.marks
        return (number for number in range(len(marks)) if not marks[number] & LIVE)

    def live_in(self, segments: Iterable[int]) -> list[int]:
        """Return the live blobs that lie in *segments*, in the order in which they lie there."""
        wanted = frozenset(segments)
        found = [
            number
            for number, segment in enumerate(self.segments)
            if segment in wanted and self.marks[number] & LIVE
        ]
        found.sort(key=self.place)
        return found

    def place(self, number: int) -> tuple[int, int]:
        """Return segment and offset of blob *number*."""
        return self.segments[number], self.offsets[number]

    def rows(self, reader: Reader, numbers: Iterable[int]) -> Iterator[tuple[int, Row]]:
        """Yield the row of each of *numbers*, as *reader* has it, unless the blob is elsewhere or gone by now."""
        for number in numbers:
            start = self._prefixes[number].to_bytes(_PREFIX, "big")
            for key, value in reader.rows("blobs", start):
                if not key.startswith(start):
                    break
                location = decode_blob_location(unseal("blobs", key, value))
                segment = 0 if location.encoding == locations.LOST else location.segment
                if (segment, location.offset) == self.place(number):
                    yield number, Row(BlobId(key), value)


def _prefix(blob: bytes) -> int:
    return int.from_bytes(blob[:_PREFIX], "big")
