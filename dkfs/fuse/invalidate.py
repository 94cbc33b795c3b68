"""Telling the kernel to forget; from a thread, because the kernel may wait for a reply of ours."""

import contextlib
import os
from collections.abc import Iterable

import pyfuse3
import trio

from dkfs.overlay.rollback import Stale

_PATIENCE_S = 1.0  # for what takes 0.1 ms


def write_back(numbers: Iterable[int]) -> None:
    """Have the kernel write what maps have stored in these inodes, and drop their pages; raises OSError, after the last."""
    failures: list[OSError] = []
    for number in numbers:
        try:
            pyfuse3.invalidate_inode(pyfuse3.InodeT(number))
        except FileNotFoundError:
            pass  # the kernel did not know it
        except OSError as exc:
            failures.append(exc)
    if failures:
        raise failures[0]


def invalidate(stale: Stale, mountpoint: bytes) -> None:
    """Drop names, attributes and pages that a rollback made untrue; raises OSError, after the last."""
    failures: list[OSError] = []
    for directory, name in stale.names:
        try:
            pyfuse3.invalidate_entry(pyfuse3.InodeT(directory), pyfuse3.FileNameT(name))
        except FileNotFoundError:
            pass  # the kernel did not know it
        except OSError as exc:
            failures.append(exc)
    try:
        write_back(stale.inodes)
    except OSError as exc:
        failures.append(exc)
    for path in stale.sizes:
        # The kernel appends at the size that it last heard of, and does not ask before it does.
        with contextlib.suppress(OSError):
            os.stat(os.path.join(mountpoint, path), follow_symlinks=False)
    if failures:
        raise failures[0]


async def drop_pages(number: int) -> bool:
    """Drop the cached pages of inode *number*, which a write that is not answered yet went past.

    Linux drops them before an O_DIRECT write and, if that is asynchronous, not after it: a page that
    was read meanwhile would stay as it was.  Return False if the write itself holds a page: it went
    through the cache, as it does once fcntl(2) took O_DIRECT away.
    """
    with trio.move_on_after(_PATIENCE_S) as scope, contextlib.suppress(OSError):
        await trio.to_thread.run_sync(
            pyfuse3.invalidate_inode, pyfuse3.InodeT(number), abandon_on_cancel=True
        )
    return not scope.cancelled_caught
