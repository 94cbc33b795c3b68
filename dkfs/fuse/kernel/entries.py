"""What a reply says of an inode: the layouts of entries and attributes, filled in."""

import os
from typing import Final

from dkfs.fuse.kernel.messages import (
    ATTR_OUT,
    ENTRY_OUT,
    STATFS_OUT,
    STATX_BASIC_STATS,
    STATX_BTIME,
    STATX_OUT,
)
from dkfs.overlay.inode import Inode
from dkfs.overlay.mounted import FileSystem
from dkfs.overlay.virtual import VirtualStatus

_S: Final = 1_000_000_000  # ns
_U32: Final = 0xFFFFFFFF
_BLOCK: Final = 512  # bytes, of st_blocks


class Validity:
    """For how long the kernel may believe what it is told of inodes."""

    __slots__ = ("_unseen", "name_s")

    def __init__(self, fs: FileSystem) -> None:
        self.name_s = int(fs.valid_s)
        self._unseen = fs.captures.unseen.files

    def attributes_s(self, inode: Inode) -> int:
        """Return for how many seconds it may believe attributes.

        Not at all those of a file that it writes to itself: it forgets them when it does so by write(2), but not
        when a map stores something.
        """
        return 0 if inode in self._unseen else self.name_s


def entry(status: os.stat_result, inode: Inode, valid: Validity) -> bytes:
    """Return the entry of *inode*, to be believed for as long as *valid* says."""
    number = inode.id
    atime, atime_ns = divmod(status.st_atime_ns, _S)
    mtime, mtime_ns = divmod(status.st_mtime_ns, _S)
    ctime, ctime_ns = divmod(status.st_ctime_ns, _S)
    return ENTRY_OUT.pack(
        number,
        inode.generation,
        valid.name_s,
        valid.attributes_s(inode),
        0,
        0,
        number,
        status.st_size,
        status.st_blocks,
        atime,
        mtime,
        ctime,
        atime_ns,
        mtime_ns,
        ctime_ns,
        status.st_mode,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        status.st_rdev
        & _U32,  # glibc's makedev, below 2^32 the same as the kernel's new_encode_dev
        status.st_blksize,
        0,
    )


def no_entry(valid_s: int) -> bytes:
    """Return the entry of a name that is not there: the kernel need not ask again for *valid_s* seconds."""
    return ENTRY_OUT.pack(0, 0, valid_s, *(0,) * 19)


def attributes(status: os.stat_result, number: int, valid_s: int) -> bytes:
    """Return the attributes of an inode that the kernel calls *number*."""
    atime, atime_ns = divmod(status.st_atime_ns, _S)
    mtime, mtime_ns = divmod(status.st_mtime_ns, _S)
    ctime, ctime_ns = divmod(status.st_ctime_ns, _S)
    return ATTR_OUT.pack(
        valid_s,
        0,
        0,
        number,
        status.st_size,
        status.st_blocks,
        atime,
        mtime,
        ctime,
        atime_ns,
        mtime_ns,
        ctime_ns,
        status.st_mode,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        status.st_rdev & _U32,
        status.st_blksize,
        0,
    )


def extended_attributes(
    status: os.stat_result, number: int, valid_s: int, born_ns: int | None
) -> bytes:
    """Return what STATX asks for: the attributes and, where it is known, the time of birth."""
    atime, atime_ns = divmod(status.st_atime_ns, _S)
    born, born_sub_ns = divmod(born_ns or 0, _S)
    ctime, ctime_ns = divmod(status.st_ctime_ns, _S)
    mtime, mtime_ns = divmod(status.st_mtime_ns, _S)
    mask = STATX_BASIC_STATS | (STATX_BTIME if born_ns is not None else 0)
    return STATX_OUT.pack(
        *(valid_s, 0, 0, mask, status.st_blksize, 0, status.st_nlink, status.st_uid),
        *(status.st_gid, status.st_mode, 0, number, status.st_size, status.st_blocks, 0),
        *(atime, atime_ns, 0, born, born_sub_ns, 0, ctime, ctime_ns, 0, mtime, mtime_ns, 0),
        *(os.major(status.st_rdev), os.minor(status.st_rdev), 0, 0),
    )


def _virtual(status: VirtualStatus) -> tuple[int, ...]:
    mtime, mtime_ns = divmod(status.mtime_ns, _S)
    ctime, ctime_ns = divmod(status.ctime_ns, _S)
    return (
        *(status.number, status.size, -(-status.size // _BLOCK), mtime, mtime, ctime),
        *(mtime_ns, mtime_ns, ctime_ns, status.mode, status.nlink, status.uid, status.gid),
        *(status.rdev & _U32, 4096, 0),
    )


def virtual_entry(status: VirtualStatus) -> bytes:
    """Return the entry of an inode in the history: asked for again each time.

    Who may see it depends on who asks, and the kernel would answer others from its cache.
    """
    return ENTRY_OUT.pack(status.number, 0, 0, 0, 0, 0, *_virtual(status))


def virtual_attributes(status: VirtualStatus) -> bytes:
    """Return the attributes of an inode in the history; see virtual_entry()."""
    return ATTR_OUT.pack(0, 0, 0, *_virtual(status))


def virtual_extended_attributes(status: VirtualStatus) -> bytes:
    """Return what STATX asks for of an inode in the history, whose birth is not recorded."""
    mtime, mtime_ns = divmod(status.mtime_ns, _S)
    ctime, ctime_ns = divmod(status.ctime_ns, _S)
    return STATX_OUT.pack(
        *(0, 0, 0, STATX_BASIC_STATS, 4096, 0, status.nlink, status.uid, status.gid),
        *(status.mode, 0, status.number, status.size, -(-status.size // _BLOCK), 0),
        *(mtime, mtime_ns, 0, 0, 0, 0, ctime, ctime_ns, 0, mtime, mtime_ns, 0),
        *(os.major(status.rdev), os.minor(status.rdev), 0, 0),
    )


def figures(status: os.statvfs_result) -> bytes:
    """Return the figures of the backing file system."""
    return STATFS_OUT.pack(
        status.f_blocks,
        status.f_bfree,
        status.f_bavail,
        status.f_files,
        status.f_ffree,
        status.f_bsize,
        status.f_namemax,
        status.f_frsize,
        0,
    )
