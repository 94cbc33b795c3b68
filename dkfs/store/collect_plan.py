"""What a collection would do: which segments are given up, and what comes back to the disk. Computes only."""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

MAX_UNUSED: Final = 0.10  # of a segment: what it may hold for nothing before it is rewritten

_SMALL: Final = 1 / 16  # of a full segment
_SMALL_MOST: Final = 32  # segments so small; more are joined


@dataclass(frozen=True, slots=True)
class SegmentUse:
    """What one segment is used for; all in bytes."""

    number: int
    size: int  # of the file
    live: int  # records of blobs that are needed
    journals: int  # journal records that a rebuild of the index still needs


class Victim(NamedTuple):
    """A segment that is given up."""

    number: int
    size: int  # bytes
    kept: int  # bytes of it that have to be written again


@dataclass(frozen=True, slots=True)
class Plan:
    """What a collection will do."""

    victims: tuple[Victim, ...]  # what needs the least room comes first
    is_checkpoint: bool  # a checkpoint takes the place of the journals
    freed: int  # bytes of segments that come back to the disk, less what is written

    @property
    def copied(self) -> int:
        """How many bytes are written again."""
        return sum(victim.kept for victim in self.victims)


def plan(
    uses: Iterable[SegmentUse],
    *,
    max_unused: float,
    overhead: int,
    limit: int,
    checkpoint: int | None,
    wanted: Container[int] = (),
) -> Plan:
    """Return what to do with segments that are used as *uses* says: nothing if nothing would come back.

    A segment is given up when *max_unused* of it or more is of no use, or when it is *wanted*. *overhead* are the bytes
    of a segment without records, *limit* those of a full one, *checkpoint* those of a checkpoint; None: none is to be
    made. It is made if it brings as much again as it takes.
    """
    known = tuple(uses)
    best = _plan(known, max_unused, overhead, limit, None, wanted)
    if checkpoint is not None:
        other = _plan(known, max_unused, overhead, limit, checkpoint, wanted)
        best = other if other.freed > best.freed + checkpoint else best
    return best


def groups(victims: Iterable[Victim], *, limit: int) -> Iterator[tuple[Victim, ...]]:
    """Yield *victims* in the same order, as many together as fill one segment of *limit* bytes.

    Those of which nothing is kept come for themselves: what they give back may be needed for the others.
    """
    group: list[Victim] = []
    total = 0
    for victim in victims:
        if group and (total + victim.kept > limit or (victim.kept and not total)):
            yield tuple(group)
            group, total = [], 0
        group.append(victim)
        total += victim.kept
    if group:
        yield tuple(group)


def _plan(
    uses: tuple[SegmentUse, ...],
    max_unused: float,
    overhead: int,
    limit: int,
    checkpoint: int | None,
    wanted: Container[int],
) -> Plan:
    small = {use.number for use in uses if use.size < limit * _SMALL}
    join = small if len(small) > _SMALL_MOST else set()
    victims = []
    for use in uses:
        kept = use.live + (use.journals if checkpoint is None else 0)
        unused = use.size - kept - overhead
        is_meant = use.number in join or use.number in wanted
        if is_meant or (unused > 0 and (not kept or unused >= max_unused * use.size)):
            victims.append(Victim(use.number, use.size, kept))
    victims.sort(key=lambda victim: (victim.kept, victim.number))
    outputs = sum(1 for group in groups(victims, limit=limit) if any(v.kept for v in group))
    written = sum(v.kept for v in victims) + outputs * overhead + (checkpoint or 0)
    freed = sum(v.size for v in victims) - written
    if freed <= 0 and not any(victim.number in wanted for victim in victims):
        return Plan((), is_checkpoint=False, freed=0)
    return Plan(tuple(victims), checkpoint is not None, freed)
