"""What is there in the history tree, and what it holds."""

import errno
import os
import stat

import pytest

from dkfs.errors import CorruptError
from dkfs.model.ids import Seq
from dkfs.model.node import Kind
from dkfs.overlay.access import ACL_ACCESS
from dkfs.overlay.virtual import VIRTUAL, VirtualStatus
from tests.history.model_history import CELL, ModelHistory
from tests.overlay.acls import acl
from tests.overlay.virtual_kernel import (
    ADMIN,
    OTHER,
    OWNER,
    Kernel,
    chown,
    number_of_error,
    virtual_of,
)

# ---- what is there


def test_name_of_the_history_is_owned_only_in_the_root_and_only_if_it_is_shown(
    history: ModelHistory,
) -> None:
    virtual, hidden = virtual_of(history), virtual_of(history, name=None)

    assert virtual.owns(1, b".dkfs")
    assert not virtual.owns(2, b".dkfs")
    assert not virtual.owns(1, b"dkfs")
    assert virtual.owns(VIRTUAL + 1, b"anything")
    assert not hidden.owns(1, b".dkfs")


def test_top_lists_its_parts(kernel: Kernel) -> None:
    assert sorted(kernel.list(b".dkfs")) == [b"at", b"files", b"latest", b"tags", b"versions"]
    assert number_of_error(lambda: kernel.find(b".dkfs/nothing")) == errno.ENOENT


def test_every_version_is_the_tree_as_it_was(history: ModelHistory, kernel: Kernel) -> None:
    history.mkdir(b"d")
    history.create(b"d/f", b"one")
    history.write(b"d/f", b"two")
    history.rename(b"d/f", b"g")

    assert kernel.list(b".dkfs/versions") == [b"1", b"2", b"3", b"4", b"5"]
    assert kernel.list(b".dkfs/versions/1") == []
    assert kernel.list(b".dkfs/versions/3/d") == [b"f"]
    assert kernel.read(b".dkfs/versions/3/d/f") == b"one"
    assert kernel.read(b".dkfs/versions/4/d/f") == b"two"
    assert kernel.list(b".dkfs/versions/5") == [b"d", b"g"]
    assert kernel.read(b".dkfs/versions/5/g") == b"two"


@pytest.mark.parametrize("name", [b"0", b"2", b"01", b"-1", b"x", b"1" * 30, b"\xff", b"latest"])
def test_what_is_no_number_of_a_version_is_not_there(kernel: Kernel, name: bytes) -> None:
    assert number_of_error(lambda: kernel.find(b".dkfs/versions/" + name)) == errno.ENOENT


def test_name_too_long_for_any_file_is_refused_as_such(kernel: Kernel) -> None:
    for parent in (b"versions", b"tags", b"at", b"files", b"versions/1"):
        path = b".dkfs/" + parent + b"/" + b"n" * 256

        assert number_of_error(lambda path=path: kernel.find(path)) == errno.ENAMETOOLONG  # type: ignore[misc]


def test_versions_lists_the_newest_thousand_and_finds_all(
    history: ModelHistory, kernel: Kernel
) -> None:
    with history.batch():
        for i in range(1100):
            history.utime(b"", i)

    assert kernel.list(b".dkfs/versions") == [b"%d" % n for n in range(102, 1102)]
    assert kernel.find(b".dkfs/versions/7").mtime_ns == 5


def test_latest_leads_to_the_last_version_each_time_it_is_asked(
    history: ModelHistory, kernel: Kernel
) -> None:
    latest = kernel.find(b".dkfs/latest")
    before = kernel.virtual.readlink(latest.number, OTHER)
    history.create(b"f")

    assert before == b"versions/1"
    assert stat.S_ISLNK(latest.mode)
    assert kernel.virtual.readlink(latest.number, OTHER) == b"versions/2"


def test_time_leads_to_the_version_of_then(history: ModelHistory, kernel: Kernel) -> None:
    for n in range(100):
        history.utime(b"", n)  # version 2 + n, a second after the one before

    assert kernel.find(b".dkfs/at/10s").mtime_ns == 89
    assert kernel.find(b".dkfs/at/2023-11-14T22:13:25Z").mtime_ns == 3
    assert kernel.find(b".dkfs/at/now").mtime_ns == 99
    assert kernel.list(b".dkfs/at") == []


