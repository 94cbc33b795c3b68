"""The bytes of every record of the store: pure, no I/O.

What was encoded decodes to an equal record; any other bytes either decode or raise CorruptError, never anything else,
and never take more memory than a small multiple of their own length. The first byte is the format: 2 is written, 1 is
read too; what is kept in a blob has format 1. Integers are big-endian. The layout is specified in dkfs/docs/format.md:
change both together.
"""

import struct
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

from dkfs.core.varint import read_sized, read_varint, sized, varint
from dkfs.errors import CorruptError
from dkfs.model.ids import NO_NODE, BlobId, NodeId, Seq
from dkfs.model.node import Attr, Chunk, Kind, NodeState
from dkfs.model.operation import LogRecord, Operation, OpKind, Origin, Tag

FORMAT: Final = 2
FORMATS: Final = (1, FORMAT)  # that are read
ID_SIZE: Final = 32  # bytes of a BlobId
_BLOB_FORMAT: Final = 1  # of records that are blobs: equal things keep equal names

_NS: Final = 1_000_000_000

# Seconds and nanoseconds apart: 64 bits of nanoseconds end in 2262, and ext4 keeps times up to 2446.
_NODE: Final = struct.Struct(">BBHIIqIqIQQB")
_KIND_MASK: Final = 0x07
_HAS_RDEV: Final = 0x08
_IS_MANIFEST: Final = 0x10
_HAS_CONTENT: Final = 0x20
_HAS_XATTRS: Final = 0x40
_HAS_TARGET: Final = 0x80
_IS_FORGOTTEN: Final = 0x80  # of a FILE, which has no target
_KINDS: Final = (None, *Kind)  # the stored values are 1 .. 7

_LOG: Final = struct.Struct(">BBBqIIQQ")
_TIME: Final = struct.Struct(">q")
_TIME_OFFSET: Final = 3
_U64: Final = struct.Struct(">Q")
_PAIR: Final = struct.Struct(">QQ")
_HAS_NEW: Final = 0x01
_HAS_VERSIONS: Final = 0x02
_HAS_PATHS: Final = 0x04
_HAS_FOLDED: Final = 0x08
_LOG_FLAGS: Final = (
    0,
    _HAS_NEW | _HAS_VERSIONS | _HAS_PATHS,
    _HAS_NEW | _HAS_VERSIONS | _HAS_PATHS | _HAS_FOLDED,
)  # by format
_OP_KINDS: Final[dict[int, OpKind]] = {int(kind): kind for kind in OpKind}

_RUN: Final = struct.Struct(">BQI")
_HOLE: Final = 0
_DATA: Final = 1
_SIZE_LIMIT: Final = 1 << 63  # bytes, exclusive; off_t

_OLD_TAG: Final = struct.Struct(">BQq")
_TAG: Final = struct.Struct(">BBQq")
_IS_HOLD: Final = 0x01
_HAS_EXPIRY: Final = 0x02


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
    elif state.is_forgotten:
        flags |= _IS_FORGOTTEN
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
    if fmt not in FORMATS or kind is None:
        raise CorruptError(f"node record of format {fmt}, kind {flags & _KIND_MASK}; need format 2")
    if mode > 0o7777 or mtime_rest >= _NS or ctime_rest >= _NS:
        raise CorruptError("node record with a mode or a time out of range")
    at = _NODE.size + n
    name = data[_NODE.size : at]
    content = xattrs = None
    rdev, target = 0, b""
    if flags & _HAS_CONTENT:
        content = BlobId(data[at : at + ID_SIZE])
        at += ID_SIZE
    if flags & _HAS_XATTRS:
        xattrs = BlobId(data[at : at + ID_SIZE])
        at += ID_SIZE
    if flags & _HAS_RDEV:
        rdev = int.from_bytes(data[at : at + _U64.size], "big")
        at += _U64.size
    is_forgotten = flags & _IS_FORGOTTEN != 0 and kind is Kind.FILE and fmt == FORMAT
    if flags & _HAS_TARGET and not is_forgotten and at < len(data):
        target = data[at:]
        at = len(data)
    if at != len(data):
        raise CorruptError(f"node record of {len(data)} bytes, need {at}")
    mtime_ns, ctime_ns = mtime_s * _NS + mtime_rest, ctime_s * _NS + ctime_rest
    attr = Attr(kind, mode, uid, gid, mtime_ns, ctime_ns, size, rdev)
    is_manifest = flags & _IS_MANIFEST != 0
    if is_forgotten if content is not None else is_manifest:
        what = "contents that were forgotten" if is_forgotten else "a manifest and no content"
        raise CorruptError(f"node record with {what}")
    return NodeState(attr, parent, name, content, is_manifest, target, xattrs, is_forgotten)


def encode_log(
    operation: Operation,
    nodes: Sequence[NodeId],
    names: Sequence[tuple[NodeId, bytes]],
    folded_nodes: Sequence[NodeId] = (),
    folded_names: Sequence[tuple[NodeId, bytes]] = (),
) -> bytes:
    """Return the record of *operation* and the keys of the states that it left behind.

    The folded ones are those that came from versions since forgotten.
    """
    flags = 0
    origin = operation.origin
    parts = [b"", sized(origin.comm), sized(operation.name)]
    if operation.new_parent or operation.new_name:
        flags |= _HAS_NEW
        parts += (_U64.pack(operation.new_parent), sized(operation.new_name))
    if operation.target or operation.undoes:
        flags |= _HAS_VERSIONS
        parts.append(_PAIR.pack(operation.target, operation.undoes))
    if operation.paths:
        flags |= _HAS_PATHS
        parts.append(varint(len(operation.paths)))
        parts += map(sized, operation.paths)
    _add_keys(parts, nodes, names)
    if folded_nodes or folded_names:
        flags |= _HAS_FOLDED
        _add_keys(parts, folded_nodes, folded_names)
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
    parts = [bytes((_BLOB_FORMAT,))]
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
    _expect_blob_format("manifest", data)
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
    parts = [bytes((_BLOB_FORMAT,))]
    for name in sorted(xattrs):
        parts += (sized(name), sized(xattrs[name]))
    return b"".join(parts)


