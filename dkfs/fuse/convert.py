"""Between what the overlay returns and what pyfuse3 takes."""

import os

import pyfuse3
from pyfuse3 import EntryAttributes

from dkfs.overlay.attributes import NewAttributes
from dkfs.overlay.inode import Inode
from dkfs.overlay.listing import Listed
from dkfs.overlay.virtual import VirtualStatus

_UNKNOWN = 1 << 60  # above inode numbers that are given as they are, below those of overlay.inodes


def entry_of(status: os.stat_result, inode: Inode, *, valid_s: float) -> EntryAttributes:
    """Return the entry of *inode*, which the kernel may believe for *valid_s*."""
    entry = EntryAttributes()
    entry.st_ino = inode.id
    entry.generation = inode.generation
    entry.entry_timeout = valid_s
    entry.attr_timeout = valid_s
    entry.st_mode = status.st_mode
    entry.st_nlink = status.st_nlink
    entry.st_uid = status.st_uid
    entry.st_gid = status.st_gid
    entry.st_rdev = status.st_rdev
    entry.st_size = status.st_size
    entry.st_blocks = status.st_blocks
    entry.st_blksize = status.st_blksize
    entry.st_atime_ns = status.st_atime_ns
    entry.st_mtime_ns = status.st_mtime_ns
    entry.st_ctime_ns = status.st_ctime_ns
    return entry


def bare_entry_of(listed: Listed) -> EntryAttributes:
    """Return an entry for what cannot be looked at: a number that is asked for again, so that who uses it hears why.

    libfuse takes none without a number, and the kernel takes a reference to it, that nobody counts.
    """
    entry = EntryAttributes()
    entry.st_ino = _UNKNOWN | listed.number & _UNKNOWN - 1
    entry.st_mode = listed.kind << 12
    entry.entry_timeout = 0.0
    entry.attr_timeout = 0.0
    return entry


def virtual_entry_of(status: VirtualStatus) -> EntryAttributes:
    """Return the entry of an inode in the history: asked for again each time.

    Who may see it depends on who asks, and the kernel would answer others from its cache.
    """
    entry = EntryAttributes()
    entry.st_ino = status.number
    entry.entry_timeout = 0.0
    entry.attr_timeout = 0.0
    entry.st_mode = status.mode
    entry.st_nlink = status.nlink
    entry.st_uid = status.uid
    entry.st_gid = status.gid
    entry.st_rdev = status.rdev
    entry.st_size = status.size
    entry.st_blocks = -(-status.size // 512)
    entry.st_atime_ns = entry.st_mtime_ns = status.mtime_ns
    entry.st_ctime_ns = status.ctime_ns
    return entry


def wanted_of(attr: EntryAttributes, fields: pyfuse3.SetattrFields) -> NewAttributes:
    """Return what a setattr request is to change."""
    return NewAttributes(
        mode=attr.st_mode & 0o7777 if fields.update_mode else None,
        uid=attr.st_uid if fields.update_uid else None,
        gid=attr.st_gid if fields.update_gid else None,
        size=attr.st_size if fields.update_size else None,
        atime=attr.st_atime_ns if fields.update_atime else None,
        mtime=attr.st_mtime_ns if fields.update_mtime else None,
    )


def statvfs_of(status: os.statvfs_result) -> pyfuse3.StatvfsData:
    """Return the figures of the backing file system."""
    data = pyfuse3.StatvfsData()
    data.f_bsize = status.f_bsize
    data.f_frsize = status.f_frsize
    data.f_blocks = status.f_blocks
    data.f_bfree = status.f_bfree
    data.f_bavail = status.f_bavail
    data.f_files = status.f_files
    data.f_ffree = status.f_ffree
    data.f_favail = status.f_favail
    data.f_namemax = status.f_namemax
    return data
