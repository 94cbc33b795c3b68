"""Checks of a mount's paths, made before anything is touched: each failure is one line."""

import errno
import os
import stat
from pathlib import Path

from dkfs.config.mounts import Mount, mounted_at
from dkfs.config.settings import MountSettings
from dkfs.errors import ExistsError, MountError, UsageError


def check_state_dir(settings: MountSettings) -> None:
    """Raise UsageError unless the state directory is one that can be used.

    A dead mount in its place passes: the next mount detaches it.
    """
    state_dir = settings.state_dir
    try:
        mode = os.stat(state_dir).st_mode
    except OSError as exc:
        if exc.errno == errno.ENOTCONN:
            return
        raise UsageError(f"state directory {state_dir}: {exc.strerror}") from exc
    if not stat.S_ISDIR(mode):
        raise UsageError(f"state directory {state_dir} is not a directory")
    need = os.R_OK | os.X_OK | (0 if settings.read_only else os.W_OK)
    if not os.access(state_dir, need) and _alive(state_dir):
        kind = "readable" if settings.read_only else "readable and writable"
        raise UsageError(f"state directory {state_dir} is not {kind}")


def check_mountpoint(settings: MountSettings, mounts: tuple[Mount, ...]) -> None:
    """Raise MountError or ExistsError unless dkfs can be mounted at the mount point.

    It need not be empty.  A dead dkfs mount there passes: the next mount detaches it.
    """
    point = settings.mountpoint
    try:
        mode = os.lstat(point).st_mode
    except OSError as exc:
        if exc.errno == errno.ENOTCONN:
            return
        raise MountError(f"mount point {point}: {exc.strerror}") from exc
    if stat.S_ISLNK(mode):
        raise MountError(f"mount point {point} is a symbolic link, expected a directory")
    if not stat.S_ISDIR(mode):
        raise MountError(f"mount point {point} is not a directory")
    mount = mounted_at(os.fsencode(os.path.realpath(point)), mounts)
    if mount and mount.is_dkfs and _alive(point):
        raise ExistsError(f"mount point {point} is already a dkfs mount")


def _alive(point: Path) -> bool:
    # stat may be answered from the kernel's cache when the daemon is gone; listing is not.
    try:
        os.listdir(point)
    except OSError as exc:
        return exc.errno not in (errno.ENOTCONN, errno.ECONNABORTED)
    return True


def check_apart(settings: MountSettings, *, mounting: bool) -> None:
    """Raise UsageError if the store and the directories lie in one another.

    Recording a store into itself would never end, and a store below the mount would wait for its own daemon.
    """
    store, state_dir = _real(settings.store), _real(settings.state_dir)
    if _inside(store, state_dir):
        raise UsageError(f"store {settings.store} lies in the state directory {settings.state_dir}")
    if _inside(state_dir, store):
        raise UsageError(f"state directory {settings.state_dir} lies in the store {settings.store}")
    if not mounting:
        return
    point = _check_point_apart(settings)
    if point != state_dir and _inside(point, state_dir):
        raise UsageError(
            f"mount point {settings.mountpoint} lies in the state directory {settings.state_dir}:"
            " expected the same directory or one outside"
        )


def _check_point_apart(settings: MountSettings) -> Path:
    """Return the mount point without symbolic links; raises UsageError if it and the store lie in one another."""
    store, point = _real(settings.store), _real(settings.mountpoint)
    if _inside(store, point):
        raise UsageError(f"store {settings.store} lies below the mount point {settings.mountpoint}")
    if _inside(point, store):
        raise UsageError(f"mount point {settings.mountpoint} lies in the store {settings.store}")
    return point


def _real(path: Path) -> Path:
    # A dead mount in the way must not stop the comparison; what cannot be resolved is compared as written.
    try:
        return Path(os.path.realpath(path))
    except OSError:
        return path


def _inside(path: Path, directory: Path) -> bool:
    return path == directory or directory in path.parents


def check_privilege(settings: MountSettings, *, uid: int) -> None:
    """Raise UsageError if *uid* may not mount with these options."""
    if uid != 0 and (settings.suid or settings.dev):
        word = "suid" if settings.suid else "dev"
        raise UsageError(f"-o {word}: only root may mount with it")


def check_mount(settings: MountSettings, mounts: tuple[Mount, ...], *, uid: int) -> None:
    """Make every check of a mount; raises UsageError, MountError or ExistsError."""
    if settings.history_only:
        check_mountpoint(settings, mounts)
        _check_point_apart(settings)
        return
    check_state_dir(settings)
    check_mountpoint(settings, mounts)
    check_apart(settings, mounting=True)
    check_privilege(settings, uid=uid)
