"""Contents as they were at one instant, kept until they are recorded while the file changes on.

Two ways: the bytes are copied at once (few bytes), or the file is read later and whoever is about to
change it saves the bytes that matter first.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from typing import Protocol

from dkfs.core.content import CHUNK_SIZE
from dkfs.history.intake import cells, read_cell

# A cell is (offset, bytes or None for a run of holes, length).
Cell = tuple[int, bytes | None, int]
Range = tuple[int, int]

# Copied at once up to here (a read of 1 MiB from the page cache takes 0.1 ms), read later above.
COPY_MOST = 1024 * 1024  # bytes


class Frozen(Protocol):
    """The dirty ranges of a file, grid aligned, as they were when it was frozen."""

    size: int  # bytes, of the whole file
    held: int  # bytes of memory in use
    fds: int  # open until released

    def cells(self) -> Iterator[Cell]:
        """Yield the frozen cells in order; may be called again until released."""
        ...

    def release(self) -> int:
        """Give up the memory, return how much, and the fd: they are recorded, or never will be."""
        ...


class FrozenBytes:
    """See Frozen: copied at once."""

    __slots__ = ("_cells", "fds", "held", "size")

    def __init__(self, fd: int, ranges: Sequence[Range], size: int) -> None:
        self.size = size
        self.fds = 0
        self._cells: list[Cell] = []
        for start, end in ranges:
            if end - start <= CHUNK_SIZE:
                # One cell: not worth asking for holes, zeros become a hole anyway.
                self._cells.append((start, read_cell(fd, start, end - start), end - start))
            else:
                self._cells.extend(cells(fd, start, end))
        self.held = sum(len(data) for _, data, _ in self._cells if data is not None)

    def cells(self) -> Iterator[Cell]:
        """See Frozen."""
        return iter(self._cells)

    def release(self) -> int:
        """See Frozen."""
        self._cells = []
        return self.held


class FrozenFile:
    """See Frozen: read later from an fd of its own; before_change() saves what is about to go.

    The protection lasts until release(), not until the first reading, so that a recording that
    failed can be tried again with the same bytes.
    """

    def __init__(self, fd: int, ranges: Sequence[Range], size: int) -> None:
        """Take over *fd*, open for reading, whose offset nobody else uses."""
        self.size = size
        self.held = 0
        self.fds = 1
        self._fd = fd
        self._ranges = tuple(ranges)
        self._lock = threading.Lock()
        self._saved: dict[int, bytes] = {}  # offset on the grid -> bytes at the instant
        self._released = threading.Event()

    def before_change(self, start: int, end: int) -> int:
        """Save what [start, end) is about to overwrite; return the bytes newly held."""
        saved = 0
        with self._lock:
            if self._released.is_set():
                return 0
            for first, last in self._ranges:
                low = max(first, start // CHUNK_SIZE * CHUNK_SIZE)
                for offset in range(low, min(last, end), CHUNK_SIZE):
                    if offset not in self._saved:
                        data = read_cell(self._fd, offset, min(CHUNK_SIZE, last - offset))
                        self._saved[offset] = data
                        saved += len(data)
            self.held += saved
        return saved

    def unsaved(self, start: int) -> int:
        """Return how many bytes at or after *start* a change of all of them would have to save."""
        with self._lock:
            if self._released.is_set():
                return 0
            wide = sum(max(0, last - max(first, start)) for first, last in self._ranges)
            return wide - sum(len(d) for o, d in self._saved.items() if o >= start)

    def wait_released(self, timeout_s: float) -> bool:
        """Wait until the contents are recorded; return whether they are."""
        return self._released.wait(timeout_s)

    def cells(self) -> Iterator[Cell]:
        """See Frozen."""
        for first, last in self._ranges:
            offset = first
            while offset < last:
                with self._lock:
                    cell = self._cell(offset, last)
                yield cell
                offset += cell[2]

    def _cell(self, offset: int, last: int) -> Cell:
        length = min(CHUNK_SIZE, last - offset)
        saved = self._saved.get(offset)
        if saved is not None:
            return offset, saved, length
        cell = next(cells(self._fd, offset, last))
        if cell[1] is None and self._saved:
            # A run of holes must not reach over a cell that was saved: that one was written since.
            stop = min((o for o in self._saved if offset < o < offset + cell[2]), default=None)
            if stop is not None:
                return offset, None, stop - offset
        return cell

    def release(self) -> int:
        """See Frozen."""
        with self._lock:
            if self._released.is_set():
                return 0
            self._released.set()
            self._saved.clear()
            os.close(self._fd)
            held, self.held = self.held, 0
            return held
