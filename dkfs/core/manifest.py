"""The manifest of a file: a Merkle tree over its chunks.  How it is read, and the bytes of its nodes; pure, no I/O.

A node is a blob, and lists the chunks of a part of the file (level 0) or nodes of the level below.  A file of at most one
chunk, and one without data, has no manifest.  How a tree is made and changed is in manifest_update.

A node of version 2: u8 2, u8 level, then entries to the end: varint (length << 1 | has an id), and the id.  What has no id
is a hole, of which there are none above level 0 and no two in a row.  Version 1, only read, is flat: any number of chunks.
Any bytes decode or raise CorruptError, in memory that is a small multiple of their own length.
"""

import struct
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

from dkfs.core.varint import read_varint, varint
from dkfs.errors import CorruptError
from dkfs.model.ids import BlobId
from dkfs.model.node import Chunk

LEVELS: Final = 16  # the levels of a tree at most

_FORMAT: Final = 2
_OLD_FORMAT: Final = 1
_HEAD: Final = 2  # bytes before the entries
_ID_SIZE: Final = 32
_SIZE_LIMIT: Final = 1 << 63  # bytes of a file, exclusive; off_t

_RUN: Final = struct.Struct(">BQI")  # version 1: type, bytes of each chunk, number of chunks
_HOLE: Final = 0
_DATA: Final = 1


@dataclass(frozen=True, slots=True)
class ManifestNode:
    """A node of a manifest, decoded."""

    level: int  # 0: the entries are chunks; else they are nodes of the level below
    entries: tuple[Chunk, ...]


def encode_manifest_node(level: int, entries: Iterable[Chunk]) -> bytes:
    """Return the node of *entries*: equal entries give equal bytes."""
    parts = [bytes((_FORMAT, level))]
    for length, blob in ((entry.length, entry.blob) for entry in entries):
        if blob is None:
            parts.append(varint(length << 1))
        else:
            parts += (varint(length << 1 | 1), blob)
    return b"".join(parts)


def decode_manifest_node(data: bytes) -> ManifestNode:
    """Return the node that *data* records; raises CorruptError."""
    if data[:1] == b"\1":
        return ManifestNode(0, _decode_flat(data))
    if len(data) <= _HEAD or data[0] != _FORMAT or data[1] >= LEVELS:
        raise CorruptError(
            f"manifest node of {len(data)} bytes that starts with {data[:_HEAD].hex()}: "
            f"need format {_FORMAT}, a level below {LEVELS} and entries"
        )
    try:
        entries = _decode_entries(data)
    except IndexError:
        raise CorruptError(f"manifest node of {len(data)} bytes ends too early") from None
    if data[1] and any(entry.blob is None for entry in entries):
        raise CorruptError(f"manifest node of level {data[1]} with a hole")
    return ManifestNode(data[1], entries)


class Place(NamedTuple):
    """A node where it is in the tree."""

    start: int  # bytes from the start of the file
    blob: BlobId | None  # None: stands for the only chunk of a file without a manifest
    level: int
    entries: tuple[Chunk, ...]
    ends: tuple[int, ...]  # bytes from start to the end of each entry

    @property
    def end(self) -> int:
        """Where its last entry ends; its start if it has none."""
        return self.start + self.ends[-1] if self.ends else self.start

    def entry_at(self, offset: int) -> tuple[int, Chunk]:
        """Return the entry that holds the byte at *offset*, and where it starts."""
        index = bisect_right(self.ends, offset - self.start)
        entry = self.entries[index]
        return self.start + self.ends[index] - entry.length, entry


