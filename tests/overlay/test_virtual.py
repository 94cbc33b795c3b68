"""The history tree, asked as the kernel asks; the permissions against an oracle over the model."""

import errno
import os
import random
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from dkfs.core.content import CHUNK_SIZE
from dkfs.errors import CorruptError, DkfsError, ExistsError
from dkfs.model.ids import ROOT, NodeId, Seq
from dkfs.model.node import Kind
from dkfs.model.operation import OpKind
from dkfs.overlay.access import ACL_ACCESS
from dkfs.overlay.virtual import VIRTUAL, Virtual, VirtualStatus
from tests.history.model_history import ModelHistory
from tests.overlay.acls import IDENTITIES, Entry, acl, mode_of, oracle, random_acl

ROOT_INODE = 1
SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Somebody:
    uid: int
    gid: int
    pid: int = 0
    groups: frozenset[int] = frozenset()

    @property
    def all_groups(self) -> set[int]:
        return {self.gid, *self.groups}


ADMIN = Somebody(0, 0)
OWNER = Somebody(1000, 1000, pid=10)  # of all that ModelHistory makes
OTHER = Somebody(1004, 2009, pid=11)
PEOPLE = [
    Somebody(uid, gid, pid, frozenset(groups))
    for pid, (uid, gid, groups) in enumerate(IDENTITIES, start=100)
]


class StoredTags:
    """Keeps tags right in the store."""

    def __init__(self, history: ModelHistory) -> None:
        self._history = history

    def tag(self, name: str) -> Seq:
        with self._history.store.read() as reader:
            if reader.tag(name) is not None:
                raise ExistsError(f"tag {name} exists already")
        seq = self._history.last
        self._history.tag(name, seq)
        return seq

    def untag(self, name: str) -> None:
        with self._history.store.write() as writer:
            writer.delete_tag(name)


class Kernel:
    """Walks, stats, lists and reads as the kernel does with default_permissions and no caches."""

    def __init__(self, virtual: Virtual) -> None:
        self.virtual = virtual

    def find(self, path: bytes, caller: Somebody = ADMIN) -> VirtualStatus:
        """Return what *path*, which begins in the root of the mount, is."""
        parent = ROOT_INODE
        found = None
        for name in path.split(b"/"):
            if found is not None:
                self._need(found, 1, caller)
            found = self.virtual.lookup(parent, name, caller)
            parent = found.number
        assert found is not None
        return self.virtual.getattr(found.number)

    def list(self, path: bytes, caller: Somebody = ADMIN) -> list[bytes]:
        found = self.find(path, caller)
        self._need(found, 4, caller)
        fh = self.virtual.opendir(found.number, caller)
        number, names = self.virtual.names(fh, again=True)
        assert number == found.number
        for name in names:
            peeked = self.virtual.peek(number, name)
            assert peeked is not None
            self.virtual.reference(peeked)
            self.virtual.forget(peeked.number, 1)
        self.virtual.releasedir(fh)
        return names

    def read(self, path: bytes, caller: Somebody = ADMIN) -> bytes:
        found = self.find(path, caller)
        self._need(found, 4, caller)
        fh = self.virtual.open(found.number, os.O_RDONLY, caller)
        data = self.virtual.read(fh, 0, found.size + 10)
        self.virtual.release(fh)
        return data

    def link(self, path: bytes, caller: Somebody = ADMIN) -> bytes:
        return self.virtual.readlink(self.find(path, caller).number, caller)

    def getxattr(self, path: bytes, name: bytes, caller: Somebody = ADMIN) -> bytes:
        return self.virtual.getxattr(self.find(path, caller).number, name, caller)

    def exists(self, path: bytes, caller: Somebody = ADMIN) -> bool:
        try:
            self.find(path, caller)
        except FileNotFoundError:
            return False
        return True

    def _need(self, status: VirtualStatus, want: int, caller: Somebody) -> None:
        entries: list[Entry] | None = None
        try:
            data = self.virtual.getxattr(status.number, ACL_ACCESS, caller)
            entries = list(struct.iter_unpack("<HHI", data[4:]))
        except OSError as exc:
            if exc.errno != errno.ENODATA:
                raise
        case = status.mode, status.uid, status.gid, entries
        if caller.uid != 0 and not oracle(want, case, caller.uid, caller.all_groups):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.fixture
def history(tmp_path: Path) -> Iterator[ModelHistory]:
    with ModelHistory(tmp_path / "store") as made:
        yield made


