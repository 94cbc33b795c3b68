"""The flags of inodes (chattr(1), project ids), which are read and set by ioctl, and their generation.

They are not part of the history: what a version gives back has none.
"""

import errno
import fcntl
import os

# linux/fs.h.  The kernel keeps the names with "long" and passes an int.
GETFLAGS = 0x80086601
SETFLAGS = 0x40086602
FSGETXATTR = 0x801C581F
FSSETXATTR = 0x401C5820
GETVERSION = 0x80087601
_INT = 4  # bytes
_SIZES = {GETFLAGS: _INT, SETFLAGS: _INT, GETVERSION: _INT}
_SIZES |= {FSGETXATTR: 28, FSSETXATTR: 28}  # struct fsxattr
_SETS = frozenset((SETFLAGS, FSSETXATTR))


def ioctl(fd: int, command: int, data: bytes, room: int) -> bytes:
    """Do *command* on *fd*, not an O_PATH one, with *data*; return at most *room* bytes.

    Raises OSError(ENOTTY) for all other commands.  Who may, the kernel has decided: the owner, and with
    CAP_LINUX_IMMUTABLE for what makes a file immutable or append-only.
    """
    size = _SIZES.get(command)
    if size is None:
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
    if command not in _SETS:
        return fcntl.ioctl(fd, command, bytes(size))[:room]
    if len(data) < size:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    fcntl.ioctl(fd, command, data[:size])
    return b""
