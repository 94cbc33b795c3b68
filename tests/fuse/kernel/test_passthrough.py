"""Backing ids: one for each inode, for as long as it is open so, and none too many or too few."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dkfs.core.io_mode import IoMode, IoRules, OpenKind
from dkfs.fuse.kernel.messages import Fopen, Init
from dkfs.fuse.kernel.passthrough import Passthrough, agreed, stack_depth
from dkfs.overlay.inode import Inode
from dkfs.overlay.mounted import FileSystem
from tests.disks import overlay
from tests.overlay.world import ME, World

_PASS, _DIRECT = int(Fopen.PASSTHROUGH), int(Fopen.DIRECT_IO)
_KEEP, _NOFLUSH = int(Fopen.KEEP_CACHE), int(Fopen.NOFLUSH)


class Registry:
    """Backings as the kernel has them: ids of inodes, or an error."""

    def __init__(self) -> None:
        self.ids: dict[int, int] = {}  # id -> inode number
        self.made = 0
        self.error = 0

    def open(self, fd: int) -> int:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        self.made += 1
        self.ids[self.made] = os.fstat(fd).st_ino
        return self.made

    def close(self, backing: int) -> None:
        del self.ids[backing]


class Mounted:
    """A world whose files are passed through."""

    def __init__(self, top: Path, mode: IoMode) -> None:
        self.world = World(top)
        rules = IoRules(mode)
        self.fs = FileSystem(
            self.world.root_fd,
            self.world.store,
            self.world.recorder,
            reserved=None,
            clock_ns=lambda: 0,
            io=rules,
        )
        self.world.fs = self.fs
        self.registry = Registry()
        self.fs.modes.grant()
        self.passthrough = Passthrough(self.fs, self.registry)

    def open(self, name: bytes, flags: int) -> tuple[int, int, int]:
        """Open as the kernel asks for it; return the handle, the flags and the backing id."""
        try:
            inode = self.world.lookup(name)
        except FileNotFoundError:
            number, inode, _ = self.fs.names.create(self.world.root, name, 0o644, flags, ME)
        else:
            number = self.fs.files.open(inode, flags, ME)
        return number, *self.passthrough.opened(number, flags)

    def release(self, number: int) -> None:
        self.passthrough.released(number)
        self.fs.files.release(number)


@pytest.fixture
def hybrid(tmp_path: Path) -> Iterator[Mounted]:
    made = Mounted(tmp_path, IoMode.HYBRID)
    yield made
    made.world.close()


def test_readers_and_writers_of_a_file_share_one_id_until_the_last_is_gone(hybrid: Mounted) -> None:
    reader, reads, first = hybrid.open(b"f", os.O_RDONLY)
    writer, writes, second = hybrid.open(b"f", os.O_RDWR)
    assert (reads, writes) == (_PASS | _NOFLUSH, _PASS | _DIRECT)
    assert first == second
    assert list(hybrid.registry.ids) == [first]

    hybrid.release(reader)
    assert list(hybrid.registry.ids) == [first]
    hybrid.release(writer)
    assert hybrid.registry.ids == {}
    assert len(hybrid.passthrough) == 0


def test_who_opens_a_file_is_not_kept_by_one_of_another_device_that_hangs(
    hybrid: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (b"near", b"far", b"far too"):
        number, _, _ = hybrid.open(name, os.O_RDONLY)
        hybrid.release(number)
    far, far_too = hybrid.world.lookup(b"far"), hybrid.world.lookup(b"far too")
    numbers = [hybrid.fs.files.open(each, os.O_RDONLY, ME) for each in (far, far_too)]
    for inode in (far, far_too):
        assert hybrid.fs.table.fd(inode) >= 0  # it is not opened again, and compared
        inode.dev += 1
    decide, kept, frozen = hybrid.fs.modes.decide, threading.Event(), threading.Event()

    def slow_decide(inode: Inode, flags: int) -> OpenKind:
        if inode is far:
            kept.set()
            frozen.wait(60)
        return decide(inode, flags)

    monkeypatch.setattr(hybrid.fs.modes, "decide", slow_decide)
    stuck = [
        threading.Thread(target=hybrid.passthrough.opened, args=(each, os.O_RDONLY))
        for each in numbers
    ]
    for each in stuck:
        each.start()
        assert kept.wait(60)

    near, flags, _ = hybrid.open(b"near", os.O_RDONLY)  # returns
    were_stuck = [each.is_alive() for each in stuck]
    frozen.set()
    for each in stuck:
        each.join(60)

    assert flags & _PASS
    assert were_stuck == [True, True]
    for number in (near, *numbers):
        hybrid.release(number)
    assert hybrid.registry.ids == {}
    far.dev -= 1
    far_too.dev -= 1


def test_two_files_have_two_ids(hybrid: Mounted) -> None:
    one, other = hybrid.open(b"f", os.O_RDONLY), hybrid.open(b"g", os.O_RDONLY)

    assert one[2] != other[2]
    assert len(set(hybrid.registry.ids.values())) == 2
    for number, _, _ in (one, other):
        hybrid.release(number)


@pytest.mark.expect_logs("is served as io=strict: it takes CAP_SYS_ADMIN")
def test_a_refusal_makes_the_open_a_cached_one_for_good(hybrid: Mounted) -> None:
    hybrid.registry.error = errno.EPERM
    number, flags, backing = hybrid.open(b"f", os.O_RDWR)
    assert (flags, backing) == (_KEEP, 0)
    hybrid.release(number)

    hybrid.registry.error = 0
    number, flags, backing = hybrid.open(b"f", os.O_RDONLY)
    assert (flags, backing) == (_KEEP | _NOFLUSH, 0)
    hybrid.release(number)


@pytest.mark.expect_logs("is served as io=strict: too many file systems")
def test_a_file_system_stacked_too_deep_is_not_asked_again(hybrid: Mounted) -> None:
    hybrid.registry.error = errno.ELOOP
    for _ in range(2):
        number, _, backing = hybrid.open(b"f", os.O_RDWR)
        assert backing == 0
        hybrid.release(number)

    assert hybrid.fs.modes.is_granted


def test_want_of_memory_concerns_one_open_only(hybrid: Mounted) -> None:
    hybrid.registry.error = errno.ENOMEM
    number, _, backing = hybrid.open(b"f", os.O_RDWR)
    assert backing == 0
    hybrid.release(number)

    hybrid.registry.error = 0
    number, _, backing = hybrid.open(b"f", os.O_RDWR)
    assert backing
    hybrid.release(number)


def test_pages_from_before_a_passthrough_are_not_kept(hybrid: Mounted) -> None:
    number, _, _ = hybrid.open(b"f", os.O_RDWR)
    hybrid.release(number)
    hybrid.registry.error = errno.ENOMEM

    first, flags, _ = hybrid.open(b"f", os.O_RDWR)
    second, later, _ = hybrid.open(b"f", os.O_RDWR)
    assert (flags, later) == (0, _KEEP)
    for number in (first, second):
        hybrid.release(number)


_OPENS = st.lists(
    st.tuples(
        st.sampled_from((b"a", b"b")),
        st.sampled_from((os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_SYNC)),
        st.sampled_from((0, 0, 0, errno.ENOMEM)),
        st.integers(0, 9),
    ),
    max_size=30,
)


@settings(max_examples=30)
@given(st.sampled_from(IoMode), _OPENS)
def test_at_any_time_there_is_one_id_for_each_file_that_is_passed_through(
    tmp_path_factory: pytest.TempPathFactory,
    mode: IoMode,
    opens: list[tuple[bytes, int, int, int]],
) -> None:
    mounted = Mounted(tmp_path_factory.mktemp("top"), mode)
    there: list[tuple[int, int, int]] = []
    for name, flags, error, which in opens:
        mounted.registry.error = error
        there.append(mounted.open(name, flags))
        if which < 5 and there:
            mounted.release(there.pop(which % len(there))[0])
        used = {backing for _, how, backing in there if how & _PASS}
        assert used == set(mounted.registry.ids)
        assert len(set(mounted.registry.ids.values())) == len(used)
    for number, _, _ in there:
        mounted.release(number)

    assert mounted.registry.ids == {}
    mounted.world.close()


# ---- what is agreed upon


def _agreed(mounted: Mounted, *, taken: Init = Init.PASSTHROUGH) -> Passthrough | None:
    return agreed(mounted.fs, mounted.registry, is_root=True, taken=taken)


def test_what_is_tried_at_the_start_leaves_nothing(hybrid: Mounted) -> None:
    assert _agreed(hybrid) is not None

    assert hybrid.registry.ids == {}
    assert hybrid.registry.made == 1


@pytest.mark.expect_logs(r"io=hybrid is served as io=strict: the kernel has no FUSE_PASSTHROUGH")
def test_an_older_kernel_is_said_to_be_the_reason(hybrid: Mounted) -> None:
    assert _agreed(hybrid, taken=Init(0)) is None


@pytest.mark.expect_logs(r"io=hybrid is served as io=strict: it takes CAP_SYS_ADMIN in the initial")
def test_a_right_that_is_missing_is_said_to_be_the_reason(hybrid: Mounted) -> None:
    hybrid.registry.error = errno.EPERM

    assert _agreed(hybrid) is None


def test_a_strict_mount_tries_nothing(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path, IoMode.STRICT)

    assert _agreed(mounted) is None
    assert mounted.registry.made == 0
    mounted.world.close()


@pytest.mark.root
def test_more_depth_is_asked_for_only_where_the_backing_directory_is_stacked_itself(
    tmp_path: Path,
) -> None:
    with overlay(tmp_path) as merged:
        depths = []
        for directory in (tmp_path, merged):
            fd = os.open(directory, os.O_RDONLY)
            depths.append(stack_depth(fd))
            os.close(fd)

    assert depths == [1, 2]
