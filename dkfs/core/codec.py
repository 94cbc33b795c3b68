"""The bytes of every record of the store: pure, no I/O.

What was encoded decodes to an equal record; any other bytes either decode or raise CorruptError, never anything else,
and never take more memory than a small multiple of their own length. The first byte is the format: 2 is written, 1 is
read too (codec_v1). Integers are big-endian. The layout is specified in
dkfs/docs/format.md: change both together.
"""

import stat
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from dkfs.core import codec_v1
from dkfs.core.varint import read_sized, read_varint, sized, varint
from dkfs.errors import CorruptError
from dkfs.model.ids import BlobId, NodeId, Seq
from dkfs.model.node import Attr, Kind, NodeState
from dkfs.model.operation import LogRecord, Operation, OpKind, Origin, Tag

FORMAT: Final = 2
OLD_FORMAT: Final = 1
ID_SIZE: Final = 32  # bytes of a BlobId
_OLD: Final = bytes((OLD_FORMAT,))
_XATTR_FORMAT: Final = 1  # these are blobs, and equal ones keep equal names

_NS: Final = 1_000_000_000
_U32_MAX: Final = (1 << 32) - 1

# Seconds and nanoseconds apart: 64 bits of nanoseconds end in 2262, and ext4 keeps times up to 2446.
# Fixed widths: eight varints are 8 bytes less, and take 2 us more to decode.
_NODE: Final = struct.Struct(">BBHqIIIIIB")
_WIDE_NODE: Final = struct.Struct(">BBHqIIIQQB")
_U64: Final = struct.Struct(">Q")
_CTIME: Final = struct.Struct(">qI")
_HAS_CTIME: Final = 0x8000  # with the mode; else ctime is mtime
_IS_WIDE_NODE: Final = 0x4000
_MODE: Final = 0o7777
_KIND_MASK: Final = 0x07
_FILE: Final = int(Kind.FILE)
_HAS_RDEV: Final = 0x08
_IS_MANIFEST: Final = 0x10
_HAS_CONTENT: Final = 0x20
_HAS_XATTRS: Final = 0x40
_HAS_TARGET: Final = 0x80
_IS_FORGOTTEN: Final = 0x80  # of a FILE, which has no target
_KINDS: Final = (None, *Kind)  # the stored values are 1 .. 7

_LOG: Final = struct.Struct(">BBBqIIII")
_WIDE_LOG: Final = struct.Struct(">BBBqIIQQ")
_TIME: Final = struct.Struct(">q")
_TIME_OFFSET: Final = 3
_HAS_NEW: Final = 0x01
_HAS_VERSIONS: Final = 0x02
_HAS_PATHS: Final = 0x04
_HAS_FOLDED: Final = 0x08
_IS_WIDE: Final = 0x10
_LOG_FLAGS: Final = _HAS_NEW | _HAS_VERSIONS | _HAS_PATHS | _HAS_FOLDED | _IS_WIDE
_OP_KINDS: Final[dict[int, OpKind]] = {int(kind): kind for kind in OpKind}
_WIDTHS: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}  # bytes of each number in a list of nodes

_TAG: Final = struct.Struct(">BBQq")
_IS_HOLD: Final = 0x01
_HAS_EXPIRY: Final = 0x02


def encode_node(state: NodeState) -> bytes:
    """Return the record of *state*."""
    attr = state.attr
    flags: int = attr.kind
    mode = attr.mode
    tail = state.name
    if attr.ctime_ns != attr.mtime_ns:
        mode |= _HAS_CTIME
        tail = _CTIME.pack(*divmod(attr.ctime_ns, _NS)) + tail
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
    layout = _NODE
    if attr.size > _U32_MAX or state.parent > _U32_MAX:
        layout = _WIDE_NODE
        mode |= _IS_WIDE_NODE
    mtime_s, mtime_rest = divmod(attr.mtime_ns, _NS)
    head = layout.pack(
        FORMAT,
        flags,
        mode,
        mtime_s,
        mtime_rest,
        attr.uid,
        attr.gid,
        attr.size,
        state.parent,
        len(state.name),
    )
    return head + tail


def decode_node(data: bytes) -> NodeState:
    """Return the state that *data* records; raises CorruptError."""
    if data[:1] == _OLD:
        return codec_v1.decode_node(data)
    try:
        layout = _WIDE_NODE if data[2] & (_IS_WIDE_NODE >> 8) else _NODE
        return _decode_node(data, layout.unpack_from(data), layout.size)
    except (IndexError, struct.error):
        raise CorruptError(f"node record of {len(data)} bytes ends too early") from None


