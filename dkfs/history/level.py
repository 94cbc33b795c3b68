"""Where an extraction is: the directories on the way, and the name at hand."""

import os
from dataclasses import dataclass, field

from dkfs.core.patterns import Chosen
from dkfs.history import content
from dkfs.model.ids import NodeId
from dkfs.model.node import NodeState
from dkfs.store import Reader


@dataclass(slots=True)
class Level:
    """A directory on the way."""

    node: NodeId
    key: NodeId  # in Directories
    name: bytes
    path: bytes
    above: "Level | None"
    chosen: Chosen
    state: NodeState | None  # None: its metadata stay
    is_there: bool  # it exists
    is_made: bool = False  # it did not, but does now, or would
    replaces: bool = False  # something that is no directory has the name
    mode: int | None = None  # of one that was opened up for its owner
    names: set[bytes] = field(default_factory=set)  # that the version has in it

    def path_of(self, name: bytes) -> bytes:
        """Return the path of *name* in it."""
        return self.path + b"/" + name if self.path else name


@dataclass(frozen=True, slots=True)
class Item:
    """One name that the version has, and what the target has there."""

    level: Level
    name: bytes
    path: bytes
    node: NodeId
    state: NodeState
    status: os.stat_result | None  # by lstat(2)

    def size(self, reader: Reader) -> int:
        """Return how many bytes a new file with these contents takes, its holes left out; raises CorruptError."""
        pieces = content.pieces(reader, self.state)
        return sum(chunk.length for _, chunk in pieces if chunk.blob is not None)
