"""Unmount, after everything that was done is recorded.

    dkfs umount MOUNTPOINT [-f]

Asks the daemon to stop, and returns when its last version is committed, the mount is gone and the process has
ended.  A mount whose daemon is gone is detached.  A read-only mount has nothing to record, and only goes.
If its store was removed, nobody can be asked: the mount goes if nothing in it is open.

With --force the mount is detached at once, even if files in it are open; the daemon ends and records what it
still has when the last of them is closed.

exit status:
  0 the mount is gone, 1 it is not, or is none of dkfs, 2 usage, 4 not everything is recorded
"""

import argparse
import ctypes
import errno
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Final

from dkfs.cli.asking import ask, number
from dkfs.cli.location import is_read_only, store_of
from dkfs.cli.output import emit, note, printable
from dkfs.cli.parser import Parser, new_parser
from dkfs.config.mounts import Mount, mounted_at, read_mounts
from dkfs.errors import MountError, NotMountedError, StoreError

_TIMEOUT_S: Final = 60.0  # from recorded to gone
_POLL_S: Final = 0.01
_MNT_DETACH: Final = 2  # umount2(2)


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("umount", __doc__)
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="where dkfs is mounted")
    parser.add_argument("-f", "--force", action="store_true", help="detach at once")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    mount = find_mount(args.mountpoint)
    how = "detached" if "force" in args else _stop(mount)
    if how == "detached":
        detach(mount.point)
    if "json" in args:
        emit("umount", mountpoint=os.fsdecode(mount.point), how=how)
    elif how == "detached" and "force" not in args:
        note(f"dkfs: {printable(mount.point)}: its daemon was gone; detached")
    return 0


def find_mount(text: str) -> Mount:
    """Return the dkfs mount at the path *text*; raises MountError."""
    # The last part is not looked at: a mount whose daemon is gone answers nothing.
    full = os.path.abspath(os.fsencode(text))
    parent, name = os.path.split(full)
    mounts = read_mounts()
    for point in (full, os.path.join(os.path.realpath(parent), name), os.path.realpath(full)):
        mount = mounted_at(point, mounts)
        if mount and mount.is_dkfs:
            return mount
        if mount:
            kind = printable(mount.fstype)
            raise MountError(f"{printable(text)} is a mount of {kind}, expected fuse.dkfs")
    raise MountError(f"{printable(text)} is not mounted")


def _stop(mount: Mount) -> str:
    """Make the daemon of *mount* end, and wait for it; return how the mount is to go, or went."""
    try:
        store = store_of(mount)
    except MountError as exc:
        cause = exc.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            return "detached"
        raise
    if is_read_only(mount):
        unmount(mount.point)
        return "unmounted"
    try:
        process = _process(store)
    except NotMountedError:
        if store.is_dir():
            raise
        unmount(mount.point)
        raise StoreError(
            f"{printable(mount.point)} is unmounted; its store {store} is gone, with all versions"
        ) from None
    try:
        ask(store, "stop")
        _await_end(mount, process)
    finally:
        if process is not None:
            os.close(process)
    return "stopped"


def _process(store: Path) -> int | None:
    """Return a pidfd of the daemon of *store*; None if it cannot be seen from this pid namespace."""
    pid = number(ask(store, "status"), "pid")
    try:
        return os.pidfd_open(pid) if pid > 0 else None
    except ProcessLookupError:
        return None


def _await_end(mount: Mount, process: int | None) -> None:
    deadline_s = time.monotonic() + _TIMEOUT_S
    if process is not None:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.poll(_TIMEOUT_S * 1000)
    while mount in read_mounts():
        if time.monotonic() > deadline_s:
            raise MountError(
                f"{printable(mount.point)} is recorded, but still mounted after {_TIMEOUT_S:.0f} s"
            )
        time.sleep(_POLL_S)


def detach(point: bytes) -> None:
    """Take the mount at *point* out of the tree, open files or not; raises MountError."""
    unmount(point, _MNT_DETACH)


def unmount(point: bytes, flags: int = 0) -> None:
    """Unmount *point*, with the *flags* of umount2(2); raises MountError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(point, flags) == 0:
        return
    code = ctypes.get_errno()
    if code != errno.EPERM:
        raise MountError(f"{printable(point)}: {os.strerror(code)}")
    words = ("-u", "-z") if flags & _MNT_DETACH else ("-u",)
    done = subprocess.run(
        ["fusermount3", *words, point], capture_output=True, check=False, text=True
    )
    if done.returncode != 0:
        raise MountError(done.stderr.strip() or f"{printable(point)}: {os.strerror(code)}")
