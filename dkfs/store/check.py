"""Whether a store is what it says: every row, every reference, every record, and if asked every byte. Reads only.

But for the intent log, which history.recovery can read.

What is damaged is noted and passed over, so that one report names all of it. Every rule that is checked is one that
dkfs/docs/format.md states.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dkfs.model.ids import BlobId
from dkfs.store.check_blobs import BlobChecker
from dkfs.store.check_data import DataChecker
from dkfs.store.check_rows import OnProgress, RowChecker
from dkfs.store.check_segments import SegmentChecker
from dkfs.store.damage import Damage, DamageKind, Notes
from dkfs.store.places import Places
from dkfs.store.reader import Reader
from dkfs.store.segments import SEGMENTS_NAME
from dkfs.store.selection import Everything, Selection
from dkfs.store.store import Store
from dkfs.store.verified import Place

__all__ = ["Check", "Counts", "Damage", "DamageKind", "check"]


@dataclass(slots=True)
class Counts:
    """What was looked at."""

    versions: int = 0
    states: int = 0
    names: int = 0
    segments: int = 0
    blobs: int = 0
    stored_bytes: int = 0  # of these blobs
    read_blobs: int = 0
    read_bytes: int = 0  # of their stored bytes


class _StoppedError(Exception):
    """Time is up."""


def check(store: Store, *, read_data: bool) -> Iterator[Damage]:
    """Yield everything that is wrong with *store*; with *read_data* every blob is read and hashed.

    What is recorded meanwhile is not looked at.
    """
    return Check(store, read=Everything() if read_data else None).run()


def _silent(what: str, done: int, total: int) -> None:
    """Show no progress."""


def _always(passed: int) -> bool:  # noqa: ARG001 - see Check
    """Go on."""
    return True


class Check:
    """One check of *store*."""

    def __init__(
        self,
        store: Store,
        *,
        read: Selection | None = None,
        start: Place | None = None,
        goes_on: Callable[[int], bool] = _always,
        on_progress: OnProgress = _silent,
        from_disk: bool = False,
    ) -> None:
        """Read what *read* selects, if anything, from *start* on; *from_disk*, and not from the kernel's cache.

        *goes_on* is asked often: it hears how many stored bytes of data were read since, and says whether to go on.
        """
        self.counts = Counts()
        self.is_structure_checked = False
        self._start = start or Place()
        self._data: DataChecker | None = None
        self._store = store
        self._read = read
        self._goes_on = goes_on
        self._on_progress = on_progress
        self._from_disk = from_disk
        self._notes = Notes()
        self._told: set[BlobId] = set()  # damaged blobs of which nothing more is said

    @property
    def at(self) -> Place | None:
        """Where the reading of data is: everything before it was read; None: it came to the end."""
        if self._data is not None:
            return self._data.at
        return None if self.is_structure_checked and self._read is None else self._start

    def run(self) -> Iterator[Damage]:
        """Yield everything that is wrong; `counts` and `at` tell how far it came."""
        problems = self._store.verify_index()
        if problems:
            # Whoever followed such pages could be led anywhere.
            for problem in problems:
                yield Damage(f"index: {problem}", kind=DamageKind.INDEX)
            return
        places = Places()
        try:
            with self._store.read() as reader:
                for part in self._structure(reader, places):
                    with self._notes.noting():
                        part()
                    yield from self._take()
        except _StoppedError:
            yield from self._take()
            return
        self.is_structure_checked = True
        if self._read is not None:
            yield from self._read_data(places, self._read)

    def _take(self) -> Iterator[Damage]:
        for damage in self._notes.take():
            if damage.blob is not None and damage.kind is DamageKind.BLOB:
                if damage.blob in self._told:
                    continue
                self._told.add(damage.blob)
            yield damage

    def _structure(self, reader: Reader, places: Places) -> Iterator[Callable[[], None]]:
        counts, notes = self.counts, self._notes
        rows = RowChecker(reader, notes, self._tick)
        yield rows.log
        counts.versions = rows.versions
        yield rows.nodes
        counts.states = rows.states
        yield rows.names
        counts.names = rows.names_seen
        yield rows.moves
        yield rows.tags
        yield rows.meta
        segments = SegmentChecker(
            reader, self._store.path / SEGMENTS_NAME, self._store.uuid.bytes, notes, self._tick
        )
        yield segments.run
        counts.segments = len(segments.usable)
        blobs = BlobChecker(
            reader, self._store.path / SEGMENTS_NAME, segments.usable, places, notes
        )
        yield lambda: blobs.run(known=segments.known)
        counts.blobs, counts.stored_bytes = blobs.count, places.stored_bytes

    def _read_data(self, places: Places, selection: Selection) -> Iterator[Damage]:
        self._data = data = DataChecker(
            self._store,
            places,
            selection,
            start=self._start,
            goes_on=self._goes_on,
            on_progress=self._on_progress,
            from_disk=self._from_disk,
        )
        for damage in data.run():
            if damage.blob not in self._told:
                yield damage
        self.counts.read_blobs, self.counts.read_bytes = data.read_blobs, data.read_bytes

    def _tick(self, what: str, done: int, total: int) -> None:
        self._on_progress(what, done, total)
        if not self._goes_on(0):
            raise _StoppedError
