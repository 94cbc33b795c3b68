"""Messages of the FUSE protocol as the kernel writes and reads them, from linux/fuse.h and not from dkfs.

Layouts of 7.31 to 7.38 are those of linux/fuse.h as Debian 12 has it; what came after is marked with its version and
from the kernel's own header.  All of it is little-endian here, as on every machine that the tests run on.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

IN_HEADER = struct.Struct("<IIQQIIIHH")  # len opcode unique nodeid uid gid pid extlen padding
OUT_HEADER = struct.Struct("<IiQ")  # len error unique
ROOT = 1
UNIQUE = 0x1234_5678_9ABC


class Op(IntEnum):
    """What a request asks for: enum fuse_opcode."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52  # 7.39
    COPY_FILE_RANGE_64 = 53  # 7.45
    CUSE_INIT = 4096


NO_REPLY = frozenset((Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT, Op.NOTIFY_REPLY))


class Fattr:
    """What a SETATTR is to change."""

    MODE, UID, GID, SIZE, ATIME, MTIME, FH = (1 << bit for bit in range(7))
    ATIME_NOW, MTIME_NOW, LOCKOWNER, CTIME, KILL_SUIDGID = (1 << bit for bit in range(7, 12))


# The bodies of requests, without the names and data that follow them.
FORGET = struct.Struct("<Q")  # nlookup
FORGET_ONE = struct.Struct("<QQ")  # nodeid nlookup
BATCH_FORGET = struct.Struct("<II")  # count dummy
GETATTR = struct.Struct("<IIQ")  # flags dummy fh
MKNOD = struct.Struct("<IIII")  # mode rdev umask padding
MKDIR = struct.Struct("<II")  # mode umask
RENAME = struct.Struct("<Q")  # newdir
RENAME2 = struct.Struct("<QII")  # newdir flags padding
LINK = struct.Struct("<Q")  # oldnodeid
# valid padding fh size lock_owner atime mtime ctime, nsec of the three, mode unused4 uid gid unused5
SETATTR = struct.Struct("<IIQQQqqqIIIIIIII")
OPEN = struct.Struct("<II")  # flags open_flags
CREATE = struct.Struct("<IIII")  # flags mode umask open_flags
RELEASE = struct.Struct("<QIIQ")  # fh flags release_flags lock_owner
FLUSH = struct.Struct("<QIIQ")  # fh unused padding lock_owner
READ = struct.Struct("<QQIIQII")  # fh offset size read_flags lock_owner flags padding
WRITE = struct.Struct("<QQIIQII")  # fh offset size write_flags lock_owner flags padding
FSYNC = struct.Struct("<QII")  # fh fsync_flags padding
SETXATTR = struct.Struct("<II")  # size flags: without FUSE_SETXATTR_EXT
SETXATTR_EXT = struct.Struct("<IIII")  # size flags setxattr_flags padding
GETXATTR = struct.Struct("<II")  # size padding
LK = struct.Struct("<QQQQIIII")  # fh owner start end type pid lk_flags padding
ACCESS = struct.Struct("<II")  # mask padding
INIT = struct.Struct("<IIIII11I")  # major minor max_readahead flags flags2 unused
INIT_SHORT = struct.Struct("<IIII")  # without FUSE_INIT_EXT
INTERRUPT = struct.Struct("<Q")  # unique
BMAP = struct.Struct("<QII")  # block blocksize padding
IOCTL = struct.Struct("<QIIQII")  # fh flags cmd arg in_size out_size
POLL = struct.Struct("<QQII")  # fh kh flags events
RETRIEVED = struct.Struct("<QQIIQQ")  # dummy1 offset size dummy2 dummy3 dummy4
FALLOCATE = struct.Struct("<QQQII")  # fh offset length mode padding
LSEEK = struct.Struct("<QQII")  # fh offset whence padding
COPY_FILE_RANGE = struct.Struct("<QQQQQQQ")  # fh_in off_in nodeid_out fh_out off_out len flags
SETUPMAPPING = struct.Struct("<QQQQQ")  # fh foffset len flags moffset
REMOVEMAPPING = struct.Struct("<IQQ")  # count, then moffset len
SYNCFS = struct.Struct("<Q")  # padding
STATX = struct.Struct("<IIQII")  # getattr_flags reserved fh sx_flags sx_mask: 7.39

