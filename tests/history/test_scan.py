import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.history.doubt import Doubt
from dkfs.history.replay import reconcile
from dkfs.history.scan import scan
from dkfs.model.ids import Seq
from dkfs.store import Store
from tests.history.trees import ACL_ACCESS

Found = set[tuple[str, bytes]]


class Scanned:
    """A directory that was recorded once."""

    def __init__(self, path: Path) -> None:
        self.top = path / "state"
        self.top.mkdir()
        Store.create(path / "store")
        self.store = Store.open(path / "store", writable=True)
        self.fd = os.open(self.top, os.O_RDONLY | os.O_DIRECTORY)

    def record(self, time_ns: int = 1) -> None:
        reconcile(self.store, self.fd, prefer="dir", clock_ns=lambda: time_ns, identity=b"")

    @property
    def last(self) -> Seq:
        with self.store.read() as reader:
            return reader.last

    def found(self, rehash_since_ns: int | None = None) -> Found:
        """Return what differs, less directories of which only the time does."""
        with self.store.read() as reader:
            return {
                (each.what.name, each.name)
                for each in scan(reader, self.fd, at=reader.last, rehash_since_ns=rehash_since_ns)
                if not (
                    each.what.name == "CHANGED"
                    and each.status is not None
                    and stat.S_ISDIR(each.status.st_mode)
                )
            }


@pytest.fixture
def scanned(tmp_path: Path) -> Iterator[Scanned]:
    made = Scanned(tmp_path)
    yield made
    os.close(made.fd)
    made.store.close()


def _rewrite_unseen(path: Path, data: bytes) -> None:
    """Change contents, not size nor mtime."""
    status = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(0, status.st_mtime_ns))


def test_what_was_recorded_is_found_unchanged(scanned: Scanned) -> None:
    (scanned.top / "a").write_bytes(b"1")
    (scanned.top / "dir").mkdir()
    (scanned.top / "dir" / "link").symlink_to("a")
    scanned.record()

    assert scanned.found() == set()
    assert scanned.found(rehash_since_ns=0) == set()


def test_an_empty_store_has_nothing_of_a_directory(scanned: Scanned) -> None:
    (scanned.top / "a").write_bytes(b"1")
    with scanned.store.read() as reader:
        found = list(scan(reader, scanned.fd, at=Seq(0), rehash_since_ns=None))

    assert [(each.what.name, each.name, each.node) for each in found] == [
        ("NEW", b"", 1),
        ("NEW", b"a", 2),
    ]


def test_new_and_missing_names_are_found(scanned: Scanned) -> None:
    (scanned.top / "old").mkdir()
    (scanned.top / "old" / "below").write_bytes(b"")
    scanned.record()
    (scanned.top / "old" / "below").unlink()
    (scanned.top / "old").rmdir()
    (scanned.top / "new").mkdir()
    (scanned.top / "new" / "below").write_bytes(b"")

    assert scanned.found() == {("MISSING", b"old"), ("NEW", b"new"), ("NEW", b"below")}


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"longer"),
        lambda path: path.chmod(0o600),
        lambda path: os.utime(path, ns=(0, 5)),
        lambda path: os.setxattr(path, "user.new", b"1"),
        lambda path: os.removexattr(path, "user.old"),
        lambda path: os.setxattr(path, "user.old", b"2"),
        lambda path: os.setxattr(path, "system.posix_acl_access", ACL_ACCESS),
        pytest.param(lambda path: os.chown(path, 1, 2), marks=pytest.mark.root),
    ],
    ids=["size", "mode", "mtime", "xattr new", "xattr gone", "xattr other", "acl", "owner"],
)
def test_a_changed_file_is_found(scanned: Scanned, change: object) -> None:
    path = scanned.top / "a"
    path.write_bytes(b"1")
    os.setxattr(path, "user.old", b"1")
    scanned.record()
    assert callable(change)
    change(path)

    assert scanned.found() == {("CHANGED", b"a")}


def test_contents_that_changed_unseen_are_found_if_asked_for(scanned: Scanned) -> None:
    (scanned.top / "a").write_bytes(b"one")
    scanned.record()
    _rewrite_unseen(scanned.top / "a", b"two")
    status = (scanned.top / "a").stat()
    mtime_ns, ctime_ns = status.st_mtime_ns, status.st_ctime_ns

    assert scanned.found(rehash_since_ns=ctime_ns + 1) == set()
    assert scanned.found(rehash_since_ns=mtime_ns) == {("CHANGED", b"a")}


def _end_ns(scanned: Scanned) -> int:
    with scanned.store.read() as reader:
        newest = reader.record(reader.last)
    assert newest is not None
    return newest.operation.time_ns


def test_contents_that_changed_unseen_after_the_clock_went_back_are_found(
    scanned: Scanned,
) -> None:
    path = scanned.top / "a"
    ahead_ns = time.time_ns() + 3600 * 10**9
    scanned.record(ahead_ns)
    path.write_bytes(b"one")
    scanned.record()  # the clock is right again, an hour back
    _rewrite_unseen(path, b"two")
    doubt_ns = _end_ns(scanned) - 60 * 10**9

    assert path.stat().st_ctime_ns < doubt_ns
    assert scanned.found(rehash_since_ns=doubt_ns) == {("CHANGED", b"a")}


