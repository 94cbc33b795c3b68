"""Calls that change what is known of a file: chmod, chown, utimensat, extended attributes and ACLs."""

import ctypes
import os
import struct
from functools import partial

from tests.mount.posix_naming import AT_FDCWD, checked
from tests.mount.posix_opening import QUIET
from tests.mount.posix_scene import GROUP, OTHER, USER, Call

AT_SYMLINK_NOFOLLOW = 0x100
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
_NOBODY = 0xFFFFFFFF
_ENTRIES = ((1, 7, _NOBODY), (2, 5, USER), (4, 5, _NOBODY), (16, 7, _NOBODY), (32, 4, _NOBODY))
# u::rwx,u:1234:r-x,g::r-x,m::rwx,o::r-- as the kernel takes it: a version, then tag, rights and number of each.
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in _ENTRIES)

_libc = ctypes.CDLL(None, use_errno=True)


def times_set(
    atime: tuple[int, int], mtime: tuple[int, int], flags: int, path: bytes
) -> tuple[int, int]:
    """Set both, each seconds and nanoseconds; return what they are then, where both were said."""
    times = (ctypes.c_long * 4)(*atime, *mtime)
    checked(_libc.utimensat(AT_FDCWD, path, times, flags))
    s = os.stat(path, follow_symlinks=not flags)
    special = {UTIME_NOW, UTIME_OMIT}
    return (
        0 if atime[1] in special else s.st_atime_ns,
        0 if mtime[1] in special else s.st_mtime_ns,
    )


def by_fd(flags: int, call: str, *args: object, path: bytes) -> object:
    """Make os.*call* on an fd of *path*."""
    fd = os.open(path, flags | QUIET)
    try:
        result: object = getattr(os, call)(fd, *args)
        return result
    finally:
        os.close(fd)


def on_fd(flags: int, call: str, *args: object) -> Call:
    return lambda path: by_fd(flags, call, *args, path=path)


def set_attribute(name: str, value: bytes, how: int, path: bytes) -> None:
    os.setxattr(path, name, value, how, follow_symlinks=False)


def _mode_rows() -> dict[str, Call]:
    rows: dict[str, Call] = {
        f"chmod {bits:o}": partial(lambda bits, path: os.chmod(path, bits), bits)
        for bits in (0, 0o644, 0o777, 0o7777, 0o2755, 0o4711, 0o1000)
    }
    return rows | {
        "fchmod": on_fd(os.O_RDONLY, "fchmod", 0o6750),
        "fchmod O_PATH": on_fd(os.O_PATH, "fchmod", 0o600),
        "fchmod O_WRONLY": on_fd(os.O_WRONLY, "fchmod", 0o640),
    }


def _owner_rows() -> dict[str, Call]:
    owners = {
        "-1, -1": (-1, -1),
        "user": (USER, -1),
        "other, other": (OTHER, OTHER),
        "-1, group": (-1, GROUP),
        "-1, user": (-1, USER),
        "user, group": (USER, GROUP),
        "0, 0": (0, 0),
        "2^31": (1 << 31, 1 << 31),
    }
    rows: dict[str, Call] = {}
    for name, (uid, gid) in owners.items():
        rows[f"chown {name}"] = partial(lambda u, g, path: os.chown(path, u, g), uid, gid)
        rows[f"lchown {name}"] = partial(lambda u, g, path: os.lchown(path, u, g), uid, gid)
    return rows | {"fchown": on_fd(os.O_RDONLY, "fchown", -1, GROUP)}


def _time_rows() -> dict[str, Call]:
    old, new, now, omit = (1, 2), (2_000_000_000, 999_999_999), (0, UTIME_NOW), (0, UTIME_OMIT)
    pairs = {
        "both": (old, new),
        "now": (now, now),
        "omit": (omit, omit),
        "atime now": (now, omit),
        "mtime now": (omit, now),
        "mtime": (omit, new),
        "atime": (old, omit),
        "before 1970": ((-1, 5), (-100_000, 0)),
        "after 2038": ((1 << 32, 1), (1 << 33, 1)),
        "no nanoseconds": ((1, 1 << 30), new),
        "negative nanoseconds": ((1, -1), new),
    }
    rows: dict[str, Call] = {}
    for name, (atime, mtime) in pairs.items():
        rows[f"utimensat {name}"] = partial(times_set, atime, mtime, 0)
        rows[f"utimensat {name}, the link"] = partial(times_set, atime, mtime, AT_SYMLINK_NOFOLLOW)
    return rows | {
        "utimensat, unknown flag": partial(times_set, old, new, 1),
        "futimens": on_fd(os.O_RDONLY, "utime"),
    }


def _attribute_rows() -> dict[str, Call]:
    values = {
        "user.a": b"1",
        "user.empty": b"",
        "user.long": b"v" * 3000,
        "user.longer": b"v" * 65536,
        "user.longest": b"v" * 65537,
        "user.": b"1",
        "user": b"1",
        "none.such": b"1",
        "trusted.a": b"1",
        "security.a": b"1",
        "security.capability": bytes.fromhex("0100000200040000000000000000000000000000"),
        "security.capability.": b"nothing of the kind",
        "system.a": b"1",
        "system.posix_acl_access": ACL,
        "system.posix_acl_default": ACL,
        "user." + "n" * 250: b"1",
        "user." + "n" * 251: b"1",
    }
    rows: dict[str, Call] = {}
    for name, value in values.items():
        shown = f"{name[:22]} {len(name)} {len(value)}"
        rows[f"setxattr {shown}"] = partial(set_attribute, name, value, 0)
        rows[f"getxattr {shown}"] = partial(lambda n, path: os.getxattr(path, n), name)
        rows[f"removexattr {shown}"] = partial(lambda n, path: os.removexattr(path, n), name)
    return rows | {
        "setxattr XATTR_CREATE": partial(set_attribute, "user.b", b"1", os.XATTR_CREATE),
        "setxattr XATTR_REPLACE": partial(set_attribute, "user.b", b"1", os.XATTR_REPLACE),
        "both flags of setxattr": partial(set_attribute, "user.c", b"1", 3),
        "setxattr, a broken ACL": partial(set_attribute, "system.posix_acl_access", b"broken!", 0),
        "setxattr, no ACL": partial(set_attribute, "system.posix_acl_access", b"", 0),
        "fsetxattr O_RDONLY": on_fd(os.O_RDONLY, "setxattr", "user.d", b"1"),
        "listxattr": lambda path: sorted(os.listxattr(path)),
        "llistxattr": lambda path: sorted(os.listxattr(path, follow_symlinks=False)),
    }


ATTRIBUTES: dict[str, Call] = {
    **_mode_rows(),
    **_owner_rows(),
    **_time_rows(),
    **_attribute_rows(),
}