@pytest.mark.parametrize("name", [b"yesterday", b"latest", b"1", b".git", b"2023-02-30", b"\xff"])
def test_what_is_no_time_with_a_version_is_not_there(kernel: Kernel, name: bytes) -> None:
    assert number_of_error(lambda: kernel.find(b".dkfs/at/" + name)) == errno.ENOENT


def test_recorded_metadata_is_shown(history: ModelHistory, kernel: Kernel) -> None:
    history.create(b"f", b"hello")
    history.chmod(b"f", 0o640)
    history.setxattr(b"f", {b"user.a": b"1"})
    history.symlink(b"s", b"f")

    shown = kernel.find(b".dkfs/versions/5/f")
    state = history.state(b"f").attr
    assert shown == VirtualStatus(
        shown.number, 0o100640, 1, 1000, 1000, 0, 5, state.mtime_ns, state.ctime_ns
    )
    assert kernel.getxattr(b".dkfs/versions/5/f", b"user.a") == b"1"
    assert kernel.virtual.listxattr(shown.number, ADMIN) == [b"user.a"]
    assert kernel.link(b".dkfs/versions/5/s") == b"f"


def test_rights_that_outlive_their_time_are_not_shown(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.create(b"f")
    history.chmod(b"f", 0o6755)
    history.setxattr(b"f", {b"security.capability": b"x", b"trusted.a": b"1"})
    history.mknod(b"dev", Kind.CHAR, rdev=0x105)
    history.setxattr(b"dev", {ACL_ACCESS: acl((1, 7, 0), (4, 7, 0), (32, 7, 0))})
    number = kernel.find(b".dkfs/versions/6/f").number

    assert kernel.find(b".dkfs/versions/6/f").mode == 0o100755
    assert kernel.virtual.listxattr(number, ADMIN) == [b"trusted.a"]
    assert kernel.virtual.listxattr(number, OWNER) == []
    assert number_of_error(
        lambda: kernel.virtual.getxattr(number, b"security.capability", ADMIN)
    ) == (errno.ENODATA)
    device = kernel.find(b".dkfs/versions/6/dev")
    assert (device.mode, device.rdev) == (0o020000, 0x105)
    assert kernel.virtual.listxattr(device.number, ADMIN) == []
    assert number_of_error(lambda: kernel.virtual.open(device.number, 0, ADMIN)) == errno.EACCES


def test_hard_links_of_a_version_are_one_inode(history: ModelHistory, kernel: Kernel) -> None:
    history.create(b"a")
    history.link(b"a", b"b")

    a, b = kernel.find(b".dkfs/versions/3/a"), kernel.find(b".dkfs/versions/3/b")
    assert a == b
    assert kernel.find(b".dkfs/versions/2/a").number != a.number


# ---- contents


def test_large_file_reads_right_at_every_offset(history: ModelHistory, kernel: Kernel) -> None:
    data = b"y" * CELL + bytes(2 * CELL) + b"z" * CELL + b"tail"
    history.create(b"f", data)
    number = kernel.find(b".dkfs/versions/2/f").number
    fh = kernel.virtual.open(number, os.O_RDONLY, OWNER)

    assert fh >= VIRTUAL
    for offset in (0, 1, CELL - 1, CELL, 4 * CELL, len(data), len(data) + 9):
        assert kernel.virtual.read(fh, offset, 131_072) == data[offset : offset + 131_072]


def test_damaged_contents_are_refused(history: ModelHistory, kernel: Kernel) -> None:
    history.create(b"f", os.urandom(5000))
    history.create(b"g", b"sound")
    (segment,) = (history.store.path / "segments").iterdir()
    bytes_then = bytearray(segment.read_bytes())
    bytes_then[2000] ^= 1
    segment.write_bytes(bytes_then)
    fh = kernel.virtual.open(kernel.find(b".dkfs/versions/2/f").number, os.O_RDONLY, ADMIN)

    with pytest.raises(CorruptError) as caught:
        kernel.virtual.read(fh, 0, 100)
    assert caught.value.errno == errno.EIO
    assert kernel.read(b".dkfs/versions/3/g") == b"sound"


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC])
def test_nothing_opens_for_writing(history: ModelHistory, kernel: Kernel, flags: int) -> None:
    history.create(b"f")
    number = kernel.find(b".dkfs/versions/2/f").number

    assert number_of_error(lambda: kernel.virtual.open(number, flags, ADMIN)) == errno.EROFS


