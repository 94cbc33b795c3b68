"""What the kernel says is mounted where: /proc/self/mountinfo, read and understood."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FSTYPE: Final = b"fuse.dkfs"
STORE_XATTR: Final = "user.dkfs.store"  # on the root of every dkfs mount: the store's absolute path
READ_ONLY_XATTR: Final = "user.dkfs.read-only"  # on the root of one that records nothing

_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo."""

    point: bytes  # absolute path
    root: bytes  # the part of the file system that is shown there: b"/" but for bind mounts
    fstype: bytes
    source: bytes

    @property
    def is_dkfs(self) -> bool:
        """Tell whether dkfs serves it."""
        return self.fstype == FSTYPE


def parse_mountinfo(text: bytes) -> tuple[Mount, ...]:
    """Return the mounts of *text*, in the order in which they were made."""
    mounts = []
    for line in text.splitlines():
        before, _, after = line.partition(b" - ")
        fields, kinds = before.split(b" "), after.split(b" ")
        if len(fields) >= 6 and len(kinds) >= 2:
            mounts.append(
                Mount(
                    point=_plain(fields[4]),
                    root=_plain(fields[3]),
                    fstype=kinds[0],
                    source=_plain(kinds[1]),
                )
            )
    return tuple(mounts)


def _plain(field: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field)


def read_mounts() -> tuple[Mount, ...]:
    """Return what is mounted in this process's mount namespace."""
    return parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())


def mounted_at(point: bytes, mounts: tuple[Mount, ...]) -> Mount | None:
    """Return the topmost mount exactly at *point*, or None."""
    return next((mount for mount in reversed(mounts) if mount.point == point), None)


def containing(path: bytes, mounts: tuple[Mount, ...]) -> Mount | None:
    """Return the mount that the absolute *path* lies in, or None."""
    while True:
        found = mounted_at(path, mounts)
        if found or path == b"/":
            return found
        path = os.path.dirname(path)