def virtual_of(history: ModelHistory, *, name: bytes | None = b".dkfs") -> Virtual:
    groups = {who.pid: who.groups for who in PEOPLE}
    return Virtual(
        history.store,
        name=name,
        tags=StoredTags(history),
        clock_ns=lambda: history.time_ns(history.last),
        groups=lambda pid: groups.get(pid, frozenset()),
    )


@pytest.fixture
def kernel(history: ModelHistory) -> Kernel:
    return Kernel(virtual_of(history))


def number_of_error(call: Callable[[], object]) -> int:
    with pytest.raises((OSError, DkfsError)) as caught:
        call()
    assert isinstance(caught.value, OSError | DkfsError)
    return caught.value.errno or 0


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
    data = b"y" * CHUNK_SIZE + bytes(2 * CHUNK_SIZE) + b"z" * CHUNK_SIZE + b"tail"
    history.create(b"f", data)
    number = kernel.find(b".dkfs/versions/2/f").number
    fh = kernel.virtual.open(number, os.O_RDONLY, OWNER)

    assert fh >= VIRTUAL
    for offset in (0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, 4 * CHUNK_SIZE, len(data), len(data) + 9):
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


# ---- files/


def test_all_versions_of_a_file_are_side_by_side(history: ModelHistory, kernel: Kernel) -> None:
    history.mkdir(b"d")
    history.create(b"d/f", b"one")  # 3
    history.write(b"d/f", b"two")  # 4
    history.chmod(b"d/f", 0o600)  # 5
    history.link(b"d/f", b"d/other")  # 6: nothing of d/f changes
    history.unlink(b"d/f")  # 7
    history.create(b"d/f", b"three")  # 8

    assert kernel.list(b".dkfs/files") == [b"d"]
    assert kernel.list(b".dkfs/files/d") == [b"f", b"other"]
    assert kernel.list(b".dkfs/files/d/f") == [b"8", b"5", b"4", b"3"]
    assert [kernel.read(b".dkfs/files/d/f/" + n) for n in (b"3", b"4", b"8")] == [
        b"one",
        b"two",
        b"three",
    ]
    assert kernel.find(b".dkfs/files/d/f/5").mode == 0o100600
    assert kernel.find(b".dkfs/files/d/f/4").mode == 0o100644
    for absent in (b"2", b"6", b"7", b"9", b"04"):
        assert not kernel.exists(b".dkfs/files/d/f/" + absent)
    assert kernel.list(b".dkfs/files/d/other") == [b"6"]


