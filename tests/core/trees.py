"""Manifests in memory: a store of nodes that counts what is done with it, and random chunks and edits."""

import struct
from hashlib import sha256
from random import Random

from dkfs.core.manifest import Manifest
from dkfs.core.manifest_update import Content, Edit
from dkfs.errors import CorruptError
from dkfs.model.ids import BlobId
from dkfs.model.node import Chunk


class Nodes:
    """The nodes of manifests by their ids."""

    def __init__(self) -> None:
        self.blobs: dict[BlobId, bytes] = {}
        self.put_count = 0
        self.new_bytes = 0
        self.loaded = 0
        self.bases: dict[BlobId, BlobId | None] = {}  # of a node: what it was said to replace

    def put(self, data: bytes, old: BlobId | None) -> BlobId:
        blob = BlobId(sha256(data).digest())
        assert old is None or old in self.blobs
        self.put_count += 1
        if blob not in self.blobs:
            self.new_bytes += len(data)
            self.bases[blob] = old
        self.blobs[blob] = data
        return blob

    def load(self, blob: BlobId) -> bytes:
        self.loaded += 1
        if blob not in self.blobs:
            raise CorruptError(f"blob {blob.hex()} is not in the store")
        return self.blobs[blob]

    def manifest(self, content: Content) -> Manifest:
        return Manifest(self.load, content.blob, is_manifest=content.is_manifest, size=content.size)


def flat_manifest(*runs: tuple[int, int, bytes]) -> bytes:
    """Return a manifest of format 1 of (type, length of each chunk, ids or nothing)."""
    return b"\1" + b"".join(
        struct.pack(">BQI", what, length, len(ids) // 32 or 1) + ids for what, length, ids in runs
    )


def chunk_id(number: int) -> BlobId:
    """Return an id like that of a chunk: random, the same for the same number."""
    return BlobId(sha256(number.to_bytes(8, "big")).digest())


def some_chunks(
    rng: Random, count: int, *, kinds: int = 1 << 40, holes: float = 0.1
) -> list[Chunk]:
    """Return random chunks of which a part are holes; with few *kinds* many are the same."""
    return joined(
        [
            Chunk(
                rng.randrange(1, 100),
                None if rng.random() < holes else chunk_id(rng.randrange(kinds)),
            )
            for _ in range(count)
        ]
    )


def joined(chunks: list[Chunk]) -> list[Chunk]:
    """Return *chunks* with neighbouring holes made one."""
    out: list[Chunk] = []
    for chunk in chunks:
        if chunk.blob is None and out and out[-1].blob is None:
            out[-1] = Chunk(out[-1].length + chunk.length, None)
        else:
            out.append(chunk)
    return out


def some_edits(rng: Random, chunks: list[Chunk], count: int) -> tuple[list[Edit], list[Chunk]]:
    """Return random edits of *chunks*, and the chunks after them; some begin or end inside a hole."""
    places = {0}
    offset = 0
    for chunk in chunks:
        if chunk.blob is None:
            places.add(offset + rng.randrange(chunk.length))
        offset += chunk.length
        places.add(offset)
    ends = sorted(rng.choices(sorted(places), k=2 * count))
    if rng.random() < 0.2:
        ends[-1] = offset  # to the end of the file: cut off, or grown
    edits: list[Edit] = []
    after: list[Chunk] = []
    done = 0
    for start, end in zip(ends[::2], ends[1::2], strict=True):
        fresh = some_chunks(rng, rng.choice((0, 1, 1, 2, 30)), holes=0.3)
        edits.append((start, end, fresh))
        after += between(chunks, done, start) + fresh
        done = end
    return edits, joined(after + between(chunks, done, offset))


def between(chunks: list[Chunk], start: int, end: int) -> list[Chunk]:
    """Return what of *chunks* lies in [start, end)."""
    out: list[Chunk] = []
    offset = 0
    for chunk in chunks:
        first, last = max(offset, start), min(offset + chunk.length, end)
        if first < last:
            assert chunk.blob is None or last - first == chunk.length
            out.append(Chunk(last - first, chunk.blob))
        offset += chunk.length
    return out
