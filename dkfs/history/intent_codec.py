"""Operations that wait, with the bytes that they need, as the intent log keeps them.  Layout: docs/format.md."""

import os
import stat
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from dkfs.core import codec
from dkfs.core.varint import read_sized, read_varint, sized, varint
from dkfs.errors import CorruptError
from dkfs.history.change import Link, NameChange, NodeChange, Pending
from dkfs.history.frozen import Frozen, FrozenBytes, FrozenParts
from dkfs.model.ids import NodeId, Seq

# node, what follows, mode, uid, gid, device; seconds and nanoseconds of mtime and ctime; size
_NODE: Final = struct.Struct(">QBIIIQqIqIQ")
_ID: Final = struct.Struct(">Q")
_HAS_LINK: Final = 1
_HAS_CONTENTS: Final = 2
_HAS_XATTRS: Final = 4
_HAS_TARGET: Final = 8
_FLAGS: Final = 15
_NS: Final = 1_000_000_000
_TYPES: Final = frozenset(
    (
        stat.S_IFREG,
        stat.S_IFDIR,
        stat.S_IFLNK,
        stat.S_IFIFO,
        stat.S_IFSOCK,
        stat.S_IFCHR,
        stat.S_IFBLK,
    )
)


def encode(pending: Pending) -> bytes | None:
    """Return *pending* as bytes; None if its contents are not in memory."""
    parts = [_ID.pack(pending.seq), sized(codec.encode_log(pending.operation, (), ()))]
    parts.append(varint(len(pending.nodes)))
    for change in pending.nodes:
        contents = change.contents
        if contents is not None and not isinstance(contents, FrozenBytes):
            return None
        _add_node(parts, change, contents)
    parts.append(varint(len(pending.names)))
    for parent, name, node in pending.names:
        parts += (_ID.pack(parent), sized(name), _ID.pack(node))
    return b"".join(parts)


def decode(payload: bytes) -> Iterator[Pending]:
    """Yield what was encoded, one after the other; raises CorruptError."""
    at = 0
    while at < len(payload):
        try:
            pending, at = _pending(payload, at)
        except (IndexError, struct.error, ValueError, OverflowError) as exc:
            raise CorruptError(f"intent log: an operation of {len(payload)} bytes at {at}") from exc
        yield pending


def _add_node(parts: list[bytes], change: NodeChange, contents: FrozenBytes | None) -> None:
    status, link = change.status, change.link
    flags = (
        (_HAS_LINK if link is not None else 0)
        | (_HAS_CONTENTS if contents is not None else 0)
        | (_HAS_XATTRS if change.xattrs is not None else 0)
        | (_HAS_TARGET if change.target is not None else 0)
    )
    parts.append(
        _NODE.pack(
            change.node,
            flags,
            *(status.st_mode, status.st_uid, status.st_gid, status.st_rdev),
            *divmod(status.st_mtime_ns, _NS),
            *divmod(status.st_ctime_ns, _NS),
            status.st_size,
        )
    )
    if link is not None:
        parts += (_ID.pack(link.parent), sized(link.name))
    if contents is not None:
        parts += (_ID.pack(contents.size), varint(len(contents.ranges)))
        for start, end in contents.ranges:
            parts += (varint(start), varint(end - start))
        kept = contents.parts()
        parts.append(varint(len(kept)))
        for start, data in kept:
            parts += (varint(start), varint(len(data)), data)
    if change.xattrs is not None:
        parts.append(sized(codec.encode_xattrs(change.xattrs)))
    if change.target is not None:
        parts.append(sized(change.target))


def _pending(data: bytes, at: int) -> tuple[Pending, int]:
    seq = Seq(_ID.unpack_from(data, at)[0])
    record, at = read_sized(data, at + _ID.size)
    operation = codec.decode_log(seq, record).operation
    count, at = read_varint(data, at)
    nodes = []
    for _ in range(count):
        change, at = _node(data, at)
        nodes.append(change)
    count, at = read_varint(data, at)
    names = []
    for _ in range(count):
        (parent,) = _ID.unpack_from(data, at)
        name, at = read_sized(data, at + _ID.size)
        (node,) = _ID.unpack_from(data, at)
        at += _ID.size
        names.append(NameChange(NodeId(parent), name, NodeId(node)))
    return Pending(seq, operation, tuple(nodes), tuple(names)), at


def _node(data: bytes, at: int) -> tuple[NodeChange, int]:
    node, flags, mode, uid, gid, rdev, *times, size = _NODE.unpack_from(data, at)
    at += _NODE.size
    if flags & ~_FLAGS:
        raise ValueError(flags)
    if stat.S_IFMT(mode) not in _TYPES:
        raise ValueError(mode)
    status = _status(
        mode, uid, gid, rdev, times[0] * _NS + times[1], times[2] * _NS + times[3], size
    )
    link = contents = xattrs = target = None
    if flags & _HAS_LINK:
        (parent,) = _ID.unpack_from(data, at)
        name, at = read_sized(data, at + _ID.size)
        link = Link(NodeId(parent), name)
    if flags & _HAS_CONTENTS:
        contents, at = _contents(data, at)
    if flags & _HAS_XATTRS:
        record, at = read_sized(data, at)
        xattrs = codec.decode_xattrs(record)
    if flags & _HAS_TARGET:
        target, at = read_sized(data, at)
    return NodeChange(NodeId(node), status, link, contents, xattrs, target), at


def _contents(data: bytes, at: int) -> tuple[Frozen, int]:
    (size,) = _ID.unpack_from(data, at)
    count, at = read_varint(data, at + _ID.size)
    ranges = []
    for _ in range(count):
        start, at = read_varint(data, at)
        length, at = read_varint(data, at)
        ranges.append((start, start + length))
    count, at = read_varint(data, at)
    parts = []
    for _ in range(count):
        start, at = read_varint(data, at)
        part, at = read_sized(data, at)
        parts.append((start, part))
    _expect_within(parts, ranges, size)
    return FrozenParts(parts, ranges, size), at


def _expect_within(
    parts: Iterable[tuple[int, bytes]], ranges: list[tuple[int, int]], size: int
) -> None:
    """Raise ValueError unless *ranges* ascend below *size*, and so do *parts*."""
    end = 0
    for start, stop in ranges:
        if not end <= start < stop <= size:
            raise ValueError(start)
        end = stop
    end = 0
    for start, part in parts:
        if not end <= start <= start + len(part) <= size:
            raise ValueError(start)
        end = start + len(part)


def _status(
    mode: int, uid: int, gid: int, rdev: int, mtime_ns: int, ctime_ns: int, size: int
) -> os.stat_result:
    known = {"st_mtime_ns": mtime_ns, "st_ctime_ns": ctime_ns, "st_rdev": rdev}
    times = (0, mtime_ns // _NS, ctime_ns // _NS)
    return os.stat_result((mode, 0, 0, 1, uid, gid, size, *times), known)
