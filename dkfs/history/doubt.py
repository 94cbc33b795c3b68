"""Which files may have been changed although size and times are those that were recorded: after a crash, they are read.

Two writes within one tick of a clock leave the same times, and the second may not have been recorded.  So a file is read
that was changed shortly before the end, as the clock says.  The clock may have been set back before that: then times of
files say nothing, but versions do, whose times go on by a nanosecond each until the clock has caught up.
"""

import os
from itertools import islice

from dkfs.errors import CorruptError, ForgottenError
from dkfs.history import fileout
from dkfs.history.reading import never_noticed
from dkfs.model.ids import Seq
from dkfs.model.node import NodeState
from dkfs.store import Reader

_NEVER = 1 << 63


class Doubt:
    """Tells whether a file is to be read."""

    def __init__(self, reader: Reader, since_ns: int | None) -> None:
        """Doubt what was changed since *since_ns*, by the clock of the versions; None: nothing."""
        self._reader = reader
        self.since_ns = _NEVER if since_ns is None else since_ns
        self._first = _NEVER if since_ns is None else reader.version_at(since_ns - 1) + 1
        self._without_clock: dict[Seq, bool] = {}
        self._is_clock_back = since_ns is not None and self.is_timeless(reader.last)

    def is_timeless(self, seq: Seq) -> bool:
        """Return whether version *seq*, a late one, was recorded while the clock was behind that of the one before."""
        if seq < self._first:
            return False
        found = self._without_clock.get(seq)
        if found is None:
            latest = self._reader.versions(last=seq, reverse=True)
            times = [time_ns for _, time_ns in islice(latest, 2)]
            found = len(times) == 2 and times[0] - times[1] <= 1
            self._without_clock[seq] = found
        return found

    def about_attributes(self, seq: Seq, status: os.stat_result) -> bool:
        """Return whether the extended attributes are to be read although the ctime is that of version *seq*."""
        return status.st_ctime_ns >= self.since_ns or self.is_timeless(seq)

    def about(self, seq: Seq, ctime_ns: int, status: os.stat_result) -> bool:
        """Return whether a file of which lstat(2) tells *status*, recorded by *seq* with *ctime_ns*, is to be read."""
        if status.st_mtime_ns >= self.since_ns or self.is_timeless(seq):
            return True
        return status.st_ctime_ns != ctime_ns and (
            status.st_ctime_ns >= self.since_ns or self._is_clock_back
        )


def has_content(reader: Reader, state: NodeState, name: bytes, dir_fd: int) -> bool:
    """Return whether the file *name* in *dir_fd* has the contents of *state*; raises OSError.

    A state whose contents are damaged or forgotten is compared with nothing: the file is taken to differ.
    """
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        never_noticed(fd)
        return fileout.is_equal(fd, reader, state)
    except (CorruptError, ForgottenError):
        return False
    finally:
        os.close(fd)
