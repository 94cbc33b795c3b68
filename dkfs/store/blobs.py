"""Blobs: their names, and the form in which they are stored.

Nothing is handed out that was not hashed again, and nothing is decompressed into more bytes than were recorded.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from typing import Final, Literal

import blake3
import zstandard

from dkfs.core.codec import ID_SIZE
from dkfs.core.location import BLOB_LIMIT, LOST, PLAIN, ZSTD, BlobLocation
from dkfs.errors import CorruptError, StoreError, StoreFormatError
from dkfs.model.ids import BlobId
from dkfs.store.segment_reader import SegmentReader
from dkfs.store.segments import damaged

HashAlgo = Literal["blake3", "sha256"]

BASES_LIMIT: Final = 8  # of one delta
_LEVEL: Final = 1
_WORTH_TRYING: Final = 64  # bytes; below this the frame's header eats the gain

_decompressors = threading.local()


def _blake3(data: bytes) -> bytes:
    return blake3.blake3(data).digest()


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


_HASHES: Final[dict[str, Callable[[bytes], bytes]]] = {"blake3": _blake3, "sha256": _sha256}


def hash_function(algo: str) -> Callable[[bytes], bytes]:
    """Return the function that names blobs; raises StoreFormatError."""
    try:
        return _HASHES[algo]
    except KeyError:
        known = " or ".join(_HASHES)
        raise StoreFormatError(f"store with hash algorithm {algo!r}, need {known}") from None


class Encoder:
    """Turns plain bytes into stored bytes; used by one thread at a time."""

    def __init__(self, level: int = _LEVEL) -> None:
        """*level*: of zstd."""
        self._compressor = zstandard.ZstdCompressor(
            level=level, write_content_size=True, write_checksum=False
        )

    def encode(self, data: bytes) -> tuple[int, bytes]:
        """Return the encoding and the stored form of *data*, whichever is smaller; raises StoreError."""
        if len(data) < _WORTH_TRYING:
            return PLAIN, data
        if len(data) > BLOB_LIMIT:
            raise StoreError(f"blob of {len(data)} bytes, the limit is {BLOB_LIMIT}")
        stored = self._compressor.compress(data)
        return (ZSTD, stored) if len(stored) < len(data) else (PLAIN, data)

    def compress(self, data: bytes) -> bytes:
        """Return one zstd frame of *data*, even if that is no gain."""
        return self._compressor.compress(data)


def decode(stored: bytes, location: BlobLocation) -> bytes:
    """Return the plain form of *stored*, not yet verified; raises CorruptError."""
    if location.encoding == PLAIN:
        return stored
    return decompress(stored, location.length)


def decompress(stored: bytes, length: int) -> bytes:
    """Return the *length* bytes in the one zstd frame *stored*; raises CorruptError."""
    # decompress() allocates what the frame asks for, not what max_output_size allows, whenever the frame declares its
    # size (python-zstandard issue 332).
    try:
        declared = zstandard.frame_content_size(stored)
        if declared != length or declared > BLOB_LIMIT:
            raise CorruptError(f"zstd frame of {declared} bytes, need {length}")
        return _decompressor().decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise CorruptError(f"zstd frame of {len(stored)} bytes: {exc}") from exc


def join_delta(bases: Sequence[BlobId], payload: bytes) -> bytes:
    """Return the stored form of a difference to *bases*."""
    return b"".join((bytes((len(bases),)), *bases, payload))


def split_delta(stored: bytes) -> tuple[tuple[BlobId, ...], bytes]:
    """Return the bases of a difference, and what follows them; raises CorruptError."""
    count = stored[0] if stored else 0
    end = 1 + count * ID_SIZE
    if not 1 <= count <= BASES_LIMIT or end > len(stored):
        raise CorruptError(f"delta of {len(stored)} bytes with {count} bases")
    return tuple(BlobId(stored[at : at + ID_SIZE]) for at in range(1, end, ID_SIZE)), stored[end:]


class BlobSource:
    """Reads blobs from segments; may be used by many threads."""

    def __init__(self, segments: SegmentReader, hash_data: Callable[[bytes], bytes]) -> None:
        self._segments = segments
        self.hash_data = hash_data

    def read(self, blob: BlobId, location: BlobLocation, *, strict: bool = False) -> bytes:
        """Return the bytes that *blob* names, which is no difference, verified; raises CorruptError, StoreError.

        If *strict*, damage that does not change them (in a checksum, in a bit without meaning) counts too.
        """
        return self.verified(blob, location, self.read_whole(blob, location, strict=strict))

    def read_whole(self, blob: BlobId, location: BlobLocation, *, strict: bool = False) -> bytes:
        """Return the same as read(), not yet verified."""
        if location.encoding == LOST:
            raise damaged(blob, location, "the contents are lost")
        stored = self._segments.read(location, blob, strict=strict)
        try:
            return decode(stored, location)
        except CorruptError as exc:
            raise damaged(blob, location, str(exc)) from exc

    def verified(self, blob: BlobId, location: BlobLocation, data: bytes) -> bytes:
        """Return *data* if *blob* names it; raises CorruptError."""
        if self.hash_data(data) != blob:
            raise damaged(blob, location, "the contents do not match the hash")
        return data

    def read_delta(
        self, blob: BlobId, location: BlobLocation, *, strict: bool = False
    ) -> tuple[tuple[BlobId, ...], bytes]:
        """Return bases and payload of a difference; raises CorruptError, StoreError."""
        stored = self._segments.read(location, blob, strict=strict)
        try:
            return split_delta(stored)
        except CorruptError as exc:
            raise damaged(blob, location, str(exc)) from exc

    def stored(self, blob: BlobId, location: BlobLocation) -> bytes:
        """Return the stored bytes of *blob*, as they match their checksum; raises CorruptError, StoreError."""
        return self._segments.read(location, blob, strict=True)

    def bases(self, blob: BlobId, location: BlobLocation) -> tuple[BlobId, ...]:
        """Return what a delta is a difference to; raises CorruptError, StoreError."""
        head = self._segments.read_head(location, blob, 1 + BASES_LIMIT * ID_SIZE)
        try:
            return split_delta(head)[0]
        except CorruptError as exc:
            raise damaged(blob, location, str(exc)) from exc

    def close(self) -> None:
        """Close the files; they are opened again when needed."""
        self._segments.close()


def _decompressor() -> zstandard.ZstdDecompressor:
    """Return this thread's own: one must not be used by two threads at once."""
    found: zstandard.ZstdDecompressor | None = getattr(_decompressors, "one", None)
    if found is None:
        found = _decompressors.one = zstandard.ZstdDecompressor()
    return found