# The bodies of replies.
ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
ENTRY_SIZE = 128
ATTR_OUT_SIZE = 104
_ENTRY = struct.Struct("<QQQQII")  # nodeid generation entry_valid attr_valid and their nsec
_ATTR_OUT = struct.Struct("<QII")  # attr_valid attr_valid_nsec dummy
OPEN_OUT = struct.Struct("<QIi")  # fh open_flags backing_id (7.40)
WRITE_OUT = struct.Struct("<II")  # size padding
GETXATTR_OUT = struct.Struct("<II")  # size padding
LK_OUT = struct.Struct("<QQII")  # start end type pid
LSEEK_OUT = struct.Struct("<Q")  # offset
BMAP_OUT = struct.Struct("<Q")  # block
IOCTL_OUT = struct.Struct("<iIII")  # result flags in_iovs out_iovs
STATFS_OUT = struct.Struct("<QQQQQIIII6I")
COPIED = struct.Struct("<Q")  # bytes_copied: of COPY_FILE_RANGE_64
_DIRENT = struct.Struct("<QQII")  # ino off namelen type
# major minor max_readahead flags max_background congestion max_write time_gran max_pages map_alignment flags2
# max_stack_depth (7.40) request_timeout (7.43) unused[11 of 16 bits]
INIT_OUT = struct.Struct("<IIIIHHIIHHIIH11H")
STATX_OUT = struct.Struct(
    "<QII2Q"
)  # attr_valid attr_valid_nsec flags spare, then struct fuse_statx
_STATX_HEAD = struct.Struct("<IIQIIIHHQQQQ")  # mask ... attributes_mask
_STATX_TIME = struct.Struct("<qIi")
STATX_SIZE = STATX_OUT.size + 256


class Attr(NamedTuple):
    """struct fuse_attr."""

    ino: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    atimensec: int
    mtimensec: int
    ctimensec: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    blksize: int
    flags: int


class Entry(NamedTuple):
    """struct fuse_entry_out."""

    nodeid: int
    generation: int
    entry_valid: int
    attr_valid: int
    entry_valid_nsec: int
    attr_valid_nsec: int
    attr: Attr


class Dirent(NamedTuple):
    """struct fuse_dirent, and the entry before it if it is a direntplus."""

    ino: int
    off: int
    type: int
    name: bytes
    entry: Entry | None


class Statx(NamedTuple):
    """The fields of struct fuse_statx that say something, times in ns."""

    mask: int
    blksize: int
    nlink: int
    uid: int
    gid: int
    mode: int
    ino: int
    size: int
    blocks: int
    atime: int
    btime: int
    ctime: int
    mtime: int


def request(
    op: int,
    node: int = ROOT,
    body: bytes = b"",
    *,
    unique: int = UNIQUE,
    uid: int = 0,
    gid: int = 0,
    pid: int = 0,
    length: int | None = None,
) -> bytes:
    """Return a request; *length* is what its header says, by default the truth."""
    size = IN_HEADER.size + len(body) if length is None else length
    return IN_HEADER.pack(size, op, unique, node, uid, gid, pid, 0, 0) + body


def name(*names: bytes) -> bytes:
    """Return names as they are in requests."""
    return b"".join(each + b"\0" for each in names)


def attr_of(data: bytes) -> Attr:
    """Return the attributes that a GETATTR or SETATTR was answered with."""
    assert len(data) == ATTR_OUT_SIZE
    assert _ATTR_OUT.unpack_from(data)[2] == 0
    return Attr(*ATTR.unpack_from(data, _ATTR_OUT.size))


def entry_of(data: bytes) -> Entry:
    """Return the entry at the beginning of *data*."""
    node, generation, entry_valid, attr_valid, entry_ns, attr_ns = _ENTRY.unpack_from(data)
    attr = Attr(*ATTR.unpack_from(data, _ENTRY.size))
    return Entry(node, generation, entry_valid, attr_valid, entry_ns, attr_ns, attr)


def dirents_of(data: bytes, *, plus: bool) -> list[Dirent]:
    """Return what a READDIR, or a READDIRPLUS, was answered with."""
    found = []
    at = 0
    while at < len(data):
        entry = entry_of(data[at:]) if plus else None
        start = at + (ENTRY_SIZE if plus else 0)
        ino, off, length, kind = _DIRENT.unpack_from(data, start)
        end = start + _DIRENT.size + length
        padded = end + -end % 8
        assert data[end:padded] == bytes(padded - end)
        found.append(Dirent(ino, off, kind, data[end - length : end], entry))
        at = padded
    assert at == len(data)
    return found


def statx_of(data: bytes) -> Statx:
    """Return what a STATX was answered with."""
    assert len(data) == STATX_SIZE
    mask, blksize, _, nlink, uid, gid, mode, _, ino, size, blocks, _ = _STATX_HEAD.unpack_from(
        data, STATX_OUT.size
    )
    start = STATX_OUT.size + _STATX_HEAD.size
    times = [
        seconds * 1_000_000_000 + ns
        for seconds, ns, _ in _STATX_TIME.iter_unpack(data[start : start + 4 * _STATX_TIME.size])
    ]
    return Statx(mask, blksize, nlink, uid, gid, mode, ino, size, blocks, *times)
