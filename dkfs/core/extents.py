"""Dirty extents: which byte ranges of a file were written."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

# Above this many extents the ones with the least between them are joined, down to half: the set stays
# small and what it names only grows, so nothing dirty is ever missed.
_MOST = 4096

Range = tuple[int, int]


class Extents:
    """A set of half-open byte ranges, kept sorted, disjoint and joined."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, end: int) -> None:
        """Add the bytes from *start* up to *end*; an empty range changes nothing."""
        if start >= end:
            return
        starts, ends = self._starts, self._ends
        if ends and start >= starts[-1]:
            # Appending and rewriting the last extent are what most programs do.
            if start > ends[-1]:
                starts.append(start)
                ends.append(end)
            elif end > ends[-1]:
                ends[-1] = end
        else:
            first = bisect_left(ends, start)
            last = first
            while last < len(starts) and starts[last] <= end:
                last += 1
            if first < last:
                start = min(start, starts[first])
                end = max(end, ends[last - 1])
            starts[first:last] = [start]
            ends[first:last] = [end]
        if len(starts) > _MOST:
            self._coarsen()

    def update(self, other: "Extents") -> None:
        """Add every range of *other*."""
        for start, end in other:
            self.add(start, end)

    def clear(self) -> None:
        """Forget every range."""
        self._starts.clear()
        self._ends.clear()

    def _coarsen(self) -> None:
        gaps = [start - end for start, end in zip(self._starts[1:], self._ends, strict=False)]
        # Down to half at once: else the next write would do it all again.
        surplus = len(self._starts) - _MOST // 2
        widest = sorted(gaps)[surplus - 1]
        left = surplus - sum(gap < widest for gap in gaps)  # of those that are exactly so wide
        starts, ends = self._starts[:1], self._ends[:1]
        for gap, start, end in zip(gaps, self._starts[1:], self._ends[1:], strict=True):
            if gap < widest or (gap == widest and left):
                left -= gap == widest
                ends[-1] = end
            else:
                starts.append(start)
                ends.append(end)
        self._starts, self._ends = starts, ends


def below(extents: Extents, size: int) -> tuple[Range, ...]:
    """Return the ranges of *extents* that lie below *size*, the last one cut there."""
    return tuple((start, min(end, size)) for start, end in extents if start < size)


def within(ranges: Sequence[Range], start: int, end: int) -> Iterator[Range]:
    """Yield what of *ranges*, sorted and disjoint, lies in [start, end)."""
    index = bisect_right(ranges, start, key=_end)
    while index < len(ranges) and ranges[index][0] < end:
        first, last = ranges[index]
        yield max(first, start), min(last, end)
        index += 1


def _end(pair: Range) -> int:
    return pair[1]