def test_contents_changed_in_place_whose_times_were_set_back_are_found_after_a_crash(
    scanned: Scanned,
) -> None:
    path = scanned.top / "a"
    path.write_bytes(b"one")
    os.utime(path, ns=(0, 7))
    scanned.record()
    _rewrite_unseen(path, b"two")
    changed_ns = path.stat().st_ctime_ns

    assert scanned.found() == set()
    assert scanned.found(rehash_since_ns=changed_ns - 1) == {("CHANGED", b"a")}


@pytest.mark.parametrize("times_ns", [(10, 10), (10, 11), (10, 5)], ids=["same", "next", "before"])
def test_versions_recorded_while_the_clock_was_behind_are_timeless(
    scanned: Scanned, times_ns: tuple[int, int]
) -> None:
    for time_ns in times_ns:
        (scanned.top / "a").write_bytes(b"%d" % (scanned.last + 1))
        scanned.record(time_ns)
    with scanned.store.read() as reader:
        doubt = Doubt(reader, 0)

        assert [doubt.is_timeless(Seq(1)), doubt.is_timeless(Seq(2))] == [False, True]
        assert not Doubt(reader, None).is_timeless(Seq(2))
        assert not Doubt(reader, 12).is_timeless(Seq(2))


def test_a_file_is_found_in_a_directory_of_many(scanned: Scanned) -> None:
    for number in range(40):
        (scanned.top / f"{number}").write_bytes(b"one")
    os.setxattr(scanned.top / "7", "user.a", b"b")
    scanned.record()
    (scanned.top / "3").write_bytes(b"other")
    (scanned.top / "4").chmod(0o600)
    (scanned.top / "5").unlink()
    os.utime(scanned.top / "6", ns=(0, 7))
    os.setxattr(scanned.top / "7", "user.a", b"c")
    os.link(scanned.top / "8", scanned.top / "new")
    (scanned.top / "9").unlink()
    (scanned.top / "9").symlink_to("8")
    (scanned.top / "10").write_bytes(b"two")

    assert scanned.found() == {
        ("CHANGED", b"3"),
        ("CHANGED", b"4"),
        ("MISSING", b"5"),
        ("CHANGED", b"6"),
        ("CHANGED", b"7"),
        ("LINK", b"new"),
        ("NEW", b"9"),
        ("CHANGED", b"10"),
    }


def test_a_symlink_that_leads_elsewhere_is_another_node(scanned: Scanned) -> None:
    path = scanned.top / "link"
    path.symlink_to("one")
    os.utime(path, ns=(0, 7), follow_symlinks=False)
    scanned.record()
    path.unlink()
    path.symlink_to("two")
    os.utime(path, ns=(0, 7), follow_symlinks=False)

    assert scanned.found() == {("NEW", b"link")}


def test_another_kind_under_a_name_is_another_node(scanned: Scanned) -> None:
    (scanned.top / "a").write_bytes(b"1")
    scanned.record()
    (scanned.top / "a").unlink()
    (scanned.top / "a").mkdir()
    with scanned.store.read() as reader:
        found = list(scan(reader, scanned.fd, at=reader.last, rehash_since_ns=None))

    assert [(each.what.name, each.node, each.replaced) for each in found if each.name] == [
        ("NEW", 3, 2)
    ]


def test_a_further_link_is_found_as_one_whatever_the_order(scanned: Scanned) -> None:
    (scanned.top / "m").write_bytes(b"1")
    (scanned.top / "other").write_bytes(b"1")
    scanned.record()
    for name in ("a", "z"):
        os.link(scanned.top / "m", scanned.top / name)
    (scanned.top / "other").unlink()
    os.link(scanned.top / "m", scanned.top / "other")
    with scanned.store.read() as reader:
        found = list(scan(reader, scanned.fd, at=reader.last, rehash_since_ns=None))
        node = reader.child(found[0].parent, b"m", reader.last)

    links = {(each.what.name, each.name, each.node) for each in found if each.name}
    assert links == {("LINK", name, node) for name in (b"a", b"other", b"z")}


def test_links_that_were_broken_are_found(scanned: Scanned) -> None:
    (scanned.top / "a").write_bytes(b"1")
    os.link(scanned.top / "a", scanned.top / "b")
    scanned.record()
    data = (scanned.top / "b").read_bytes()
    status = (scanned.top / "b").stat()
    (scanned.top / "b").unlink()
    (scanned.top / "b").write_bytes(data)
    os.utime(scanned.top / "b", ns=(0, status.st_mtime_ns))

    assert len(scanned.found()) == 1
    assert next(iter(scanned.found()))[0] == "NEW"


def test_a_symlink_to_a_directory_is_not_followed(scanned: Scanned, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"")
    (scanned.top / "link").symlink_to(tmp_path / "outside")

    scanned.record()

    with scanned.store.read() as reader:
        assert reader.last == 1
        assert reader.next_node() == 3


def test_a_tree_deeper_than_open_directories_is_scanned(scanned: Scanned) -> None:
    fd = os.dup(scanned.fd)
    for _ in range(400):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)

    scanned.record()

    assert scanned.found() == set()
    with scanned.store.read() as reader:
        assert reader.next_node() == 402
