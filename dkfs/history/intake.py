"""Takes the contents of files into the store: cut into chunks, compared with what was there, a manifest above them."""

from collections.abc import Iterable, Iterator
from enum import Enum, auto
from itertools import groupby

from dkfs.core.chunking import Chunking, Cut, Recut, Source, cut, recut
from dkfs.core.delta import Copy, Like
from dkfs.core.manifest_update import Content, Edit, build, update
from dkfs.errors import CorruptError
from dkfs.history.frozen import Frozen
from dkfs.history.likeness import Likeness, like
from dkfs.history.previous import Patched, Previous
from dkfs.history.puts import Puts
from dkfs.history.reading import next_data, read_exactly
from dkfs.model.ids import BlobId
from dkfs.model.node import Chunk


class FileSource:
    """The bytes of an open file, whose offset moves; see chunking.Source."""

    def __init__(self, fd: int, size: int) -> None:
        """Read the first *size* bytes of *fd*: a file that became shorter is padded by a hole."""
        self.size = size
        self._fd = fd

    def read(self, offset: int, length: int) -> bytes:
        """See Source; raises OSError."""
        return read_exactly(self._fd, offset, length)

    def hole_end(self, offset: int) -> int:
        """See Source; raises OSError."""
        return next_data(self._fd, offset, self.size)


def take(puts: Puts, source: Source, old: Previous, chunking: Chunking) -> Content:
    """Store all of *source*, which may resemble *old*; raises OSError from reading and StoreError from writing."""
    cuts = cut(source, 0, chunking)
    if not old.size:
        return build((_put(puts, each) for each in cuts), puts.put_node)
    nodes = _Nodes(puts, old)
    return build(nodes.beside(Likeness(puts, old).put(cuts)), nodes.put)


def take_changed(
    puts: Puts, frozen: Frozen, old: Previous, resembled: Previous, chunking: Chunking
) -> Content:
    """Store what *old* became where it is *frozen*; new bytes may resemble *resembled*, which may be *old*.

    Raises OSError from reading, StoreError from writing, and CorruptError if bytes of *old* are needed that are damaged.
    """
    source = Patched(frozen, old)
    if not (old.size and frozen.size) or frozen.ranges == ((0, frozen.size),):
        return take(puts, source, resembled, chunking)
    edits = _Edits(puts, source, old, resembled)
    stretches = recut(source, old, frozen.ranges, chunking)
    return update(old.manifest, map(edits.edit, stretches), puts.put_node)


class _Kind(Enum):
    CHANGED = auto()  # old bytes are left in it
    REPLACED = auto()  # none is, but there were some in its place
    ADDED = auto()  # it reaches behind the old end, and something else is known that went on


class _Edits:
    """Puts the stretches of a file that were cut again."""

    def __init__(self, puts: Puts, source: Patched, old: Previous, resembled: Previous) -> None:
        self._puts = puts
        self._source = source
        self._old = old
        self._resembled = resembled

    def edit(self, stretch: Recut) -> Edit:
        """Store the chunks of *stretch*; return how the manifest changes."""
        chunks = tuple(self._chunks(stretch))
        return stretch.start, stretch.end, chunks

    def _chunks(self, stretch: Recut) -> Iterator[Chunk]:
        for kind, cuts in groupby(stretch, key=self._kind):
            if kind is _Kind.CHANGED:
                for each in cuts:
                    yield _put(self._puts, each, self._like(each))
            elif kind is _Kind.REPLACED:
                yield from Likeness(self._puts, self._old).put_in_place(cuts)
            else:
                yield from Likeness(self._puts, self._resembled).put(cuts)

    def _kind(self, each: Cut) -> "_Kind":
        end = each.offset + each.length
        if end > self._old.size and self._resembled is not self._old:
            return _Kind.ADDED
        if any(self._source.clean(each.offset, end)):
            return _Kind.CHANGED
        return _Kind.REPLACED

    def _like(self, each: Cut) -> Like | None:
        """Return what is known of a chunk in which old bytes are left: where they are, nobody has to look for them."""
        clean = self._source.clean(each.offset, each.offset + each.length)
        copies = [Copy(start - each.offset, start, end - start) for start, end in clean]
        return like(self._old, each.length, copies)


class _Nodes:
    """Puts the nodes of a manifest as deltas to those at the same place in another."""

    def __init__(self, puts: Puts, old: Previous) -> None:
        self._puts = puts
        self._old = old
        self._offset = 0

    def beside(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """Yield *chunks*, and note how far they are."""
        for chunk in chunks:
            yield chunk
            self._offset += chunk.length

    def put(self, data: bytes, old: BlobId | None) -> BlobId:
        """See manifest_update.Put."""
        if old is None and self._old.manifest.is_manifest:
            try:
                old = self._old.manifest.node_at(min(self._offset, self._old.size - 1), 0).blob
            except CorruptError:
                pass  # a hint only; whoever reads the old version will be told
        return self._puts.put_node(data, old)


def _put(puts: Puts, each: Cut, resembles: Like | None = None) -> Chunk:
    blob = None if each.data is None else puts.put(each.data, resembles)[0]
    return Chunk(each.length, blob)
