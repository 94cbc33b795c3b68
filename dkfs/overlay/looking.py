"""A look at a file that is written past dkfs: what of it differs from what is recorded, as of one instant.

Where blocks can be shared a clone is that instant, and where its blocks differ from those of the clone before
is what changed.  Elsewhere the file is compared with the store, chunk by chunk, and what differs is copied; it
counts if the file's times and size have not moved meanwhile.
"""

import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from dkfs.core.extent_map import differences
from dkfs.core.extents import Extents, Range, below
from dkfs.errors import DkfsError
from dkfs.history.frozen import COPY_MOST, Frozen, FrozenBytes, FrozenFile, FrozenParts
from dkfs.history.previous import Previous, contents_of
from dkfs.history.reading import never_noticed, next_data, read_exactly
from dkfs.history.recorder import Recorder
from dkfs.model.ids import NodeId, Seq
from dkfs.overlay import clones
from dkfs.overlay.backing import by_fd
from dkfs.store import Reader, Store

_TRIES = 3
_PIECE = 1024 * 1024  # bytes, read at once

Piece = tuple[int, int, bytes | None]  # start, end, bytes; None: zeros


class Stamp(NamedTuple):
    """By what is seen that a file has changed; the kernel moves the time at each write."""

    size: int
    mtime_ns: int  # not ctime: that is moved by what dkfs does itself, which may set mtime only after a capture


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the stamp in *status*."""
    return Stamp(status.st_size, status.st_mtime_ns)


class Found(NamedTuple):
    """What a look found."""

    status: os.stat_result  # from before it, but for the size
    asked_ns: int  # when that was
    size: int  # bytes
    ranges: tuple[Range, ...]  # what differs from what is recorded
    frozen: Frozen | None  # these; None: nobody can write the file, so it may be frozen itself
    clone: int  # the file as it was found, an fd; -1 if there are no clones

    def drop(self) -> None:
        """Let go of it."""
        if self.frozen is not None:
            self.frozen.release()
        if self.clone >= 0:
            os.close(self.clone)


class Known(NamedTuple):
    """What is recorded of a file."""

    store: Store
    recorder: Recorder
    node: NodeId
    seq: Seq  # the version that it is to be compared with, or a later one

    def has_come(self) -> bool:
        """Wait until the version is in the store; return whether it ever will be."""
        return self.recorder.wait(self.seq)


class Look:
    """One look; run() may be called in any thread, once."""

    def __init__(
        self,
        fd: int,
        directory: int,
        known: Known | None,
        *,
        base: int = -1,
        no_clones: set[int] | None = None,
        is_still: bool = False,
        takes_any: bool = False,
    ) -> None:
        """Look at *fd*, of which *known* is recorded; nothing if None: then all of it differs.

        *directory* is on the file system of *fd*.  *base* is the clone of what is recorded, -1 if there is
        none.  *no_clones* are the devices that have none; None: no clone is to be made.
        *is_still*: nobody can write the file.  *takes_any*: what is found is not to be refused
        because of stores through maps; write(2) is held off.
        """
        self._directory = directory
        self._known = known
        self._no_clones = no_clones
        self._is_still = is_still
        self._takes_any = takes_any
        self._fd = os.open(by_fd(fd), os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._base = os.dup(base) if base >= 0 else -1
        except OSError:
            os.close(self._fd)
            raise

    def run(self) -> Found | None:
        """Return what is found, None if the store fails; raises OSError, BlockingIOError if it changes all the time."""
        try:
            if self._known is not None and not self._known.has_come():
                return None
            return self._cloned() or self._read()
        finally:
            os.close(self._fd)
            if self._base >= 0:
                os.close(self._base)

    # With clones

    def _cloned(self) -> Found | None:
        asked_ns, status = time.time_ns(), os.fstat(self._fd)
        if self._no_clones is None or status.st_dev in self._no_clones:
            return None
        try:
            made = clones.clone(self._fd, self._directory)
        except OSError as exc:
            if exc.errno in clones.NO_CLONES:
                self._no_clones.add(status.st_dev)
            return None  # or no room for one
        try:
            return self._of_clone(status, asked_ns, made)
        except BaseException:
            os.close(made)
            raise

    def _of_clone(self, status: os.stat_result, asked_ns: int, made: int) -> Found:
        size = os.fstat(made).st_size
        if self._base >= 0:
            old, old_size = clones.extent_map(self._base), os.fstat(self._base).st_size
            extents = differences(old, old_size, clones.extent_map(made), size)
        else:
            extents = Extents()
            for start, end, _ in self._differing(made, size):
                extents.add(start, end)
        ranges = below(extents, size)
        if sum(end - start for start, end in ranges) <= COPY_MOST:
            return Found(status, asked_ns, size, ranges, FrozenBytes(made, ranges, size), made)
        own = os.open(by_fd(made), os.O_RDONLY | os.O_CLOEXEC)
        return Found(status, asked_ns, size, ranges, FrozenFile(own, ranges, size), made)

    # Without

    def _read(self) -> Found:
        never_noticed(self._fd)
        if self._is_still and self._known is None:
            asked_ns, status = time.time_ns(), os.fstat(self._fd)
            return Found(status, asked_ns, status.st_size, _all(status.st_size), None, -1)
        for attempt in range(_TRIES):
            clones.protect(self._fd)
            asked_ns, status = time.time_ns(), os.fstat(self._fd)
            clones.finish_writes(self._fd)
            copies = _Copies(self._directory, keeps=not self._is_still)
            try:
                for piece in self._differing(self._fd, status.st_size):
                    copies.add(*piece)
                is_whole = stamp_of(os.fstat(self._fd)) == stamp_of(status)
                if is_whole or (self._takes_any and attempt == _TRIES - 1):
                    size = status.st_size
                    return Found(
                        status, asked_ns, size, tuple(copies.ranges), copies.freeze(size), -1
                    )
            finally:
                copies.close()
        raise BlockingIOError("it changes faster than it can be read")

    def _differing(self, fd: int, size: int) -> Iterator[Piece]:
        """Yield what of *fd* is not as it is recorded; raises OSError."""
        if self._known is None:
            yield from _pieces(fd, 0, size)
            return
        with self._known.store.read() as reader:
            state = reader.node(self._known.node, reader.last)
            if state is None or state.is_forgotten:
                yield from _pieces(fd, 0, size)
                return
            yield from _compared(fd, size, contents_of(reader, state), reader)


def _all(size: int) -> tuple[Range, ...]:
    return ((0, size),) if size else ()


def _compared(fd: int, size: int, old: Previous, reader: Reader) -> Iterator[Piece]:
    at, common = 0, min(size, old.size)
    try:
        for start, chunk in old.over(0, common):
            end = min(start + chunk.length, common)
            if chunk.blob is None:
                yield from (piece for piece in _pieces(fd, start, end) if piece[2] is not None)
            elif end < start + chunk.length:
                yield from _pieces(fd, start, end)  # the rest of it was cut off
            else:
                data = read_exactly(fd, start, chunk.length)
                if reader.hash(data) != chunk.blob:
                    yield start, end, data
            at = end
    except DkfsError:  # damage: what cannot be read cannot be the same
        yield from _pieces(fd, at, common)
    yield from (piece for piece in _pieces(fd, common, size) if piece[2] is not None)


def _pieces(fd: int, start: int, end: int) -> Iterator[Piece]:
    """Yield all of [start, end)."""
    while start < end:
        data_start = next_data(fd, start, end)
        if start < data_start:
            yield start, data_start, None
        stop = min(end, data_start + _PIECE)
        if data_start < stop:
            data = read_exactly(fd, data_start, stop - data_start)
            yield data_start, stop, data if data.count(0) < len(data) else None
        start = stop


class _Copies:
    """What differs: in memory, or beyond COPY_MOST in a file without a name."""

    def __init__(self, directory: int, *, keeps: bool) -> None:
        # No Extents: those join what is far apart when they are many, and what lies between was not copied.
        self.ranges: list[Range] = []
        self._directory = directory
        self._keeps = keeps
        self._parts: list[tuple[int, bytes]] = []
        self._held = 0
        self._fd = -1

    def add(self, start: int, end: int, data: bytes | None) -> None:
        """Take what [start, end) is, which lies behind what was taken before; raises OSError."""
        if self.ranges and self.ranges[-1][1] == start:
            self.ranges[-1] = self.ranges[-1][0], end
        else:
            self.ranges.append((start, end))
        if not self._keeps or data is None:
            return
        if self._fd < 0 and self._held + len(data) > COPY_MOST:
            self._fd = clones.nameless(self._directory)
            for part in self._parts:
                self._write(*part)
            self._parts.clear()
        if self._fd >= 0:
            self._write(start, data)
        else:
            self._parts.append((start, data))
            self._held += len(data)

    def _write(self, start: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, start)
            view, start = view[written:], start + written

    def freeze(self, size: int) -> Frozen | None:
        """Return what was taken of a file of *size* bytes; None if nothing was to be kept."""
        if not self._keeps:
            return None
        if self._fd < 0:
            return FrozenParts(self._parts, self.ranges, size)
        os.ftruncate(self._fd, size)
        fd, self._fd = self._fd, -1
        return FrozenFile(fd, self.ranges, size)

    def close(self) -> None:
        """Let go of what was not frozen."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
