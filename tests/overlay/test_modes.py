"""How each file is opened: rules, what the kernel grants, and what is open already."""

import errno
import os
from pathlib import Path

import pytest

from dkfs.core.io_mode import IoMode, IoRule, IoRules, OpenKind
from dkfs.core.patterns import Pattern
from dkfs.history.frozen import FrozenFile
from dkfs.overlay.inodes import Inode
from dkfs.overlay.modes import Modes
from tests.overlay.world import ME, World

_RULES = IoRules(
    IoMode.HYBRID,
    (IoRule(Pattern(b"*.db"), IoMode.STRICT), IoRule(Pattern(b"/big"), IoMode.CHECKPOINT)),
)


def _modes(world: World, rules: IoRules = _RULES) -> Modes:
    modes = Modes(world.fs.table, rules)
    modes.grant()
    return modes


def _inode(world: World, name: bytes) -> Inode:
    world.fs.files.release(world.create(name))
    return world.lookup(name)


def test_nothing_is_passed_through_before_the_kernel_grants_it(world: World) -> None:
    modes = Modes(world.fs.table, _RULES)

    assert modes.decide(_inode(world, b"a"), os.O_RDONLY) is OpenKind.CACHED
    assert modes.state.mode is IoMode.STRICT
    assert modes.wants_passthrough
    modes.grant()
    assert modes.decide(_inode(world, b"b"), os.O_RDONLY) is OpenKind.PASSTHROUGH
    assert str(modes.state.mode) == "hybrid"


def test_a_strict_mount_wants_nothing_and_says_nothing(world: World) -> None:
    modes = Modes(world.fs.table, IoRules())
    modes.refuse("no")
    modes.grant()

    assert not modes.wants_passthrough
    assert not modes.is_granted
    assert modes.state.why == ""


def test_a_rule_is_looked_up_by_the_name_at_the_open(world: World) -> None:
    modes = _modes(world)
    inode = _inode(world, b"a.db")
    assert modes.decide(inode, os.O_RDWR) is OpenKind.CACHED

    world.fs.names.rename(world.root, b"a.db", world.root, b"big", 0, ME)
    assert modes.decide(inode, os.O_RDWR) is OpenKind.PASSTHROUGH
    assert modes.decide(inode, os.O_RDWR | os.O_SYNC) is OpenKind.PASSTHROUGH_DIRECT


@pytest.mark.expect_logs(r"io=hybrid is served as io=strict: it takes more")
def test_a_refusal_is_said_once_and_is_for_good(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    modes = _modes(world)
    modes.refuse("it takes more")
    modes.refuse("it takes even more")

    assert [r.message for r in caplog.records if "io=" in r.message] == [
        "io=hybrid is served as io=strict: it takes more"
    ]
    assert modes.decide(_inode(world, b"a"), os.O_RDONLY) is OpenKind.CACHED
    assert modes.state.why == "it takes more"
    assert (modes.state.asked, modes.state.mode) == (IoMode.HYBRID, IoMode.STRICT)


@pytest.mark.expect_logs("is served as io=strict: too deep")
def test_a_device_that_is_refused_concerns_its_files_only(world: World) -> None:
    modes = _modes(world)
    inode = _inode(world, b"a")
    modes.refuse_device(inode, "too deep")

    assert modes.decide(inode, os.O_RDONLY) is OpenKind.CACHED
    assert modes.is_granted
    assert modes.state.why == "too deep"


def test_what_is_open_is_counted_until_it_is_released(world: World) -> None:
    modes = _modes(world)
    number = world.create(b"a")
    handle = world.fs.files.handles[number]
    modes.opened(handle, OpenKind.CACHED)
    assert modes.decide(handle.inode, os.O_RDONLY) is OpenKind.CACHED
    assert modes.state.opens == {"cached": 1}

    assert modes.released(handle)
    assert modes.decide(handle.inode, os.O_RDONLY) is OpenKind.PASSTHROUGH
    assert modes.state.opens == {}


def test_while_contents_wait_for_the_recorder_writes_pass_through_dkfs(world: World) -> None:
    modes = _modes(world)
    inode = _inode(world, b"big")
    read, write = os.pipe()
    frozen = FrozenFile(read, ((0, 1),), 1)
    inode.frozen = [frozen]
    assert modes.decide(inode, os.O_RDWR) is OpenKind.PASSTHROUGH_DIRECT
    assert modes.decide(inode, os.O_RDONLY) is OpenKind.PASSTHROUGH

    frozen.release()
    os.close(write)
    assert modes.decide(inode, os.O_RDWR) is OpenKind.PASSTHROUGH


def test_where_the_backing_file_cannot_be_opened_direct_it_is_not_passed_through(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refusing(path: bytes | Path, flags: int, *args: int, **named: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(path, flags, *args, **named)

    modes = _modes(world)
    number = world.create(b"a")
    handle = world.fs.files.handles[number]
    monkeypatch.setattr(os, "open", refusing)
    assert modes.decide(handle.inode, os.O_RDWR | os.O_DIRECT) is OpenKind.CACHED

    modes.opened(handle, OpenKind.PASSTHROUGH)
    with pytest.raises(OSError) as caught:  # what the file system itself says, and no EIO
        modes.decide(handle.inode, os.O_RDWR | os.O_DIRECT)
    assert caught.value.errno == errno.EINVAL
