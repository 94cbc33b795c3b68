"""The FUSE kernel protocol, 7.31 to 7.45: numbers and layouts.  Pure; nothing here reads or writes.

Source: linux/fuse.h.  Everything is little-endian as on x86-64 and arm64 (the protocol has the
machine's byte order), and each structure is a multiple of 8 bytes.  Times are signed seconds and
nanoseconds: the header says uint64, the kernel stores them into a signed time64_t.  Offsets of READ
and WRITE and the size of SETATTR are read as signed too, as loff_t is.
"""

import struct
from enum import IntEnum, IntFlag
from typing import Final

MAJOR: Final = 7
MINOR_LEAST: Final = 31  # Linux 5.4
MINOR_MOST: Final = 45  # Linux 6.18
ROOT: Final = 1  # the node id of the root

READ_LEAST: Final = 8192  # bytes of room that each read(2) of the device must offer
NAME_MOST: Final = 1024  # bytes: FUSE_NAME_MAX


class Op(IntEnum):
    """What a request asks for (enum fuse_opcode)."""

    LOOKUP = 1
    FORGET = 2  # no reply
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
    INTERRUPT = 36  # no reply
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41  # no reply
    BATCH_FORGET = 42  # no reply
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51  # 7.37
    STATX = 52  # 7.39
    COPY_FILE_RANGE_64 = 53  # 7.45


class Init(IntFlag):
    """What INIT offers and its answer takes; bits from 32 on travel in the field flags2."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    FILE_OPS = 1 << 2
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    SPLICE_WRITE = 1 << 7
    SPLICE_MOVE = 1 << 8
    SPLICE_READ = 1 << 9
    FLOCK_LOCKS = 1 << 10
    HAS_IOCTL_DIR = 1 << 11
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    MAP_ALIGNMENT = 1 << 26
    SUBMOUNTS = 1 << 27
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    SECURITY_CTX = 1 << 32
    HAS_INODE_DAX = 1 << 33
    CREATE_SUPP_GROUP = 1 << 34
    HAS_EXPIRE_ONLY = 1 << 35
    DIRECT_IO_ALLOW_MMAP = 1 << 36
    PASSTHROUGH = 1 << 37
    NO_EXPORT_SUPPORT = 1 << 38
    HAS_RESEND = 1 << 39
    ALLOW_IDMAP = 1 << 40
    OVER_IO_URING = 1 << 41
    REQUEST_TIMEOUT = 1 << 42


class Fopen(IntFlag):
    """How the kernel is to treat what was opened: open_flags of an OPEN, CREATE or OPENDIR reply."""

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    NONSEEKABLE = 1 << 2
    CACHE_DIR = 1 << 3
    STREAM = 1 << 4
    NOFLUSH = 1 << 5
    PARALLEL_DIRECT_WRITES = 1 << 6
    PASSTHROUGH = 1 << 7


class Fattr(IntFlag):
    """What a SETATTR request is to change."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    LOCKOWNER = 1 << 9
    CTIME = 1 << 10
    KILL_SUIDGID = 1 << 11


GETATTR_FH: Final = 1 << 0
WRITE_CACHE: Final = 1 << 0  # from the page cache, later: pid and uid are not the writer's
WRITE_KILL_SUIDGID: Final = 1 << 2
OPEN_KILL_SUIDGID: Final = 1 << 0
RELEASE_FLUSH: Final = 1 << 0
FSYNC_FDATASYNC: Final = 1 << 0
SETXATTR_ACL_KILL_SGID: Final = 1 << 0
IOCTL_COMPAT: Final = 1 << 0
IOCTL_DIR: Final = 1 << 4
STATX_BASIC_STATS: Final = 0x7FF
STATX_BTIME: Final = 0x800


class Notify(IntEnum):
    """What the file system tells the kernel unasked: the error field of a reply to request 0."""

    POLL = 1
    INVAL_INODE = 2
    INVAL_ENTRY = 3
    STORE = 4
    RETRIEVE = 5
    DELETE = 6
    RESEND = 7  # 7.40
    INC_EPOCH = 8  # 7.44
    PRUNE = 9  # 7.45


