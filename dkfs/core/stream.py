"""The bytes of a stream: how history goes from one store to another.  Pure, no I/O.

A stream is a start and records, each with a checksum that covers the record before it too: what was lost, swapped or
sent twice on the way does not go unseen.  The layout is specified in dkfs/docs/format.md, "Streams": change both
together.  What was encoded decodes to an equal item; any other bytes either decode or raise CorruptError.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from dkfs.core import codec
from dkfs.core.varint import read_sized, read_varint, sized, varint
from dkfs.errors import CorruptError, StoreFormatError, UsageError
from dkfs.model.ids import BlobId, NodeId, Seq
from dkfs.model.node import NodeState
from dkfs.model.operation import LogRecord, Operation, Tag

FORMAT: Final = 1
MAGIC: Final = b"dkfs-stm"
START: Final = MAGIC + FORMAT.to_bytes(4, "big")
HEAD: Final = struct.Struct(">BI")  # type, length of the bytes that follow
CHECKSUM: Final = struct.Struct(">I")
LENGTH_LIMIT: Final = (1 << 30) + (1 << 20)  # bytes of one record: the greatest blob, and its name
ROWS_LIMIT: Final = (
    1 << 20
)  # bytes of rows in one record; one with more is cut after the row that made it so
DIGEST_SIZE: Final = 32
NO_DIGEST: Final = bytes(DIGEST_SIZE)
NO_HISTORY: Final = bytes(16)

_HEADER: Final = struct.Struct(">16sQ32sQ32s")
_SEQ: Final = struct.Struct(">Q")
_BLOB: Final = struct.Struct(">B32s")
_LINK: Final = struct.Struct(">Q")
_END: Final = struct.Struct(">QQQQ")
_WORD: Final = "dkfs1"  # of a token


@dataclass(frozen=True, slots=True)
class Header:
    """What a stream brings, and to whom."""

    history: bytes  # 16 bytes: uuid of the store in which the history was made
    hash_algo: str  # what names its blobs
    start: Seq  # the receiver has everything up to this version; 0: nothing
    start_digest: bytes  # of that version, see digest(); NO_DIGEST if it is 0
    end: Seq  # the last version that is in the stream
    end_digest: bytes


@dataclass(frozen=True, slots=True)
class Version:
    """The log record of a version; its blobs and rows follow."""

    record: LogRecord


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob as it is stored."""

    blob: BlobId
    encoding: int  # location.LOST: it was given up, and nothing is stored
    length: int  # bytes, plain
    stored: bytes


@dataclass(frozen=True, slots=True)
class Links:
    """Names of a node that none of its states holds."""

    node: NodeId
    places: tuple[tuple[NodeId, bytes], ...]  # directory, name


