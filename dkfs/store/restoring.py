"""Blobs that are stored as differences to others: what that may cost, and how they are restored.

What cannot be restored within the limits is not written, and what asks for more when it is read is damaged: a loop, a
chain without an end, a reference of any size. The limits are part of the format, see dkfs/docs/format.md.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dkfs.core.location import DELTAS, BlobLocation
from dkfs.errors import CorruptError
from dkfs.model.ids import BlobId
from dkfs.store.blobs import BlobSource
from dkfs.store.encoders import decode_delta
from dkfs.store.segments import damaged

DEPTH_LIMIT: Final = 255  # differences from a blob down to one that is whole
LEAST_WHOLE: Final = (
    128  # stored bytes; what takes less is not worth a difference, which names its bases
)
_MIB: Final = 1024 * 1024
_REFERENCE_LIMIT: Final = 32 * _MIB  # bytes, plain
_DEEP: Final = 16  # differences that have others below them may hold a reference each ...
_DEEP_REFERENCE_LIMIT: Final = (
    2 * _MIB
)  # ... so that all of them together stay below the next limit
_HELD_LIMIT: Final = 1024 * _MIB  # bytes, plain, that are held at once while a blob is restored
_COST_FACTOR: Final = 8  # times the plain length may be read to restore a blob, see decisions/0005
_COST_LEAST: Final = 4096  # bytes; a blob that is shorter may cost as much as one that is this long
_LEAST_READ: Final = 16  # bytes of cost for each blob that is read on the way, at least

Locate = Callable[[BlobId], BlobLocation | None]


class Chain(NamedTuple):
    """What a difference to some blobs would rely on."""

    depth: int  # of the difference
    cost: int  # bytes to read for its bases
    length: int  # bytes of its reference, plain

    @property
    def is_too_much(self) -> bool:
        """Whether nobody would read such a difference."""
        limit = _REFERENCE_LIMIT if self.depth <= _DEEP else _DEEP_REFERENCE_LIMIT
        return self.depth > DEPTH_LIMIT or self.length > limit


def weigh(bases: Iterable[BlobLocation]) -> Chain:
    """Return what a difference to the blobs at *bases* would rely on."""
    depth = cost = length = 0
    for base in bases:
        depth = max(depth, base.depth)
        cost += base.read_cost
        length += base.length
    return Chain(depth + 1, cost, length)


def cost_limit(length: int) -> int:
    """Return how many bytes may be read to restore a blob of *length*."""
    return _COST_FACTOR * max(length, _COST_LEAST)


def restore(
    source: BlobSource,
    blob: BlobId,
    location: BlobLocation,
    locate: Locate,
    *,
    strict: bool = False,
) -> bytes:
    """Return the bytes that *blob*, a difference, names, verified; raises CorruptError, StoreError.

    *locate* says where its bases are. *strict* is as in BlobSource.read().
    """
    try:
        data = _Restoration(source, locate).run(blob, location, strict=strict)
        if source.hash_data(data) == blob:
            return data
    except CorruptError:
        pass  # found again, and named, by the next line
    # Where the damage is shows only when every step is verified, which takes longer.
    return _Restoration(source, locate, is_verifying=True).run(blob, location, strict=strict)


@dataclass(slots=True)
class _Step:
    """A difference whose bases are being restored."""

    blob: BlobId
    location: BlobLocation
    bases: tuple[BlobId, ...]
    payload: bytes
    parts: list[bytes] = field(default_factory=list)  # plain bytes of the first bases


class _Restoration:
    """The restoring of one blob: a walk down to what is whole, and up again, without recursion."""

    def __init__(self, source: BlobSource, locate: Locate, *, is_verifying: bool = False) -> None:
        self._source = source
        self._locate = locate
        self._is_verifying = is_verifying
        self._steps: list[_Step] = []
        self._held = 0
        self._left = 0  # blobs that may still be read

    def run(self, blob: BlobId, location: BlobLocation, *, strict: bool) -> bytes:
        """Return the plain bytes of *blob*; raises CorruptError, StoreError."""
        self._left = max(location.length, _COST_LEAST) // _LEAST_READ
        self._steps.append(
            _Step(blob, location, *self._source.read_delta(blob, location, strict=strict))
        )
        try:
            return self._walk()
        except CorruptError as exc:
            text = str(exc)
            named = f"blob {blob.hex()} "
            raise exc if text.startswith(named) else damaged(blob, location, text) from exc

    def _walk(self) -> bytes:
        steps = self._steps
        while True:
            step = steps[-1]
            if len(step.parts) < len(step.bases):
                data = self._base(step)
                if data is None:
                    continue
            else:
                data = self._decoded(step)
                steps.pop()
                if not steps:
                    return data
                step = steps[-1]
            self._hold(step, data)

    def _base(self, step: _Step) -> bytes | None:
        """Return the next base of *step*; None if it is a difference itself, which then is the newest step."""
        base = step.bases[len(step.parts)]
        location = self._locate(base)
        if location is None:
            raise CorruptError(f"base {base.hex()} is not in the store")
        if sum(map(len, step.parts)) + location.length > _REFERENCE_LIMIT:
            raise CorruptError(f"reference of more than {_REFERENCE_LIMIT} bytes")
        self._left -= 1
        if self._left < 0:
            raise CorruptError("needs more other blobs than its length allows")
        if location.encoding in DELTAS:
            if len(self._steps) >= DEPTH_LIMIT or any(base == each.blob for each in self._steps):
                raise CorruptError(f"base {base.hex()} leads to itself, or is too deep")
            self._steps.append(_Step(base, location, *self._source.read_delta(base, location)))
            return None
        if self._is_verifying:
            return self._source.read(base, location)
        return self._source.read_whole(base, location)

    def _decoded(self, step: _Step) -> bytes:
        reference = b"".join(step.parts)
        self._held -= len(reference)
        location = step.location
        try:
            data = decode_delta(location.encoding, step.payload, reference, location.length)
        except CorruptError as exc:
            raise damaged(step.blob, location, str(exc)) from exc
        if self._is_verifying:
            return self._source.verified(step.blob, location, data)
        return data

    def _hold(self, step: _Step, data: bytes) -> None:
        step.parts.append(data)
        self._held += len(data)
        if self._held > _HELD_LIMIT:
            raise CorruptError(f"needs more than {_HELD_LIMIT} bytes of other blobs at once")