EXPIRE_ONLY: Final = 1 << 0  # flags of INVAL_ENTRY, 7.38

# ioctl(2) on the device
DEV_CLONE: Final = 0x8004E500
DEV_BACKING_OPEN: Final = 0x4010E501  # 7.40
DEV_BACKING_CLOSE: Final = 0x4004E502

# Requests: a header, then one of these, then names, each ended by a zero byte, or data.
# len, opcode, unique, nodeid, uid, gid, pid, total_extlen in units of 8 bytes, padding
IN_HEADER: Final = struct.Struct("<IIQQIIIHH")
NODE: Final = struct.Struct("<Q")  # in the header, at NODE_AT
NODE_AT: Final = 16
FORGET_IN: Final = struct.Struct("<Q")  # nlookup
FORGET_ONE: Final = struct.Struct("<QQ")  # nodeid, nlookup
BATCH_FORGET_IN: Final = struct.Struct("<II")  # count, -
GETATTR_IN: Final = struct.Struct("<IIQ")  # flags, -, fh
# valid, -, fh, size, lock_owner, atime, mtime, ctime, the nanoseconds of each, mode, -, uid, gid, -
SETATTR_IN: Final = struct.Struct("<IIQqQqqqIIIIIIII")
MKNOD_IN: Final = struct.Struct("<IIII")  # mode, rdev, umask, -; name
MKDIR_IN: Final = struct.Struct("<II")  # mode, umask; name
RENAME_IN: Final = struct.Struct("<Q")  # newdir; old name, new name
RENAME2_IN: Final = struct.Struct("<QII")  # newdir, flags, -; old name, new name
LINK_IN: Final = struct.Struct("<Q")  # oldnodeid; new name
OPEN_IN: Final = struct.Struct("<II")  # flags, open_flags
CREATE_IN: Final = struct.Struct("<IIII")  # flags, mode, umask, open_flags; name
READ_IN: Final = struct.Struct("<QqIIQII")  # fh, offset, size, read_flags, lock_owner, flags, -
WRITE_IN: Final = struct.Struct("<QqIIQII")  # fh, offset, size, write_flags, owner, flags, -; data
RELEASE_IN: Final = struct.Struct("<QIIQ")  # fh, flags, release_flags, lock_owner
FLUSH_IN: Final = struct.Struct("<QIIQ")  # fh, -, -, lock_owner
FSYNC_IN: Final = struct.Struct("<QII")  # fh, fsync_flags, -
SETXATTR_IN: Final = struct.Struct("<II")  # size, flags; name, value
SETXATTR_EXT_IN: Final = struct.Struct("<IIII")  # size, flags, setxattr_flags, -; name, value
GETXATTR_IN: Final = struct.Struct("<II")  # size, -; a name, if it is not LISTXATTR
LK_IN: Final = struct.Struct("<QQQQIIII")  # fh, owner, start, end, type, pid, lk_flags, -
ACCESS_IN: Final = struct.Struct("<II")  # mask, -
# major, minor, max_readahead, flags; from 7.36 on also flags2 and 44 bytes of nothing
INIT_IN: Final = struct.Struct("<IIII")
INIT_FLAGS2_IN: Final = struct.Struct("<I")
INTERRUPT_IN: Final = struct.Struct("<Q")  # unique
BMAP_IN: Final = struct.Struct("<QII")  # block, blocksize, -
IOCTL_IN: Final = struct.Struct("<QIIQII")  # fh, flags, cmd, arg, in_size, out_size; data
POLL_IN: Final = struct.Struct("<QQII")  # fh, kh, flags, events
FALLOCATE_IN: Final = struct.Struct("<QQQII")  # fh, offset, length, mode, -
LSEEK_IN: Final = struct.Struct("<QQII")  # fh, offset, whence, -
# fh_in, off_in, nodeid_out, fh_out, off_out, len, flags
COPY_FILE_RANGE_IN: Final = struct.Struct("<QQQQQQQ")
SETUPMAPPING_IN: Final = struct.Struct("<QQQQQ")  # fh, foffset, len, flags, moffset
REMOVEMAPPING_IN: Final = struct.Struct("<I4x")  # count; then moffset and len of each
SYNCFS_IN: Final = struct.Struct("<Q")  # -
STATX_IN: Final = struct.Struct("<IIQII")  # getattr_flags, -, fh, sx_flags, sx_mask

