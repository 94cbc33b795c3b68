"""Which blobs a check reads: all, a share of them that is always the same, or a random part."""

import random
from dataclasses import dataclass
from typing import Protocol

from dkfs.model.ids import BlobId


class Selection(Protocol):
    """Says which blobs are read."""

    def start(self, total: int) -> None:
        """Take note that all blobs together have *total* stored bytes."""
        ...

    def wants(self, blob: BlobId) -> bool:
        """Return whether *blob* is one of them; asked once for each."""
        ...


class Everything:
    """All blobs."""

    def start(self, total: int) -> None:
        """See Selection."""

    def wants(self, blob: BlobId) -> bool:  # noqa: ARG002 - see Selection
        """See Selection."""
        return True


@dataclass(frozen=True, slots=True)
class Share:
    """Share *number* of *of*: together they are all, and each is always the same blobs."""

    number: int  # 1 .. of
    of: int

    def start(self, total: int) -> None:
        """See Selection."""

    def wants(self, blob: BlobId) -> bool:
        """See Selection."""
        return int.from_bytes(blob[:8], "big") % self.of == self.number - 1


class Sample:
    """A random part, another one each time."""

    def __init__(self, *, part: float = 1.0, size: int | None = None, rng: random.Random) -> None:
        """Take that *part* of the blobs, or so many that they have about *size* stored bytes."""
        self._part = part
        self._size = size
        self._random = rng.random

    def start(self, total: int) -> None:
        """See Selection."""
        if self._size is not None:
            self._part = self._size / total if total else 1.0

    def wants(self, blob: BlobId) -> bool:  # noqa: ARG002 - see Selection
        """See Selection."""
        return self._random() < self._part
