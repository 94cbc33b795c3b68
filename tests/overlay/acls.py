"""ACLs for tests, and who may do what by them: decided independently of dkfs."""

import random
import struct
from collections.abc import Iterator

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NO_ID = 0xFFFFFFFF

Entry = tuple[int, int, int]


def acl(*entries: Entry) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def random_acl(rng: random.Random) -> list[Entry]:
    """Return an ACL as the kernel would accept it, about few enough ids that they meet."""
    users = sorted(rng.sample(range(1001, 1004), rng.randrange(3)))
    groups = sorted(rng.sample(range(2001, 2004), rng.randrange(3)))
    entries = [(USER_OBJ, rng.randrange(8), NO_ID)]
    entries += [(USER, rng.randrange(8), uid) for uid in users]
    entries += [(GROUP_OBJ, rng.randrange(8), NO_ID)]
    entries += [(GROUP, rng.randrange(8), gid) for gid in groups]
    if users or groups or rng.random() < 0.5:
        entries.append((MASK, rng.randrange(8), NO_ID))
    entries.append((OTHER, rng.randrange(8), NO_ID))
    return entries


def mode_of(entries: list[Entry]) -> int:
    """Return the mode that a file with this ACL has: its group bits are the mask, if there is one."""
    rights = {tag: bits for tag, bits, _ in entries if tag not in (USER, GROUP)}
    return rights[USER_OBJ] << 6 | rights.get(MASK, rights[GROUP_OBJ]) << 3 | rights[OTHER]


Case = tuple[int, int, int, list[Entry] | None]  # mode, owner, group, ACL


def cases(seed: int, count: int) -> Iterator[Case]:
    rng = random.Random(seed)
    for _ in range(count):
        entries = random_acl(rng) if rng.random() < 0.7 else None
        mode = mode_of(entries) if entries else rng.randrange(0o1000)
        yield mode, rng.randrange(1001, 1004), rng.randrange(2001, 2004), entries


IDENTITIES = [(1001, 2001, []), (1002, 2002, [2003]), (1003, 2009, [2001, 2002]), (1004, 2009, [])]


def oracle(want: int, case: Case, uid: int, groups: set[int]) -> bool:
    """Decide as acl(5) describes it, in its words; and as Linux, which does not look at an empty mask."""
    mode, owner, group, entries = case
    if entries is None or mode & 0o070 == 0:
        entries = [
            (USER_OBJ, mode >> 6 & 7, 0),
            (GROUP_OBJ, mode >> 3 & 7, 0),
            (OTHER, mode & 7, 0),
        ]
    masks = [bits for tag, bits, _ in entries if tag == MASK] or [7]
    if uid == owner:
        return (entries[0][1] & want) == want
    for tag, bits, entry_id in entries:
        if tag == USER and entry_id == uid:
            return (bits & masks[0] & want) == want
    matching = [
        bits
        for tag, bits, entry_id in entries
        if (tag == GROUP_OBJ and group in groups) or (tag == GROUP and entry_id in groups)
    ]
    if matching:
        return any((bits & masks[0] & want) == want for bits in matching)
    return (entries[-1][1] & want) == want
