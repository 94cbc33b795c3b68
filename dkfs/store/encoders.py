"""Encoders: how a blob is stored as a delta to other blobs, and which way is taken.

An encoder makes a payload of new bytes and of a *reference*, the plain bytes of the bases; decode_delta() makes the new
bytes of both again. A payload does not say which bases it needs: the record that holds it does. Decoding takes any
bytes: what it returns has the length asked for, or it raises CorruptError, and it never needs more memory than ten
times the payload and that length together, and 8 MiB.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from dkfs.core import delta, vcdiff
from dkfs.core.delta import Copy
from dkfs.core.location import BSDIFF, EXTENTS, PATCH, XDELTA
from dkfs.core.matches import are_news, copies_by_content
from dkfs.errors import CorruptError
from dkfs.store import bsdiff
from dkfs.store.compression import (
    LEVEL,
    compress,
    compress_like,
    decompress,
    decompress_like,
    frame_length,
)

Library = Literal["auto", "extents", "zstd", "bsdiff", "xdelta"]

_MIB: Final = 1024 * 1024
_SMALL: Final = 256  # bytes of a payload that nothing better is looked for
_BSDIFF_LIMIT: Final = 4 * _MIB  # bytes of a reference; bsdiff takes 16 times as much memory
_LEAST_WRITTEN: Final = 64 * 1024  # bytes that a blob counts for, if less of it was written
_REPETITIVE: Final = (
    32  # how many times smaller the whole form is than data that bsdiff is too slow for
)

_VCDIFF_EXCESS: Final = 64  # bytes by which a delta of xdelta may be longer than what it makes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncodingPolicy:
    """How blobs are to be stored."""

    diff: bool = True  # as deltas, where that is smaller
    library: Library = "auto"
    depth: int = 10  # at most so many deltas before a blob that is stored whole
    budget_s: float = (
        0.02  # for the deltas of one blob; if the library is auto, of one MiB of new contents
    )
    level: int = LEVEL  # of zstd


DEFAULT: Final = EncodingPolicy()


class Contents:
    """New contents, and what is known of the bytes that they may be stored as a delta to."""

    def __init__(
        self,
        data: bytes,
        reference: Callable[[], bytes],
        copies: Sequence[Copy] | None,
        *,
        level: int = LEVEL,
    ) -> None:
        """*copies* as in Like; *reference* is called when an encoder asks for the reference, and only once."""
        self.data = data
        self.copies = copies
        self.level = level
        self.tried: tuple[Sequence[Copy], bytes] | None = None  # copies, and the extents of them
        self._fetch = reference
        self._reference: bytes | None = None
        self._seems_new: bool | None = None

    @property
    def reference(self) -> bytes:
        """The plain bytes of the bases."""
        if self._reference is None:
            self._reference = self._fetch()
        return self._reference

    @property
    def seems_new(self) -> bool:
        """Whether a patch is not likely to be smaller than the extents that were tried; False if none were.

        What cannot be compressed becomes smaller only by what it shares. To look for that took 0.4 of the 1.8 ms in which
        100 KB of random bytes were taken in.
        """
        if self._seems_new is None and self.tried is not None:
            copies, payload = self.tried
            self._seems_new = not delta.is_compressed(payload) and are_news(
                self.data, copies, self.reference
            )
        return bool(self._seems_new)

    def is_made_by(self, encoding: int, payload: bytes) -> bool:
        """Say whether *payload* makes the data; True if the reference was not needed, for then it is not fetched."""
        if self._reference is None:
            return True
        return decode_delta(encoding, payload, self._reference, len(self.data)) == self.data


class Encoder(Protocol):
    """One way to make a delta."""

    code: int  # BlobLocation.encoding
    name: Library

    def estimate_s(self, length: int, reference_length: int) -> float:
        """Return about how long encode() takes for contents that resemble the reference."""

    def encode(self, contents: Contents) -> bytes | None:
        """Return the payload that makes the contents; None if this encoder cannot."""


class ExtentsEncoder:
    """The copies themselves: in no time if they are known, and then without looking at the reference."""

    code: int = EXTENTS
    name: Library = "extents"

    def estimate_s(self, length: int, reference_length: int) -> float:
        """See Encoder."""
        return 5e-4 * (length + reference_length) / _MIB

    def encode(self, contents: Contents) -> bytes | None:
        """See Encoder."""
        copies = contents.copies
        if copies is None:
            copies = delta.copies_by_position(contents.data, contents.reference)
        payload = delta.encode(
            contents.data, copies, lambda literals: compress(literals, contents.level)
        )
        contents.tried = copies, payload
        return payload


class PatchEncoder:
    """zstd with the reference as its dictionary, as `zstd --patch-from` does."""

    code: int = PATCH
    name: Library = "zstd"

    def estimate_s(self, length: int, reference_length: int) -> float:
        """See Encoder."""
        return 1e-3 * (length + reference_length) / _MIB

    def encode(self, contents: Contents) -> bytes | None:
        """See Encoder."""
        return compress_like(contents.data, contents.reference, contents.level)


class BsdiffEncoder:
    """bsdiff: the smallest for programs, and the slowest."""

    code: int = BSDIFF
    name: Library = "bsdiff"

    def estimate_s(self, length: int, reference_length: int) -> float:
        """See Encoder."""
        return 2e-4 + 7e-2 * (length + reference_length) / _MIB

    def encode(self, contents: Contents) -> bytes | None:
        """See Encoder."""
        if len(contents.reference) > _BSDIFF_LIMIT:
            return None
        return bsdiff.encode(contents.data, contents.reference)


class XdeltaEncoder:
    """VCDIFF, as xdelta writes it; the payload is the byte 0 and the delta, or 1 and the delta as one zstd frame."""

    code: int = XDELTA
    name: Library = "xdelta"

    def estimate_s(self, length: int, reference_length: int) -> float:
        """See Encoder."""
        return 2e-2 * (length + reference_length) / _MIB

    def encode(self, contents: Contents) -> bytes | None:
        """See Encoder."""
        data, reference = contents.data, contents.reference
        plain = vcdiff.encode(data, len(reference), copies_by_content(data, reference))
        assert len(plain) <= len(data) + _VCDIFF_EXCESS, "a copy saves more than it costs"
        compressed = compress(plain, contents.level)
        return b"\1" + compressed if len(compressed) < len(plain) else b"\0" + plain


_ENCODERS: Final[tuple[Encoder, ...]] = (
    ExtentsEncoder(),
    PatchEncoder(),
    BsdiffEncoder(),
    XdeltaEncoder(),
)
ENCODERS: Final[dict[Library, Encoder]] = {encoder.name: encoder for encoder in _ENCODERS}


def choose(
    policy: EncodingPolicy,
    data: bytes,
    whole_size: int,
    reference: Callable[[], bytes],
    reference_length: int,
    copies: Sequence[Copy] | None,
) -> tuple[int, bytes] | None:
    """Return the encoding and the payload of the smallest delta that *policy* has time for; None: store *data* whole.

    A delta is smaller than *whole_size*, or it is none. What *reference* raises is passed on.
    """
    if not policy.diff:
        return None
    best: tuple[int, bytes] | None = None
    limit = whole_size
    written = len(data) - sum(copy.length for copy in copies or ())
    left_s = policy.budget_s
    if policy.library == "auto":
        left_s *= max(written, _LEAST_WRITTEN) / _MIB
    contents = Contents(data, reference, copies, level=policy.level)
    for encoder in _candidates(policy.library, copies):
        if encoder.code == EXTENTS and copies is not None:
            estimate_s = encoder.estimate_s(written, 0)
        else:
            estimate_s = encoder.estimate_s(len(data), reference_length)
        if estimate_s > left_s or (encoder.code == PATCH and contents.seems_new):
            continue
        if encoder.code == BSDIFF and not _is_for_bsdiff(policy, data, whole_size, best):
            continue
        left_s -= estimate_s
        payload = encoder.encode(contents)
        if payload is not None and len(payload) < limit:
            best, limit = (encoder.code, payload), len(payload)
        if limit <= _SMALL:
            break
    # Nobody will look at the contents again before they are needed; by then nothing else has them.
    if best is not None and not contents.is_made_by(*best):
        log.error("a delta of encoding %d does not make its contents, stored whole", best[0])
        return None
    return best


def decode_delta(encoding: int, payload: bytes, reference: bytes, length: int) -> bytes:
    """Return the *length* bytes that *payload* makes out of *reference*; raises CorruptError."""
    if encoding == EXTENTS:
        return delta.decode(payload, reference, length, decompress)
    if encoding == PATCH:
        return decompress_like(payload, reference, length)
    if encoding == BSDIFF:
        return bsdiff.decode(payload, reference, length)
    if encoding == XDELTA:
        return vcdiff.decode(_vcdiff(payload, length), reference, length)
    raise CorruptError(f"delta of encoding {encoding}, need {EXTENTS} to {XDELTA}")


def _candidates(library: Library, copies: Sequence[Copy] | None) -> Iterator[Encoder]:
    """Find the encoders to try, the fastest first."""
    if library != "auto":
        yield ENCODERS[library]
        return
    # Known copies are what was not written. What was written is often the same but for a few bytes: 20 versions of an
    # SQLite database, five rows changed in each, took 175 KB as extents, 4 KB as patches.
    yield ENCODERS["extents"]
    yield ENCODERS["zstd"]
    if copies is None:
        yield ENCODERS["bsdiff"]


def _is_for_bsdiff(
    policy: EncodingPolicy, data: bytes, whole_size: int, best: tuple[int, bytes] | None
) -> bool:
    if whole_size * _REPETITIVE < len(data):
        return False  # it takes 0.5 s for 64 KiB that repeat every ten bytes
    # Where zstd finds nothing alike, bsdiff does not either.
    return best is not None or policy.library == "bsdiff"


def _vcdiff(payload: bytes, length: int) -> bytes:
    coding, body = payload[:1], payload[1:]
    if coding == b"\0":
        return body
    if coding != b"\1":
        raise CorruptError(f"xdelta payload with coding {coding.hex() or 'nothing'}, need 00 or 01")
    size = frame_length(body)
    if size > length + _VCDIFF_EXCESS:
        raise CorruptError(f"VCDIFF of {size} bytes that is to make {length}")
    return decompress(body, size)
