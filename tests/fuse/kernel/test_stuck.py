"""A call on the backing directory that is stuck blocks only its own callers."""

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dkfs.fuse.kernel.lanes import Lanes
from dkfs.fuse.kernel.request import Held
from tests.fuse.kernel import wire
from tests.fuse.kernel.test_server import PATIENCE_S, Kernel, eventually, served, write_body
from tests.fuse.kernel.wire import ROOT, Op


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    with served(tmp_path) as made:
        yield made
        assert made.meter.internal_errors == 0


@contextmanager
def stuck_captures(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Have the backing directory keep whoever reads a file; yield what is set then."""
    pread, kept, frozen = os.pread, threading.Event(), threading.Event()

    def slow_pread(fd: int, size: int, offset: int) -> bytes:
        kept.set()
        frozen.wait(PATIENCE_S)
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", slow_pread)
    try:
        yield kept
    finally:
        frozen.set()


def test_a_tick_that_is_stuck_keeps_nobody_who_only_looks(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, handle = kernel.create(b"file")
    kernel.ask(Op.WRITE, node, write_body(handle, b"dirty"))

    def tick() -> None:
        with kernel.server.at_work():
            kernel.world.fs.tick(0.0)

    with stuck_captures(monkeypatch) as kept:
        kernel.in_loop(tick)
        assert kept.wait(PATIENCE_S)

        assert kernel.ask(Op.GETATTR, node, wire.GETATTR.pack(0, 0, 0))[0] == 0
        assert kernel.ask(Op.LOOKUP, ROOT, wire.name(b"file"))[0] == 0

    assert kernel.ask(Op.WRITE, node, write_body(handle, b"after"))[0] == 0
    assert kernel.world.read(b"file") == b"dirty"


def _make_directory(kernel: Kernel, name: bytes) -> int:
    """Return the node of a new directory."""
    code, body = kernel.ask(Op.MKDIR, ROOT, wire.MKDIR.pack(0o755, 0) + wire.name(name))
    assert code == 0
    return wire.entry_of(body).nodeid


_CALLERS = 70  # more than there are stand-ins


@contextmanager
def a_device_that_hangs(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, *, is_foreign: bool = True
) -> Iterator[tuple[int, list[bytes]]]:
    """Have what is in a directory keep whoever asks, as of another device or not; yield its node and who asked."""
    node = _make_directory(kernel, b"foreign")
    stat, frozen, asked = os.stat, threading.Event(), list[bytes]()

    def slow_stat(
        path: bytes | Path, *, dir_fd: int | None = None, follow_symlinks: bool = True
    ) -> os.stat_result:
        if isinstance(path, bytes) and path.startswith(b"far"):
            asked.append(path)
            frozen.wait(PATIENCE_S)
        return stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    inode = kernel.world.fs.table[node]
    fd = kernel.world.fs.table.fd(inode)
    assert fd >= 0  # open: it is not opened again, and compared with its device
    inode.dev += is_foreign
    monkeypatch.setattr(os, "stat", slow_stat)
    try:
        yield node, asked
    finally:
        frozen.set()
        inode.dev -= is_foreign


def test_callers_of_a_device_that_hangs_do_not_keep_all_stand_ins(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, handle = kernel.create(b"file")
    with a_device_that_hangs(kernel, monkeypatch) as (node, asked):
        far = [kernel.send(Op.LOOKUP, node, wire.name(b"far%d" % each)) for each in range(_CALLERS)]

        assert kernel.ask(Op.GETATTR, file, wire.GETATTR.pack(0, 0, 0))[0] == 0
        assert not any(kernel.is_answered(number) for number in far)
        assert len(asked) == 1 + 8  # the loop, and as many as may stand in
        writing = kernel.send(Op.WRITE, file, write_body(handle, b"data"))
        assert kernel.ask(Op.LOOKUP, ROOT, wire.name(b"file"))[0] == 0

    assert [kernel.reply(number)[0] for number in far] == [0] * _CALLERS
    assert sorted(asked) == sorted(b"far%d" % each for each in range(_CALLERS))
    assert kernel.reply(writing)[0] == 0
    assert (kernel.world.state / "file").read_bytes() == b"data"


def test_callers_of_the_device_of_the_root_are_not_held_back(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_device_that_hangs(kernel, monkeypatch, is_foreign=False) as (node, asked):
        far = [kernel.send(Op.LOOKUP, node, wire.name(b"far%d" % each)) for each in range(20)]

        assert kernel.ask(Op.GETATTR, ROOT, wire.GETATTR.pack(0, 0, 0))[0] == 0
        deadline_s = time.monotonic() + PATIENCE_S / 2  # before those who are kept are let go
        while len(asked) < len(far):
            assert time.monotonic() < deadline_s, (
                f"only {len(asked)} of {len(far)} were let through"
            )
            time.sleep(0.01)

    assert [kernel.reply(number)[0] for number in far] == [0] * len(far)


def test_syncs_of_a_device_that_hangs_do_not_keep_all_threads(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    (far, far_handle), (near, near_handle) = kernel.create(b"far"), kernel.create(b"near")
    inode = kernel.world.fs.table[far]
    far_fd = kernel.world.fs.files.handles[far_handle].fd
    kernel.ask(Op.FSYNC, near, wire.FSYNC.pack(near_handle, 0, 0))
    fsync, frozen, kept = os.fsync, threading.Event(), list[int]()

    def slow_fsync(fd: int) -> None:
        if fd == far_fd:
            kept.append(fd)
            frozen.wait(PATIENCE_S)
        fsync(fd)

    inode.dev += 1
    monkeypatch.setattr(os, "fsync", slow_fsync)
    monkeypatch.setattr(kernel.world.recorder, "sync", lambda fd, sync, *_: sync(fd))
    asked = [kernel.send(Op.FSYNC, far, wire.FSYNC.pack(far_handle, 0, 0)) for _ in range(140)]

    assert kernel.ask(Op.FSYNC, near, wire.FSYNC.pack(near_handle, 0, 0))[0] == 0
    assert eventually(lambda: len(kept) == 32)
    frozen.set()
    assert [kernel.reply(number)[0] for number in asked] == [0] * len(asked)
    inode.dev -= 1


def test_who_changes_things_on_one_device_do_so_one_after_another_in_their_order(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is kept, and whoever is back."""
    places = [_make_directory(kernel, b"place%d" % each) for each in range(3)]
    files = [kernel.create(b"file%d" % each, places[each % 3]) for each in range(9)]
    table = kernel.world.fs.table
    device_of: dict[int, int] = {}
    for number, place in enumerate(places):
        table[place].dev += number
    for number, (node, handle) in enumerate(files):
        table[node].dev += number % 3
        device_of[kernel.world.fs.files.handles[handle].fd] = number % 3
    pwrite, rng, inside = os.pwrite, random.Random(7), [0, 0, 0]
    done: list[list[bytes]] = [[], [], []]
    most = [0, 0]  # at once: on one device, on all

    def slow_pwrite(fd: int, data: memoryview, offset: int) -> int:
        device = device_of.get(fd)
        if device is None:  # the store's
            return pwrite(fd, data, offset)
        inside[device] += 1
        most[:] = max(most[0], *inside), max(most[1], sum(inside))
        done[device].append(bytes(data))
        time.sleep(rng.choice((0.0, 0.0, 0.0, 0.01, 0.2)))
        inside[device] -= 1
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", slow_pwrite)
    sent: list[list[bytes]] = [[], [], []]
    numbers = []
    for each in range(150):
        which = rng.randrange(len(files))
        node, handle = files[which]
        sent[which % 3].append(b"%03d" % each)
        numbers.append(kernel.send(Op.WRITE, node, write_body(handle, b"%03d" % each)))
        time.sleep(0.005)

    assert [kernel.reply(number)[0] for number in numbers] == [0] * len(numbers)
    assert done == sent
    assert most[0] == 1
    assert most[1] > 1
    kernel.in_loop(kernel.server.changes.end)
    assert eventually(lambda: not kernel.server.changes.is_shared)
    for number, node in enumerate((*places, *(node for node, _ in files))):
        table[node].dev -= number % 3


def test_a_lane_is_free_again_when_all_have_left() -> None:
    lanes, served = Lanes[bytes](8), 0
    request = b"request"
    for _ in range(3):
        entered = 0
        while lanes.enter(7, request):  # the last one waits
            entered += 1
        assert entered == 8
        assert lanes.enter(8, request)  # another device's is its own
        assert lanes.leave(8) is None
        for _ in range(entered):
            while lanes.leave(7) is not None:
                served += 1

    assert served == 3


@pytest.mark.parametrize("way", ["left", "again"])
def test_who_was_asleep_when_the_loop_was_kept_in_what_had_waited_looks_again(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """What comes back from a thread is no request that is read."""
    with a_device_that_hangs(kernel, monkeypatch) as (node, asked):
        assert eventually(lambda: kernel.server._stand_ins.sleeps)
        body = wire.name(b"far")
        request = wire.IN_HEADER.pack(40 + len(body), Op.LOOKUP, 1000, node, 0, 0, 0, 0, 0) + body
        if way == "left":
            kernel.server.leave(request)
        else:
            held = Held(1000, request, lambda: None, lambda _: b"", pid=0, is_first=True)
            kernel.in_loop(lambda: kernel.server.defer(held))
        assert eventually(lambda: bool(asked))

        assert kernel.ask(Op.GETATTR, ROOT, wire.GETATTR.pack(0, 0, 0))[0] == 0
        assert not kernel.is_answered(1000)

    assert kernel.reply(1000)[0] == 0


def test_what_is_removed_while_somebody_is_kept_gives_its_fd_and_its_room_back(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in range(20):
        (kernel.world.state / f"file{each}").write_bytes(b"data")
    with a_device_that_hangs(kernel, monkeypatch) as (node, asked):
        kept = kernel.send(Op.LOOKUP, node, wire.name(b"far"))
        assert eventually(lambda: bool(asked))
        before = len(os.listdir("/proc/self/fd"))
        for each in range(20):
            name = wire.name(b"file%d" % each)
            number = wire.entry_of(kernel.ask(Op.LOOKUP, ROOT, name)[1]).nodeid
            assert kernel.ask(Op.UNLINK, ROOT, name)[0] == 0
            kernel.send(Op.FORGET, number, (1).to_bytes(8, "little"))

        def is_given_back() -> bool:  # some fds are the stand-ins' and the store's
            fds = len(os.listdir("/proc/self/fd"))
            return fds < before + 10 and len(kernel.world.fs.table) < 10

        assert eventually(is_given_back, PATIENCE_S / 3)  # before who is kept is let go

    assert kernel.reply(kept)[0] == 0


def test_who_holds_the_turn_for_a_command_keeps_it_until_all_of_it_is_done(kernel: Kernel) -> None:
    server = kernel.server
    seen: list[object] = []

    def command() -> None:
        server.changes.is_shared = True
        seen.append(server.hold())
        with server.at_work():
            pass
        server.changes.submit(b"")
        seen.append(server.changes._whose is server)
        server.changes._waiting.clear()
        server.let_go()
        seen.append(server.changes._whose is None)
        seen.append(server.changes.end())

    kernel.in_loop(command)

    assert eventually(lambda: len(seen) == 4)
    assert seen == [True] * 4


@pytest.mark.expect_logs("what it changes is waited for")
def test_the_end_waits_for_who_is_still_kept_in_a_change(kernel: Kernel) -> None:
    """Else its fds would be closed under it, and the store marked clean."""
    changes, kept = kernel.server.changes, _Kept()
    changes.is_shared = True
    changes._claims[kept] = frozenset((7,))

    ending = threading.Thread(target=kernel.server.close)
    ending.start()
    ending.join(0.5)
    was_waiting = ending.is_alive()
    changes.done(kept)
    ending.join(PATIENCE_S)
    changes.done(kernel.server)

    assert was_waiting
    assert not ending.is_alive()


class _Kept:
    """Who changes something."""

    turn = 1


def test_a_tick_passes_over_a_file_whose_directory_s_device_is_another_s(kernel: Kernel) -> None:
    """Over overlayfs a file may be on another device than its directory; a rename there captures it, too."""
    node, _ = kernel.create(b"file")
    inode = kernel.world.fs.table[node]
    device, changes, kept = inode.dev, kernel.server.changes, _Kept()
    allowed: list[bool] = []

    def tick() -> None:
        changes.is_shared = True
        for claim in (frozenset((device,)), frozenset((device + 1,)), frozenset((device + 2,))):
            changes._claims[kept] = claim
            with kernel.server.in_steps() as may:
                allowed.append(may(inode))
        changes.done(kept)
        allowed.append(changes.end())

    inode.dev += 1
    kernel.in_loop(tick)

    assert eventually(lambda: len(allowed) == 4)
    assert allowed == [False, False, True, True]
    inode.dev -= 1
