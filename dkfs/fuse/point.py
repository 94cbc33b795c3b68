"""Where dkfs has mounted, to be unmounted again: only while what is there is still this mount."""

import contextlib
import os
import select
from pathlib import Path
from typing import Final

from dkfs.overlay import backing

_TYPE: Final = b"fuse.dkfs"


class Point:
    """A mount point just after mounting."""

    def __init__(self, path: bytes) -> None:
        """Remember what is mounted on *path* now."""
        self._path = path
        # While the connection lasts, no other mount has this device number.
        self.number = _topmost(path)  # of the device, as MAJOR:MINOR; None if nothing is there

    def unmount(self, device: int) -> None:
        """Unmount, although somebody may use it, unless that has happened.

        *device* is the connection's fd: when it is unmounted the connection is gone, and what is at the
        mount point then is somebody else's, such as what dkfs had covered, or the mount made next.
        """
        poll = select.poll()
        poll.register(device, 0)
        if poll.poll(0) or self.number is None or _topmost(self._path) != self.number:
            return
        with contextlib.suppress(OSError):
            backing.unmount(self._path, lazily=True)


def _topmost(path: bytes) -> str | None:
    """Return the device number of the topmost mount on *path* if it is dkfs's.

    From mountinfo, because a stat would be a request to dkfs itself.
    """
    number = None
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        if _plain(fields[4]) == path:  # the last is the topmost
            is_ours = fields[fields.index(b"-") + 1] == _TYPE
            number = os.fsdecode(fields[2]) if is_ours else None
    return number


def _plain(field: bytes) -> bytes:
    return field.decode("unicode_escape").encode("latin-1")
