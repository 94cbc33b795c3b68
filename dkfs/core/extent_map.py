"""Where the bytes of two clones of one file lie on the disk, and so where they differ.  Pure.

Both hold their blocks, so that none is used for other bytes meanwhile: what lies in the same block is the same.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dkfs.core.extents import Extents


class Mapped(NamedTuple):
    """A stretch of a file that lies in one piece on the disk."""

    start: int  # in the file, bytes
    end: int
    physical: int  # on the disk, bytes; nothing else about it is known
    is_zero: bool = False  # allocated, never written: it reads as zeros
    is_sure: bool = (
        True  # the address says what the bytes are: not so for compressed or inlined ones
    )


_END = 1 << 63


def differences(
    old: Sequence[Mapped], old_size: int, new: Sequence[Mapped], new_size: int
) -> Extents:
    """Return where below *new_size* the file *new* may have other bytes than *old*, or zeros behind its end."""
    found = Extents()
    olds, news = _with_holes(old), _with_holes(new)
    one, other = next(olds), next(news)
    at = 0
    while at < new_size:
        end = min(one.end, other.end, new_size)
        if at < old_size < end:
            end = old_size
        if not (_is_same(one, other, at) if at < old_size else other.is_zero):
            found.add(at, end)
        at = end
        if at == one.end:
            one = next(olds)
        if at == other.end:
            other = next(news)
    return found


def _is_same(one: Mapped, other: Mapped, at: int) -> bool:
    if one.is_zero or other.is_zero:
        return one.is_zero and other.is_zero
    if not (one.is_sure and other.is_sure):
        return False
    return one.physical + at - one.start == other.physical + at - other.start


def _with_holes(mapped: Sequence[Mapped]) -> Iterator[Mapped]:
    at = 0
    for each in mapped:
        if at < each.start:
            yield Mapped(at, each.start, 0, is_zero=True)
        if at < each.end:
            yield each
            at = each.end
    yield Mapped(at, _END, 0, is_zero=True)
