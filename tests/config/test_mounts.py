"""dkfs.config.mounts."""

from dkfs.config.mounts import Mount, containing, mounted_at, parse_mountinfo, read_mounts

INFO = b"""\
22 28 0:20 / / rw,relatime shared:7 - ext4 /dev/sda1 rw
93 22 0:52 / /mnt/a\\040b rw,nosuid,nodev,relatime shared:49 - fuse.dkfs /data/with\\040space rw,user_id=0
94 93 0:53 / /mnt/a\\040b/c rw - tmpfs tmpfs rw
95 22 0:52 /sub /bound rw master:1 shared:2 - fuse.dkfs /data rw
"""


def test_lines_are_read_with_any_number_of_optional_fields() -> None:
    assert parse_mountinfo(INFO)[1] == Mount(
        point=b"/mnt/a b", root=b"/", fstype=b"fuse.dkfs", source=b"/data/with space"
    )
    assert [mount.is_dkfs for mount in parse_mountinfo(INFO)] == [False, True, False, True]
    assert parse_mountinfo(INFO)[3].root == b"/sub"


def test_a_path_lies_in_the_deepest_mount_above_it() -> None:
    mounts = parse_mountinfo(INFO)

    def source(path: bytes) -> bytes:
        mount = containing(path, mounts)
        assert mount
        return mount.source

    assert source(b"/mnt/a b") == b"/data/with space"
    assert source(b"/mnt/a b/x/y") == b"/data/with space"
    assert source(b"/mnt/a b/c/y") == b"tmpfs"
    assert source(b"/mnt/a bc") == b"/dev/sda1"


def test_of_two_mounts_on_one_point_the_later_counts() -> None:
    mounts = parse_mountinfo(INFO + b"99 22 0:60 / /bound rw - tmpfs over rw\n")

    mount = mounted_at(b"/bound", mounts)
    assert mount
    assert mount.source == b"over"
    assert mounted_at(b"/nowhere", mounts) is None


def test_this_machine_has_a_root() -> None:
    assert mounted_at(b"/", read_mounts()) is not None
