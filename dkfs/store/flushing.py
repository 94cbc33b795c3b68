"""Which syncs of other files make durable, too, what was written past the page cache of the intent log before they began.

fsync(2) and fdatasync(2) have the disk flush its cache, which holds what has come from any file.  Linux begins with that flush
after the call, even if nothing of the file is left to write, for regular files of

- ext4 since Linux 6.5, without a journal too: fs/ext4/fsync.c flushes unless the commit that it waits for has its flush
  still before it.  Not with fast commits: one that was under way may have flushed before.  Not for directories: if there is
  nothing to commit nothing is flushed;
- xfs: fs/xfs/xfs_file.c flushes unless its own write to the log did.  Not if files may be on a second device, and not for
  directories.

Elsewhere, and wherever one of this cannot be seen, the intent log is synced by itself.
"""

import ctypes
import os
import platform
import stat
from pathlib import Path
from typing import Final

_EXT4: Final = 0xEF53  # linux/magic.h
_XFS: Final = 0x58465342
_SINCE: Final = (6, 5)  # Linux
_FAST: Final = frozenset(
    (b"fast_commit", b"fc_debug_force")
)  # what it is called in the list of options
_STATFS_SIZE: Final = 256  # bytes, at least that of struct statfs, whose first word is the type
_SYNC_FILE_RANGE_WRITE: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class Disk:
    """What one file system is on, if the sync of a regular file there flushes all of it."""

    def __init__(self, device: int, kind: int) -> None:
        """*device* as in st_dev, *kind* as in linux/magic.h: an overlay may show the device of what is below it."""
        self._device = device
        self._kind = kind

    def is_flushed_by(self, fd: int) -> bool:
        """Return whether a sync of *fd* that returns 0 has flushed this disk after it was called."""
        status = os.fstat(fd)
        if status.st_dev != self._device or not stat.S_ISREG(status.st_mode):
            return False
        return _kind(fd) == self._kind


def disk_of(
    fd: int, *, proc: Path = Path("/proc"), sys: Path = Path("/sys"), release: str = ""
) -> Disk | None:
    """Return the disk of *fd*, which was opened with O_DIRECT; None if syncs of other files there say nothing about it."""
    device, kind = os.fstat(fd).st_dev, _kind(fd)
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        major, minor = (release or platform.release()).split(".")[:2]
        if (int(major), int(minor.partition("-")[0])) < _SINCE:
            return None
        if kind == _EXT4:
            name = os.readlink(sys / "dev/block" / number).rpartition("/")[2]
            is_sure = _flushes_ext4((proc / "fs/ext4" / name / "options").read_bytes())
        else:
            is_sure = kind == _XFS and _flushes_xfs(
                number.encode(), (proc / "self/mountinfo").read_bytes()
            )
    except (OSError, ValueError):
        return None
    return Disk(device, kind) if is_sure else None


def _flushes_ext4(options: bytes) -> bool:
    """Return whether fsync flushes with *options*, all that are in force, a line each."""
    words = set(options.split())
    return b"barrier" in words and b"data=journal" not in words and not words & _FAST


def _flushes_xfs(number: bytes, mountinfo: bytes) -> bool:
    """Return whether fsync flushes on the device *number*."""
    lines = (line.split(b" ") for line in mountinfo.splitlines())
    options = [fields[-1].split(b",") for fields in lines if fields[2] == number]
    return bool(options) and not any(
        each.startswith((b"rtdev=", b"logdev=", b"nobarrier")) for each in options[0]
    )


def _kind(fd: int) -> int:
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    if _libc.fstatfs(fd, buffer) != 0:
        return 0
    return int(ctypes.c_long.from_buffer(buffer).value)


def begin_writing(fd: int) -> None:
    """Have what is dirty of *fd* on its way to the disk.  What goes wrong with that is said by the next sync of *fd*."""
    _libc.sync_file_range(fd, 0, 0, _SYNC_FILE_RANGE_WRITE)
