"""What is done to a file, version by version: fixed seeds, so that every run keeps the same bytes.

Each recipe says what it does in a sentence that is printed beside its numbers.
"""

import os
import random
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

MIB = 1024 * 1024  # bytes
WINDOW = 102_400  # bytes, about 10 % of 1 MiB
NAME = "file"


class Recipe(ABC):
    """One file of 1 MiB and how it changes; version 1 is what first() writes."""

    name: ClassVar[str]
    title: ClassVar[str]
    says: ClassVar[str]
    least_saved: ClassVar[float | None] = None  # of as many full copies
    versions: ClassVar[int] = 20

    def __init__(self) -> None:
        self._data = self.begin()

    @property
    def data(self) -> bytes:
        """The bytes of the newest version."""
        return bytes(self._data)

    @abstractmethod
    def begin(self) -> bytearray:
        """Return the bytes of version 1."""

    @abstractmethod
    def change(self, step: int) -> None:
        """Make the bytes of version *step* + 2, *step* = 0, 1, 2 ..."""

    def first(self, place: Path) -> None:
        """Write version 1."""
        (place / NAME).write_bytes(self._data)

    def next(self, place: Path, step: int) -> None:
        """Write version *step* + 2."""
        self.change(step)
        self.save(place)

    @abstractmethod
    def save(self, place: Path) -> None:
        """Write what change() changed."""


class InPlace(Recipe):
    """The honest variant of the seed's recipe: data that cannot be compressed."""

    name = "in-place"
    title = "1 MiB random, 10 % rewritten in place"
    says = (
        "base = Random(1).randbytes(2^20); version i+2 replaces 102,400 bytes at (i*102400) mod (2^20-102400)"
        " by Random(100+i).randbytes, with one pwrite"
    )
    least_saved = 0.85
    _start = 0  # of the newest window

    def begin(self) -> bytearray:
        """See Recipe."""
        return bytearray(random.Random(1).randbytes(MIB))

    def change(self, step: int) -> None:
        """See Recipe."""
        self._start = start = (step * WINDOW) % (MIB - WINDOW)
        self._data[start : start + WINDOW] = random.Random(100 + step).randbytes(WINDOW)

    def save(self, place: Path) -> None:
        """See Recipe."""
        start = self._start
        fd = os.open(place / NAME, os.O_WRONLY)
        try:
            os.pwrite(fd, self._data[start : start + WINDOW], start)
        finally:
            os.close(fd)


class Rewritten(InPlace):
    """The same bytes, as most programs save them."""

    name = "rewritten"
    title = "the same, the whole file rewritten after O_TRUNC"
    says = InPlace.says.replace("with one pwrite", "and the whole file is written after O_TRUNC")

    def save(self, place: Path) -> None:
        """See Recipe."""
        (place / NAME).write_bytes(self._data)


class Renamed(InPlace):
    """The bytes move, and the name leads to another inode each time."""

    name = "renamed"
    title = "the same by tmp + rename, 100 bytes more at the front"
    says = (
        InPlace.says.replace(", with one pwrite", "")
        + "; then Random(500+i).randbytes(100) are put before the first byte, and the whole file"
        " is saved as file.tmp, synced, and renamed over the old one"
    )
    least_saved = 0.84

    def change(self, step: int) -> None:
        """See Recipe."""
        super().change(step)
        self._data[:0] = random.Random(500 + step).randbytes(100)

    def save(self, place: Path) -> None:
        """See Recipe."""
        temporary = place / f"{NAME}.tmp"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.write(fd, self._data)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, place / NAME)


class Ramp(Recipe):
    """The seed's own recipe: anything that compresses does well with it."""

    name = "ramp"
    title = "1 MiB ramp, 10 % incremented (the seed's recipe)"
    says = (
        "base = bytes(i & 255); version i+2 adds 1 (mod 256) to 102,400 bytes at (i*102400) mod 2^20,"
        " and the whole file is written after O_TRUNC"
    )

    _PLUS_ONE = bytes((i + 1) & 255 for i in range(256))

    def begin(self) -> bytearray:
        """See Recipe."""
        return bytearray(bytes(range(256)) * (MIB // 256))

    def change(self, step: int) -> None:
        """See Recipe."""
        start = (step * WINDOW) % MIB
        end = min(start + WINDOW, MIB)
        self._data[start:end] = self._data[start:end].translate(self._PLUS_ONE)

    def save(self, place: Path) -> None:
        """See Recipe."""
        (place / NAME).write_bytes(self._data)


RECIPES: tuple[type[Recipe], ...] = (InPlace, Rewritten, Renamed, Ramp)
