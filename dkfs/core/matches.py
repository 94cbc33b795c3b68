"""Find what new bytes share with old ones wherever it went: pure, no I/O.

Blocks of the old bytes are found again in the new ones at any offset, and each find is extended as far as it goes.
The work is bounded: what is alike is compared at the speed of memory, and what is not is looked up a byte at a time, a
limited number of times.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from dkfs.core.delta import Copy, common_prefix, common_suffix

BLOCK: Final = 32  # bytes; what is alike for twice that is found wherever it is
LOOKUPS: Final = 128 * 1024  # bytes of new contents that may be looked up in vain: 15 ms

_SAMPLE: Final = 16  # bytes
_SAMPLES: Final = 64
_SEARCHES: Final = 4  # for BLOCK bytes each
_STEP: Final = 4096  # bytes compared at a time


def copies_by_content(data: bytes, reference: bytes, *, lookups: int = LOOKUPS) -> tuple[Copy, ...]:
    """Return ranges of *data* that are in *reference* somewhere, in order."""
    blocks = {  # the first of equal ones, for it can be extended furthest
        reference[at : at + BLOCK]: at
        for at in range((len(reference) // BLOCK - 1) * BLOCK, -1, -BLOCK)
    }
    find = blocks.get
    copies: list[Copy] = []
    at = end = 0
    last = len(data) - BLOCK
    while at <= last and lookups > 0:
        source = find(data[at : at + BLOCK])
        if source is None:
            at += 1
            lookups -= 1
            continue
        back = common_suffix(data[end:at], reference[max(0, source - (at - end)) : source])
        length = back + BLOCK + _alike(data, at + BLOCK, reference, source + BLOCK)
        copies.append(Copy(at - back, source - back, length))
        at = end = at - back + length
    return tuple(copies)


def _alike(data: bytes, at: int, reference: bytes, source: int) -> int:
    """Return for how many bytes both go on alike."""
    start = at
    while data[at : at + _STEP] == reference[source : source + _STEP]:
        if at >= len(data):
            return len(data) - start
        at, source = at + _STEP, source + _STEP
    return at - start + common_prefix(data[at : at + _STEP], reference[source : source + _STEP])


def are_news(data: bytes, copies: Sequence[Copy], reference: bytes) -> bool:
    """Return whether what *copies*, sorted and disjoint, leave of *data* seems to have nothing in common with *reference*.

    Only samples are looked at: many where they should be, if nothing moved, and a few everywhere. Of contents of which
    half is in the reference, one in sixteen is missed if that moved, and none if not.
    """
    gaps = list(_gaps(data, copies))
    total = sum(end - start for start, end, _ in gaps)
    step = max(total // _SAMPLES, _SAMPLE)
    for start, end, shift in gaps:
        for at in range(start, end - _SAMPLE + 1, step):
            if data[at : at + _SAMPLE] == reference[at + shift : at + shift + _SAMPLE]:
                return False
    wanted = [total * (2 * each + 1) // (2 * _SEARCHES) for each in range(_SEARCHES)]
    # rfind() takes 7 us for 128 KiB, find() three times as long.
    return all(reference.rfind(data[at : at + BLOCK]) < 0 for at in _places(gaps, wanted))


def _gaps(data: bytes, copies: Sequence[Copy]) -> Iterator[tuple[int, int, int]]:
    """Yield what no copy covers: start, end, and how much further it would be in the reference."""
    at = 0
    shift = copies[0].source - copies[0].offset if copies else 0
    for offset, source, length in copies:
        if at < offset:
            yield at, offset, shift
        at, shift = offset + length, source - offset
    if at < len(data):
        yield at, len(data), shift


def _places(gaps: Sequence[tuple[int, int, int]], wanted: Sequence[int]) -> Iterator[int]:
    """Yield where in *gaps* the bytes with the numbers *wanted* are, less what lies too near to an end."""
    passed = 0
    coming = iter(gaps)
    start, end, _ = next(coming, (0, 0, 0))
    for number in wanted:
        while number >= passed + end - start:
            passed += end - start
            found = next(coming, None)
            if found is None:
                return
            start, end, _ = found
        if end - start >= BLOCK:
            yield min(start + number - passed, end - BLOCK)
