"""The connection to the kernel: made, served and ended; the only module that controls pyfuse3's session."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyfuse3

from dkfs.errors import MountError
from dkfs.fuse import readiness
from dkfs.fuse.adapter import Operations


@contextmanager
def mounted(
    operations: Operations, mountpoint: Path, *, source: str, options: set[str]
) -> Iterator[None]:
    """Mount on *mountpoint* for as long as the context lasts; raises MountError."""
    # pyfuse3 takes ASCII only, and libfuse splits options at commas.
    name = source.encode("ascii", "replace").decode().replace("\\", "\\\\").replace(",", "\\,")
    readiness.install()
    try:
        pyfuse3.init(
            operations,
            os.fspath(mountpoint),
            options | {f"fsname={name}", "subtype=dkfs", "default_permissions"},
        )
    except RuntimeError as exc:
        # libfuse has said more on stderr.
        raise MountError(f"mounting on {mountpoint} failed: {exc}") from None
    try:
        yield
    finally:
        pyfuse3.close(unmount=True)


async def serve() -> None:
    """Answer requests until the mount is gone, or end() is called."""
    await pyfuse3.main()


def end() -> None:
    """Make serve() return, although somebody may still use the mount."""
    pyfuse3.terminate()
