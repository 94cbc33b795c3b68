"""Reads blobs in the order in which they lie on the disk, and compares each with its id and its record's checksum.

Takes as long as there are data, so it holds no view of the store for more than a moment: a view that is open for
hours would make the index of a mount grow.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from dkfs.errors import CorruptError, StoreError
from dkfs.store.check_rows import OnProgress
from dkfs.store.closing import close
from dkfs.store.damage import Damage, DamageKind
from dkfs.store.places import BlobPlace, Places
from dkfs.store.reader import Reader
from dkfs.store.segments import SEGMENTS_NAME, segment_path
from dkfs.store.selection import Selection
from dkfs.store.store import Store
from dkfs.store.verified import Place

_VIEW_S: Final = 0.5  # that one view is held
_FORGOTTEN: Final = 8 << 20  # bytes that the kernel is told to forget at once


class DataChecker:
    """Reads what is selected, from a place on, until it is told to stop."""

    def __init__(
        self,
        store: Store,
        places: Places,
        selection: Selection,
        *,
        start: Place,
        goes_on: Callable[[int], bool],
        on_progress: OnProgress,
        from_disk: bool,
    ) -> None:
        """*goes_on* hears how many bytes were read since it was last asked, may sleep, and says whether to go on."""
        self.read_blobs = 0
        self.read_bytes = 0  # as stored
        self.at: Place | None = start  # everything before it was read; None: everything was
        self._store = store
        self._places = places
        self._selection = selection
        self._goes_on = goes_on
        self._on_progress = on_progress
        self._cache = _Cache(store.path / SEGMENTS_NAME) if from_disk else None

    def run(self) -> Iterator[Damage]:
        """Yield what is damaged."""
        try:
            yield from self._run()
        finally:
            if self._cache is not None:
                self._cache.close()

    def _run(self) -> Iterator[Damage]:
        self._selection.start(self._places.stored_bytes)
        start = self.at or Place()
        passed = 0
        wanted = iter(self._wanted(start))
        place = next(wanted, None)
        while place is not None:
            with self._store.read() as reader:
                until_s = time.monotonic() + _VIEW_S
                while place is not None and time.monotonic() < until_s:
                    self.at = place.at
                    if not self._goes_on(passed):
                        return
                    yield from self._read(reader, place)
                    passed = place.stored_length
                    self._on_progress("data", self.read_bytes, self._places.stored_bytes)
                    place = next(wanted, None)
        self.at = None

    def _wanted(self, start: Place) -> Iterator[BlobPlace]:
        return (
            place
            for place in self._places.in_order()
            if place.at >= start and self._selection.wants(place.blob)
        )

    def _read(self, reader: Reader, place: BlobPlace) -> Iterator[Damage]:
        if self._cache is not None:
            self._cache.forget(place.at, place.stored_length)
        try:
            at = reader.location(place.blob)
            if at is not None:  # else it was collected meanwhile
                reader.blob(place.blob, strict=True)
        except (CorruptError, StoreError) as exc:
            yield Damage(str(exc), blob=place.blob, kind=DamageKind.BLOB)
        self.read_blobs += 1
        self.read_bytes += place.stored_length


class _Cache:
    """Makes the kernel forget what it has of the segments, so that what is read is what is on the disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._segment = 0
        self._fd = -1
        self._end = 0  # of what is forgotten already

    def forget(self, at: Place, length: int) -> None:
        """Forget *length* bytes at *at*, and more after them, unless that was done; places come in order."""
        if at.segment != self._segment:
            self.close()
            self._segment, self._end = at.segment, 0
            with suppress(OSError):  # whoever reads it says so
                path = segment_path(self._directory, at.segment)
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        if self._fd >= 0 and at.offset + length >= self._end:
            start = at.offset // _FORGOTTEN * _FORGOTTEN
            # What was read before, too: it was in the cache for this reading only.
            first = max(start - _FORGOTTEN, 0)
            self._end = at.offset + length + _FORGOTTEN
            os.posix_fadvise(self._fd, first, self._end - first, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            close(self._fd)
        self._fd, self._segment = -1, 0
