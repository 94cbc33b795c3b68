"""Deltas: what new bytes share with bytes that are stored already."""

from dataclasses import dataclass
from typing import NamedTuple

from dkfs.model.ids import BlobId


class Copy(NamedTuple):
    """Bytes of the new contents that are in the reference too."""

    offset: int  # bytes, in the new contents
    source: int  # bytes, in the reference
    length: int  # bytes


@dataclass(frozen=True, slots=True)
class Like:
    """What new contents resemble: a hint, with which they may be stored as a delta."""

    bases: tuple[BlobId, ...]  # the reference is their plain bytes, joined in this order
    copies: tuple[Copy, ...] | None  # sorted, no byte of the new contents twice; None: not known
