"""Contents as they were at one instant, kept until they are recorded while the file changes on.

Two ways: the bytes are copied at once (few bytes), or the file is read later and whoever is about to
change it saves the bytes that matter first.  Either way only the ranges that were changed are kept, to
the byte: what lies between them is in the store already.
"""

import os
import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from dkfs.core.extents import Range, within
from dkfs.errors import UnreadableError
from dkfs.history.reading import never_noticed, next_data, next_hole, noticed_again, read_exactly

# Copied at once up to here (a read of 1 MiB from the page cache takes 0.1 ms), read later above.
COPY_MOST = 1024 * 1024  # bytes

_CELL = 64 * 1024  # bytes: what is about to change is saved in pieces that end at multiples of this
_READ_MOST = 256 * 1024  # bytes, in one go: whoever wants to write waits meanwhile


class Frozen(Protocol):
    """The changed ranges of a file as they were when it was frozen."""

    size: int  # bytes, of the whole file
    ranges: tuple[Range, ...]  # what is here: sorted, disjoint, below size
    held: int  # bytes of memory in use
    fds: int  # open until released

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes in [start, end), which lies in one range; until released, as often as wanted."""
        ...

    def next_data(self, start: int, end: int) -> int:
        """Return where in [start, end), which lies in one range, there may be more than zeros; *end* if nowhere."""
        ...

    def release(self) -> int:
        """Give up the memory, return how much, and the fd: they are recorded, or never will be."""
        ...


class FrozenBytes:
    """See Frozen: copied at once."""

    __slots__ = ("_data", "_starts", "fds", "held", "ranges", "size")

    def __init__(self, fd: int, ranges: Sequence[Range], size: int) -> None:
        """Copy *ranges* of *fd*, whose offset moves."""
        self.size = size
        self.fds = 0
        self.ranges = tuple(ranges)
        self._starts: list[int] = []
        self._data: list[bytes] = []
        if ranges:
            flags = never_noticed(fd)
            try:
                self._keep_all(fd)
            finally:
                noticed_again(fd, flags)
        self.held = sum(map(len, self._data))

    def _keep_all(self, fd: int) -> None:
        for start, end in self.ranges:
            if end - start <= _CELL:  # not worth asking for holes
                self._keep(fd, start, end)
                continue
            while (start := next_data(fd, start, end)) < end:
                stop = next_hole(fd, start, end)
                self._keep(fd, start, stop)
                start = stop  # noqa: PLW2901 - from one run of data to the next

    def _keep(self, fd: int, start: int, end: int) -> None:
        self._starts.append(start)
        self._data.append(read_exactly(fd, start, end - start))

    def read(self, start: int, end: int) -> bytes:
        """See Frozen."""
        parts: list[bytes] = []
        index = max(0, bisect_right(self._starts, start) - 1)
        while start < end:
            if index < len(self._starts):
                first, data = self._starts[index], self._data[index]
            else:
                first, data = end, b""
            if start < first:
                stop = min(first, end)
                parts.append(bytes(stop - start))
            else:
                stop = max(start, min(first + len(data), end))
                parts.append(data[start - first : stop - first])
                index += 1
            start = stop
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def next_data(self, start: int, end: int) -> int:
        """See Frozen."""
        index = bisect_right(self._starts, start)
        if index and start < self._starts[index - 1] + len(self._data[index - 1]):
            return start
        return min(self._starts[index], end) if index < len(self._starts) else end

    def parts(self) -> list[tuple[int, bytes]]:
        """Return what is kept, and where it starts; what of the ranges is in none of it is zeros."""
        # Another thread may release them meanwhile: then they are committed, and nobody needs what is returned.
        return list(zip(self._starts, self._data, strict=False))

    def release(self) -> int:
        """See Frozen."""
        self._starts, self._data = [], []
        return self.held


class FrozenParts(FrozenBytes):
    """See Frozen: copied by somebody else; what of the ranges is in no part is zeros."""

    __slots__ = ()

    def __init__(
        self, parts: Sequence[tuple[int, bytes]], ranges: Sequence[Range], size: int
    ) -> None:
        """Take *parts*, pairs of where they start and what they are, sorted, each in one of *ranges*."""
        self.size = size
        self.fds = 0
        self.ranges = tuple(ranges)
        self._starts = [start for start, _ in parts]
        self._data = [data for _, data in parts]
        self.held = sum(map(len, self._data))


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise UnreadableError(f"the file cannot be read: {exc.strerror}") from exc


class FrozenFile:
    """See Frozen: read later from an fd of its own; before_change() saves what is about to go.

    The protection lasts until release(), not until the first reading, so that a recording that
    failed can be tried again with the same bytes.
    """

    def __init__(self, fd: int, ranges: Sequence[Range], size: int) -> None:
        """Take over *fd*, open for reading, whose offset nobody else uses."""
        self.size = size
        self.ranges = tuple(ranges)
        self.held = 0
        self.fds = 1
        self._fd = fd
        never_noticed(fd)
        self._lock = threading.Lock()
        # A cell lies in one range, ends with it or at a multiple of _CELL, and starts likewise.
        self._saved: dict[int, bytes] = {}  # start of the cell -> its bytes at the instant
        self._order: list[int] = []  # the keys of _saved, sorted
        self._released = threading.Event()

    def before_change(self, start: int, end: int) -> int:
        """Save what [start, end) is about to overwrite; return the bytes newly held."""
        saved = 0
        with self._lock:
            if self._released.is_set():
                return 0
            # Whole cells: a write that goes on where the last one ended finds its bytes saved.
            wide = within(self.ranges, start // _CELL * _CELL, -(-end // _CELL) * _CELL)
            for offset, last in wide:
                while offset < last:
                    stop = min(last, offset // _CELL * _CELL + _CELL)
                    if offset not in self._saved and start < stop and offset < end:
                        self._saved[offset] = read_exactly(self._fd, offset, stop - offset)
                        insort(self._order, offset)
                        saved += stop - offset
                    offset = stop  # noqa: PLW2901 - from cell to cell
            self.held += saved
        return saved

    def unsaved(self, start: int, end: int) -> int:
        """Return how many bytes of [start, end) a change of all of them would have to save."""
        with self._lock:
            if self._released.is_set():
                return 0
            wide = sum(last - first for first, last in within(self.ranges, start, end))
            first = max(0, bisect_right(self._order, start) - 1)
            kept = self._order[first : bisect_left(self._order, end)]
            ends = (offset + len(self._saved[offset]) for offset in kept)
            return wide - sum(
                max(0, min(last, end) - max(offset, start))
                for offset, last in zip(kept, ends, strict=True)
            )

    def wait_released(self, timeout_s: float) -> bool:
        """Wait until the contents are recorded; return whether they are."""
        return self._released.wait(timeout_s)

    def read(self, start: int, end: int) -> bytes:
        """See Frozen."""
        first, _ = self.ranges[bisect_right(self.ranges, (start, self.size)) - 1]
        parts: list[bytes] = []
        while start < end:
            with self._lock, _readable():
                part = self._read(first, start, end)
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def next_data(self, start: int, end: int) -> int:
        """See Frozen."""
        with self._lock, _readable():
            # What was saved counts as data: since then the file may have got a hole there, or lost one.
            index = bisect_right(self._order, start)
            if index:
                cell = self._order[index - 1]
                if start < cell + len(self._saved[cell]):
                    return start
            if index < len(self._order):
                end = min(end, self._order[index])
            return next_data(self._fd, start, end)

    def release(self) -> int:
        """See Frozen."""
        with self._lock:
            if self._released.is_set():
                return 0
            self._released.set()
            self._saved.clear()
            self._order.clear()
            os.close(self._fd)
            held, self.held = self.held, 0
            return held

    def _read(self, first: int, start: int, end: int) -> bytes:
        """Return bytes at *start*, at least one, of the range that begins at *first*; under the lock."""
        if not self._saved:
            return read_exactly(self._fd, start, min(end - start, _READ_MOST))
        cell = max(first, start // _CELL * _CELL)
        stop = min(end, cell // _CELL * _CELL + _CELL)
        saved = self._saved.get(cell)
        if saved is None:
            return read_exactly(self._fd, start, stop - start)
        return saved[start - cell : stop - cell]
