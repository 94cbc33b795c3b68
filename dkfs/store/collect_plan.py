"""What a collection would do: which segments are given up, and what comes back to the disk. Computes only."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MAX_UNUSED: Final = 0.10  # of a segment: what it may hold for nothing before it is rewritten


@dataclass(frozen=True, slots=True)
class SegmentUse:
    """What one segment is used for; all in bytes."""

    number: int
    size: int  # of the file
    live: int  # records of blobs that are needed
    live_records: int
    journals: int  # journal records that a rebuild of the index still needs


@dataclass(frozen=True, slots=True)
class Plan:
    """What a collection will do, in the order in which it does it."""

    segments: tuple[int, ...]  # that are given up: what needs the least room comes first
    is_checkpoint: bool  # the journals are replaced by a checkpoint first
    copied: int  # bytes that are written again
    freed: int  # bytes of segments that come back to the disk, less what is written


def plan(
    uses: Iterable[SegmentUse],
    *,
    max_unused: float,
    overhead: int,
    limit: int,
    checkpoint: int | None,
) -> Plan:
    """Return what to do with segments that are used as *uses* says.

    A segment is given up when more than *max_unused* of it is of no use. *overhead* are the bytes of a segment without
    records, *limit* those of a full one, *checkpoint* those of a checkpoint; None: none can be made.
    """
    known = tuple(uses)
    without = _plan(known, max_unused, overhead, limit, None)
    if checkpoint is None or not any(use.journals for use in known):
        return without
    with_one = _plan(known, max_unused, overhead, limit, checkpoint)
    return with_one if with_one.freed > without.freed else without


def _plan(
    uses: tuple[SegmentUse, ...],
    max_unused: float,
    overhead: int,
    limit: int,
    checkpoint: int | None,
) -> Plan:
    chosen: list[tuple[int, SegmentUse]] = []
    for use in uses:
        kept = use.live + (use.journals if checkpoint is None else 0)
        unused = use.size - kept - overhead
        if unused > 0 and (not kept or unused >= max_unused * use.size):
            chosen.append((kept, use))
    chosen.sort(key=lambda each: (each[0], each[1].number))
    copied = sum(kept for kept, _ in chosen)
    outputs = -(-copied // limit)
    written = copied + outputs * overhead + (checkpoint or 0)
    return Plan(
        segments=tuple(use.number for _, use in chosen),
        is_checkpoint=checkpoint is not None,
        copied=copied,
        freed=sum(use.size for _, use in chosen) - written,
    )
