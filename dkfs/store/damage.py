"""What is wrong with a store: one thing, and where it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from dkfs.errors import CorruptError, StoreError
from dkfs.model.ids import BlobId, NodeId, Seq


class DamageKind(Enum):
    """What is damaged; the values are what programs read."""

    INDEX = "index"  # the index as a file: everything may be reached by it
    ROW = "row"  # a row of the index is damaged, missing, or at odds with another
    BLOB = "blob"  # a blob is missing, or is not what its id says
    LOST = "lost"  # the same, known since a repair gave it up
    INTENT = "intent"  # the intent log: what was promised last and is not in the index
    SEGMENT = "segment"  # a segment as a file, or what only a rebuilding of the index would read


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong, and where."""

    message: str
    seq: Seq | None = None  # the version that it belongs to
    node: NodeId | None = None
    blob: BlobId | None = None
    name: bytes | None = None  # of the name, in the directory `node`, that is damaged
    kind: DamageKind = field(default=DamageKind.ROW, compare=False)
    row: tuple[str, bytes] | None = field(default=None, compare=False)  # table and key
    segment: int | None = field(default=None, compare=False)  # that is damaged as a file
    length: int = field(default=0, compare=False)  # bytes of the blob, plain, if it is missing


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a repair did, or would do, or could not do."""

    what: str
    how: str
    is_done: bool = True  # False: it stays damaged, or is lost
    blob: BlobId | None = None


@dataclass(frozen=True, slots=True)
class Notes:
    """The damages that were found and not yet told."""

    damages: list[Damage] = field(default_factory=list)

    def take(self) -> Iterator[Damage]:
        """Yield what was noted, once."""
        yield from self.damages
        self.damages.clear()

    def add(
        self,
        message: str,
        seq: Seq | None = None,
        node: NodeId | None = None,
        blob: BlobId | None = None,
        *,
        name: bytes | None = None,
        kind: DamageKind = DamageKind.ROW,
        row: tuple[str, bytes] | None = None,
        segment: int | None = None,
        length: int = 0,
    ) -> None:
        """Note a damage."""
        self.damages.append(Damage(message, seq, node, blob, name, kind, row, segment, length))

    @contextmanager
    def noting(
        self,
        seq: Seq | None = None,
        node: NodeId | None = None,
        blob: BlobId | None = None,
        *,
        name: bytes | None = None,
        kind: DamageKind = DamageKind.ROW,
        row: tuple[str, bytes] | None = None,
        segment: int | None = None,
    ) -> Iterator[None]:
        """Note what the block raises as damage of the given place."""
        try:
            yield
        except (CorruptError, StoreError) as exc:
            self.add(str(exc), seq, node, blob, name=name, kind=kind, row=row, segment=segment)