def glance(data: bytes) -> tuple[int, tuple[int, int, int, int, int]] | None:
    """Return ctime_ns, and what else lstat(2) says of the file: mode, uid, gid, size, mtime_ns.

    Of the record of a file as most are; None for decode_node() to say.  A scan asks it of every file, in a third of the time.
    """
    if len(data) < _NODE.size:
        return None
    fmt, flags, mode, mtime_s, mtime_rest, uid, gid, size, _, _ = _NODE.unpack_from(data)
    if fmt != FORMAT or flags & _KIND_MASK != _FILE or mode & _IS_WIDE_NODE:
        return None
    mtime_ns = ctime_ns = mtime_s * _NS + mtime_rest
    if mode & _HAS_CTIME:
        if len(data) < _NODE.size + _CTIME.size:
            return None
        ctime_s, ctime_rest = _CTIME.unpack_from(data, _NODE.size)
        ctime_ns = ctime_s * _NS + ctime_rest
    return ctime_ns, (mode & _MODE | stat.S_IFREG, uid, gid, size, mtime_ns)


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
        parts += (varint(operation.new_parent), sized(operation.new_name))
    if operation.target or operation.undoes:
        flags |= _HAS_VERSIONS
        parts += (varint(operation.target), varint(operation.undoes))
    if operation.paths:
        flags |= _HAS_PATHS
        parts.append(varint(len(operation.paths)))
        parts += map(sized, operation.paths)
    _add_keys(parts, nodes, names)
    if folded_nodes or folded_names:
        flags |= _HAS_FOLDED
        _add_keys(parts, folded_nodes, folded_names)
    layout = _LOG
    if operation.node > _U32_MAX or operation.parent > _U32_MAX:
        layout = _WIDE_LOG
        flags |= _IS_WIDE
    parts[0] = layout.pack(
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
        if data[:1] == _OLD:
            return codec_v1.decode_log(seq, data)
        return _decode_log(seq, data)
    except (IndexError, struct.error):
        raise CorruptError(f"log record {seq} of {len(data)} bytes ends too early") from None


def log_time_ns(data: bytes) -> int:
    """Return only the time of a log record; raises CorruptError."""
    if len(data) < _LOG.size:
        raise _short("log", data, _LOG.size)
    time_ns: int = _TIME.unpack_from(data, _TIME_OFFSET)[0]
    return time_ns


def encode_xattrs(xattrs: Mapping[bytes, bytes]) -> bytes:
    """Return the record of all extended attributes of a node, in order of their names."""
    parts = [bytes((_XATTR_FORMAT,))]
    for name in sorted(xattrs):
        parts += (sized(name), sized(xattrs[name]))
    return b"".join(parts)


def decode_xattrs(data: bytes) -> dict[bytes, bytes]:
    """Return the extended attributes that *data* records; raises CorruptError."""
    if data[:1] != bytes((_XATTR_FORMAT,)):
        raise CorruptError(f"xattr record starts with {data[:1].hex() or 'nothing'}, need 01")
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
    try:
        return codec_v1.decode_tag(data) if data[:1] == _OLD else _decode_tag(data)
    except struct.error:
        raise _short("tag", data, _TAG.size + 1) from None
    except UnicodeDecodeError as exc:
        raise CorruptError(f"tag record with a name that is not UTF-8: {exc}") from None


def _decode_node(data: bytes, head: tuple[int, ...], at: int) -> NodeState:
    fmt, flags, mode, mtime_s, mtime_rest, uid, gid, size, parent, length = head
    mtime_ns = ctime_ns = mtime_s * _NS + mtime_rest
    ctime_rest = 0
    if mode & _HAS_CTIME:
        ctime_s, ctime_rest = _CTIME.unpack_from(data, at)
        ctime_ns = ctime_s * _NS + ctime_rest
        at += _CTIME.size
    kind = _KINDS[flags & _KIND_MASK]
    if fmt != FORMAT or kind is None:
        raise CorruptError(f"node record of format {fmt}, kind {flags & _KIND_MASK}; need format 2")
    if mode & ~(_MODE | _HAS_CTIME | _IS_WIDE_NODE) or mtime_rest >= _NS or ctime_rest >= _NS:
        raise CorruptError("node record with a mode or a time out of range")
    name = data[at : at + length]
    at += length
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
    is_forgotten = flags & _IS_FORGOTTEN != 0 and kind is Kind.FILE
    if flags & _HAS_TARGET and not is_forgotten and at < len(data):
        target = data[at:]
        at = len(data)
    if at != len(data):
        raise CorruptError(f"node record of {len(data)} bytes, need {at}")
    attr = Attr(kind, mode & _MODE, uid, gid, mtime_ns, ctime_ns, size, rdev)
    is_manifest = flags & _IS_MANIFEST != 0
    if is_forgotten if content is not None else is_manifest:
        what = "contents that were forgotten" if is_forgotten else "a manifest and no content"
        raise CorruptError(f"node record with {what}")
    return NodeState(attr, NodeId(parent), name, content, is_manifest, target, xattrs, is_forgotten)


def _decode_log(seq: Seq, data: bytes) -> LogRecord:
    layout = _WIDE_LOG if data[2] & _IS_WIDE else _LOG
    fmt, code, flags, time_ns, pid, uid, node, parent = layout.unpack_from(data)
    kind = _OP_KINDS.get(code)
    if fmt != FORMAT or kind is None or flags & ~_LOG_FLAGS:
        raise CorruptError(f"log record {seq} of format {fmt}, kind {code}; need format 2")
    comm, at = read_sized(data, layout.size)
    name, at = read_sized(data, at)
    new_parent, new_name = 0, b""
    target = undoes = 0
    paths: list[bytes] = []
    if flags & _HAS_NEW:
        new_parent, at = read_varint(data, at)
        new_name, at = read_sized(data, at)
    if flags & _HAS_VERSIONS:
        target, at = read_varint(data, at)
        undoes, at = read_varint(data, at)
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
        NodeId(node),
        NodeId(parent),
        name,
        NodeId(new_parent),
        new_name,
        Seq(target),
        Seq(undoes),
        tuple(paths),
    )
    return LogRecord(seq, operation, nodes, names, folded_nodes, folded_names)


