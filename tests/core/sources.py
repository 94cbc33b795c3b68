"""Bytes to cut in memory, or made when they are read; and the chunks of a version."""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from random import Random

from dkfs.core.chunking import Chunking, Cut, cut
from dkfs.model.ids import BlobId
from dkfs.model.node import Chunk

DEFAULT = Chunking()
Range = tuple[int, int]


class Bytes:
    """A source in memory that counts what is read of it, and knows of holes if told to."""

    def __init__(self, data: bytes, *, knows_holes: bool = False) -> None:
        self.data = data
        self.size = len(data)
        self.knows_holes = knows_holes
        self.bytes_read = 0

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset < offset + length <= self.size
        self.bytes_read += length
        return self.data[offset : offset + length]

    def hole_end(self, offset: int) -> int:
        if not self.knows_holes:
            return offset
        rest = self.data[offset:]
        return self.size - len(rest.lstrip(b"\0"))


class Generated:
    """A source of any size whose blocks are made when they are read; some were written since."""

    BLOCK = 4096

    def __init__(self, size: int, written: Iterable[int] = ()) -> None:
        self.size = size
        self.written = frozenset(written)
        self.bytes_read = 0

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset < offset + length <= self.size
        self.bytes_read += length
        first, last = offset // self.BLOCK, (offset + length - 1) // self.BLOCK
        data = b"".join(self._block(number) for number in range(first, last + 1))
        start = offset - first * self.BLOCK
        return data[start : start + length]

    def hole_end(self, offset: int) -> int:
        return offset

    def _block(self, number: int) -> bytes:
        return Random(-number if number in self.written else number + 1).randbytes(self.BLOCK)


class Chunks:
    """The chunks of a version: what cut() gave, with holes joined."""

    def __init__(self, pieces: Iterable[tuple[int, bytes | None]]) -> None:
        self.chunks: list[tuple[int, Chunk]] = []
        self.size = 0
        for length, data in pieces:
            blob = None if data is None else BlobId(blake2b(data, digest_size=32).digest())
            if blob is None and self.chunks and self.chunks[-1][1].blob is None:
                start, before = self.chunks[-1]
                self.chunks[-1] = (start, Chunk(before.length + length, None))
            else:
                self.chunks.append((self.size, Chunk(length, blob)))
            self.size += length

    def chunk_at(self, offset: int) -> tuple[int, Chunk]:
        assert 0 <= offset < self.size
        return next((s, c) for s, c in self.chunks if s <= offset < s + c.length)


class Endless:
    """The chunks of a Generated version, each found when asked for: a stand-in for a manifest."""

    def __init__(self, source: Generated, *, near: int) -> None:
        self.size = source.size
        self.known = Chunks(
            (each.length, each.data) for each in _some(source, near, count=400) if each.data
        )
        self.start = near

    def chunk_at(self, offset: int) -> tuple[int, Chunk]:
        start, chunk = self.known.chunk_at(offset - self.start)
        return start + self.start, chunk


def _some(source: Generated, start: int, *, count: int) -> Iterator[Cut]:
    for each, _ in zip(cut(source, start, DEFAULT), range(count), strict=False):
        yield each


def some_bytes(rng: Random, length: int) -> bytes:
    """Return bytes as files have them: random ones, zeros, and repetitions."""
    out = b""
    while len(out) < length:
        n = rng.choice((1, 10, 300, 2000, 9000))
        kind = rng.randrange(6)
        if kind < 3:
            out += rng.randbytes(n)
        elif kind < 5:
            out += bytes(n)
        else:
            out += rng.randbytes(rng.choice((1, 7))) * (n // 7 + 1)
    return out[:length]


def edit(rng: Random, data: bytes) -> tuple[bytes, list[Range]]:
    """Return *data* after some writes and perhaps another size, and where it was written."""
    new = bytearray(data)
    for _ in range(rng.choice((0, 0, 1))):
        size = rng.choice((0, 1, 299, 300, 301, len(new) - 1, len(new) + 1, rng.randrange(60_000)))
        if size < len(new):
            del new[max(size, 0) :]
        else:
            new += bytes(size - len(new))
    dirty: list[Range] = []
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        start = rng.randrange(len(new) + 2)
        patch = some_bytes(rng, rng.choice((1, 2, 64, 300, 5000)))
        if start > len(new):
            new += bytes(start - len(new))
        new[start : start + len(patch)] = patch
        dirty.append((start, start + len(patch)))
    if len(new) > len(data):
        # A file that grew without being written there has zeros: the recorder need not be told.
        dirty = [each for each in dirty if rng.random() < 0.5 or each[0] < len(data)]
    joined: list[Range] = []
    for start, end in sorted(dirty):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return bytes(new), joined
