"""What differs between two states of a file: pure, one Difference per line of `dkfs diff`."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from dkfs.core.manifest import Manifest, Place
from dkfs.model.ids import NO_NODE, NodeId
from dkfs.model.node import Chunk, Kind, NodeState

# + made, - gone, M contents, T another type, U metadata only, R renamed (its fields say what else changed)
Change = Literal["+", "-", "M", "T", "U", "R"]
Field = Literal["content", "size", "target", "rdev", "mode", "uid", "gid", "mtime", "xattr"]
Range = tuple[int, int]  # bytes, half-open

_CONTENTS: frozenset[Field] = frozenset(("content", "size", "target", "rdev"))


@dataclass(frozen=True, slots=True)
class Difference:
    """One name at which two versions differ."""

    change: Change
    path: bytes  # in the newer side; "-": in the older one
    old: NodeState | None  # None: "+"
    new: NodeState | None  # None: "-"
    fields: tuple[Field, ...] = ()  # what differs, in the order of Field; empty for + and -
    old_path: bytes | None = (
        None  # where it was, if elsewhere: always for R, else below a renamed directory
    )
    old_node: NodeId = NO_NODE
    new_node: NodeId = NO_NODE


def differing_fields(
    old: NodeState, new: NodeState, *, dir_times: bool = True
) -> tuple[Field, ...]:
    """Return the fields that differ; where a node is named and its ctime do not count.

    Of states of different kinds only the metadata is compared.  Without *dir_times* the mtime of a directory,
    which changes with every name in it, does not count either.
    """
    fields: list[Field] = []
    if old.attr.kind is new.attr.kind:
        if _content(old) != _content(new):
            fields.append("content")
            if old.attr.size != new.attr.size:
                fields.append("size")
        if old.target != new.target:
            fields.append("target")
        if old.attr.rdev != new.attr.rdev:
            fields.append("rdev")
    if old.attr.mode != new.attr.mode:
        fields.append("mode")
    if old.attr.uid != new.attr.uid:
        fields.append("uid")
    if old.attr.gid != new.attr.gid:
        fields.append("gid")
    if old.attr.mtime_ns != new.attr.mtime_ns and (dir_times or new.attr.kind is not Kind.DIR):
        fields.append("mtime")
    if old.xattrs != new.xattrs:
        fields.append("xattr")
    return tuple(fields)


def classify(old: NodeState, new: NodeState, fields: Collection[Field]) -> Change | None:
    """Return the letter for one name that led to *old* and leads to *new*; None if nothing differs."""
    if old.attr.kind is not new.attr.kind:
        return "T"
    if not _CONTENTS.isdisjoint(fields):
        return "M"
    return "U" if fields else None


def differing_ranges(old: Manifest, new: Manifest) -> Iterator[Range]:
    """Yield the byte ranges in which two contents may differ, in order and not touching each other.

    As fine as the chunks are: a chunk of either lies in them with all its bytes or with none, if it is no hole.  A range in
    which only one content has bytes differs.  Where nodes are the same nothing below them is read.  Raises CorruptError.
    """
    first = last = -1
    for start, end in _differing(old, new):
        if start > last:
            if first >= 0:
                yield first, last
            first = start
        last = end
    if first >= 0:
        yield first, last


def _differing(old: Manifest, new: Manifest) -> Iterator[Range]:
    if (old.content, old.is_manifest, old.size) == (new.content, new.is_manifest, new.size):
        return
    one, other = _Walk(old), _Walk(new)
    position = 0
    while not one.is_done and not other.is_done:
        if one.is_like(other):
            end = one.end
        elif one.level or other.level:
            (one if one.level >= other.level else other).descend()
            continue
        else:
            end = min(one.end, other.end)
            if one.entry.blob is not None or other.entry.blob is not None:
                yield position, end
        position = end
        one.pass_by(end)
        other.pass_by(end)
    if position < max(old.size, new.size):
        yield position, max(old.size, new.size)


class _Walk:
    """A place in a tree: an entry of the nodes that lead to it.  What is below an entry is loaded when one descends."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        root = manifest.root()
        self._path: list[tuple[Place, int]] = [(root, 0)] if root.entries else []

    @property
    def is_done(self) -> bool:
        """Whether the end was reached; without it there is no entry."""
        return not self._path

    @property
    def entry(self) -> Chunk:
        """The chunk or node at hand."""
        place, index = self._path[-1]
        return place.entries[index]

    @property
    def level(self) -> int:
        """0: the entry is a chunk; else it is a node of the level below."""
        return self._path[-1][0].level

    @property
    def end(self) -> int:
        """The offset in the file where the entry ends."""
        place, index = self._path[-1]
        return place.start + place.ends[index]

    def is_like(self, other: "_Walk") -> bool:
        """Return whether both entries are the same, at the same place."""
        return self.end == other.end and self.level == other.level and self.entry == other.entry

    def descend(self) -> None:
        """Go to the first entry of the node at hand."""
        place, index = self._path[-1]
        self._path.append((self._manifest.below(place, index), 0))

    def pass_by(self, position: int) -> None:
        """Go on to the next entry, if the one at hand ends at *position*."""
        if self.end != position:
            return
        while self._path:
            place, index = self._path.pop()
            if index + 1 < len(place.entries):
                self._path.append((place, index + 1))
                return


def _content(state: NodeState) -> tuple[bytes | None, bool, bool, int] | None:
    """Return what names a file's bytes; None for anything else (a symlink's size follows its target)."""
    if state.attr.kind is not Kind.FILE:
        return None
    return state.content, state.is_manifest, state.is_forgotten, state.attr.size
