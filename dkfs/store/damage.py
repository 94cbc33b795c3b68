"""What is wrong with a store: one thing, and where it is."""

from dataclasses import dataclass, field
from enum import Enum

from dkfs.model.ids import BlobId, NodeId, Seq


class Kind(Enum):
    """What is damaged; the values are what programs read."""

    PAGE = "page"  # the index as a file: everything may be reached by it
    ROW = "row"  # a row of the index is damaged, missing or wrong
    BLOB = "blob"  # a blob is missing, or is not what its id says
    LOST = "lost"  # ... and a repair has given it up: it is known
    SEGMENT = "segment"  # a segment as a file, or what only a rebuilding of the index would read


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong, and where."""

    message: str
    seq: Seq | None = None  # the version that it belongs to
    node: NodeId | None = None
    blob: BlobId | None = None
    name: bytes | None = None  # of a name in the directory `node`
    kind: Kind = field(default=Kind.ROW, compare=False)
    row: tuple[str, bytes] | None = field(default=None, compare=False)  # table and key
