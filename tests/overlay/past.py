"""A kernel that passes files through: it writes to the backing file itself, and dkfs is told of opens and closes only."""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

from dkfs.core.io_mode import OpenKind
from dkfs.overlay.handles import Handle
from tests.overlay.world import ME, World


class Past:
    """The files of a world, written past it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.captures = world.fs.captures

    def open(self, name: bytes, kind: OpenKind = OpenKind.PASSTHROUGH) -> "Opened":
        """Open *name* for writing; it is made if there is none."""
        fs, flags = self.world.fs, os.O_RDWR
        try:
            inode = self.world.lookup(name)
        except FileNotFoundError:
            number, inode, _ = fs.names.create(self.world.root, name, 0o644, flags, ME)
        else:
            number = fs.files.open(inode, flags, ME)
        handle = fs.files.handles[number]
        fs.modes.opened(handle, kind)
        self.captures.passed(handle)
        return Opened(
            self.world, number, handle, os.open(self.world.state / os.fsdecode(name), flags)
        )

    def tick(self) -> None:
        """Let the timer find everything that is due, and what it asked for be found."""
        for _ in range(200):
            assert self.world.recorder.flush()  # a timer waits for that
            self.captures.capture_due(1e-9)
            if not any(watch.looks or watch.has_found for watch in self.captures.unseen.all()):
                self.captures.capture_due(1e-9)
                return
            for watch in self.captures.unseen.all():
                watch.wait()
        raise AssertionError("looks never end")


class Opened:
    """An open file: what the application's kernel has of it, and what dkfs has."""

    def __init__(self, world: World, number: int, handle: Handle, fd: int) -> None:
        self.world = world
        self.number = number
        self.handle = handle
        self.fd = fd

    def write(self, offset: int, data: bytes) -> None:
        """Write past dkfs."""
        os.pwrite(self.fd, data, offset)

    def seen(self, offset: int, data: bytes) -> None:
        """Write through dkfs."""
        self.world.fs.files.write(self.number, offset, data)

    @contextmanager
    def mapped(self) -> Iterator[mmap.mmap]:
        """Map the file."""
        with mmap.mmap(self.fd, 0) as shared:
            yield shared

    def close(self) -> None:
        """Close it; dkfs hears of it after the kernel has let go."""
        os.close(self.fd)
        self.world.fs.modes.released(self.handle)
        self.world.fs.files.release(self.number)

    def fsync(self) -> None:
        """Wait until it is recorded, as fsync(2) does."""
        os.fsync(self.fd)
        _, seq = self.world.fs.files.fsync(self.number)
        assert self.world.recorder.wait(seq)