def test_path_stays_in_files_after_all_is_moved_and_removed(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.mkdir(b"a")
    history.create(b"a/f", b"one")  # 3
    history.rename(b"a", b"b")
    history.write(b"b/f", b"two")  # 5
    history.unlink(b"b/f")
    history.rmdir(b"b")

    assert kernel.list(b".dkfs/versions/7") == []
    assert kernel.list(b".dkfs/files") == [b"a", b"b"]
    assert kernel.list(b".dkfs/files/a/f") == [b"3"]
    assert kernel.list(b".dkfs/files/b/f") == [b"5", b"4"]
    assert kernel.read(b".dkfs/files/b/f/4") == b"one"


def test_path_that_was_file_and_directory_holds_both_and_numbers_mean_versions(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.create(b"p", b"file")  # 2
    history.unlink(b"p")
    history.mkdir(b"p")
    history.create(b"p/2", b"child")  # 5
    history.create(b"p/x", b"child")  # 6

    assert sorted(kernel.list(b".dkfs/files/p")) == [b"2", b"x"]
    assert kernel.read(b".dkfs/files/p/2") == b"file"
    assert kernel.read(b".dkfs/files/p/x/6") == b"child"
    assert kernel.read(b".dkfs/versions/6/p/2") == b"child"


def test_files_lists_the_newest_thousand_versions_and_finds_all(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.create(b"f")
    with history.batch():
        for i in range(1200):
            history.utime(b"f", i)

    assert kernel.list(b".dkfs/files/f") == [b"%d" % n for n in range(1202, 202, -1)]
    assert kernel.find(b".dkfs/files/f/3").mtime_ns == 0


def test_path_too_deep_for_files_is_refused(history: ModelHistory, kernel: Kernel) -> None:
    path = b"/".join([b"d"] * 129)
    with history.batch():
        for depth in range(1, 130):
            history.mkdir(b"/".join([b"d"] * depth))

    assert number_of_error(lambda: kernel.find(b".dkfs/files/" + path)) == errno.ENAMETOOLONG
    assert kernel.exists(b".dkfs/files/" + path[2:])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_files_of_a_random_history_hold_every_version_of_every_path(
    history: ModelHistory, kernel: Kernel, seed: int
) -> None:
    Operations(history, random.Random(seed)).run(150)
    expected: dict[bytes, set[int]] = {}
    for version in range(1, history.last + 1):
        now, before = history.trees[version], history.trees[version - 1]
        for path, node in now.paths().items():
            expected.setdefault(path, set())
            old = before.paths().get(path)
            state = now.states[node]
            if state.attr.kind is Kind.FILE and (
                old is None or shown(before.states[old]) != shown(state)
            ):
                expected[path].add(version)

    for path, versions in expected.items():
        names = kernel.list(b".dkfs/files" + (b"/" + path if path else b""))
        below = {p.rsplit(b"/", 1)[-1] for p in expected if p and p.rpartition(b"/")[0] == path}
        assert set(names) == below | {b"%d" % n for n in versions}


def shown(state: object) -> object:
    return replace(state, parent=0, name=b"", attr=replace(state.attr, ctime_ns=0))  # type: ignore[type-var, attr-defined]


# ---- numbers and handles


def test_inode_keeps_its_number_while_it_is_referenced_and_is_forgotten_after(
    history: ModelHistory,
) -> None:
    history.create(b"f")
    virtual = virtual_of(history)
    top = virtual.lookup(1, b".dkfs", ADMIN).number

    again = virtual.lookup(1, b".dkfs", ADMIN).number
    peeked = virtual.peek(top, b"versions")
    assert again == top
    assert peeked is not None
    assert virtual.lookup(top, b"versions", ADMIN).number == peeked.number
    virtual.forget(top, 1)
    assert virtual.getattr(top).number == top
    virtual.forget(top, 1)
    assert number_of_error(lambda: virtual.getattr(top)) == errno.ESTALE
    assert virtual.lookup(1, b".dkfs", ADMIN).number > peeked.number


def test_memory_is_bounded_by_what_is_referenced(history: ModelHistory) -> None:
    with history.batch():
        for i in range(3000):
            history.utime(b"", i)
    virtual = virtual_of(history)
    versions = virtual.lookup(virtual.lookup(1, b".dkfs", ADMIN).number, b"versions", ADMIN).number

    for n in range(1, 3001):
        virtual.peek(versions, b"%d" % n)
    assert len(virtual._numbers) == 2
    assert len(virtual._numbers._numbers) <= 2 + 1024
    for n in range(1, 3001):
        virtual.forget(virtual.lookup(versions, b"%d" % n, ADMIN).number, 1)
    assert len(virtual._numbers) == 2
    assert len(virtual._numbers._numbers) <= 2 + 1024


def test_unknown_numbers_are_nobodys(kernel: Kernel) -> None:
    kernel.virtual.forget(VIRTUAL + 999, 1)

    assert number_of_error(lambda: kernel.virtual.getattr(VIRTUAL + 999)) == errno.ESTALE
    assert number_of_error(lambda: kernel.virtual.read(VIRTUAL + 999, 0, 1)) == errno.EBADF
    assert number_of_error(lambda: kernel.virtual.releasedir(VIRTUAL + 999)) == errno.EBADF


# ---- who may see it


def chown(history: ModelHistory, path: bytes, uid: int, gid: int) -> None:
    node, place = history._at(path)
    state = history._states[node]
    state = history._seen(replace(state, attr=replace(state.attr, uid=uid, gid=gid)), place)
    with history._transaction() as writer:
        history._append(writer, OpKind.SETATTR, node, place, {node: state})


def can(call: Callable[[], object]) -> bool:
    try:
        call()
    except (PermissionError, FileNotFoundError):
        return False
    return True


def test_what_was_closed_then_stays_closed(history: ModelHistory, kernel: Kernel) -> None:
    history.create(b"f", b"secret")
    history.chmod(b"f", 0o600)
    history.write(b"f", b"public")
    history.chmod(b"f", 0o644)

    paths = [b".dkfs/versions/%d/f" % version for version in (2, 3, 4, 5)]
    assert [can(partial(kernel.read, path, OTHER)) for path in paths] == [True, False, False, True]
    assert not can(lambda: kernel.read(b".dkfs/files/f/4", OTHER))


@pytest.mark.parametrize("version", [3, 4])
def test_what_is_closed_now_is_closed_in_all_versions(
    history: ModelHistory, kernel: Kernel, version: int
) -> None:
    history.mkdir(b"d")
    history.create(b"d/f", b"once public")
    history.symlink(b"d/s", b"f")
    history.setxattr(b"d/f", {b"user.a": b"1"})
    assert kernel.read(b".dkfs/versions/%d/d/f" % version, OTHER) == b"once public"

    history.chmod(b"d", 0o700)
    assert not can(lambda: kernel.read(b".dkfs/versions/%d/d/f" % version, OTHER))
    assert not can(lambda: kernel.list(b".dkfs/versions/%d/d" % version, OTHER))
    assert not can(lambda: kernel.find(b".dkfs/files/d/f", OTHER))
    assert kernel.list(b".dkfs/files", OTHER) == [b"d"]
    assert kernel.list(b".dkfs/files/d", OTHER) == []
    assert can(lambda: kernel.read(b".dkfs/versions/%d/d/f" % version, OWNER))


def test_open_readlink_and_getxattr_ask_again(history: ModelHistory, kernel: Kernel) -> None:
    history.create(b"f", b"x")
    history.setxattr(b"f", {b"user.a": b"1", ACL_ACCESS: acl((1, 6, 0), (4, 4, 0), (32, 4, 0))})
    history.mkdir(b"d")
    history.symlink(b"d/s", b"f")
    number = kernel.find(b".dkfs/versions/3/f", OTHER).number
    link = kernel.find(b".dkfs/versions/5/d/s", OTHER).number
    directory = kernel.find(b".dkfs/versions/5/d", OTHER).number
    history.chmod(b"f", 0o600)
    history.chmod(b"d", 0o700)

    virtual = kernel.virtual
    assert number_of_error(lambda: virtual.open(number, 0, OTHER)) == errno.EACCES
    assert number_of_error(lambda: virtual.getxattr(number, b"user.a", OTHER)) == errno.EACCES
    assert virtual.listxattr(number, OTHER) == [ACL_ACCESS]
    assert virtual.getxattr(number, ACL_ACCESS, OTHER)
    assert number_of_error(lambda: virtual.readlink(link, OTHER)) == errno.EACCES
    assert number_of_error(lambda: virtual.opendir(directory, OTHER)) == errno.EACCES


def test_removed_file_is_judged_by_the_directory_it_was_removed_from_last(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.mkdir(b"open")
    history.mkdir(b"closed")
    history.chmod(b"closed", 0o700)
    history.create(b"open/f", b"1")  # 5
    history.create(b"open/g", b"2")  # 6
    history.link(b"open/f", b"closed/f")
    history.link(b"open/g", b"closed/g")
    history.unlink(b"closed/g")
    history.unlink(b"open/g")
    history.unlink(b"open/f")
    assert not can(lambda: kernel.read(b".dkfs/versions/5/open/f", OTHER))  # still in closed/

    history.unlink(b"closed/f")
    assert not can(lambda: kernel.read(b".dkfs/versions/5/open/f", OTHER))
    assert kernel.read(b".dkfs/versions/6/open/g", OTHER) == b"2"


def test_contents_that_moved_to_a_closed_place_are_closed_where_they_were(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.mkdir(b"open")
    history.mkdir(b"closed")
    history.mkdir(b"open/d")
    history.create(b"open/d/f", b"1")  # 5
    assert can(lambda: kernel.read(b".dkfs/versions/5/open/d/f", OTHER))
    history.chmod(b"closed", 0o700)
    history.rename(b"open/d", b"closed/d")

    assert not can(lambda: kernel.read(b".dkfs/versions/5/open/d/f", OTHER))
    assert not can(lambda: kernel.find(b".dkfs/versions/5/open/d", OTHER))
    assert kernel.list(b".dkfs/files/open/d", ADMIN) == [b"f"]
    assert not can(lambda: kernel.find(b".dkfs/files/open/d/f", OTHER))


def test_one_of_two_names_that_is_open_now_is_enough(history: ModelHistory, kernel: Kernel) -> None:
    history.mkdir(b"open")
    history.mkdir(b"closed")
    history.create(b"open/f", b"1")  # 4
    history.chmod(b"closed", 0o700)
    history.link(b"open/f", b"closed/f")

    assert kernel.read(b".dkfs/versions/4/open/f", OTHER) == b"1"


def test_files_lists_only_what_could_be_listed_then(history: ModelHistory, kernel: Kernel) -> None:
    history.mkdir(b"d")
    history.create(b"d/early", b"1")  # 3
    history.chmod(b"d", 0o711)
    history.create(b"d/hidden", b"2")  # 5
    history.unlink(b"d/early")
    history.unlink(b"d/hidden")
    history.chmod(b"d", 0o755)

    assert kernel.list(b".dkfs/files/d") == [b"early", b"hidden"]
    assert kernel.list(b".dkfs/files/d", OTHER) == [b"early"]
    assert kernel.read(b".dkfs/files/d/hidden/5", OTHER) == b"2"  # whose name had to be known


def test_files_lists_only_versions_that_could_be_reached_then(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.mkdir(b"d")
    history.create(b"d/f", b"1")  # 3
    history.chmod(b"d", 0o700)
    history.write(b"d/f", b"2")  # 5
    history.chmod(b"d", 0o755)
    history.write(b"d/f", b"3")  # 7

    assert kernel.list(b".dkfs/files/d/f") == [b"7", b"5", b"3"]
    assert kernel.list(b".dkfs/files/d/f", OTHER) == [b"7", b"3"]
    assert not kernel.exists(b".dkfs/files/d/f/5", OTHER)


def test_file_that_lost_all_names_at_once_is_open_only_if_all_their_directories_are(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.mkdir(b"d")
    history.mkdir(b"d/open")
    history.mkdir(b"d/closed")
    history.create(b"d/open/f", b"1")  # 5
    history.chmod(b"d/closed", 0o700)
    history.link(b"d/open/f", b"d/closed/f")
    history.link(b"d/open/f", b"d/open/g")
    history.found(removed=[b"d/open/f", b"d/open/g", b"d/closed/f"])

    assert not can(lambda: kernel.read(b".dkfs/versions/5/d/open/f", OTHER))
    history.chmod(b"d/closed", 0o755)
    assert kernel.read(b".dkfs/versions/5/d/open/f", OTHER) == b"1"


def test_new_names_of_a_node_count_at_once(history: ModelHistory, kernel: Kernel) -> None:
    history.mkdir(b"open")
    history.mkdir(b"closed")
    history.chmod(b"closed", 0o700)
    history.create(b"open/f", b"1")  # 5
    history.rename(b"open/f", b"closed/f")
    assert not can(lambda: kernel.read(b".dkfs/versions/5/open/f", OTHER))

    history.link(b"closed/f", b"open/g")
    history.rename(b"closed/f", b"closed/h")  # the last state does not tell of open/g any more
    assert kernel.read(b".dkfs/versions/5/open/f", OTHER) == b"1"
    history.unlink(b"open/g")
    assert not can(lambda: kernel.read(b".dkfs/versions/5/open/f", OTHER))


def test_listing_gives_up_where_it_would_take_too_long(
    history: ModelHistory, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dkfs.overlay.virtual_rights._ASKED", 5)
    monkeypatch.setattr("dkfs.overlay.virtual_files.LISTED_NAMES", 20)
    with history.batch():
        for i in range(10, 40):
            history.create(b"f%d" % i)
            history.unlink(b"f%d" % i)

    assert kernel.list(b".dkfs/files") == [b"f%d" % i for i in range(10, 30)]
    assert kernel.list(b".dkfs/files", OTHER) == [b"f%d" % i for i in range(10, 15)]


def test_malformed_acl_closes_a_file(history: ModelHistory, kernel: Kernel) -> None:
    history.create(b"f", b"1")
    assert can(lambda: kernel.read(b".dkfs/versions/2/f", OTHER))
    history.setxattr(b"f", {ACL_ACCESS: b"\2\0\0\0junk"})

    assert not can(lambda: kernel.read(b".dkfs/versions/2/f", OTHER))
    assert can(lambda: kernel.read(b".dkfs/versions/2/f", OWNER))


# ---- generated cases


class Operations:
    """Changes a tree of few names in random ways that change who may do what."""

    def __init__(self, history: ModelHistory, rng: random.Random) -> None:
        self._history = history
        self._rng = rng

    def run(self, count: int) -> None:
        with self._history.batch():
            while self._history.last < count:
                self._step()

    def _step(self) -> None:
        history, rng = self._history, self._rng
        paths = history.tree.paths()
        kinds = {path: history.tree.states[node].attr.kind for path, node in paths.items()}
        files = [p for p, k in kinds.items() if k is Kind.FILE]
        directories = [p for p, k in kinds.items() if k is Kind.DIR]
        new = (rng.choice(directories) + b"/" + rng.choice((b"a", b"b", b"c", b"9"))).strip(b"/")
        is_new = new not in paths and new.count(b"/") < 3
        some = rng.choice(list(paths))
        action = rng.choice(
            ["create"] * 4 + ["mkdir"] * 2 + ["rights"] * 5 + ["move", "link", "remove"]
        )
        if action == "create" and is_new:
            history.create(new, b"%d" % history.last)
            self._change_rights(new)
        elif action == "create" and files:
            history.write(rng.choice(files), b"%d" % history.last)
        elif action == "mkdir" and is_new:
            history.mkdir(new)
            self._change_rights(new)
        elif action == "rights":
            self._change_rights(some)
        elif action == "move" and is_new and some and not new.startswith(some + b"/"):
            history.rename(some, new)
        elif action == "link" and is_new and files:
            history.link(rng.choice(files), new)
        elif action == "remove" and some:
            if kinds[some] is Kind.FILE:
                history.unlink(some)
            elif not any(p.startswith(some + b"/") for p in paths):
                history.rmdir(some)

    def _change_rights(self, path: bytes) -> None:
        history, rng = self._history, self._rng
        action = rng.choice(("chmod", "chmod", "chown", "acl"))
        if action == "chown" or history.state(path).attr.uid == 1000:
            chown(history, path, rng.randrange(1001, 1005), rng.randrange(2001, 2004))
        if action == "chmod":
            usual = rng.choice((0o755, 0o755, 0o750, 0o711, 0o700, 0o444))
            history.chmod(path, usual if rng.random() < 0.8 else rng.randrange(0o1000))
            history.setxattr(path, {})
        elif action == "acl":
            entries = random_acl(rng)
            entries[0] = (1, 7, entries[0][2])
            if rng.random() < 0.7:
                entries[-1] = (32, 5, entries[-1][2])
            history.setxattr(path, {ACL_ACCESS: acl(*entries)})
            history.chmod(path, mode_of(entries))
            self._acls()[history.state(path).xattrs] = entries

    def _acls(self) -> dict[object, list[Entry]]:
        return self._history.__dict__.setdefault("acls", {})  # type: ignore[no-any-return]


class Oracle:
    """Says who may read what, from copies of every tree and by the words of the promise."""

    def __init__(self, history: ModelHistory, who: Somebody) -> None:
        self._history = history
        self._who = who
        self._acls: dict[object, list[Entry]] = history.__dict__.get("acls", {})

    def may_read(self, path: bytes, version: int) -> bool:
        """Return whether *path* as of *version* could be read then and may be read now."""
        tree = self._history.trees[version]
        node = ROOT
        for name in path.split(b"/"):
            if not (self._has(1, node, version) and self._has(1, node) and self._reaches(node)):
                return False
            node = tree.names[node, name]
        return self._has(4, node, version) and self._has(4, node) and self._reaches(node)

    def _has(self, want: int, node: NodeId, version: int = -1) -> bool:
        state = self._history.trees[version].states[node]
        attr = state.attr
        case = attr.mode, attr.uid, attr.gid, self._acls.get(state.xattrs)
        return oracle(want, case, self._who.uid, self._who.all_groups)

    def _reaches(self, node: NodeId) -> bool:
        if node == ROOT:
            return True
        for version in range(self._history.last, 0, -1):
            names = self._history.trees[version].names
            ways = [
                self._has(1, parent) and self._reaches(parent)
                for (parent, _), child in names.items()
                if child == node
            ]
            if ways:
                return any(ways) if version == self._history.last else all(ways)
        raise AssertionError("a node that never had a name")


@pytest.mark.parametrize("seed", range(12))
def test_generated_cases_are_decided_as_the_oracle_decides(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    allowed = refused = 0
    with ModelHistory(tmp_path / "store") as history:
        Operations(history, rng).run(70)
        kernel = Kernel(virtual_of(history))
        everything = [
            (path, version)
            for version in range(1, history.last + 1)
            for path, node in history.trees[version].paths().items()
            if history.trees[version].states[node].attr.kind is Kind.FILE
        ]
        for path, version in rng.sample(everything, min(60, len(everything))):
            for who in PEOPLE:
                expected = Oracle(history, who).may_read(path, version)
                found = can(lambda: kernel.read(b".dkfs/versions/%d/" % version + path, who))  # noqa: B023
                assert found == expected, (path, version, who)
                if can(lambda: kernel.read(b".dkfs/files/" + path + b"/%d" % version, who)):  # noqa: B023
                    assert expected, (path, version, who)
                allowed += found
                refused += not found

    assert allowed + refused >= 30
