"""How the manifest of a file is made, and how that of its next version follows from it.

A node ends after an entry whose id says so, once it is long enough, or when it is full.  So equal sequences of entries make
equal nodes, whatever the history was, and after a change the nodes are soon the old ones again: new are those above the
change and, seldom, a neighbour.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from dkfs.core.manifest import Manifest, Place, encode_manifest_node
from dkfs.errors import CorruptError
from dkfs.model.ids import BlobId
from dkfs.model.node import Chunk

# Stores the bytes of a node; the other argument is the node that it mostly replaces, if there is one.
Put = Callable[[bytes, BlobId | None], BlobId]


class Shape(NamedTuple):
    """Where nodes end.  The defaults are part of the format: with others nothing would be shared with the version before."""

    minimum: int = 16  # entries; at least 2
    mask: int = 31  # a node ends after an id whose last byte has none of these bits
    maximum: int = 128  # entries
    # Old nodes regrouped after a change without a node ending where one did: then one is made to.  Among ids as they come
    # that has a chance below 2^-32; it bounds the cost in a file of one chunk repeated, where no id ends a node.
    patience: int = 32


SHAPE: Final = Shape()

# (old start, old end, what is there now): bytes of the old version that entries replace.
Edit = tuple[int, int, Iterable[Chunk]]


class Content(NamedTuple):
    """What names the bytes of a file."""

    blob: BlobId | None  # the manifest's root, or the only chunk; None: empty, or all hole
    is_manifest: bool
    size: int  # bytes


class Groups:
    """One level: entries come in, nodes go out."""

    def __init__(self, level: int, put: Put, shape: Shape) -> None:
        self.near: BlobId | None = None  # the old node in which the entries come to lie
        self._level = level
        self._put = put
        self._shape = shape
        self._entries: list[Chunk] = []
        self._hole = 0  # bytes of a hole after the entries, which may go on
        self._made: list[Chunk] = []
        self._votes: Counter[BlobId] = Counter()

    @property
    def is_between(self) -> bool:
        """Whether the last node has ended and nothing came since."""
        return not self._entries and not self._hole

    def add(self, entry: Chunk) -> None:
        """Take the next entry; holes are joined."""
        if entry.blob is None:
            self._hole += entry.length
        else:
            self._end_hole()
            self._append(entry)

    def close(self) -> None:
        """End the node, whatever its last entry says."""
        self._end_hole()
        if self._entries:
            self._make()

    def take(self) -> list[Chunk]:
        """Return the nodes made since the last call, as entries of the level above."""
        made, self._made = self._made, []
        return made

    def rest(self) -> list[Chunk]:
        """Return the entries of the node that has not ended."""
        self._end_hole()
        return self._entries

    def _end_hole(self) -> None:
        if self._hole:
            hole, self._hole = self._hole, 0
            self._append(Chunk(hole, None))

    def _append(self, entry: Chunk) -> None:
        self._entries.append(entry)
        if self.near is not None:
            self._votes[self.near] += 1
        shape, count = self._shape, len(self._entries)
        if count >= shape.maximum or (
            count >= shape.minimum and entry.blob is not None and not entry.blob[-1] & shape.mask
        ):
            self._make()

    def _make(self) -> None:
        old = self._votes.most_common(1)[0][0] if self._votes else None
        blob = self._put(encode_manifest_node(self._level, self._entries), old)
        self._made.append(Chunk(sum(entry.length for entry in self._entries), blob))
        self._entries = []
        self._votes.clear()


class Tower:
    """All levels from one upwards: the entries of that level come in, a root comes out."""

    def __init__(
        self, level: int, put: Put, shape: Shape, *, replaces: BlobId | None = None
    ) -> None:
        self.count = 0  # entries that came in
        self._lowest = level
        self._put = put
        self._shape = shape
        self._levels = [Groups(level, put, shape)]
        self._levels[0].near = replaces

    def add(self, entry: Chunk) -> None:
        """Take the next entry of the lowest level."""
        self.count += 1
        self._levels[0].add(entry)
        self._raise(0)

    def finish(self) -> Content:
        """Return what names all that was added."""
        height = 0
        while True:
            groups = self._levels[height]
            entries = groups.rest()
            self._raise(height)
            if height == len(self._levels) - 1 and len(entries) <= 1:
                level = self._lowest + height
                return (
                    Content(entries[0].blob, level > 0, entries[0].length)
                    if entries
                    else Content(None, is_manifest=False, size=0)
                )
            groups.close()
            self._raise(height)
            height += 1

    def _raise(self, height: int) -> None:
        """Take the nodes that were made at *height* to the level above."""
        made = self._levels[height].take()
        while made:
            height += 1
            if height == len(self._levels):
                self._levels.append(Groups(self._lowest + height, self._put, self._shape))
            for entry in made:
                self._levels[height].add(entry)
            made = self._levels[height].take()


def build(chunks: Iterable[Chunk], put: Put, *, shape: Shape = SHAPE) -> Content:
    """Store the manifest of a file of *chunks*, if it needs one, and return what names its bytes."""
    tower = Tower(0, put, shape)
    for chunk in chunks:
        tower.add(chunk)
    return tower.finish()


def update(old: Manifest, edits: Iterable[Edit], put: Put, *, shape: Shape = SHAPE) -> Content:
    """Store the nodes that are new when *edits* were made to *old*, and return what names the bytes then.

    The edits are sorted and disjoint; each replaces chunks of the old version, and may begin or end inside a hole.  The
    tree is the one that build() would make, but where Shape.patience ended.  Raises CorruptError.
    """
    changes: Sequence[Edit] = list(edits)
    if not changes:
        return Content(old.content, old.is_manifest, old.size)
    root = old.root()
    for level in range(root.level):
        changes = list(_stretches(old, level, _Feed(changes), put, shape))
    tower = Tower(root.level, put, shape, replaces=root.blob)
    feed = _Feed(changes)
    feed.copy(root, 0, tower.add)
    assert feed.is_done, "edits lie inside the old version"
    content = tower.finish()
    return _lowered(old, content) if root.level and tower.count == 1 else content


def _lowered(old: Manifest, content: Content) -> Content:
    """Return *content* without the nodes of one entry at its top: what remains of a tree that was higher."""
    while content.is_manifest:
        manifest = Manifest(old.load, content.blob, is_manifest=True, size=content.size)
        root = manifest.root()
        if len(root.entries) > 1:
            break
        content = Content(root.entries[0].blob, root.level > 0, content.size)
    return content


def _stretches(old: Manifest, level: int, feed: "_Feed", put: Put, shape: Shape) -> Iterator[Edit]:
    """Group the entries of *level* anew around the edits; yield the edits that this makes to the level above."""
    while not feed.is_done:
        groups = Groups(level, put, shape)
        # The byte before: a hole may go on over the end of a node, and what is appended follows the last node.
        place = old.node_at(max(feed.next_start - 1, 0), level)
        start = position = place.start
        patience = shape.patience
        while True:
            groups.near = place.blob
            edits = feed.index
            position = feed.copy(place, position, groups.add)
            if position == old.size:
                break
            patience = patience - 1 if feed.index == edits else shape.patience
            if position == place.end and (groups.is_between or patience < 0):
                break
            place = old.node_at(position, level)
        groups.close()
        yield start, position, groups.take()


class _Feed:
    """The edits of one level, in order, and the old entries between them."""

    def __init__(self, edits: Sequence[Edit]) -> None:
        self.index = 0  # of the next edit
        self._edits = edits

    @property
    def is_done(self) -> bool:
        """Whether no edit is left."""
        return self.index == len(self._edits)

    @property
    def next_start(self) -> int:
        """Where the next edit begins; there must be one."""
        return self._edits[self.index][0]

    def copy(self, place: Place, position: int, add: Callable[[Chunk], None]) -> int:
        """Add the entries of *place* from *position* on, as edited; return the old position after them.

        Edits that begin where *place* ends are made too, so that may be further on.
        """
        while True:
            if not self.is_done and self.next_start <= position:
                start, end, fresh = self._edits[self.index]
                assert start == position <= end, "edits are sorted and disjoint"
                for entry in fresh:
                    add(entry)
                self.index += 1
                position = end
            elif position < place.end:
                position = self._copy_entry(place, position, add)
            else:
                return position

    def _copy_entry(self, place: Place, position: int, add: Callable[[Chunk], None]) -> int:
        start, entry = place.entry_at(position)
        end = stop = start + entry.length
        if not self.is_done:
            stop = min(stop, self.next_start)
        if (position, stop) != (start, end):
            if entry.blob is not None:
                raise CorruptError(
                    f"chunk of {entry.length} bytes at {start} would be cut at {position}..{stop}"
                )
            entry = Chunk(stop - position, None)
        add(entry)
        return stop
