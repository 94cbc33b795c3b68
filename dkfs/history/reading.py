"""Reads files that others may change meanwhile: what is not there any more reads as zeros."""

import errno
import fcntl
import os


def never_noticed(fd: int) -> int:
    """Let reads through *fd* leave the time of access alone, where that is allowed; return the flags it had.

    Only the owner of the file and root may ask for it; for others the time moves, as it does for backup programs.
    """
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if not flags & os.O_NOATIME:
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_NOATIME)
        except PermissionError:
            pass  # see above
    return flags


def noticed_again(fd: int, flags: int) -> None:
    """Take back never_noticed(), which returned *flags*: an application reads through *fd* too."""
    if not flags & os.O_NOATIME:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)


def read_exactly(fd: int, offset: int, length: int) -> bytes:
    """Return *length* bytes at *offset*, zeros beyond the end of the file; raises OSError."""
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            return data + bytes(length - len(data))
        data += more
    return data


def next_data(fd: int, start: int, end: int) -> int:
    """Return the first offset in [start, end) that is in no hole; *end* if there is none.

    Moves the offset of *fd*.  Raises OSError.
    """
    if start >= end:
        return end
    try:
        return min(end, os.lseek(fd, start, os.SEEK_DATA))
    except OSError as exc:
        if exc.errno == errno.ENXIO:  # only a hole follows, or the end
            return end
        if exc.errno == errno.EINVAL:  # the file system knows no holes
            return start
        raise


def next_hole(fd: int, start: int, end: int) -> int:
    """Return where the data at *start* ends, at most *end*, and after *start*.

    Moves the offset of *fd*.  Raises OSError.
    """
    try:
        found = os.lseek(fd, start, os.SEEK_HOLE)
    except OSError as exc:
        if exc.errno in (
            errno.ENXIO,
            errno.EINVAL,
        ):  # it became shorter; the file system knows no holes
            return end
        raise
    return min(found, end) if found > start else end
