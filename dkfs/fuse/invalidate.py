"""Telling the kernel to forget; from a thread, because the kernel may wait for a reply of ours."""

import contextlib

import pyfuse3

from dkfs.overlay.rollback import Stale


def invalidate(stale: Stale) -> None:
    """Drop names, attributes and pages that a rollback made untrue; raises OSError."""
    for directory, name in stale.names:
        with contextlib.suppress(FileNotFoundError):  # the kernel did not know it
            pyfuse3.invalidate_entry(pyfuse3.InodeT(directory), pyfuse3.FileNameT(name))
    for number in stale.inodes:
        with contextlib.suppress(FileNotFoundError):
            pyfuse3.invalidate_inode(pyfuse3.InodeT(number))
