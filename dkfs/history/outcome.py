"""What came of changing a real directory."""

from dataclasses import dataclass

from dkfs.errors import CorruptError, DkfsError
from dkfs.model.ids import NodeId


@dataclass(frozen=True, slots=True)
class Result:
    """Counts of nodes and bytes, and what could not be done."""

    created: int = 0
    removed: int = 0
    rewritten: int = 0  # files whose contents were changed in place
    attributes: int = 0  # nodes that stayed and got other metadata
    bytes_written: int = 0
    problems: tuple[str, ...] = ()  # for people: one line each, path first
    damaged: int = 0  # how many of the problems are damage in the store
    failed: frozenset[NodeId] = frozenset()  # nodes that stayed as they were; see Plan.without()
    kept: int = 0  # files that were there and were to stay
    left_out: tuple[str, ...] = ()  # for people: what is not made unless it is asked for
    verified: int = 0  # files that were read again
    owners_kept: int = 0  # nodes that are whoever made them's, who may not give them away


class Tally:
    """A Result in the making."""

    def __init__(self) -> None:
        self.created = self.removed = self.rewritten = self.attributes = self.bytes_written = 0
        self.damaged = self.kept = self.verified = self.owners_kept = 0
        self.problems: list[str] = []
        self.left_out: list[str] = []
        self.failed: set[NodeId] = set()

    def result(self) -> Result:
        """Return what was counted."""
        return Result(
            self.created,
            self.removed,
            self.rewritten,
            self.attributes,
            self.bytes_written,
            tuple(self.problems),
            self.damaged,
            frozenset(self.failed),
            self.kept,
            tuple(self.left_out),
            self.verified,
            self.owners_kept,
        )

    def problem(self, exc: DkfsError | OSError) -> str:
        """Return what *exc* says, for one of the problems; damage is counted."""
        self.damaged += isinstance(exc, CorruptError)
        return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
