"""INIT: what the kernel offers and what dkfs takes."""

import struct

import pytest

from dkfs.fuse.engine import NotSupportedError
from dkfs.fuse.kernel.negotiate import Terms, negotiate
from tests.fuse.kernel import wire

EVERYTHING = (0xFFFF_FFFF, 0xFFFF_FFFF)
INIT_EXT = 1 << 30
# Bits of flags and flags2, from linux/fuse.h.
NEVER = {
    "POSIX_LOCKS": 1 << 1,  # locks are the kernel's
    "FLOCK_LOCKS": 1 << 10,
    "AUTO_INVAL_DATA": 1 << 12,  # stale pages under writes: decisions/0003
    "READDIRPLUS_AUTO": 1 << 14,  # find(1) would look up each name by itself
    "WRITEBACK_CACHE": 1 << 16,  # writes late, merged, and without who wrote
    "NO_OPEN_SUPPORT": 1 << 17,
    "HANDLE_KILLPRIV": 1 << 19,  # the first version, which does not say whose bits stay
    "NO_OPENDIR_SUPPORT": 1 << 24,
    "MAP_ALIGNMENT": 1 << 26,
    "SUBMOUNTS": 1 << 27,
}
NEVER2 = {
    "SECURITY_CTX": 1 << 0,
    "HAS_INODE_DAX": 1 << 1,
    "NO_EXPORT_SUPPORT": 1 << 6,
    "OVER_IO_URING": 1 << 9,
    "REQUEST_TIMEOUT": 1 << 10,
}
ALWAYS = {
    "ASYNC_READ": 1 << 0,
    "ATOMIC_O_TRUNC": 1 << 3,
    "EXPORT_SUPPORT": 1 << 4,
    "BIG_WRITES": 1 << 5,
    "DO_READDIRPLUS": 1 << 13,
    "PARALLEL_DIROPS": 1 << 18,
    "POSIX_ACL": 1 << 20,
    "MAX_PAGES": 1 << 22,
    "CACHE_SYMLINKS": 1 << 23,
    "EXPLICIT_INVAL_DATA": 1 << 25,
    "SETXATTR_EXT": 1 << 29,
    "INIT_EXT": INIT_EXT,
}
KILLPRIV_V2 = 1 << 28
PASSTHROUGH2 = 1 << 5


def offer(
    minor: int = 45,
    flags: tuple[int, int] = EVERYTHING,
    *,
    major: int = 7,
    is_root: bool = True,
    stack_depth: int = 0,
) -> tuple[Terms | None, tuple[int, ...]]:
    """Return the terms that the kernel's offer leads to, and the fields of the answer."""
    body = wire.INIT.pack(major, minor, 128 * 1024, *flags, *[0] * 11)
    terms, answer = negotiate(body, is_root=is_root, stack_depth=stack_depth)
    assert len(answer) == 64
    return terms, struct.unpack("<IIIIHHIIHHIIH22x", answer)


def flags_of(fields: tuple[int, ...]) -> tuple[int, int]:
    return fields[3], fields[10]


@pytest.mark.parametrize(("name", "bit"), NEVER.items())
def test_what_would_be_wrong_for_dkfs_is_never_taken(name: str, bit: int) -> None:
    assert not flags_of(offer()[1])[0] & bit


@pytest.mark.parametrize(("name", "bit"), NEVER2.items())
def test_what_would_be_wrong_for_dkfs_is_never_taken_of_the_later_flags(
    name: str, bit: int
) -> None:
    assert not flags_of(offer()[1])[1] & bit


@pytest.mark.parametrize(("name", "bit"), ALWAYS.items())
def test_what_dkfs_is_made_for_is_taken_where_it_is_offered(name: str, bit: int) -> None:
    assert flags_of(offer()[1])[0] & bit
    assert not flags_of(offer(flags=(0xFFFF_FFFF & ~bit, 0xFFFF_FFFF))[1])[0] & bit


def test_nothing_is_taken_that_is_not_offered() -> None:
    assert flags_of(offer(flags=(0, 0))[1]) == (0, 0)


def test_later_flags_count_only_if_the_kernel_says_that_it_sends_them() -> None:
    _, fields = offer(flags=(0xFFFF_FFFF & ~INIT_EXT, 0xFFFF_FFFF), stack_depth=1)

    assert flags_of(fields)[1] == 0


def test_the_short_message_of_old_kernels_is_understood() -> None:
    terms, answer = negotiate(
        struct.pack("<IIII", 7, 31, 65536, 0x7FFFFF), is_root=True, stack_depth=0
    )

    assert terms is not None
    assert (terms.minor, terms.max_readahead) == (31, 65536)
    assert struct.unpack("<III", answer[:12]) == (7, 31, 65536)


def test_only_root_takes_set_id_bits_away_by_itself() -> None:
    assert flags_of(offer()[1])[0] & KILLPRIV_V2
    assert not flags_of(offer(is_root=False)[1])[0] & KILLPRIV_V2


@pytest.mark.parametrize("depth", [1, 2])
def test_passthrough_is_taken_with_a_depth_and_by_root_only(depth: int) -> None:
    taken = offer(stack_depth=depth)[1]
    by_user = offer(stack_depth=depth, is_root=False)[1]

    assert flags_of(taken)[1] & PASSTHROUGH2
    assert taken[11] == depth
    assert not flags_of(by_user)[1] & PASSTHROUGH2
    assert by_user[11] == 0


def test_without_a_depth_other_file_systems_can_be_stacked_on_the_mount() -> None:
    _, fields = offer(stack_depth=0)

    assert not flags_of(fields)[1] & PASSTHROUGH2
    assert fields[11] == 0


@pytest.mark.parametrize(("offered", "agreed"), [(31, 31), (38, 38), (45, 45), (46, 45), (99, 45)])
def test_the_smaller_minor_version_is_agreed_upon(offered: int, agreed: int) -> None:
    terms, fields = offer(offered)

    assert terms is not None
    assert (terms.minor, fields[1]) == (agreed, agreed)


@pytest.mark.parametrize(("major", "minor"), [(7, 30), (7, 0), (6, 45), (0, 0)])
def test_a_kernel_that_is_too_old_is_refused_with_its_version(major: int, minor: int) -> None:
    with pytest.raises(
        NotSupportedError, match=rf"FUSE protocol {major}\.{minor}, need at least 7\.31"
    ):
        offer(minor, major=major)


def test_a_kernel_of_the_next_major_version_is_told_ours_and_asks_again() -> None:
    terms, fields = offer(1, major=8)

    assert terms is None
    assert fields[:2] == (7, 45)


def test_writes_come_in_pieces_of_a_mebibyte_and_requests_have_no_timeout() -> None:
    terms, fields = offer()

    assert terms is not None
    assert terms.max_write == fields[6] == 1 << 20
    assert fields[8] == 256  # pages
    assert fields[7] == 1  # times to the nanosecond
    assert fields[12] == 0


def test_without_max_pages_writes_come_in_pieces_of_32_pages() -> None:
    terms, fields = offer(flags=(0xFFFF_FFFF & ~(1 << 22), 0))

    assert terms is not None
    assert (terms.max_write, fields[6], fields[8]) == (131072, 131072, 0)
