"""What differs between two states of a file: pure, one Difference per line of `dkfs diff`."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

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


def differing_ranges(old: Sequence[Chunk], new: Sequence[Chunk]) -> list[Range]:
    """Return the byte ranges in which two contents may differ, in order and not touching each other.

    As fine as the chunks are; a range in which only one content has bytes differs.
    """
    ranges: list[Range] = []
    old_at, new_at = _Cursor(old), _Cursor(new)
    position = 0
    while old_at.chunk is not None or new_at.chunk is not None:
        end = min(at.end for at in (old_at, new_at) if at.chunk is not None)
        if not old_at.matches(new_at):
            if ranges and ranges[-1][1] == position:
                ranges[-1] = (ranges[-1][0], end)
            else:
                ranges.append((position, end))
        old_at.advance(end)
        new_at.advance(end)
        position = end
    return ranges


class _Cursor:
    """A place in a list of chunks: the chunk there, None at the end."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._rest = iter(chunks)
        self.start = self.end = 0
        self.chunk: Chunk | None = None
        self.advance(0)

    def advance(self, position: int) -> None:
        """Go on to the chunk that holds *position*, which is at most where the current one ends."""
        if position < self.end or (self.chunk is None and self.end):
            return
        self.chunk = next(self._rest, None)
        if self.chunk is not None:
            self.start, self.end = self.end, self.end + self.chunk.length

    def matches(self, other: "_Cursor") -> bool:
        """Return whether both have the same bytes here."""
        if self.chunk is None or other.chunk is None:
            return False
        if self.chunk.blob is None:
            return other.chunk.blob is None
        return self.chunk == other.chunk and self.start == other.start


def _content(state: NodeState) -> tuple[bytes | None, bool, int] | None:
    """Return what names a file's bytes; None for anything else (a symlink's size follows its target)."""
    if state.attr.kind is not Kind.FILE:
        return None
    return state.content, state.is_manifest, state.attr.size
