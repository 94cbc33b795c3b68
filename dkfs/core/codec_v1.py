"""Records of format 1, which are read and not written any more: see codec."""

import struct
from typing import Final

from dkfs.core.varint import read_sized, read_varint
from dkfs.errors import CorruptError
from dkfs.model.ids import NO_NODE, BlobId, NodeId, Seq
from dkfs.model.node import Attr, Kind, NodeState
from dkfs.model.operation import LogRecord, Operation, OpKind, Origin, Tag

_NS: Final = 1_000_000_000
_ID_SIZE: Final = 32
_U64: Final = struct.Struct(">Q")
_PAIR: Final = struct.Struct(">QQ")

_NODE: Final = struct.Struct(">BBHIIqIqIQQB")
_KIND_MASK: Final = 0x07
_HAS_RDEV: Final = 0x08
_IS_MANIFEST: Final = 0x10
_HAS_CONTENT: Final = 0x20
_HAS_XATTRS: Final = 0x40
_HAS_TARGET: Final = 0x80
_KINDS: Final = (None, *Kind)

_LOG: Final = struct.Struct(">BBBqIIQQ")
_HAS_NEW: Final = 0x01
_HAS_VERSIONS: Final = 0x02
_HAS_PATHS: Final = 0x04
_OP_KINDS: Final[dict[int, OpKind]] = {int(kind): kind for kind in OpKind}

_TAG: Final = struct.Struct(">BQq")


def decode_node(data: bytes) -> NodeState:
    """Return the state that *data* records; raises CorruptError."""
    try:
        fields = _NODE.unpack_from(data)
    except struct.error:
        raise _short("node", data, _NODE.size) from None
    _, flags, mode, uid, gid, mtime_s, mtime_rest, ctime_s, ctime_rest, size, parent, n = fields
    kind = _KINDS[flags & _KIND_MASK]
    if kind is None:
        raise CorruptError("node record of kind 0, need 1 to 7")
    if mode > 0o7777 or mtime_rest >= _NS or ctime_rest >= _NS:
        raise CorruptError("node record with a mode or a time out of range")
    at = _NODE.size + n
    name = data[_NODE.size : at]
    content = xattrs = None
    rdev, target = 0, b""
    if flags & _HAS_CONTENT:
        content = BlobId(data[at : at + _ID_SIZE])
        at += _ID_SIZE
    elif flags & _IS_MANIFEST:
        raise CorruptError("node record with a manifest and no content")
    if flags & _HAS_XATTRS:
        xattrs = BlobId(data[at : at + _ID_SIZE])
        at += _ID_SIZE
    if flags & _HAS_RDEV:
        rdev = int.from_bytes(data[at : at + _U64.size], "big")
        at += _U64.size
    if flags & _HAS_TARGET and at < len(data):
        if kind is Kind.FILE:
            raise CorruptError("node record of a file with a target")
        target = data[at:]
        at = len(data)
    if at != len(data):
        raise CorruptError(f"node record of {len(data)} bytes, need {at}")
    mtime_ns, ctime_ns = mtime_s * _NS + mtime_rest, ctime_s * _NS + ctime_rest
    attr = Attr(kind, mode, uid, gid, mtime_ns, ctime_ns, size, rdev)
    return NodeState(attr, parent, name, content, flags & _IS_MANIFEST != 0, target, xattrs)


def decode_log(seq: Seq, data: bytes) -> LogRecord:
    """Return the log record of version *seq*; raises CorruptError, IndexError or struct.error if it ends too early."""
    _, code, flags, time_ns, pid, uid, node, parent = _LOG.unpack_from(data)
    kind = _OP_KINDS.get(code)
    if kind is None or flags & ~(_HAS_NEW | _HAS_VERSIONS | _HAS_PATHS):
        raise CorruptError(f"log record {seq} of format 1, kind {code}, flags {flags}")
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
    if at != len(data):
        raise CorruptError(f"log record {seq} of {len(data)} bytes, need {at}")
    origin = Origin(pid, uid, comm)
    operation = Operation(
        kind,
        time_ns,
        origin,
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


def decode_tag(data: bytes) -> Tag:
    """Return the tag that *data* records; raises CorruptError, UnicodeDecodeError."""
    if len(data) <= _TAG.size:
        raise _short("tag", data, _TAG.size + 1)
    _, seq, time_ns = _TAG.unpack_from(data)
    return Tag(data[_TAG.size :].decode(), Seq(seq), time_ns)


def _short(record: str, data: bytes, need: int) -> CorruptError:
    return CorruptError(f"{record} record of {len(data)} bytes, need {need}")