def _add_keys(
    parts: list[bytes], nodes: Sequence[NodeId], names: Sequence[tuple[NodeId, bytes]]
) -> None:
    parts.append(varint(len(nodes)))
    if nodes:
        # Of one width, for a rollback may have hundreds of thousands.
        bits = max(nodes).bit_length()
        width = next(width for width in _WIDTHS if bits <= 8 * width)
        parts += (varint(width), struct.pack(f">{len(nodes)}{_WIDTHS[width]}", *nodes))
    parts.append(varint(len(names)))
    for parent, name in names:
        parts += (varint(parent), sized(name))


def _read_keys(
    data: bytes, at: int
) -> tuple[tuple[NodeId, ...], tuple[tuple[NodeId, bytes], ...], int]:
    """Return nodes, names and the offset after them."""
    nodes: tuple[NodeId, ...] = ()
    names: list[tuple[NodeId, bytes]] = []
    count, at = read_varint(data, at)
    if count:
        width = data[at]
        at += 1
        if width not in _WIDTHS or count * width > len(data) - at:
            raise CorruptError(
                f"log record of {len(data)} bytes with {count} nodes of {width} bytes each"
            )
        nodes = struct.unpack_from(f">{count}{_WIDTHS[width]}", data, at)
        at += count * width
    count, at = read_varint(data, at)
    for _ in range(count):
        directory, at = read_varint(data, at)
        entry, at = read_sized(data, at)
        names.append((NodeId(directory), entry))
    return nodes, tuple(names), at


def _decode_tag(data: bytes) -> Tag:
    fmt, flags, seq, time_ns = _TAG.unpack_from(data)
    at = _TAG.size
    if fmt != FORMAT or flags & ~(_IS_HOLD | _HAS_EXPIRY):
        raise CorruptError(f"tag record of format {fmt}, flags {flags}; need format 2")
    expires_ns: int | None = None
    if flags & _HAS_EXPIRY:
        expires_ns = _TIME.unpack_from(data, at)[0]
        at += _TIME.size
    name = data[at:].decode()
    if not name:
        raise _short("tag", data, at + 1)
    return Tag(name, Seq(seq), time_ns, flags & _IS_HOLD != 0, expires_ns)


def _short(record: str, data: bytes, need: int) -> CorruptError:
    return CorruptError(f"{record} record of {len(data)} bytes, need {need}")