class Manifest:
    """The chunks of one file at one version: nodes are loaded when they are needed, and a few are kept.

    Each node is checked against what the one above says of it: its level, and how many bytes it covers.
    """

    def __init__(
        self,
        load: Callable[[BlobId], bytes],
        content: BlobId | None,
        *,
        is_manifest: bool,
        size: int,
        kept: int = 64,
    ) -> None:
        """*load* returns the verified bytes of a blob; the rest is what a NodeState says. Loads nothing yet."""
        self.content = content
        self.is_manifest = is_manifest
        self.size = size  # bytes
        self.load = load
        self._kept = kept
        self._nodes: OrderedDict[BlobId, tuple[ManifestNode, tuple[int, ...]]] = OrderedDict()
        self._leaf: Place | None = None  # the last one

    def root(self) -> Place:
        """Return the uppermost node; raises CorruptError."""
        if self.is_manifest and self.content is not None:
            return self._place(0, Chunk(self.size, self.content), None)
        entries = (Chunk(self.size, self.content),) if self.size else ()
        return Place(0, None, 0, entries, tuple(chunk.length for chunk in entries))

    def below(self, place: Place, index: int) -> Place:
        """Return the node that entry *index* of *place* names; raises CorruptError."""
        entry = place.entries[index]
        return self._place(place.start + place.ends[index] - entry.length, entry, place.level - 1)

    def node_at(self, offset: int, level: int) -> Place:
        """Return the node of *level*, which is not above the root's, that holds the byte at *offset*."""
        place = self.root()
        while place.level > level:
            place = self.below(place, bisect_right(place.ends, offset - place.start))
        return place

    def chunk_at(self, offset: int) -> tuple[int, Chunk]:
        """Return the chunk that holds the byte at *offset*, inside the size, and where it starts; raises CorruptError."""
        leaf = self._leaf
        if leaf is None or not leaf.start <= offset < leaf.end:
            leaf = self._leaf = self.node_at(offset, 0)
        return leaf.entry_at(offset)

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, Chunk]]:
        """Yield the chunks that hold bytes of [start, end), each with the offset where it starts; raises CorruptError."""
        end = self.size if end is None else min(end, self.size)
        while start < end:
            leaf = self.node_at(start, 0)
            for index in range(bisect_right(leaf.ends, start - leaf.start), len(leaf.entries)):
                if start >= end:
                    return
                chunk, start = leaf.entries[index], leaf.start + leaf.ends[index]
                yield start - chunk.length, chunk

    def _place(self, start: int, entry: Chunk, level: int | None) -> Place:
        """Return the node that *entry* names, which must be as it says; *level* None: any."""
        assert entry.blob is not None, "only chunks can be holes"
        node, ends = self._node(entry.blob)
        size = ends[-1] if ends else 0
        if size != entry.length or (level is not None and level != node.level):
            raise CorruptError(
                f"manifest node {entry.blob.hex()} of level {node.level} covers {size} bytes, "
                f"need {entry.length}" + ("" if level is None else f", level {level}")
            )
        return Place(start, entry.blob, node.level, node.entries, ends)

    def _node(self, blob: BlobId) -> tuple[ManifestNode, tuple[int, ...]]:
        found = self._nodes.get(blob)
        if found is None:
            node = decode_manifest_node(self.load(blob))
            found = node, tuple(accumulate(entry.length for entry in node.entries))
            self._nodes[blob] = found
            if len(self._nodes) > self._kept:
                self._nodes.popitem(last=False)
        else:
            self._nodes.move_to_end(blob)
        return found


def _decode_entries(data: bytes) -> tuple[Chunk, ...]:
    entries: list[Chunk] = []
    at, size, total = _HEAD, len(data), 0
    was_hole = False
    while at < size:
        number, at = read_varint(data, at)
        length = number >> 1
        total += length
        if not length or total >= _SIZE_LIMIT:
            raise CorruptError(f"manifest node with an entry of {length} bytes")
        if number & 1:
            end = at + _ID_SIZE
            if end > size:
                raise IndexError
            entries.append(Chunk(length, BlobId(data[at:end])))
            at = end
            was_hole = False
        elif was_hole:
            raise CorruptError(f"manifest node with a hole after a hole at {at}")
        else:
            entries.append(Chunk(length, None))
            was_hole = True
    return tuple(entries)


def _decode_flat(data: bytes) -> tuple[Chunk, ...]:
    chunks: list[Chunk] = []
    at, size = 1, 0
    while at < len(data):
        if len(data) - at < _RUN.size:
            raise CorruptError(f"manifest of {len(data)} bytes, need {at + _RUN.size}")
        what, length, count = _RUN.unpack_from(data, at)
        at += _RUN.size
        size += length * count
        if what > _DATA or not length or not count or size >= _SIZE_LIMIT:
            raise CorruptError(f"manifest with a run of type {what}, {count} of {length} bytes")
        if what == _HOLE:
            if count != 1:
                raise CorruptError(f"manifest with a hole counted {count} times, need 1")
            chunks.append(Chunk(length, None))
            continue
        end = at + count * _ID_SIZE
        if end > len(data):
            raise CorruptError(f"manifest of {len(data)} bytes, need {end}")
        chunks += [Chunk(length, BlobId(data[i : i + _ID_SIZE])) for i in range(at, end, _ID_SIZE)]
        at = end
    return tuple(chunks)
