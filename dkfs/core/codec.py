"""The bytes of every record of the store: pure, no I/O.

What was encoded decodes to an equal record; any other bytes either decode or raise CorruptError, never anything else,
and never take more memory than a small multiple of their own length. The first byte is the format version. Integers
are big-endian; a "varint" is LEB128. The layout is specified in dkfs/docs/format.md: change both together.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Final

from dkfs.errors import CorruptError
from dkfs.model.ids import NO_NODE, BlobId, NodeId, Seq
from dkfs.model.node import Attr, Chunk, Kind, NodeState
from dkfs.model.operation import LogRecord, Operation, OpKind, Origin, Tag

FORMAT: Final = 1
ID_SIZE: Final = 32  # bytes of a BlobId
PLAIN: Final = 0  # BlobLocation.encoding: the stored bytes are the plain bytes
ZSTD: Final = 1  # ... one zstd frame that declares its content size

_NS: Final = 1_000_000_000

# Seconds and nanoseconds apart: 64 bits of nanoseconds end in 2262, and ext4 keeps times up to 2446.
_NODE: Final = struct.Struct(">BBHIIqIqIQQB")
_KIND_MASK: Final = 0x07
_HAS_RDEV: Final = 0x08
_IS_MANIFEST: Final = 0x10
_HAS_CONTENT: Final = 0x20
_HAS_XATTRS: Final = 0x40
_HAS_TARGET: Final = 0x80
_KINDS: Final = (None, *Kind)  # the stored values are 1 .. 7

_LOG: Final = struct.Struct(">BBBqIIQQ")
_TIME: Final = struct.Struct(">q")
_TIME_OFFSET: Final = 3
_U64: Final = struct.Struct(">Q")
_PAIR: Final = struct.Struct(">QQ")
_HAS_NEW: Final = 0x01
_HAS_VERSIONS: Final = 0x02
_HAS_PATHS: Final = 0x04
_LOG_FLAGS: Final = _HAS_NEW | _HAS_VERSIONS | _HAS_PATHS
_OP_KINDS: Final[dict[int, OpKind]] = {int(kind): kind for kind in OpKind}

_RUN: Final = struct.Struct(">BQI")
_HOLE: Final = 0
_DATA: Final = 1
_SIZE_LIMIT: Final = 1 << 63  # bytes, exclusive; off_t

_TAG: Final = struct.Struct(">BQq")
_LOCATION: Final = struct.Struct(">BBIQII")


@dataclass(frozen=True, slots=True)
class BlobLocation:
    """Where the stored form of a blob is."""

    segment: int  # number of the segment file, 1, 2, 3 ...
    offset: int  # bytes from the start of the segment to the blob's record
    stored_length: int  # bytes, as stored, without the record's header
    length: int  # bytes, plain
    encoding: int  # PLAIN or ZSTD


def encode_node(state: NodeState) -> bytes:
    """Return the record of *state*."""
    attr = state.attr
    flags: int = attr.kind
    tail = state.name
    if state.content is not None:
        flags |= _HAS_CONTENT | _IS_MANIFEST if state.is_manifest else _HAS_CONTENT
        tail += state.content
    if state.xattrs is not None:
        flags |= _HAS_XATTRS
        tail += state.xattrs
    if attr.rdev:
        flags |= _HAS_RDEV
        tail += _U64.pack(attr.rdev)
    if state.target:
        flags |= _HAS_TARGET
        tail += state.target
    mtime_s, mtime_rest = divmod(attr.mtime_ns, _NS)
    ctime_s, ctime_rest = divmod(attr.ctime_ns, _NS)
    head = _NODE.pack(
        FORMAT,
        flags,
        attr.mode,
        attr.uid,
        attr.gid,
        mtime_s,
        mtime_rest,
        ctime_s,
        ctime_rest,
        attr.size,
        state.parent,
        len(state.name),
    )
    return head + tail


def decode_node(data: bytes) -> NodeState:
    """Return the state that *data* records; raises CorruptError."""
    try:
        fields = _NODE.unpack_from(data)
    except struct.error:
        raise _short("node", data, _NODE.size) from None
    fmt, flags, mode, uid, gid, mtime_s, mtime_rest, ctime_s, ctime_rest, size, parent, n = fields
    kind = _KINDS[flags & _KIND_MASK]
    if fmt != FORMAT or kind is None:
        raise CorruptError(f"node record of format {fmt}, kind {flags & _KIND_MASK}; need format 1")
    if mode > 0o7777 or mtime_rest >= _NS or ctime_rest >= _NS:
        raise CorruptError("node record with a mode or a time out of range")
    at = _NODE.size + n
    name = data[_NODE.size : at]
    content = xattrs = None
    rdev, target = 0, b""
    if flags & _HAS_CONTENT:
        content = BlobId(data[at : at + ID_SIZE])
        at += ID_SIZE
    elif flags & _IS_MANIFEST:
        raise CorruptError("node record with a manifest and no content")
    if flags & _HAS_XATTRS:
        xattrs = BlobId(data[at : at + ID_SIZE])
        at += ID_SIZE
    if flags & _HAS_RDEV:
        rdev = int.from_bytes(data[at : at + _U64.size], "big")
        at += _U64.size
    if flags & _HAS_TARGET and at < len(data):
        target = data[at:]
        at = len(data)
    if at != len(data):
        raise CorruptError(f"node record of {len(data)} bytes, need {at}")
    mtime_ns, ctime_ns = mtime_s * _NS + mtime_rest, ctime_s * _NS + ctime_rest
    attr = Attr(kind, mode, uid, gid, mtime_ns, ctime_ns, size, rdev)
    is_manifest = flags & _IS_MANIFEST != 0
    return NodeState(attr, parent, name, content, is_manifest, target, xattrs)


def encode_log(
    operation: Operation, nodes: Sequence[NodeId], names: Sequence[tuple[NodeId, bytes]]
) -> bytes:
    """Return the record of *operation* and the keys of the states that it left behind."""
    flags = 0
    origin = operation.origin
    parts = [b"", _sized(origin.comm), _sized(operation.name)]
    if operation.new_parent or operation.new_name:
        flags |= _HAS_NEW
        parts += (_U64.pack(operation.new_parent), _sized(operation.new_name))
    if operation.target or operation.undoes:
        flags |= _HAS_VERSIONS
        parts.append(_PAIR.pack(operation.target, operation.undoes))
    if operation.paths:
        flags |= _HAS_PATHS
        parts.append(_varint(len(operation.paths)))
        parts += map(_sized, operation.paths)
    parts += (_varint(len(nodes)), struct.pack(f">{len(nodes)}Q", *nodes), _varint(len(names)))
    for parent, name in names:
        parts += (_U64.pack(parent), _sized(name))
    parts[0] = _LOG.pack(
        FORMAT,
        operation.kind,
        flags,
        operation.time_ns,
        origin.pid,
        origin.uid,
        operation.node,
        operation.parent,
    )
    return b"".join(parts)


def decode_log(seq: Seq, data: bytes) -> LogRecord:
    """Return the log record of version *seq* that *data* records; raises CorruptError."""
    try:
        return _decode_log(seq, data)
    except (IndexError, struct.error):
        raise CorruptError(f"log record {seq} of {len(data)} bytes ends too early") from None


def log_time_ns(data: bytes) -> int:
    """Return only the time of a log record; raises CorruptError."""
    if len(data) < _LOG.size:
        raise _short("log", data, _LOG.size)
    time_ns: int = _TIME.unpack_from(data, _TIME_OFFSET)[0]
    return time_ns


def encode_manifest(chunks: Sequence[Chunk]) -> bytes:
    """Return the manifest of a file that consists of *chunks*: equal chunks give equal bytes."""
    parts = [bytes((FORMAT,))]
    for length, run in groupby(chunks, attrgetter("length")):
        for is_data, same in groupby((chunk.blob for chunk in run), _is_blob):
            if is_data:
                blobs = [blob for blob in same if blob is not None]
                parts.append(_RUN.pack(_DATA, length, len(blobs)))
                parts += blobs
            else:
                parts += [_RUN.pack(_HOLE, length, 1) for _ in same]
    return b"".join(parts)


def decode_manifest(data: bytes) -> tuple[Chunk, ...]:
    """Return the chunks that *data* records; raises CorruptError."""
    _expect_format("manifest", data)
    chunks: list[Chunk] = []
    at, size = 1, 0
    while at < len(data):
        if len(data) - at < _RUN.size:
            raise _short("manifest", data, at + _RUN.size)
        what, length, count = _RUN.unpack_from(data, at)
        at += _RUN.size
        size += length * count
        if what > _DATA or not length or not count or size >= _SIZE_LIMIT:
            raise CorruptError(f"manifest with a run of type {what}, {count} of {length} bytes")
        if what == _HOLE:
            if count != 1:
                raise CorruptError(f"manifest with a hole counted {count} times, need 1")
            chunks.append(Chunk(length, None))
            continue
        end = at + count * ID_SIZE
        if end > len(data):
            raise _short("manifest", data, end)
        chunks += [Chunk(length, BlobId(data[i : i + ID_SIZE])) for i in range(at, end, ID_SIZE)]
        at = end
    return tuple(chunks)


def encode_xattrs(xattrs: Mapping[bytes, bytes]) -> bytes:
    """Return the record of all extended attributes of a node, in order of their names."""
    parts = [bytes((FORMAT,))]
    for name in sorted(xattrs):
        parts += (_sized(name), _sized(xattrs[name]))
    return b"".join(parts)


def decode_xattrs(data: bytes) -> dict[bytes, bytes]:
    """Return the extended attributes that *data* records; raises CorruptError."""
    _expect_format("xattr", data)
    xattrs: dict[bytes, bytes] = {}
    at = 1
    try:
        while at < len(data):
            name, at = _read_sized(data, at)
            xattrs[name], at = _read_sized(data, at)
    except IndexError:
        raise CorruptError(f"xattr record of {len(data)} bytes ends too early") from None
    if list(xattrs) != sorted(xattrs) or encode_xattrs(xattrs) != data:
        raise CorruptError("xattr record with names out of order")
    return xattrs


def encode_tag(tag: Tag) -> bytes:
    """Return the record of *tag*."""
    return _TAG.pack(FORMAT, tag.seq, tag.time_ns) + tag.name.encode()


def decode_tag(data: bytes) -> Tag:
    """Return the tag that *data* records; raises CorruptError."""
    _expect_format("tag", data)
    if len(data) <= _TAG.size:
        raise _short("tag", data, _TAG.size + 1)
    _, seq, time_ns = _TAG.unpack_from(data)
    try:
        name = data[_TAG.size :].decode()
    except UnicodeDecodeError as exc:
        raise CorruptError(f"tag record with a name that is not UTF-8: {exc}") from None
    return Tag(name, Seq(seq), time_ns)


def encode_blob_location(location: BlobLocation) -> bytes:
    """Return the record of *location*."""
    return _LOCATION.pack(
        FORMAT,
        location.encoding,
        location.segment,
        location.offset,
        location.stored_length,
        location.length,
    )


def decode_blob_location(data: bytes) -> BlobLocation:
    """Return the location that *data* records; raises CorruptError."""
    if len(data) != _LOCATION.size:
        raise _short("blob location", data, _LOCATION.size)
    fmt, encoding, segment, offset, stored_length, length = _LOCATION.unpack(data)
    if fmt != FORMAT or encoding > ZSTD or (encoding == PLAIN and stored_length != length):
        raise CorruptError(f"blob location of format {fmt}, encoding {encoding}; need format 1")
    return BlobLocation(segment, offset, stored_length, length, encoding)


def _decode_log(seq: Seq, data: bytes) -> LogRecord:
    fmt, code, flags, time_ns, pid, uid, node, parent = _LOG.unpack_from(data)
    kind = _OP_KINDS.get(code)
    if fmt != FORMAT or kind is None or flags & ~_LOG_FLAGS:
        raise CorruptError(f"log record {seq} of format {fmt}, kind {code}; need format 1")
    comm, at = _read_sized(data, _LOG.size)
    name, at = _read_sized(data, at)
    new_parent, new_name = NO_NODE, b""
    target = undoes = Seq(0)
    paths: list[bytes] = []
    if flags & _HAS_NEW:
        new_parent = _U64.unpack_from(data, at)[0]
        new_name, at = _read_sized(data, at + _U64.size)
    if flags & _HAS_VERSIONS:
        target, undoes = _PAIR.unpack_from(data, at)
        at += _PAIR.size
    if flags & _HAS_PATHS:
        count, at = _read_varint(data, at)
        for _ in range(count):
            path, at = _read_sized(data, at)
            paths.append(path)
    count, at = _read_varint(data, at)
    if count > (len(data) - at) // _U64.size:
        raise _short("log", data, at + count * _U64.size)
    nodes = struct.unpack_from(f">{count}Q", data, at)
    count, at = _read_varint(data, at + count * _U64.size)
    names: list[tuple[NodeId, bytes]] = []
    for _ in range(count):
        directory = _U64.unpack_from(data, at)[0]
        entry, at = _read_sized(data, at + _U64.size)
        names.append((directory, entry))
    if at != len(data):
        raise CorruptError(f"log record {seq} of {len(data)} bytes, need {at}")
    operation = Operation(
        kind,
        time_ns,
        Origin(pid, uid, comm),
        node,
        parent,
        name,
        new_parent,
        new_name,
        target,
        undoes,
        tuple(paths),
    )
    return LogRecord(seq, operation, nodes, tuple(names))


def _is_blob(blob: BlobId | None) -> bool:
    return blob is not None


def _expect_format(record: str, data: bytes) -> None:
    if data[:1] != bytes((FORMAT,)):
        raise CorruptError(f"{record} record starts with {data[:1].hex() or 'nothing'}, need 01")


def _short(record: str, data: bytes, need: int) -> CorruptError:
    return CorruptError(f"{record} record of {len(data)} bytes, need {need}")


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at *at* and the offset after it; raises IndexError at the end of *data*."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for shift in (7, 14, 21, 28):
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
    raise CorruptError(f"number longer than 5 bytes at {at} of {len(data)}")


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _read_sized(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the bytes at *at* and the offset after them; raises IndexError at the end of *data*."""
    length, at = _read_varint(data, at)
    end = at + length
    if end > len(data):
        raise IndexError
    return data[at:end], end
