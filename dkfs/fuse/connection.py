"""The connection to the kernel: made, served and ended; the only module that controls pyfuse3's session."""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyfuse3

from dkfs.errors import MountError
from dkfs.fuse import readiness
from dkfs.fuse.adapter import Operations
from dkfs.fuse.handshake import NOT_WANTED, Handshake
from dkfs.fuse.point import Point

# sys/mount.h; the words are mount(8)'s.
_MS_FLAGS = {
    "ro": 1,
    "nosuid": 2,
    "nodev": 4,
    "noexec": 8,
    "sync": 16,
    "dirsync": 128,
    "noatime": 1024,
}
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def mounted(
    operations: Operations, mountpoint: Path, *, source: str, options: set[str]
) -> Iterator[None]:
    """Mount on *mountpoint* for as long as the context lasts; raises MountError."""
    # Of a directory that others write to, the kernel is to look whether its pages are still true.
    unwanted = 0 if "ro" in options else NOT_WANTED
    handshake = _mount(mountpoint, source, options, unwanted)
    point = Point(os.fsencode(mountpoint))
    readiness.install(handshake, unwanted=unwanted)
    try:
        if handshake is not None:
            pyfuse3.init(operations, f"/dev/fd/{handshake.fd}", set())
        else:
            pyfuse3.init(operations, os.fspath(mountpoint), _libfuse_options(source, options))
    except RuntimeError as exc:
        # libfuse has said more on stderr.
        raise MountError(f"mounting on {mountpoint} failed: {exc}") from None
    try:
        yield
    finally:
        if handshake is not None:
            point.unmount(handshake.fd)
        pyfuse3.close(unmount=handshake is None)


def _mount(mountpoint: Path, source: str, options: set[str], unwanted: int) -> Handshake | None:
    """Mount by mount(2); None if that is not permitted, and fusermount3 has to do it."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    flags = sum(_MS_FLAGS.get(word, 0) for word in options)
    flags |= sum(_MS_FLAGS[f"no{word}"] for word in ("suid", "dev") if word not in options)
    data = (
        f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
        f",default_permissions{',allow_other' if 'allow_other' in options else ''}"
    )
    target = os.fsencode(mountpoint)
    if _libc.mount(os.fsencode(source), target, b"fuse.dkfs", flags, data.encode()) == 0:
        return Handshake(device, unwanted=unwanted)
    code = ctypes.get_errno()
    os.close(device)
    if code == errno.EPERM:
        return None
    raise MountError(f"mounting on {mountpoint} failed: {os.strerror(code)}")


def _libfuse_options(source: str, options: set[str]) -> set[str]:
    # pyfuse3 takes ASCII only, and libfuse splits options at commas.
    name = source.encode("ascii", "replace").decode().replace("\\", "\\\\").replace(",", "\\,")
    return options | {f"fsname={name}", "subtype=dkfs", "default_permissions"}


async def serve() -> None:
    """Answer requests until the mount is gone, or end() is called."""
    await pyfuse3.main()


def end() -> None:
    """Make serve() return, although somebody may still use the mount."""
    pyfuse3.terminate()