# Replies: a header, then one of these or data.
OUT_HEADER: Final = struct.Struct("<IiQ")  # len, error: 0 or -errno, unique
# nodeid, generation, entry_valid, attr_valid (s), entry_valid_nsec, attr_valid_nsec, then as ATTR:
# ino, size, blocks, atime, mtime, ctime, the nanoseconds of each, mode, nlink, uid, gid, rdev, blksize, flags
ENTRY_OUT: Final = struct.Struct("<QQQQIIQQQqqqIIIIIIIIII")
ATTR_OUT: Final = struct.Struct(
    "<QIIQQQqqqIIIIIIIIII"
)  # attr_valid, attr_valid_nsec, -, then the same
OPEN_OUT: Final = struct.Struct("<QIi")  # fh, open_flags, backing_id
WRITE_OUT: Final = struct.Struct("<II")  # size, -
# blocks, bfree, bavail, files, ffree, bsize, namelen, frsize, -, spare
STATFS_OUT: Final = struct.Struct("<QQQQQIIII24x")
GETXATTR_OUT: Final = struct.Struct("<II")  # size, -
LK_OUT: Final = struct.Struct("<QQII")  # start, end, type, pid
# major, minor, max_readahead, flags, max_background, congestion_threshold, max_write, time_gran, max_pages,
# map_alignment, flags2, max_stack_depth, request_timeout in seconds, nothing
INIT_OUT: Final = struct.Struct("<IIIIHHIIHHIIH22x")
BMAP_OUT: Final = struct.Struct("<Q")
IOCTL_OUT: Final = struct.Struct("<iIII")  # result, flags, in_iovs, out_iovs; data
POLL_OUT: Final = struct.Struct("<II")  # revents, -
LSEEK_OUT: Final = struct.Struct("<Q")  # offset
COPY_FILE_RANGE_OUT: Final = struct.Struct("<Q")  # bytes_copied; COPY_FILE_RANGE_64 only
DIRENT: Final = struct.Struct("<QQII")  # ino, off, namelen, type; name, padded to 8 bytes
# attr_valid (s), attr_valid_nsec, flags, spare[2], then struct fuse_statx: mask, blksize, attributes, nlink, uid, gid,
# mode, -, ino, size, blocks, attributes_mask, atime, btime, ctime, mtime (s, ns, - of each), rdev major and minor,
# dev major and minor, spare
STATX_OUT: Final = struct.Struct("<QII16xIIQIIIHHQQQQqIiqIiqIiqIiIIII112x")

# Notifications, after OUT_HEADER
INVAL_INODE_OUT: Final = struct.Struct("<Qqq")  # ino, off, len; off < 0: attributes only
INVAL_ENTRY_OUT: Final = struct.Struct("<QII")  # parent, namelen, flags; name and a zero byte
DELETE_OUT: Final = struct.Struct("<QQII")  # parent, child, namelen, -; name and a zero byte
STORE_OUT: Final = struct.Struct("<QQII")  # nodeid, offset, size, -; data
RETRIEVE_OUT: Final = struct.Struct("<QQQII")  # notify_unique, nodeid, offset, size, -


def reply(unique: int, payload: bytes = b"") -> bytes:
    """Return the answer to request *unique*: done, with *payload*."""
    return OUT_HEADER.pack(OUT_HEADER.size + len(payload), 0, unique) + payload


def refusal(unique: int, errno: int) -> bytes:
    """Return the answer to request *unique*: failed with *errno*, positive."""
    return OUT_HEADER.pack(OUT_HEADER.size, -errno, unique)


def notification(code: Notify, payload: bytes = b"") -> bytes:
    """Return what tells the kernel *code*."""
    return OUT_HEADER.pack(OUT_HEADER.size + len(payload), code, 0) + payload
