"""Who may do what with a file: mode bits and POSIX ACLs, evaluated as Linux does.  Pure.

An ACL is the value of the extended attribute system.posix_acl_access: a version, then entries of
tag, permissions and id, little-endian, in a fixed order (Linux: posix_acl_xattr.h).  Other than in
the kernel, which would not let one be set, an ACL that is malformed allows nothing.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

READ = 4
WRITE = 2
EXECUTE = 1  # of a directory: look up names in it

ACL_ACCESS = b"system.posix_acl_access"
ACL_DEFAULT = b"system.posix_acl_default"

_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_GROUP_CLASS = 0o070  # mode bits: with an ACL, its mask


class Tag(IntEnum):
    """Whom an entry is about; the values are the kernel's, and give the order of the entries."""

    USER_OBJ = 0x01  # the owner
    USER = 0x02
    GROUP_OBJ = 0x04  # the owning group
    GROUP = 0x08
    MASK = 0x10  # what USER, GROUP_OBJ and GROUP may give at most
    OTHER = 0x20


_ONCE = frozenset((Tag.USER_OBJ, Tag.GROUP_OBJ, Tag.MASK, Tag.OTHER))
_NEEDED = frozenset((Tag.USER_OBJ, Tag.GROUP_OBJ, Tag.OTHER))


@dataclass(frozen=True, slots=True)
class AclEntry:
    """One line of an ACL."""

    tag: Tag
    permissions: int  # READ | WRITE | EXECUTE
    id: int  # of a USER or GROUP, else without meaning


def parse_acl(data: bytes) -> tuple[AclEntry, ...] | None:
    """Return the entries of the ACL *data*, in order; None if it is malformed."""
    if len(data) < _HEADER.size or (len(data) - _HEADER.size) % _ENTRY.size:
        return None
    if _HEADER.unpack_from(data)[0] != _VERSION:
        return None
    entries: list[AclEntry] = []
    before = 0
    for tag, permissions, entry_id in _ENTRY.iter_unpack(data[_HEADER.size :]):
        if tag not in Tag.__members__.values() or permissions & ~7 or tag < before:
            return None
        if tag == before and tag in _ONCE:
            return None
        entries.append(AclEntry(Tag(tag), permissions, entry_id))
        before = tag
    tags = {entry.tag for entry in entries}
    if not tags >= _NEEDED:
        return None
    if tags & {Tag.USER, Tag.GROUP} and Tag.MASK not in tags:
        return None
    return tuple(entries)


def permits(
    want: int,
    mode: int,
    owner: int,
    group: int,
    acl: bytes | None,
    *,
    uid: int,
    in_group: Callable[[int], bool],
) -> bool:
    """Return whether user *uid*, in the groups for which *in_group* holds, has all rights of *want*.

    Root has.  As in Linux, the owner's rights are always those of the mode, and an ACL counts only
    where the group bits of the mode, which are its mask, are not all 0.
    """
    if uid == 0:
        return True
    if uid == owner:
        return not want & ~(mode >> 6)
    if acl is not None and mode & _GROUP_CLASS:
        entries = parse_acl(acl)
        return entries is not None and _acl_permits(want, entries, group, uid, in_group)
    if not want & ~(mode & mode >> 3):
        return True  # in the group or not
    return not want & ~(mode >> 3 if in_group(group) else mode)


def _acl_permits(
    want: int,
    entries: tuple[AclEntry, ...],
    group: int,
    uid: int,
    in_group: Callable[[int], bool],
) -> bool:
    mask = next((e.permissions for e in entries if e.tag is Tag.MASK), 7)
    is_member = False
    for entry in entries:
        if entry.tag is Tag.USER and entry.id == uid:
            return not want & ~(entry.permissions & mask)
        if entry.tag in (Tag.GROUP_OBJ, Tag.GROUP):
            if in_group(group if entry.tag is Tag.GROUP_OBJ else entry.id):
                is_member = True
                if not want & ~entry.permissions:
                    return not want & ~mask
        elif entry.tag is Tag.OTHER and not is_member:
            return not want & ~entry.permissions
    return False
