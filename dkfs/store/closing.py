"""How the store closes its files: a close that fails says nothing that a sync has not said, and has closed."""

import errno
import os


def close(fd: int) -> None:
    """Close *fd*, whatever its file system says of that.

    A network file system writes, and fails, when a file is closed.  Whoever closed again would close the file of another.
    """
    try:
        os.close(fd)
    except OSError as exc:
        if exc.errno == errno.EBADF:  # a mistake here
            raise
