"""Reads blobs in the order in which they lie on the disk, and compares each with its id and its record's checksum.

Takes as long as there are data, so it holds no view of the store for more than a moment: a view that is open for
hours would make the index of a mount grow.
"""

import time
from collections.abc import Callable, Iterator
from typing import Final

from dkfs.errors import CorruptError, StoreError
from dkfs.store.check_rows import OnProgress
from dkfs.store.damage import Damage, DamageKind
from dkfs.store.places import BlobPlace, Places
from dkfs.store.reader import Reader
from dkfs.store.selection import Selection
from dkfs.store.store import Store
from dkfs.store.verified import Place

_VIEW_S: Final = 0.5  # that one view is held


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

    def run(self) -> Iterator[Damage]:
        """Yield what is damaged."""
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
        try:
            at = reader.location(place.blob)
            if at is not None:  # else it was collected meanwhile
                reader.blob(place.blob, strict=True)
        except (CorruptError, StoreError) as exc:
            yield Damage(str(exc), blob=place.blob, kind=DamageKind.BLOB)
        self.read_blobs += 1
        self.read_bytes += place.stored_length
