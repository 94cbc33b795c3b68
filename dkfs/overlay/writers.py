"""Whether a backing file may still be written: by who has it open for writing, or mapped so after closing it."""

import errno
import fcntl
import os
import signal

from dkfs.overlay.backing import by_fd


def may_be_written(fd: int) -> bool:
    """Return whether somebody else has the file *fd*, open for reading only, open or mapped for writing.

    A lease for reading is refused then.  It is given back at once; who opens the file in between waits for
    that, and the kernel's signal about it is one that does nothing.  On overlayfs maps are not noticed.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as exc:
        return exc.errno in (errno.EAGAIN, errno.EBUSY)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def for_reading(fd: int) -> int:
    """Return an fd of the file *fd* that can only read; raises OSError."""
    return os.open(by_fd(fd), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
