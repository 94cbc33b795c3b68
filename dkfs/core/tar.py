"""The bytes of a tar archive: PAX headers, as POSIX.1-2001 and GNU tar write them.  Pure.

Everything that a ustar header cannot hold goes into a PAX header before it.  Names are bytes: one that is not UTF-8 is
written as it is, without `hdrcharset`, as GNU tar does; GNU tar warns of that keyword, and all others take the bytes
either way.  A file with holes is a GNU.sparse 1.0 member: a map of its data, then the data.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

BLOCK: Final = 512  # bytes
_RECORD: Final = 20 * BLOCK  # an archive ends at a multiple of it
_NS: Final = 1_000_000_000
_NAME_MAX: Final = 100  # bytes in a ustar header
_SMALL_MAX: Final = 0o7777777  # of 7 octal digits: ids, device numbers
_LARGE_MAX: Final = 0o77777777777  # of 11: sizes and times

Extent = tuple[int, int]  # offset, length


class Type(Enum):
    """What a member is; the value is its type flag."""

    FILE = b"0"
    LINK = b"1"
    SYMLINK = b"2"
    CHAR = b"3"
    BLOCK = b"4"
    DIR = b"5"
    FIFO = b"6"


@dataclass(frozen=True, slots=True)
class Member:
    """One entry."""

    name: bytes  # without a slash at the end
    type: Type
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0  # bytes that follow, a map of data included
    target: bytes = b""  # LINK: the name of an earlier member; SYMLINK: where it leads
    device: tuple[int, int] = (0, 0)  # major, minor
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    sparse_size: int | None = None  # of the file, if a map of its data comes first


def header(member: Member) -> bytes:
    """Return all that comes before the bytes of *member*."""
    records = _records(member)
    name = member.name + b"/" if member.type is Type.DIR else member.name
    if member.sparse_size is not None:
        name = b"GNUSparseFile.0/" + name.rpartition(b"/")[2]
    plain = _ustar(
        name,
        member.type.value,
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        size=member.size,
        mtime=member.mtime_ns // _NS,
        target=member.target,
        device=member.device,
    )
    if not records:
        return plain
    data = b"".join(_record(key, value) for key, value in records)
    base = member.name.rpartition(b"/")[2]
    extended = _ustar(b"./PaxHeaders/" + base, b"x", mode=0o644, size=len(data))
    return extended + data + padding(len(data)) + plain


def padding(size: int) -> bytes:
    """Return what follows *size* bytes up to the next header."""
    return bytes(-size % BLOCK)


def trailer(length: int) -> bytes:
    """Return the end of an archive that has *length* bytes so far."""
    end = 2 * BLOCK
    return bytes(end + -(length + end) % _RECORD)


def extents(pieces: Iterable[tuple[int, int, bool]], size: int) -> Iterator[Extent]:
    """Yield the data of a file of *size* bytes in *pieces* (offset, length, whether it is data), neighbours joined.

    If the file does not end with data, an empty extent says where it ends.
    """
    start = end = 0
    for offset, length, is_data in pieces:
        if not is_data:
            continue
        if offset != end and end > start:
            yield start, end - start
        if offset != end or end == start:
            start = offset
        end = offset + length
    if end > start:
        yield start, end - start
    if end != size:
        yield size, 0


def map_line(extent: Extent) -> bytes:
    """Return the part of the map of a file's data that is about *extent*; the map begins with their number."""
    return b"%d\n%d\n" % extent


def _records(member: Member) -> list[tuple[bytes, bytes]]:
    """Return what a ustar header cannot say."""
    found: list[tuple[bytes, bytes]] = []
    name = member.name + b"/" if member.type is Type.DIR else member.name
    if member.sparse_size is not None:
        found += [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", name),
            (b"GNU.sparse.realsize", b"%d" % member.sparse_size),
        ]
    elif not _is_plain(name):
        found.append((b"path", name))
    if not _is_plain(member.target):
        found.append((b"linkpath", member.target))
    for key, number, greatest in (
        (b"uid", member.uid, _SMALL_MAX),
        (b"gid", member.gid, _SMALL_MAX),
        (b"size", member.size, _LARGE_MAX),
    ):
        if number > greatest:
            found.append((key, b"%d" % number))
    if member.mtime_ns % _NS or not 0 <= member.mtime_ns // _NS <= _LARGE_MAX:
        found.append((b"mtime", _time(member.mtime_ns)))
    found += ((b"SCHILY.xattr." + _key(name), value) for name, value in member.xattrs)
    return found


def _is_plain(name: bytes) -> bool:
    return len(name) <= _NAME_MAX and name.isascii()


def _key(name: bytes) -> bytes:
    """Return the name of an attribute for the left of a "=", as GNU tar writes it."""
    return name.replace(b"%", b"%25").replace(b"=", b"%3D")


def _time(time_ns: int) -> bytes:
    seconds, rest = divmod(abs(time_ns), _NS)
    sign = b"-" if time_ns < 0 else b""
    return b"%b%d.%09d" % (sign, seconds, rest) if rest else b"%b%d" % (sign, seconds)


def _record(key: bytes, value: bytes) -> bytes:
    """Return "LENGTH KEY=VALUE\\n", the length being that of all of it."""
    size = len(key) + len(value) + 3
    length = size + len(str(size))
    if len(str(length)) != len(str(size)):
        length += 1
    return b"%d %b=%b\n" % (length, key, value)


def _ustar(
    name: bytes,
    kind: bytes,
    *,
    mode: int,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    target: bytes = b"",
    device: Sequence[int] = (0, 0),
) -> bytes:
    """Return a header; what does not fit is cut, or the greatest there is, and in the PAX header before it."""
    major, minor = device
    head = b"".join(
        (
            name[:_NAME_MAX].ljust(_NAME_MAX, b"\0"),
            b"%07o\0%07o\0%07o\0" % (mode, min(uid, _SMALL_MAX), min(gid, _SMALL_MAX)),
            b"%011o\0%011o\0" % (min(size, _LARGE_MAX), min(max(mtime, 0), _LARGE_MAX)),
        )
    )
    rest = b"".join(
        (
            kind,
            target[:_NAME_MAX].ljust(_NAME_MAX, b"\0"),
            b"ustar\x0000" + bytes(64),
            b"%07o\0%07o\0" % (min(major, _SMALL_MAX), min(minor, _SMALL_MAX)),
        )
    )
    checksum = sum(head) + sum(rest) + 8 * 0x20
    return (head + b"%06o\0 " % checksum + rest).ljust(BLOCK, b"\0")