def decode_xattrs(data: bytes) -> dict[bytes, bytes]:
    """Return the extended attributes that *data* records; raises CorruptError."""
    _expect_blob_format("xattr", data)
    xattrs: dict[bytes, bytes] = {}
    at = 1
    try:
        while at < len(data):
            name, at = read_sized(data, at)
            xattrs[name], at = read_sized(data, at)
    except IndexError:
        raise CorruptError(f"xattr record of {len(data)} bytes ends too early") from None
    if list(xattrs) != sorted(xattrs) or encode_xattrs(xattrs) != data:
        raise CorruptError("xattr record with names out of order")
    return xattrs


def encode_tag(tag: Tag) -> bytes:
    """Return the record of *tag*."""
    flags, expiry = _IS_HOLD if tag.is_hold else 0, b""
    if tag.expires_ns is not None:
        flags |= _HAS_EXPIRY
        expiry = _TIME.pack(tag.expires_ns)
    return _TAG.pack(FORMAT, flags, tag.seq, tag.time_ns) + expiry + tag.name.encode()


def decode_tag(data: bytes) -> Tag:
    """Return the tag that *data* records; raises CorruptError."""
    expires_ns: int | None = None
    try:
        if data[0] == FORMAT:
            _, flags, seq, time_ns = _TAG.unpack_from(data)
            at = _TAG.size
            if flags & ~(_IS_HOLD | _HAS_EXPIRY):
                raise CorruptError(f"tag record with flags {flags}")
            if flags & _HAS_EXPIRY:
                expires_ns = _TIME.unpack_from(data, at)[0]
                at += _TIME.size
        elif data[0] == FORMATS[0]:
            _, seq, time_ns = _OLD_TAG.unpack_from(data)
            flags, at = 0, _OLD_TAG.size
        else:
            raise CorruptError(f"tag record of format {data[0]}; need format {FORMAT}")
        name = data[at:].decode()
    except (IndexError, struct.error):
        raise _short("tag", data, _TAG.size + 1) from None
    except UnicodeDecodeError as exc:
        raise CorruptError(f"tag record with a name that is not UTF-8: {exc}") from None
    if not name:
        raise _short("tag", data, at + 1)
    return Tag(name, Seq(seq), time_ns, flags & _IS_HOLD != 0, expires_ns)


def _decode_log(seq: Seq, data: bytes) -> LogRecord:
    fmt, code, flags, time_ns, pid, uid, node, parent = _LOG.unpack_from(data)
    kind = _OP_KINDS.get(code)
    if fmt not in FORMATS or kind is None or flags & ~_LOG_FLAGS[fmt]:
        raise CorruptError(f"log record {seq} of format {fmt}, kind {code}; need format 2")
    comm, at = read_sized(data, _LOG.size)
    name, at = read_sized(data, at)
    new_parent, new_name = NO_NODE, b""
    target = undoes = Seq(0)
    paths: list[bytes] = []
    if flags & _HAS_NEW:
        new_parent = _U64.unpack_from(data, at)[0]
        new_name, at = read_sized(data, at + _U64.size)
    if flags & _HAS_VERSIONS:
        target, undoes = _PAIR.unpack_from(data, at)
        at += _PAIR.size
    if flags & _HAS_PATHS:
        count, at = read_varint(data, at)
        for _ in range(count):
            path, at = read_sized(data, at)
            paths.append(path)
    nodes, names, at = _read_keys(data, at)
    folded_nodes: tuple[NodeId, ...] = ()
    folded_names: tuple[tuple[NodeId, bytes], ...] = ()
    if flags & _HAS_FOLDED:
        folded_nodes, folded_names, at = _read_keys(data, at)
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
    return LogRecord(seq, operation, nodes, names, folded_nodes, folded_names)


def _add_keys(
    parts: list[bytes], nodes: Sequence[NodeId], names: Sequence[tuple[NodeId, bytes]]
) -> None:
    parts += (varint(len(nodes)), struct.pack(f">{len(nodes)}Q", *nodes), varint(len(names)))
    for parent, name in names:
        parts += (_U64.pack(parent), sized(name))


def _read_keys(
    data: bytes, at: int
) -> tuple[tuple[NodeId, ...], tuple[tuple[NodeId, bytes], ...], int]:
    """Return nodes, names and the offset after them."""
    count, at = read_varint(data, at)
    if count > (len(data) - at) // _U64.size:
        raise _short("log", data, at + count * _U64.size)
    nodes: tuple[NodeId, ...] = struct.unpack_from(f">{count}Q", data, at)
    count, at = read_varint(data, at + count * _U64.size)
    names: list[tuple[NodeId, bytes]] = []
    for _ in range(count):
        directory = _U64.unpack_from(data, at)[0]
        entry, at = read_sized(data, at + _U64.size)
        names.append((directory, entry))
    return nodes, tuple(names), at


def _is_blob(blob: BlobId | None) -> bool:
    return blob is not None


def _expect_blob_format(record: str, data: bytes) -> None:
    if data[:1] != bytes((_BLOB_FORMAT,)):
        raise CorruptError(f"{record} record starts with {data[:1].hex() or 'nothing'}, need 01")


def _short(record: str, data: bytes, need: int) -> CorruptError:
    return CorruptError(f"{record} record of {len(data)} bytes, need {need}")
