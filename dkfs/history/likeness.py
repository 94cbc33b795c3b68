"""What contents that were saved anew have in common with older ones, found chunk by chunk as they come.

Chunks that are in the store already are known by their hash.  Those of them that are in the older contents too are
*anchors*: what lies between two anchors in the new contents took the place of what lies between them in the older ones,
and is stored as a delta to that.  Most changes leave such a *run* alike at both ends, so the ends are compared here; the
rest is left to the encoders.  Whatever is found is a hint: damage in the older contents only ends the looking.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from dkfs.core.chunking import Cut
from dkfs.core.delta import MIN_COPY, Copy, Like, common_prefix, common_suffix
from dkfs.core.extents import Range
from dkfs.errors import CorruptError
from dkfs.history.previous import Previous
from dkfs.history.puts import Puts
from dkfs.model.ids import BlobId
from dkfs.model.node import Chunk
from dkfs.store.restoring import cost_limit

log = logging.getLogger(__name__)

BASES_MOST = 8  # the format's limit
_RUN_MOST = 4 * 1024 * 1024  # bytes held back until the next anchor is known
_AHEAD = 64 * 1024 * 1024  # bytes of the older contents in which an anchor is looked for
_KNOWN_MOST = 16384  # of their chunks known at a time: 1 GiB, mostly
# New chunks in a row that resembled nothing, after which only some are compared: they are likely to go on so.
_PATIENCE = 8


class Likeness:
    """Puts new contents, front to back, as deltas to older ones where they resemble them."""

    def __init__(self, puts: Puts, old: Previous) -> None:
        self._puts = puts
        self._old = old
        self._places = _Places(old)
        self._missed = 0  # chunks in a row that resembled nothing

    def put(self, cuts: Iterable[Cut]) -> Iterator[Chunk]:
        """Store contents that took the place of the older ones from the same offset on; yield their chunks."""
        run: list[Cut] = []
        place: int | None = None  # where the run begins in the older contents
        length = 0  # bytes in it
        for cut in cuts:
            place = cut.offset if place is None else place
            blob = None if cut.data is None else self._puts.reuse(cut.data)
            if blob is None:
                run.append(cut)
                length += cut.length
                if length >= _RUN_MOST:
                    yield from self._flush(run, place, None)
                    run, place, length = [], place + length, 0
                continue
            found = self._places.find(blob, place + length)
            yield from self._flush(run, place, found)
            yield Chunk(cut.length, blob)
            place = (place + length if found is None else found) + cut.length
            run, length = [], 0
        if place is not None:
            yield from self._flush(run, place, self._old.size)

    def put_in_place(self, cuts: Iterable[Cut]) -> Iterator[Chunk]:
        """Store contents that took the place of what the older ones have at the same offsets; yield their chunks."""
        for cut in cuts:
            blob = None
            end = min(cut.offset + cut.length, self._old.size)
            if cut.data is not None and cut.offset < end:
                blob = self._puts.reuse(cut.data)
            if blob is None:
                yield from self._flush((cut,), cut.offset, end)
            else:
                yield Chunk(cut.length, blob)

    def _flush(self, run: Sequence[Cut], start: int, end: int | None) -> Iterator[Chunk]:
        """Store *run*, which took the place of [start, end) of the older contents; None: not known how far."""
        replaced = _Replaced(self._old, run, start, end)
        for cut in run:
            if cut.data is None:
                yield Chunk(cut.length, None)
                continue
            like = None
            # After each failure beyond patience it waits twice as long.
            if not replaced.is_empty and (
                self._missed < _PATIENCE or not self._missed & (self._missed - 1)
            ):
                like = self._like(replaced, cut)
            blob, is_delta = self._puts.put(cut.data, like)
            self._missed = 0 if is_delta else self._missed + 1
            yield Chunk(cut.length, blob)

    def _like(self, replaced: "_Replaced", cut: Cut) -> Like | None:
        try:
            return like(self._old, cut.length, replaced.copies(cut), replaced.alike(cut))
        except CorruptError as exc:
            log.info("not compared with what was there before: %s", exc)
            self._missed = _PATIENCE + 1
            return None


def like(
    old: Previous, length: int, copies: Sequence[Copy], alike: Iterable[Range] = ()
) -> Like | None:
    """Return the hint for a chunk of *length* bytes; None if nothing is known.

    *copies* are from *old*, their sources offsets in it; *alike* are ranges of *old* that it may resemble if there are
    none.
    Raises CorruptError.
    """
    gains: dict[int, int] = {}  # of each chunk of *old*, by its offset: bytes wanted of it
    chunks: dict[int, Chunk] = {}
    # Next to what is copied is what the rest most likely resembles, and it is in the same chunks.
    for start, end in [(copy.source, copy.source + copy.length) for copy in copies] or alike:
        for offset, chunk in old.over(start, end):
            if chunk.blob is not None:
                chunks[offset] = chunk
                wanted = min(end, offset + chunk.length) - max(start, offset)
                gains[offset] = gains.get(offset, 0) + wanted
    # The most useful first: not all may be worth what a restore would have to read.
    bases: list[int] = []
    left = cost_limit(length) - length
    for offset in sorted(gains, key=lambda offset: -gains[offset])[:BASES_MOST]:
        blob = chunks[offset].blob
        assert blob is not None
        loss = old.cost(blob) - gains[offset]
        if loss <= left:
            left -= loss
            bases.append(offset)
    return _hint(sorted(bases), chunks, copies) if bases else None


def _hint(bases: Sequence[int], chunks: Mapping[int, Chunk], copies: Sequence[Copy]) -> Like:
    """Return *copies*, with sources in older contents, as copies from those *chunks* of it that are at *bases*."""
    ids: list[BlobId] = []
    found: list[Copy] = []
    reference = 0
    for offset in bases:
        chunk = chunks[offset]
        assert chunk.blob is not None
        ids.append(chunk.blob)
        for copy in copies:
            first = max(copy.source, offset)
            length = min(copy.source + copy.length, offset + chunk.length) - first
            if length >= MIN_COPY:
                to = copy.offset + first - copy.source
                found.append(Copy(to, reference + first - offset, length))
        reference += chunk.length
    return Like(tuple(ids), tuple(sorted(found)) if found else None)


class _Replaced:
    """A run of new chunks and what it took the place of: how both begin alike and end alike."""

    def __init__(self, old: Previous, run: Sequence[Cut], start: int, end: int | None) -> None:
        self._old = old
        self._run = run
        self._first = run[0].offset if run else 0
        self._length = sum(cut.length for cut in run)
        self._start = start
        self._is_known = end is not None and end >= start
        self._end = end if end is not None and end >= start else start + self._length
        self._end = min(self._end, old.size)
        self._ends: tuple[int, int] | None = None  # bytes alike at the beginning, at the end

    @property
    def is_empty(self) -> bool:
        """Whether the run took the place of nothing."""
        return self._start >= self._end

    def copies(self, cut: Cut) -> list[Copy]:
        """Return what of *cut*, one of the run, is known to be in the older contents; sources are offsets there."""
        if self._ends is None:
            head = self._head()
            self._ends = head, self._tail(head)
        head, tail = self._ends
        at = cut.offset - self._first
        found = []
        if at < head:
            found.append(Copy(0, self._start + at, min(cut.length, head - at)))
        begin = max(at, self._length - tail)
        if begin < at + cut.length:
            source = self._end - (self._length - begin)
            found.append(Copy(begin - at, source, at + cut.length - begin))
        return [copy for copy in found if copy.length >= MIN_COPY]

    def alike(self, cut: Cut) -> Iterator[Range]:
        """Yield where in the older contents there may be more like *cut*."""
        assert self._ends is not None
        head, tail = self._ends
        at = cut.offset - self._first
        first, last = max(at, head), min(at + cut.length, self._length - tail)
        if last - first < MIN_COPY:
            return
        low, high = self._start + head, self._end - tail
        shift = self._end - (self._length + self._start)
        # As far from the beginning of the run, or as far from its end.
        for by in (0, shift) if self._is_known else (0,):
            start, end = self._start + first + by, self._start + last + by
            if max(start, low) < min(end, high):
                yield max(start, low), min(end, high)

    def _head(self) -> int:
        alike = 0
        for cut in self._run:
            room = min(cut.length, self._end - self._start - alike)
            if cut.data is None or room <= 0:
                break
            found = common_prefix(cut.data, self._old.read(self._start + alike, room))
            alike += found
            if found < cut.length:
                break
        return alike

    def _tail(self, head: int) -> int:
        if not self._is_known:
            return 0
        alike = 0
        most = min(self._length, self._end - self._start) - head
        for cut in reversed(self._run):
            room = min(cut.length, most - alike)
            if cut.data is None or room <= 0:
                break
            found = common_suffix(cut.data, self._old.read(self._end - alike - room, room))
            alike += found
            if found < cut.length:
                break
        return alike


class _Places:
    """Where the blobs of older contents are in them, as far as it is bounded."""

    def __init__(self, old: Previous) -> None:
        self._coming = old.pieces()
        self._size = old.size
        self._places: dict[BlobId, int] = {}
        self._known: deque[tuple[int, BlobId]] = deque()
        self._end = 0  # of what has come, in bytes

    def find(self, blob: BlobId, near: int) -> int | None:
        """Return where *blob* is, if it is not far ahead of *near*."""
        try:
            self._come(min(near + _AHEAD, self._size))
        except CorruptError as exc:
            log.info("not compared with what was there before: %s", exc)
            self._end = self._size
        return self._places.get(blob)

    def _come(self, end: int) -> None:
        while self._end < end:
            offset, chunk = next(self._coming)
            self._end = offset + chunk.length
            if chunk.blob is None:
                continue
            self._places[chunk.blob] = offset
            self._known.append((offset, chunk.blob))
            if len(self._known) > _KNOWN_MOST:
                offset, blob = self._known.popleft()
                if self._places.get(blob) == offset:
                    del self._places[blob]
