"""Rollbacks and flushes asked for on the control socket, of which a part fails."""

import errno
from pathlib import Path

import pytest
import trio

from dkfs.config.settings import MountSettings
from dkfs.daemon.commands import Commands
from dkfs.daemon.control import Message
from dkfs.fuse import invalidate
from dkfs.fuse.engine import choose
from dkfs.fuse.kernel.connection import KernelEngine
from dkfs.fuse.kernel.notify import Notifier
from dkfs.overlay.rollback import Stale
from tests.overlay.past import Past
from tests.overlay.world import World

_STALE = Stale(((1, b"a"), (1, b"b")), (2, 3))


def test_a_capture_that_fails_by_a_bug_is_not_taken_for_a_look_of_the_next_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = Past(world)
    past.captures.unseen.no_clones.add(world.root.dev)
    opened = past.open(b"f")
    opened.write(0, b"x" * (3 << 20))
    opened.fsync()
    opened.write(0, b"later")
    settings = MountSettings(
        state_dir=world.state, mountpoint=world.state, store=Path(world.store.path)
    )

    async def stop(*, lazily: bool) -> None:
        raise AssertionError(lazily)

    commands = Commands(settings, world.fs, choose("auto"), stop=stop)

    request: Message = {"command": "flush"}

    async def say(_: Message) -> None:
        return

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as broken:
        broken.setattr(world.fs.journal, "changed", fail)
        with pytest.raises(RuntimeError):
            trio.run(commands.answer, request, say)

    assert past.captures.looked == 0
    opened.close()


def test_what_the_kernel_refuses_to_forget_keeps_it_from_hearing_of_nothing_else() -> None:
    said: list[bytes] = []

    def write(message: bytes) -> None:
        said.append(message)
        raise OSError(errno.EIO, "refused")

    engine = KernelEngine()
    engine._notifier = Notifier(write)
    engine._settling = {2, 3}
    with pytest.raises(OSError, match="refused"):
        engine.invalidate(_STALE, b"/")

    assert len(said) == 4
    assert engine._settling == set()


def test_the_same_by_libfuse(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []

    def refuse(*what: object) -> None:
        said.append(what)
        raise OSError(errno.EIO, "refused")

    monkeypatch.setattr("pyfuse3.invalidate_entry", refuse)
    monkeypatch.setattr("pyfuse3.invalidate_inode", refuse)
    with pytest.raises(OSError, match="refused"):
        invalidate.invalidate(_STALE, b"/")

    assert said == [(1, b"a"), (1, b"b"), (2,), (3,)]
