"""Every error that dkfs raises on purpose: one tree, each class with its errno and its exit status.

A message says what was wrong, which thing it was about, and what was expected.
"""

import errno


class DkfsError(Exception):
    """Anything that went wrong and that dkfs can name."""

    errno: int = errno.EIO
    exit_status: int = 1


class UsageError(DkfsError):
    """The caller asked for something that makes no sense: an option, a name, a combination."""

    errno = errno.EINVAL
    exit_status = 2


class CommandError(UsageError):
    """The command that dkfs is to run cannot be run; the exit status is the one a shell gives."""

    def __init__(self, message: str, exit_status: int) -> None:
        """*exit_status*: 127 not found, 126 not executable."""
        super().__init__(message)
        self.exit_status = exit_status


class NotFoundError(DkfsError):
    """A version, tag, time or path that does not exist in the history."""

    errno = errno.ENOENT
    exit_status = 3


class ForgottenError(NotFoundError):
    """Contents that a policy forgot; the node and its metadata are still known."""


class ExistsError(DkfsError):
    """Something is there already that must not be: a tag, a target's contents, a live mount."""

    errno = errno.EEXIST
    exit_status = 1


class NotPermittedError(DkfsError):
    """The caller may not do or see this."""

    errno = errno.EACCES
    exit_status = 1


class StoreError(DkfsError):
    """The store cannot be used: missing, foreign, not writable, full."""

    errno = errno.EIO
    exit_status = 4


class IndexFullError(StoreError):
    """A transaction found no room in the map of the index; the next one has it."""


class StoreBusyError(StoreError):
    """Another process holds the store for writing; the message names its pid."""

    errno = errno.EBUSY


class UnreadableError(DkfsError):
    """A file of the backing directory cannot be read, so what it holds is not recorded."""

    errno = errno.EIO


class SameProcessError(StoreBusyError):
    """A process of another pid namespace that has the number of this one has entered itself as a reader."""


class StoreFormatError(StoreError):
    """The store was written by a newer dkfs, or is not a store."""

    errno = errno.EINVAL


class CorruptError(DkfsError):
    """Bytes in the store are not what their name or their checksum says."""

    errno = errno.EIO
    exit_status = 5


class MountError(DkfsError):
    """The mount cannot be made, found, or reached."""

    errno = errno.EIO
    exit_status = 1


class NotMountedError(MountError):
    """No daemon serves the store."""
