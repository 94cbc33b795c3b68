"""Which store is meant, and which path in it: from options, the environment, or the mount that one stands in."""

import argparse
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from dkfs.cli.output import printable
from dkfs.config.mounts import READ_ONLY_XATTR, STORE_XATTR, Mount, containing, read_mounts
from dkfs.config.sources import from_environment, from_file, merge
from dkfs.config.values import Given, path
from dkfs.errors import MountError, UsageError


@dataclass(frozen=True, slots=True)
class Location:
    """A store, and where the caller stands in its mount."""

    store: Path
    mounts: tuple[Mount, ...]  # dkfs mounts of this machine
    directory: bytes  # absolute: the current directory

    def tree_path(self, text: str) -> bytes:
        """Return the path in the tree that *text* means on the command line; raises UsageError.

        Absolute and in the mount: the part below it.  Relative and standing in the mount: from here.
        Otherwise: from the root of the tree.
        """
        given = os.fsencode(text)
        full = os.path.normpath(os.path.join(self.directory, given))
        for candidate in (full, _real_parent(full)):
            mount = containing(candidate, self.mounts)
            if mount and _store_of(mount) == self.store:
                return _normal(os.path.relpath(candidate, mount.point), text)
        return _normal(given.lstrip(b"/") or b".", text)


def _real_parent(full: bytes) -> bytes:
    parent, name = os.path.split(full)
    return os.path.join(os.path.realpath(parent), name)


def _normal(relative: bytes, text: str) -> bytes:
    plain = os.path.normpath(relative)
    if plain == b".." or plain.startswith(b"../"):
        raise UsageError(f"path {printable(text)} leads out of the tree")
    return b"" if plain == b"." else plain


def find(args: argparse.Namespace) -> Location:
    """Return the store that *args*, the environment or the current directory name; raises UsageError."""
    mounts = tuple(mount for mount in read_mounts() if mount.is_dkfs)
    directory = os.getcwdb()
    given = _given_store(args)
    if given:
        store = Path(os.path.realpath(path(given, base=Path.cwd())))
        return Location(store, mounts, directory)
    mount = containing(directory, mounts)
    if mount is None:
        raise UsageError(
            "no store: give --store, set DKFS_STORE, or stand in a dkfs mount (-C DIR)"
        )
    return Location(store_of(mount), mounts, directory)


def _given_store(args: argparse.Namespace) -> Given | None:
    layers = [from_environment(os.environ)]
    if "store" in args:
        layers.insert(0, {"store": Given(args.store, "--store")})
    config = getattr(args, "config", None) or os.environ.get("DKFS_CONFIG")
    if config and "store" not in layers[0]:
        layers.append(from_file(Path(config)))
    return merge(*layers).get("store")


def store_of(mount: Mount) -> Path:
    """Return the store of a live dkfs *mount*; raises MountError if its daemon is gone."""
    try:
        return Path(os.fsdecode(os.getxattr(mount.point, STORE_XATTR)))
    except OSError as exc:
        name = printable(mount.point)
        if exc.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            raise MountError(
                f"the daemon of {name} is gone: mount it again, or `dkfs umount` it"
            ) from exc
        raise MountError(f"{name} does not tell its store: {exc.strerror}") from exc


def is_read_only(mount: Mount) -> bool:
    """Return whether the live dkfs *mount* only shows its directory and its store, and records nothing."""
    try:
        return bool(os.getxattr(mount.point, READ_ONLY_XATTR))
    except OSError:
        return False


def _store_of(mount: Mount) -> Path | None:
    try:
        return Path(os.path.realpath(store_of(mount)))
    except MountError:
        return None