def test_only_directories_open_as_such(history: ModelHistory, kernel: Kernel) -> None:
    history.create(b"f")
    for path in (b".dkfs/versions/2/f", b".dkfs/latest"):
        number = kernel.find(path).number

        assert number_of_error(lambda n=number: kernel.virtual.opendir(n, ADMIN)) == errno.ENOTDIR  # type: ignore[misc]
    for path in (b".dkfs", b".dkfs/files", b".dkfs/versions/2"):
        number = kernel.find(path).number

        assert number_of_error(lambda n=number: kernel.virtual.open(n, 0, ADMIN)) == errno.EISDIR  # type: ignore[misc]
    assert number_of_error(lambda: kernel.virtual.readlink(number, ADMIN)) == errno.EINVAL


# ---- tags


def test_tags_are_made_listed_and_removed(history: ModelHistory, kernel: Kernel) -> None:
    history.create(b"f", b"one")
    tags = kernel.find(b".dkfs/tags").number

    made = kernel.virtual.mkdir(tags, b"before", OWNER)
    history.write(b"f", b"two")

    assert stat.S_ISDIR(made.mode)
    assert kernel.virtual.getattr(made.number) == made
    assert kernel.list(b".dkfs/tags") == [b"before"]
    assert kernel.read(b".dkfs/tags/before/f", OWNER) == b"one"
    kernel.virtual.rmdir(tags, b"before", OWNER)
    assert kernel.list(b".dkfs/tags") == []
    assert number_of_error(lambda: kernel.find(b".dkfs/tags/before")) == errno.ENOENT


def test_same_version_has_its_own_directories_under_each_name(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.mkdir(b"d")
    history.tag("one", Seq(2))
    history.tag("two", Seq(2))

    paths = (b"versions/2/d", b"tags/one/d", b"tags/two/d", b"at/2023-11-14T22:13:22Z/d")
    assert len({kernel.find(b".dkfs/" + path).number for path in paths}) == 4


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"there", errno.EEXIST),
        (b"12", errno.EINVAL),
        (b"10m", errno.EINVAL),
        (b"a:b", errno.EINVAL),
    ],
)
def test_names_that_cannot_be_tags_are_refused(
    history: ModelHistory, kernel: Kernel, name: bytes, expected: int
) -> None:
    history.tag("there", Seq(1))
    tags = kernel.find(b".dkfs/tags").number

    assert number_of_error(lambda: kernel.virtual.mkdir(tags, name, ADMIN)) == expected
    assert number_of_error(lambda: kernel.virtual.rmdir(tags, b"absent", ADMIN)) == errno.ENOENT


def test_only_root_and_the_owner_of_the_tree_make_and_remove_tags(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.tag("there", Seq(1))
    tags = kernel.find(b".dkfs/tags").number

    assert number_of_error(lambda: kernel.virtual.mkdir(tags, b"x", OTHER)) == errno.EACCES
    assert number_of_error(lambda: kernel.virtual.rmdir(tags, b"there", OTHER)) == errno.EACCES
    chown(history, b"", OTHER.uid, OTHER.gid)
    assert number_of_error(lambda: kernel.virtual.mkdir(tags, b"x", OWNER)) == errno.EACCES
    kernel.virtual.mkdir(tags, b"x", OTHER)
    kernel.virtual.mkdir(tags, b"y", ADMIN)


def test_elsewhere_nothing_is_made_or_removed(history: ModelHistory, kernel: Kernel) -> None:
    history.mkdir(b"d")
    for path in (b".dkfs", b".dkfs/versions", b".dkfs/at", b".dkfs/files", b".dkfs/versions/2/d"):
        number = kernel.find(path).number

        assert number_of_error(lambda n=number: kernel.virtual.mkdir(n, b"x", ADMIN)) == errno.EROFS  # type: ignore[misc]
        assert number_of_error(lambda n=number: kernel.virtual.rmdir(n, b"x", ADMIN)) == errno.EROFS  # type: ignore[misc]
