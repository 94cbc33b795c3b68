"""Whose history a store holds: its own, or, in a replica, that of another store, up to the version that came last."""

import struct
from dataclasses import dataclass

from dkfs.core.stream import NO_DIGEST, NO_HISTORY, Token, digest
from dkfs.errors import CorruptError, StoreError
from dkfs.model.ids import Seq
from dkfs.store import Reader, Store, Writer

_NOTE = b"replica-of"  # where a replica keeps its origin
_ROW = struct.Struct(">16sQ32s")


@dataclass(frozen=True, slots=True)
class Origin:
    """What the note of a replica says."""

    history: bytes  # uuid of the store in which the history was made
    last: Seq  # the last version that came from there
    digest: bytes  # of it

    @property
    def token(self) -> Token:
        """What a sender needs to continue."""
        return Token(self.history, self.last, self.digest)


def origin_of(reader: Reader) -> Origin | None:
    """Return the origin of a replica, None if the store is none; raises CorruptError."""
    data = reader.meta(_NOTE)
    if data is None:
        return None
    if len(data) != _ROW.size:
        raise CorruptError(f"note {_NOTE.decode()} of {len(data)} bytes, need {_ROW.size}")
    history, last, mark = _ROW.unpack(data)
    return Origin(history, Seq(last), mark)


def put_origin(writer: Writer, origin: Origin) -> None:
    """Note that the store is a replica."""
    writer.put_meta(_NOTE, _ROW.pack(origin.history, origin.last, origin.digest))


def digest_of(reader: Reader, seq: Seq) -> bytes | None:
    """Return what tells version *seq* from others of that number; None if it is not there."""
    if seq == 0:
        return NO_DIGEST
    record = reader.record(seq)
    return None if record is None else digest(seq, record.operation)


def history_of(store: Store, reader: Reader) -> bytes:
    """Return the uuid of the history in *store*: that of its origin as long as nothing of its own was added."""
    origin = origin_of(reader)
    if origin is not None and is_replica_still(reader, origin):
        return origin.history
    return store.uuid.bytes


def is_replica_still(reader: Reader, origin: Origin) -> bool:
    """Return whether the newest version is the last one that came from *origin*."""
    return reader.last == origin.last and digest_of(reader, reader.last) == origin.digest


def token_of(store: Store, reader: Reader) -> Token:
    """Return the token with which a sender continues; raises StoreError if the store is no replica."""
    origin = origin_of(reader)
    if origin is None:
        if reader.last:
            raise StoreError(f"store {store.path} has a history of its own, expected a replica")
        return EMPTY
    if not is_replica_still(reader, origin):
        raise StoreError(own_versions(store, reader, origin))
    return origin.token


def own_versions(store: Store, reader: Reader, origin: Origin) -> str:
    """Return what is said of a replica to which somebody has written."""
    return (
        f"store {store.path} has version {reader.last}, which did not come from its source: expected nothing after"
        f" version {origin.last}"
    )


EMPTY = Token(NO_HISTORY, Seq(0), NO_DIGEST)
