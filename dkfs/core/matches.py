"""Find what new bytes share with old ones wherever it went: pure, no I/O.

Blocks of the old bytes are found again in the new ones at any offset, and each find is extended as far as it goes.
The work is bounded: what is alike is compared at the speed of memory, and what is not is looked up a byte at a time, a
limited number of times.
"""

from typing import Final

from dkfs.core.delta import Copy, common_prefix, common_suffix

BLOCK: Final = 32  # bytes; what is alike for twice that is found wherever it is
LOOKUPS: Final = 128 * 1024  # bytes of new contents that may be looked up in vain: 15 ms

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
