"""Telling the kernel to forget; from a thread, because the kernel may wait for a reply of ours."""

import contextlib
import os

import pyfuse3

from dkfs.overlay.rollback import Stale


def invalidate(stale: Stale, mountpoint: bytes) -> None:
    """Drop names, attributes and pages that a rollback made untrue; raises OSError."""
    for directory, name in stale.names:
        with contextlib.suppress(FileNotFoundError):  # the kernel did not know it
            pyfuse3.invalidate_entry(pyfuse3.InodeT(directory), pyfuse3.FileNameT(name))
    for number in stale.inodes:
        with contextlib.suppress(FileNotFoundError):
            pyfuse3.invalidate_inode(pyfuse3.InodeT(number))
    for path in stale.sizes:
        # The kernel appends at the size that it last heard of, and does not ask before it does.
        with contextlib.suppress(OSError):
            os.stat(os.path.join(mountpoint, path), follow_symlinks=False)