@dataclass(frozen=True, slots=True)
class Nodes:
    """The next states of the version, in the order in which its log record names their nodes."""

    states: tuple[NodeState, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """Where the next names of the version lead, in the order of its log record."""

    children: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class TagItem:
    """A tag, as it is now."""

    tag: Tag


@dataclass(frozen=True, slots=True)
class End:
    """Everything is there."""

    end: Seq  # the version that the header promised
    versions: int  # how many were in the stream
    next_node: NodeId  # the smallest that was never used
    forgotten_move: Seq  # the newest rollback, undo or redo that was forgotten; 0: none


Item = Header | Version | Blob | Links | Nodes | Names | TagItem | End

_TYPES: Final[dict[type, int]] = {
    Header: 1,
    Version: 2,
    Blob: 3,
    Links: 4,
    Nodes: 5,
    Names: 6,
    TagItem: 7,
    End: 8,
}


@dataclass(frozen=True, slots=True)
class Token:
    """How far a receiver has come."""

    history: bytes  # NO_HISTORY: of none yet
    seq: Seq
    digest: bytes


def digest(seq: Seq, operation: Operation) -> bytes:
    """Return what tells version *seq* from a version of that number in another history.

    It does not change when versions before are forgotten, nor with the format of the store.
    """
    return hashlib.sha256(_SEQ.pack(seq) + codec.encode_log(operation, (), ())).digest()


def token_text(token: Token) -> str:
    """Return *token* for people and scripts."""
    return f"{_WORD}:{token.history.hex()}:{token.seq}:{token.digest.hex()}"


def parse_token(text: str) -> Token:
    """Return the token that *text* is; raises UsageError."""
    parts = text.strip().split(":")
    try:
        word, history, seq, mark = parts
        found = Token(bytes.fromhex(history), Seq(int(seq)), bytes.fromhex(mark))
    except ValueError:
        raise UsageError(f"{text[:80]!r} is no token: see dkfs receive --token") from None
    is_good = word == _WORD and len(found.history) == 16 and len(found.digest) == DIGEST_SIZE
    if not is_good or not 0 <= found.seq < 1 << 63:
        raise UsageError(f"{text[:80]!r} is no token: see dkfs receive --token")
    return found


def check_start(data: bytes) -> None:
    """Raise CorruptError unless *data* is how a stream begins, StoreFormatError if it is of a newer format."""
    if len(data) != len(START) or not data.startswith(MAGIC):
        raise CorruptError(f"not a dkfs stream: it begins with {data[:16].hex() or 'nothing'}")
    if data != START:
        number = int.from_bytes(data[len(MAGIC) :], "big")
        raise StoreFormatError(f"stream of format {number}, this dkfs reads {FORMAT}")


def kind_of(item: Item) -> int:
    """Return the type of the record that holds *item*."""
    return _TYPES[type(item)]


def frame(item: Item, previous: int) -> tuple[bytes, bytes, int]:
    """Return what goes before the bytes of *item*, these bytes, and the checksum that follows them.

    *previous*: the checksum of the record before; 0 at first.
    """
    data = encode(item)
    head = HEAD.pack(kind_of(item), len(data))
    return head, data, crc32(data, crc32(head, previous))


def encode(item: Item) -> bytes:
    """Return the bytes of *item*, without what frames them."""
    match item:
        case Header():
            return _HEADER.pack(
                item.history, item.start, item.start_digest, item.end, item.end_digest
            ) + sized(item.hash_algo.encode())
        case Version(record):
            return _SEQ.pack(record.seq) + codec.encode_log(
                record.operation,
                record.nodes,
                record.names,
                record.folded_nodes,
                record.folded_names,
            )
        case Blob():
            head = _BLOB.pack(item.encoding, item.blob) + varint(item.length)
            return head + item.stored
        case Links():
            places = (_LINK.pack(parent) + sized(name) for parent, name in item.places)
            return _LINK.pack(item.node) + b"".join(places)
        case Nodes(states):
            return b"".join(sized(codec.encode_node(state)) for state in states)
        case Names(children):
            return b"".join(map(varint, children))
        case TagItem(tag):
            return codec.encode_tag(tag)
        case End():
            return _END.pack(item.end, item.versions, item.next_node, item.forgotten_move)


def decode(kind: int, data: bytes) -> Item:
    """Return the item of type *kind* that *data* holds; raises CorruptError."""
    try:
        return _decode(kind, data)
    except (IndexError, struct.error, UnicodeDecodeError):
        raise CorruptError(f"stream record of type {kind} with {len(data)} bytes is none") from None


def _decode(kind: int, data: bytes) -> Item:
    match kind:
        case 1:
            return _decode_header(data)
        case 2:
            seq = Seq(_SEQ.unpack_from(data)[0])
            return Version(codec.decode_log(seq, data[_SEQ.size :]))
        case 3:
            encoding, blob = _BLOB.unpack_from(data)
            length, at = read_varint(data, _BLOB.size)
            return Blob(BlobId(blob), encoding, length, data[at:])
        case 4:
            return Links(NodeId(_LINK.unpack_from(data)[0]), tuple(_places(data)))
        case 5:
            return Nodes(tuple(_states(data)))
        case 6:
            return Names(tuple(_children(data)))
        case 7:
            return TagItem(codec.decode_tag(data))
        case 8:
            end, versions, next_node, move = _END.unpack(data)
            return End(Seq(end), versions, NodeId(next_node), Seq(move))
    raise CorruptError(f"stream record of type {kind}, known are 1 to {len(_TYPES)}")


def _decode_header(data: bytes) -> Header:
    history, start, start_digest, end, end_digest = _HEADER.unpack_from(data)
    algo, at = read_sized(data, _HEADER.size)
    if at != len(data) or end < start:
        raise CorruptError(f"stream header of {len(data)} bytes for versions {start} to {end}")
    return Header(history, algo.decode(), Seq(start), start_digest, Seq(end), end_digest)


def _places(data: bytes) -> Iterator[tuple[NodeId, bytes]]:
    at = _LINK.size
    while at < len(data):
        parent = NodeId(_LINK.unpack_from(data, at)[0])
        name, at = read_sized(data, at + _LINK.size)
        yield parent, name


def _states(data: bytes) -> Iterator[NodeState]:
    at = 0
    while at < len(data):
        record, at = read_sized(data, at)
        yield codec.decode_node(record)


def _children(data: bytes) -> Iterator[NodeId]:
    at = 0
    while at < len(data):
        child, at = read_varint(data, at)
        yield NodeId(child)
