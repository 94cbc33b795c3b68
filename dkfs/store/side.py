"""What the writers of one store hand on from transaction to transaction."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from dkfs.model.ids import BlobId
from dkfs.store.blobs import Encoder
from dkfs.store.encoders import DEFAULT, EncodingPolicy
from dkfs.store.segments import SegmentWriter

VERIFIED_LIMIT: Final = 16 * 1024  # ids, so that a common blob is not read for every use
PLAIN_LIMIT: Final = 16 * 1024 * 1024  # bytes; the bases of what is written next are mostly here


class PlainCache:
    """The plain bytes of the blobs that were used last; for one thread at a time."""

    def __init__(self, limit: int = PLAIN_LIMIT) -> None:
        """Keep at most *limit* bytes."""
        self._limit = limit
        self._size = 0
        self._blobs: OrderedDict[BlobId, bytes] = OrderedDict()

    def get(self, blob: BlobId) -> bytes | None:
        """Return the bytes that *blob* names, None if they are not here."""
        data = self._blobs.get(blob)
        if data is not None:
            self._blobs.move_to_end(blob)
        return data

    def put(self, blob: BlobId, data: bytes) -> None:
        """Keep *data*, which *blob* names, in place of what was not used for long."""
        if blob in self._blobs or len(data) > self._limit // 2:
            return
        self._blobs[blob] = data
        self._size += len(data)
        while self._size > self._limit:
            self._size -= len(self._blobs.popitem(last=False)[1])

    def drop(self, blob: BlobId) -> None:
        """Keep *blob* no longer."""
        self._size -= len(self._blobs.pop(blob, b""))


@dataclass(slots=True)
class WriteSide:
    """What the writers of one store hand on from transaction to transaction."""

    output: SegmentWriter
    policy: EncodingPolicy = DEFAULT
    encoder: Encoder = field(default_factory=Encoder)
    mutex: threading.Lock = field(default_factory=threading.Lock)  # held by the Writer
    verified: set[BlobId] = field(default_factory=set)
    plain: PlainCache = field(default_factory=PlainCache)
    last_time_ns: int | None = None  # time of the newest operation; None: not known yet
    touched: set[BlobId] | None = None  # what puts rely on since a collection began; None: none is
    is_uncertain: bool = False  # a commit failed, and only the index knows what the tail is

    def remember(self, blob: BlobId) -> None:
        """Note that *blob* is in the store, and sound."""
        if len(self.verified) >= VERIFIED_LIMIT:
            self.verified.clear()
        self.verified.add(blob)

    def drop(self, blob: BlobId) -> None:
        """Know nothing of *blob* any more."""
        self.verified.discard(blob)
        self.plain.drop(blob)
