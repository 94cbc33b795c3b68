"""permits() against an oracle written from acl(5), and against the kernel itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dkfs.overlay.access import ACL_ACCESS, EXECUTE, READ, WRITE, AclEntry, Tag, parse_acl, permits
from tests.overlay.acls import (
    GROUP,
    GROUP_OBJ,
    IDENTITIES,
    MASK,
    NO_ID,
    OTHER,
    USER,
    USER_OBJ,
    acl,
    cases,
    oracle,
)


def may(
    want: int, mode: int, owner: int, group: int, data: bytes | None, uid: int, groups: set[int]
) -> bool:
    return permits(want, mode, owner, group, data, uid=uid, in_group=groups.__contains__)


@pytest.mark.parametrize(
    ("uid", "groups", "expected"),
    [(1, {9}, "rw-"), (2, {10}, "r-x"), (2, {9, 10}, "r-x"), (2, {9}, "-w-"), (0, {9}, "rwx")],
)
def test_only_the_bits_of_the_first_class_that_the_caller_is_in_count(
    uid: int, groups: set[int], expected: str
) -> None:
    found = "".join(
        letter if may(want, 0o652, 1, 10, None, uid, groups) else "-"
        for letter, want in (("r", READ), ("w", WRITE), ("x", EXECUTE))
    )

    assert found == expected


def test_all_wanted_rights_must_be_there() -> None:
    assert may(READ | EXECUTE, 0o500, 1, 1, None, 1, set())
    assert not may(READ | EXECUTE, 0o400, 1, 1, None, 1, set())


def test_groups_are_not_asked_for_where_they_make_no_difference() -> None:
    def fail(gid: int) -> bool:
        raise AssertionError(f"asked for group {gid}")

    assert permits(READ, 0o644, 1, 10, None, uid=2, in_group=fail)
    assert permits(READ, 0o600, 1, 10, None, uid=1, in_group=fail)
    assert permits(READ, 0o600, 1, 10, None, uid=0, in_group=fail)


GOOD = acl(
    (USER_OBJ, 6, NO_ID),
    (USER, 7, 1001),
    (GROUP_OBJ, 4, NO_ID),
    (GROUP, 2, 2001),
    (MASK, 6, NO_ID),
    (OTHER, 0, NO_ID),
)


@pytest.mark.parametrize(
    ("uid", "groups", "want", "expected"),
    [
        (1001, set(), READ | WRITE, True),  # a named user, within the mask
        (1001, set(), EXECUTE, False),  # beyond the mask
        (5, {10}, READ, True),  # the owning group
        (5, {10, 2001}, WRITE, True),  # any group that gives it
        (5, {10, 2001}, READ | WRITE, False),  # no single group gives both
        (5, {2001}, READ, False),  # in a group: others' rights do not count
        (5, set(), READ, False),
        (1, set(), READ | WRITE, True),
    ],
)
def test_acl_gives_what_its_entries_say(
    uid: int, groups: set[int], want: int, *, expected: bool
) -> None:
    assert may(want, 0o660, 1, 10, GOOD, uid, groups) == expected


def test_well_formed_acl_is_parsed_in_order() -> None:
    assert parse_acl(acl((1, 7, NO_ID), (4, 5, NO_ID), (32, 0, NO_ID))) == (
        AclEntry(Tag.USER_OBJ, 7, NO_ID),
        AclEntry(Tag.GROUP_OBJ, 5, NO_ID),
        AclEntry(Tag.OTHER, 0, NO_ID),
    )


MALFORMED = {
    "empty": b"",
    "short": b"\2\0\0",
    "no entries": acl(),
    "another version": b"\3" + GOOD[1:],
    "cut": GOOD[:-1],
    "longer": GOOD + b"\0",
    "unknown tag": acl((USER_OBJ, 7, 0), (GROUP_OBJ, 7, 0), (OTHER, 7, 0), (64, 7, 0)),
    "unknown right": acl((USER_OBJ, 7, 0), (GROUP_OBJ, 7, 0), (OTHER, 15, 0)),
    "out of order": acl((GROUP_OBJ, 7, 0), (USER_OBJ, 7, 0), (OTHER, 7, 0)),
    "twice": acl((USER_OBJ, 7, 0), (GROUP_OBJ, 7, 0), (OTHER, 7, 0), (OTHER, 7, 0)),
    "no others": acl((USER_OBJ, 7, 0), (GROUP_OBJ, 7, 0)),
    "no mask": acl((USER_OBJ, 7, 0), (USER, 7, 2), (GROUP_OBJ, 7, 0), (OTHER, 7, 0)),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_acl_allows_nothing_to_anybody_but_owner_and_root(data: bytes) -> None:
    assert parse_acl(data) is None
    assert not may(READ, 0o777, 1, 10, data, 2, {10})
    assert not may(READ, 0o777, 1, 10, data, 2, {11})
    assert may(READ, 0o777, 1, 10, data, 1, set())
    assert may(READ, 0o777, 1, 10, data, 0, set())


# ---- generated cases


@pytest.mark.parametrize("uid_gid_groups", IDENTITIES)
def test_generated_cases_are_decided_as_the_oracle_decides(
    uid_gid_groups: tuple[int, int, list[int]],
) -> None:
    uid, gid, more = uid_gid_groups
    groups = {gid, *more}

    for case in cases(7, 300):
        mode, owner, group, entries = case
        data = None if entries is None else acl(*entries)
        for want in range(1, 8):
            assert may(want, mode, owner, group, data, uid, groups) == oracle(
                want, case, uid, groups
            ), (case, want)


_ASK = """
import json, os, sys
uid, gid, groups, names = json.loads(sys.argv[1])
os.setgroups(groups); os.setresgid(gid, gid, gid); os.setresuid(uid, uid, uid)
print(json.dumps([[os.access(name, want) for want in range(1, 8)] for name in names]))
"""


@pytest.mark.root
@pytest.mark.slow
def test_generated_cases_are_decided_as_the_kernel_decides(open_dir: Path) -> None:
    made = list(cases(11, 120))
    names = []
    for index, (mode, owner, group, entries) in enumerate(made):
        path = open_dir / str(index)
        path.touch()
        os.chown(path, owner, group)
        path.chmod(mode)
        if entries is not None:
            try:
                os.setxattr(path, ACL_ACCESS, acl(*entries))
            except OSError as exc:
                pytest.skip(f"no ACLs here: {exc.strerror}")
        names.append(str(path))

    for uid, gid, groups in IDENTITIES:
        asked = json.dumps([uid, gid, groups, names])
        command = [sys.executable, "-I", "-S", "-c", _ASK, asked]
        reply = subprocess.run(command, check=True, capture_output=True).stdout
        for case, allowed in zip(made, json.loads(reply), strict=True):
            mode, owner, group, entries = case
            data = None if entries is None else acl(*entries)
            found = [may(w, mode, owner, group, data, uid, {gid, *groups}) for w in range(1, 8)]
            assert found == allowed, (case, uid)
