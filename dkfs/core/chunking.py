"""Where a file's content is cut into chunks: pure, and the only module that imports pyfastcdc.

Boundaries depend on the content (FastCDC), so that bytes inserted or removed change the chunks around them and no others.
Whether there is a boundary at an offset depends on where the chunk began and on the bytes up to and including the one *at*
that offset, never on what follows, except that the end of the file ends the last chunk.  So a file in which a few ranges
were written is cut again around them only, until a new boundary falls on an old one: from there on nothing is different.

What is all zero is a hole.  Zeros are cut every `maximum` bytes, so a stretch known to be a hole needs no reading.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import pyfastcdc

from dkfs.errors import UsageError
from dkfs.model.node import Chunk

KIB: Final = 1024
MIB: Final = 1024 * KIB

PIECE: Final = 16 * MIB  # bytes of a piece where chunking is off; the longest chunk there is
MINIMUM: Final = (64, MIB)  # what pyfastcdc takes, in bytes
AVERAGE: Final = (256, 4 * MIB)
MAXIMUM: Final = (KIB, PIECE)
# The hash begins `minimum` bytes into a chunk and knows nothing yet.  On zeros it meets some of the masks within its first
# 19 bytes, and none of them after 64: with this distance zeros are never cut before `maximum`.
MARGIN: Final = 64  # bytes by which `average` exceeds `minimum`

# Of 0 .. 3: after an insertion 1.0 chunk (79 KB) is new on average; 1.02 (103 KB) with 1, 1.07 (125 KB) with 0.
_NORMALIZED: Final = 2
_AHEAD: Final = MIB  # bytes read at once
PATIENCE: Final = 4  # times the longest chunk, after which a boundary is where one was
_LOOK: Final = 2  # bytes read beyond an offset to see whether there is a boundary: the hash takes them in pairs


@dataclass(frozen=True, slots=True)
class Chunking:
    """How to cut; sizes in bytes."""

    enabled: bool = True  # else into pieces of PIECE, on a grid
    minimum: int = 16 * KIB  # of a chunk, but for the last of a file
    average: int = 64 * KIB
    maximum: int = 256 * KIB
    threshold: int = 64 * KIB  # a file up to this long is one chunk

    def __post_init__(self) -> None:
        """Raise UsageError for what pyfastcdc does not take."""
        for name, limits in (("minimum", MINIMUM), ("average", AVERAGE), ("maximum", MAXIMUM)):
            value: int = getattr(self, name)
            if not limits[0] <= value <= limits[1]:
                raise UsageError(
                    f"{name} chunk of {value} bytes: expected {limits[0]} to {limits[1]}"
                )
        if not 0 <= self.threshold <= PIECE:
            raise UsageError(f"chunk threshold of {self.threshold} bytes: expected 0 to {PIECE}")
        if not self.minimum + MARGIN <= self.average <= self.maximum:
            raise UsageError(
                f"chunks of {self.minimum}, {self.average}, {self.maximum} bytes: expected "
                f"minimum + {MARGIN} <= average <= maximum"
            )

    @property
    def longest(self) -> int:
        """The bytes of the longest chunk of a file above the threshold."""
        return self.maximum if self.enabled else PIECE


class Cut(NamedTuple):
    """One chunk as it was cut."""

    offset: int  # bytes
    length: int  # bytes, never 0; a hole may be longer than any chunk of data
    data: bytes | None  # None: a hole


class Source(Protocol):
    """The bytes to cut."""

    @property
    def size(self) -> int:
        """The number of bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly the bytes in [offset, offset + length), which lie inside the size."""
        ...

    def hole_end(self, offset: int) -> int:
        """Return the end of what is known to be zeros from *offset* on; *offset* if nothing is known."""
        ...


class Boundaries(Protocol):
    """The chunks of the version before."""

    @property
    def size(self) -> int:
        """The number of bytes."""
        ...

    def chunk_at(self, offset: int) -> tuple[int, Chunk]:
        """Return the chunk that holds the byte at *offset*, and where it starts."""
        ...


class Recut:
    """A stretch that is cut anew: iterate over its chunks, then ask for its end."""

    __slots__ = ("_cuts", "end", "start")

    def __init__(self, start: int, cuts: "Callable[[Recut], Iterator[Cut]]") -> None:
        self.start = start  # bytes; a boundary of the old version too
        self.end = start  # of what the fresh chunks replace: the old size if they reach the end of the file
        self._cuts = cuts(self)

    def __iter__(self) -> Iterator[Cut]:
        return self._cuts


def cut(source: Source, start: int, chunking: Chunking) -> Iterator[Cut]:
    """Return the chunks of *source* from *start* on, which is where one begins."""
    return _cuts(source, start, chunking, lambda offset: offset + _AHEAD)


def recut(
    source: Source,
    old: Boundaries,
    dirty: Iterable[tuple[int, int]],
    chunking: Chunking,
    *,
    patience: int = PATIENCE,
) -> Iterator[Recut]:
    """Yield the stretches of *source* to be cut anew, in order; iterate over each before the next.

    *source* differs from *old* at most in *dirty*, sorted and disjoint ranges of bytes, and in its size.  Outside of the
    stretches the old chunks remain.  They are then those that cut() would give, unless for *patience* times the longest
    chunk after the end of a dirty range no new boundary fell on an old one: then there is one at the next old boundary.
    """
    job = _Recutting(source, old, dirty, chunking, patience * chunking.longest)
    while (stretch := job.stretch()) is not None:
        yield stretch
        for _ in stretch:  # what the caller left is still needed to know the end
            pass


class _Recutting:
    """The state of one recut()."""

    def __init__(
        self,
        source: Source,
        old: Boundaries,
        dirty: Iterable[tuple[int, int]],
        chunking: Chunking,
        patience: int,
    ) -> None:
        self._source = source
        self._old = old
        self._chunking = chunking
        self._patience = patience  # bytes
        self._ranges = _touched(dirty, source.size, old.size)
        self._index = 0  # of the first range that is not yet cut
        self._is_whole = min(source.size, old.size) <= chunking.threshold
        if source.size == 0 and old.size:
            self._ranges = [(0, 0)]

    def stretch(self) -> Recut | None:
        """Return the next one, None after the last."""
        if self._index == len(self._ranges):
            return None
        start = 0 if self._is_whole else self._boundaries(self._ranges[self._index][0])[0]
        return Recut(start, self._cut_whole if self._is_whole else self._cut)

    def _cut_whole(self, stretch: Recut) -> Iterator[Cut]:
        self._index = len(self._ranges)
        yield from cut(self._source, 0, self._chunking)
        stretch.end = self._old.size

    def _cut(self, stretch: Recut) -> Iterator[Cut]:
        longest = self._chunking.longest
        _, dirty_end = self._next_range()
        patience = self._patience

        def ahead(offset: int) -> int:
            # Up to the first old boundary at which the cutting may end: often that is all there is to read.
            last = max(offset, dirty_end - 1)
            return min(offset + _AHEAD, self._boundaries(last)[1] + _LOOK)

        for each in _cuts(self._source, stretch.start, self._chunking, ahead):
            yield each
            stop = each.offset + each.length
            dirty_end = self._absorb(stop, dirty_end)
            if each.data is None and each.length > longest:
                patience += each.length  # nothing was read
            if stop == self._source.size:
                stretch.end = self._old.size
                return
            if stop < dirty_end:
                continue
            stretch.end, end = self._boundaries(stop)
            if stretch.end == stop:
                return
            if stop >= dirty_end + patience and not self._is_dirty_before(end):
                yield from self._take(stop, end)
                stretch.end = end
                return

    def _take(self, start: int, end: int) -> Iterator[Cut]:
        """Yield the bytes in [start, end) as chunks, wherever that cuts."""
        for offset in range(start, end, self._chunking.longest):
            length = min(self._chunking.longest, end - offset)
            yield Cut(offset, length, _data_or_hole(self._source.read(offset, length)))

    def _boundaries(self, offset: int) -> tuple[int, int]:
        """Return the old boundaries around the byte at *offset*, which may lie beyond the old end."""
        if offset >= self._old.size:
            return self._old.size, self._source.size
        start, chunk = self._old.chunk_at(offset)
        end = start + chunk.length
        if chunk.blob is None:
            longest = self._chunking.longest
            start += (offset - start) // longest * longest
            end = min(start + longest, end)
        return start, end

    def _absorb(self, stop: int, dirty_end: int) -> int:
        """Take in the ranges that begin before *stop*; return where the last of all ends."""
        while self._is_dirty_before(stop):
            dirty_end = max(dirty_end, self._next_range()[1])
        return dirty_end

    def _is_dirty_before(self, offset: int) -> bool:
        return self._index < len(self._ranges) and self._ranges[self._index][0] < offset

    def _next_range(self) -> tuple[int, int]:
        self._index += 1
        return self._ranges[self._index - 1]


def _touched(dirty: Iterable[tuple[int, int]], size: int, old_size: int) -> list[tuple[int, int]]:
    """Return the ranges in which a boundary may have come or gone, sorted and disjoint, below *size*."""
    ranges = list(dirty)
    if size != old_size:
        # The hash takes the bytes in pairs: an odd last one was not looked at before there was another.
        ranges = sorted([*ranges, (max(min(size, old_size) - 1, 0), size)])
    out: list[tuple[int, int]] = []
    for first, last in ranges:
        # A byte is looked at to know whether a chunk ends before it.
        start, end = max(first - 1, 0), min(last, size)
        if start >= end:
            continue
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return out


def _cuts(
    source: Source, start: int, chunking: Chunking, ahead: Callable[[int], int]
) -> Iterator[Cut]:
    """Yield the chunks from *start* on, reading up to *ahead* of an offset, or further where that is too little."""
    size = source.size
    if size <= chunking.threshold:
        if start < size:
            yield Cut(start, size - start, _data_or_hole(source.read(start, size - start)))
    elif chunking.enabled:
        yield from _cuts_by_content(source, start, chunking, ahead)
    else:
        yield from _cuts_on_grid(source, start)


def _cuts_by_content(
    source: Source, start: int, chunking: Chunking, ahead: Callable[[int], int]
) -> Iterator[Cut]:
    cutter = pyfastcdc.FastCDC(
        chunking.average,
        min_size=chunking.minimum,
        max_size=chunking.maximum,
        normalized_chunking=_NORMALIZED,
    )
    size, maximum = source.size, chunking.maximum
    offset, window = start, b""  # the bytes from offset on that were read
    wanted = 0
    while offset < size:
        if hole := _hole(source, offset, maximum):
            yield Cut(offset, hole, None)
            offset, window = offset + hole, b""
            continue
        end = min(size, max(ahead(offset), offset + wanted))
        more = end - offset - len(window)
        if more > 0:
            window += source.read(offset + len(window), more)
        used = 0
        for chunk in cutter.cut_buf(window):
            stop = chunk.offset + chunk.length
            if stop == len(window) < min(chunk.offset + maximum, size - offset):
                break  # it may go on
            data = _data_or_hole(window[chunk.offset : stop])
            yield Cut(offset + chunk.offset, chunk.length, data)
            used = stop
            if data is None and _hole(source, offset + stop, maximum):
                break
        wanted = 0 if used else min(max(2 * len(window), chunking.average), maximum)
        offset, window = offset + used, window[used:]


def _cuts_on_grid(source: Source, start: int) -> Iterator[Cut]:
    offset = start
    while offset < source.size:
        known = min(source.hole_end(offset), source.size)
        end = min(offset // PIECE * PIECE + PIECE, source.size)
        if known >= end:
            end = known if known == source.size else known // PIECE * PIECE
            yield Cut(offset, end - offset, None)
        else:
            yield Cut(offset, end - offset, _data_or_hole(source.read(offset, end - offset)))
        offset = end


def _hole(source: Source, offset: int, maximum: int) -> int:
    """Return how many bytes from *offset* on are known to be chunks of zeros, each as long as can be."""
    return (min(source.hole_end(offset), source.size) - offset) // maximum * maximum


def _data_or_hole(data: bytes) -> bytes | None:
    if data[0] == 0 and data[-1] == 0 and data == bytes(len(data)):
        return None
    return data
