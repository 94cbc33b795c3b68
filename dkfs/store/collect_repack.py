"""Repacking: blobs are encoded once more, with more time for it, when they move to another segment.

What depends on a blob knows what it costs to restore it, and how deep it is.  So neither may grow, except where nothing
depends on the blob: a difference stays one to the same bases, or becomes whole; and what is stored whole becomes a
difference only if it is no base, to what the same file held before.
"""

import json
import logging
import os
import time
from array import array
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from dkfs.core.location import DELTAS, LOST, BlobLocation
from dkfs.errors import CorruptError, StoreError
from dkfs.failpoints import failpoint
from dkfs.model.ids import BlobId, NodeId
from dkfs.model.node import NodeState
from dkfs.store.blobs import Encoder, decode, join_delta
from dkfs.store.collect_table import BASE, BlobTable
from dkfs.store.encoders import EncodingPolicy, choose
from dkfs.store.reader import Reader
from dkfs.store.restoring import cost_limit, weigh

LEVEL: Final = 19  # of zstd; 2 to 3 MB a second
NOTE_NAME: Final = "repacked.json"

_BUDGET_S: Final = 10.0  # for the differences of one blob
_LEAST_GAIN: Final = 16  # bytes
_DEEPENED_MOST: Final = (
    100_000  # blobs that became differences and are remembered, to be bases themselves
)
_NAP_S: Final = 0.2  # so long at most without telling how far it is

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Repacking:
    """How to repack."""

    level: int = LEVEL
    depth: int = 10  # differences at most down to what is whole
    rate: int | None = None  # plain bytes a second at most; None: as fast as it goes


class Recoded(NamedTuple):
    """A blob in its new form; segment and offset of the location are the old ones."""

    stored: bytes
    location: BlobLocation
    is_deeper: bool


class Recoder:
    """Encodes blobs of one view once more."""

    def __init__(self, wish: Repacking, table: BlobTable, tell: Callable[[], None]) -> None:
        """*tell* is called often."""
        self._wish = wish
        self._table = table
        self._tell = tell
        self._whole = Encoder(wish.level)
        self._policy = EncodingPolicy(depth=wish.depth, budget_s=_BUDGET_S, level=wish.level)
        self._before = array("Q", bytes(8 * len(table)))  # number + 1 of what a file held before
        self._deepened: dict[BlobId, BlobLocation] = {}
        self._throttle = Throttle(wish.rate)

    def find_predecessors(self, states: Iterable[tuple[NodeId, NodeState]]) -> None:
        """Learn from *states*, in the order of nodes and versions, what replaced what."""
        last: tuple[NodeId, int] | None = None
        for node, state in states:
            if state.content is None or state.is_manifest:
                continue
            found = self._table.find(state.content)
            if len(found) != 1:
                continue
            number = found[0]
            if last is not None and last[0] == node and last[1] != number:
                self._before[number] = last[1] + 1
            last = node, number

    def recode(self, reader: Reader, blob: BlobId, location: BlobLocation) -> Recoded | None:
        """Return a smaller form of *blob*, None if there is none, or if it cannot be read."""
        if blob in self._deepened:
            return None  # somebody came to rely on it as it is
        try:
            data = reader.blob(blob)
            self._throttle.wait(len(data), self._tell)
            best = self._smaller(reader, blob, location, data)
        except (CorruptError, StoreError) as exc:
            log.warning("not encoded again: %s", exc)
            return None
        if best is None or len(best.stored) + _LEAST_GAIN > location.stored_length:
            return None
        return best

    def _smaller(
        self, reader: Reader, blob: BlobId, location: BlobLocation, data: bytes
    ) -> Recoded | None:
        encoding, stored = self._whole.encode(data)
        whole = replace(location, encoding=encoding, stored_length=len(stored), depth=0, cost=0)
        best = None
        if len(stored) < location.stored_length and decode(stored, whole) == data:
            best = Recoded(stored, whole, is_deeper=False)
        limit = min(len(stored), location.stored_length)
        if location.encoding in DELTAS:
            bases = reader.bases(blob, location)
            return self._difference(reader, location, data, bases, limit) or best
        base = self._predecessor(reader, blob)
        if base is not None:
            found = self._difference(reader, location, data, (base,), limit)
            if found is not None:
                self._deepen(blob, base, found.location)
                return found
        return best

    def _difference(
        self,
        reader: Reader,
        location: BlobLocation,
        data: bytes,
        bases: tuple[BlobId, ...],
        limit: int,
    ) -> Recoded | None:
        """Return *data* as a difference to *bases* of less than *limit* bytes."""
        places = [self._deepened.get(base) or reader.location(base) for base in bases]
        known = [place for place in places if place is not None and place.encoding != LOST]
        if len(known) != len(bases):
            return None
        chain = weigh(known)
        most_depth = max(location.depth, self._wish.depth)
        most_cost = max(location.cost, cost_limit(len(data)))
        room = min(limit, most_cost - chain.cost) - len(join_delta(bases, b""))
        if chain.is_too_much or chain.depth > most_depth or room <= 0:
            return None
        found = choose(
            self._policy,
            data,
            room,
            lambda: b"".join(map(reader.blob, bases)),
            chain.length,
            None,
        )
        if found is None:
            return None
        stored = join_delta(bases, found[1])
        new = replace(
            location,
            encoding=found[0],
            stored_length=len(stored),
            depth=chain.depth,
            cost=chain.cost + len(stored),
        )
        is_deeper = new.depth > location.depth or new.read_cost > location.read_cost
        return Recoded(stored, new, is_deeper)

    def _predecessor(self, reader: Reader, blob: BlobId) -> BlobId | None:
        """Return what the file held before, if *blob* may become a difference to that."""
        numbers = self._table.find(blob)
        if len(numbers) != 1 or self._table.marks[numbers[0]] & BASE:
            return None
        before = self._before[numbers[0]]
        if not before or len(self._deepened) >= _DEEPENED_MOST:
            return None
        rows = [row.blob for _, row in self._table.rows(reader, (before - 1,))]
        return rows[0] if len(rows) == 1 else None

    def _deepen(self, blob: BlobId, base: BlobId, location: BlobLocation) -> None:
        self._deepened[blob] = location
        for number in self._table.find(base):
            self._table.marks[number] |= BASE


class Throttle:
    """Keeps work below a rate."""

    def __init__(
        self,
        rate: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """At most *rate* bytes a second; None: as many as come."""
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._due_s = clock()

    def wait(self, length: int, tell: Callable[[], None]) -> None:
        """Wait until work on *length* more bytes may begin; *tell* is called now and then, and may raise."""
        tell()
        if self._rate is None:
            return
        now = self._clock()
        while now < self._due_s:
            self._sleep(min(self._due_s - now, _NAP_S))
            tell()
            now = self._clock()
        self._due_s = max(now, self._due_s) + length / self._rate


def repacked(store: Path, level: int) -> frozenset[int]:
    """Return the segments of *store* that were repacked at *level* or better, as far as is known."""
    try:
        found = json.loads((store / NOTE_NAME).read_bytes())
        if found["level"] >= level:
            return frozenset(map(int, found["segments"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # a hint: without it more is done than must be
    return frozenset()


def note_repacked(store: Path, level: int, segments: Collection[int]) -> None:
    """Remember that *segments* are repacked at *level*."""
    new = store / f"{NOTE_NAME}.new"
    with suppress(OSError):  # a hint, see repacked()
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump({"level": level, "segments": sorted(segments)}, file)
        failpoint("gc.note")
        new.rename(store / NOTE_NAME)
