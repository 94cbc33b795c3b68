"""Dirty extents: which byte ranges of a file were written."""

from bisect import bisect_left
from collections.abc import Iterator

# Above this many extents neighbours are joined on a coarser grid: the set stays small and what it
# names only grows, so nothing dirty is ever missed.
_MOST = 4096
_COARSE = 64 * 1024  # bytes, doubled as often as it takes


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
        # Down to half, on a grid as coarse as that takes: else the next write would do it all again.
        grid = _COARSE
        while len(self._starts) > _MOST // 2:
            self._widen(grid)
            grid *= 2

    def _widen(self, grid: int) -> None:
        pairs = [(start // grid * grid, -(-end // grid) * grid) for start, end in self]
        self.clear()
        for start, end in pairs:
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(end, self._ends[-1])
            else:
                self._starts.append(start)
                self._ends.append(end)


def on_grid(extents: Extents, *, grid: int, size: int) -> tuple[tuple[int, int], ...]:
    """Return *extents* widened to multiples of *grid* and cut at *size*, joined and sorted."""
    ranges: list[tuple[int, int]] = []
    for first, last in extents:
        start = first // grid * grid
        end = min(-(-last // grid) * grid, size)
        if start >= end:
            continue
        if ranges and start <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        else:
            ranges.append((start, end))
    return tuple(ranges)
