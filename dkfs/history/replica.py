"""Whose history a store holds: its own, or, in a replica, that of another store, up to the version that came last."""

import struct
from dataclasses import dataclass

from dkfs.core.stream import NO_DIGEST, NO_HISTORY, Token, digest
from dkfs.errors import CorruptError, UsageError
from dkfs.model.ids import Seq
from dkfs.store import Reader, Store, Writer

_NOTE = b"replica-of"  # where a replica keeps it
_ROW = struct.Struct(">16sQ32s")


@dataclass(frozen=True, slots=True)
class Replica:
    """What the note of a replica says."""

    history: bytes  # uuid of the store in which the history was made
    last: Seq  # the last version that came from there
    digest: bytes  # of it

    @property
    def token(self) -> Token:
        """What a sender needs to continue."""
        return Token(self.history, self.last, self.digest)


def replica_of(reader: Reader) -> Replica | None:
    """Return whose replica the store is, None if it is none; raises CorruptError."""
    data = reader.meta(_NOTE)
    if data is None:
        return None
    if len(data) != _ROW.size:
        raise CorruptError(f"note {_NOTE.decode()} of {len(data)} bytes, need {_ROW.size}")
    history, last, mark = _ROW.unpack(data)
    return Replica(history, Seq(last), mark)


def put_replica(writer: Writer, replica: Replica) -> None:
    """Note that the store is a replica."""
    writer.put_meta(_NOTE, _ROW.pack(replica.history, replica.last, replica.digest))


def digest_of(reader: Reader, seq: Seq) -> bytes | None:
    """Return what tells version *seq* from others of that number; None if it is not there."""
    if seq == 0:
        return NO_DIGEST
    record = reader.record(seq)
    return None if record is None else digest(seq, record.operation)


def history_of(store: Store, reader: Reader) -> bytes:
    """Return the uuid of the history in *store*: that of its source as long as nothing of its own was added."""
    replica = replica_of(reader)
    if replica is not None and is_untouched(reader, replica):
        return replica.history
    return store.uuid.bytes


def is_untouched(reader: Reader, replica: Replica) -> bool:
    """Return whether the newest version is the last one that came to *replica*."""
    return reader.last == replica.last and digest_of(reader, reader.last) == replica.digest


def token_of(store: Store, reader: Reader) -> Token:
    """Return the token with which a sender continues; raises UsageError if the store is no replica."""
    replica = replica_of(reader)
    if replica is None:
        if reader.last:
            raise UsageError(f"store {store.path} has a history of its own, expected a replica")
        return EMPTY
    if not is_untouched(reader, replica):
        raise UsageError(own_versions(store, reader, replica))
    return replica.token


def own_versions(store: Store, reader: Reader, replica: Replica) -> str:
    """Return what is said of a replica to which somebody has written."""
    return (
        f"store {store.path} has version {reader.last}, which did not come from its source: expected nothing after"
        f" version {replica.last}"
    )


EMPTY = Token(NO_HISTORY, Seq(0), NO_DIGEST)
