"""The loop of the kernel engine, on one end of a socket pair that keeps messages apart as /dev/fuse does."""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from dkfs.fuse.kernel.device import Device
from dkfs.fuse.kernel.dispatcher import Dispatcher
from dkfs.fuse.kernel.server import Server, is_dying
from tests.fuse.kernel import wire
from tests.fuse.kernel.kernel_side import CountingMeter
from tests.fuse.kernel.wire import ROOT, Op
from tests.overlay.world import World

PATIENCE_S = 60.0
NODE = 8
FAILED = wire.OUT_HEADER.size  # bytes of a reply without a body


class Kernel:
    """The other end: sends requests and takes replies, in any order."""

    def __init__(self, end: socket.socket, world: World) -> None:
        self._end = end
        end.settimeout(PATIENCE_S)
        self.world = world
        self.meter = CountingMeter()
        self._next = 2
        self._replies: dict[int, tuple[int, bytes]] = {}
        self.in_loop: Callable[[Callable[[], object]], None] = lambda _: None
        self.server: Server

    def send_bytes(self, message: bytes) -> None:
        """Send what need not be a request."""
        self._end.send(message)

    def send(self, op: int, node: int = ROOT, body: bytes = b"", *, pid: int = 0) -> int:
        """Send a request; return its number."""
        unique, self._next = self._next, self._next + 2
        head = wire.IN_HEADER.pack(40 + len(body), op, unique, node, os.getuid(), 0, pid, 0, 0)
        self._end.send(head + body)
        return unique

    def reply(self, unique: int) -> tuple[int, bytes]:
        """Return errno and body of the reply to *unique*, which is waited for."""
        while unique not in self._replies:
            data = self._end.recv(1 << 20)
            length, error, number = wire.OUT_HEADER.unpack_from(data)
            assert length == len(data)
            assert number not in self._replies, "answered twice"
            self._replies[number] = (-error, data[FAILED:])
        return self._replies[unique]

    def is_answered(self, unique: int) -> bool:
        """Return whether there is a reply to *unique* by now."""
        while unique not in self._replies:
            self._end.settimeout(0.0)
            try:
                data = self._end.recv(1 << 20)
            except BlockingIOError:
                return False
            finally:
                self._end.settimeout(PATIENCE_S)
            _, error, number = wire.OUT_HEADER.unpack_from(data)
            self._replies[number] = (-error, data[FAILED:])
        return True

    def ask(self, op: int, node: int = ROOT, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request and return errno and body of its reply."""
        return self.reply(self.send(op, node, body))

    def create(self, name: bytes, parent: int = ROOT) -> tuple[int, int]:
        """Create a file; return its node and handle."""
        head = wire.CREATE.pack(os.O_RDWR | os.O_CREAT, 0o100644, 0, 0)
        code, body = self.ask(Op.CREATE, parent, head + wire.name(name))
        assert code == 0
        return wire.entry_of(body).nodeid, int(wire.OPEN_OUT.unpack_from(body, wire.ENTRY_SIZE)[0])


def write_body(handle: int, data: bytes, flags: int = os.O_RDWR) -> bytes:
    """Return the body of a WRITE at offset 0."""
    return wire.WRITE.pack(handle, 0, len(data), 0, 0, flags, 0) + data


@contextmanager
def served(top: Path) -> Iterator[Kernel]:
    """Serve an empty directory; at the end the loop must have gone on all the time."""
    world = World(top)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kernel = Kernel(ours, world)
    dispatcher = Dispatcher(world.fs, kernel.meter)
    server = Server(Device(theirs.fileno(), b"", is_ours=True), dispatcher)
    tokens: list[trio.lowlevel.TrioToken] = []

    kernel.server = server

    async def main() -> None:
        tokens.append(trio.lowlevel.current_trio_token())
        kernel.in_loop = tokens[0].run_sync_soon
        await server.serve()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert eventually(lambda: bool(tokens))
    try:
        with ours:
            yield kernel
            assert thread.is_alive()
            tokens[0].run_sync_soon(server.end)
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
    finally:
        server.close()
        theirs.close()
        world.close()


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    with served(tmp_path) as made:
        yield made
        assert made.meter.internal_errors == 0


def eventually(holds: Callable[[], bool], within_s: float = PATIENCE_S) -> bool:
    """Return whether *holds* within reason."""
    deadline_s = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.002)
    return True


def test_requests_that_came_together_are_each_answered_once(kernel: Kernel) -> None:
    numbers = [kernel.send(Op.LOOKUP, ROOT, wire.name(b"n%d" % i)) for i in range(200)]

    assert [kernel.reply(number)[0] for number in numbers] == [0] * 200


@pytest.mark.expect_logs("a request of 1 bytes", "a request of 39 bytes")
def test_what_is_no_request_does_not_end_the_loop(tmp_path: Path) -> None:
    with served(tmp_path) as kernel:
        for message in (b"\0", b"\0" * 39, b"\xff" * 40, b"\xfe" * 5000):
            kernel.send_bytes(message)

        assert kernel.ask(Op.STATFS)[0] == 0
        assert kernel.meter.internal_errors == 2  # too short to be answered


def test_an_fsync_that_waits_for_the_store_holds_nobody_else_up(kernel: Kernel) -> None:
    with (
        kernel.world.store.write()
    ):  # the recorder cannot commit, and of what it never did a sync is not promised sooner
        node, handle = kernel.create(b"file")
        other, _ = kernel.create(b"other")
        kernel.ask(Op.WRITE, node, write_body(handle, b"data"))
        waiting = [kernel.send(Op.FSYNC, node, wire.FSYNC.pack(handle, 0, 0)) for _ in range(20)]

        assert kernel.ask(Op.GETATTR, other, wire.GETATTR.pack(0, 0, 0))[0] == 0
        assert kernel.ask(Op.WRITE, node, write_body(handle, b"more"))[0] == 0
        assert not any(kernel.is_answered(number) for number in waiting)

    assert [kernel.reply(number) for number in waiting] == [(0, b"")] * 20


def test_a_write_with_o_dsync_is_answered_when_it_is_in_the_store(kernel: Kernel) -> None:
    with kernel.world.store.write():
        node, handle = kernel.create(b"file")
        number = kernel.send(Op.WRITE, node, write_body(handle, b"data", os.O_RDWR | os.O_DSYNC))
        kernel.ask(Op.STATFS)

        assert not kernel.is_answered(number)

    assert kernel.reply(number) == (0, wire.WRITE_OUT.pack(4, 0))
    assert kernel.world.recorder.committed == kernel.world.recorder.last


@contextmanager
def full(kernel: Kernel) -> Iterator[None]:
    """Have the recorder be behind for as long as the context lasts."""
    recorder = kernel.world.recorder
    most, recorder._most_operations = recorder._most_operations, -1
    try:
        yield
    finally:
        recorder._most_operations = most
        with recorder._condition:
            recorder._condition.notify_all()


def test_while_the_recorder_is_behind_only_who_changes_something_waits(kernel: Kernel) -> None:
    node, handle = kernel.create(b"file")
    before = kernel.world.fs.table[node].lookups
    with full(kernel):
        held = [
            kernel.send(Op.WRITE, node, write_body(handle, b"data")),
            kernel.send(Op.MKDIR, ROOT, wire.MKDIR.pack(0o755, 0) + wire.name(b"d")),
        ]

        assert kernel.ask(Op.READ, node, wire.READ.pack(handle, 0, 10, 0, 0, 0, 0)) == (0, b"")
        assert kernel.ask(Op.LOOKUP, ROOT, wire.name(b"file"))[0] == 0
        kernel.send(Op.FORGET, node, wire.FORGET.pack(1))
        assert kernel.ask(Op.STATFS)[0] == 0
        assert kernel.world.fs.table[node].lookups == before
        assert not any(kernel.is_answered(number) for number in held)

    assert kernel.reply(held[0]) == (0, wire.WRITE_OUT.pack(4, 0))
    assert kernel.reply(held[1])[0] == 0
    assert (kernel.world.state / "file").read_bytes() == b"data"
    assert (kernel.world.state / "d").is_dir()


@contextmanager
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that does nothing."""
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def test_the_wait_of_a_process_that_lives_on_is_not_given_up(kernel: Kernel) -> None:
    node, handle = kernel.create(b"file")
    with process() as asking, full(kernel):
        held = kernel.send(Op.WRITE, node, write_body(handle, b"data"), pid=asking.pid)
        kernel.send(Op.INTERRUPT, 0, wire.INTERRUPT.pack(held))
        kernel.ask(Op.STATFS)

        assert not kernel.is_answered(held)

    assert kernel.reply(held)[0] == 0


def test_the_wait_of_a_process_that_dies_is_given_up(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process that waits for FUSE and was killed: nothing else stays in that state for long enough.
    monkeypatch.setattr("dkfs.fuse.kernel.server.is_dying", lambda pid: pid == 4321)
    node, handle = kernel.create(b"file")
    with full(kernel):
        held = kernel.send(Op.WRITE, node, write_body(handle, b"data"), pid=4321)
        kernel.send(Op.INTERRUPT, 0, wire.INTERRUPT.pack(held))

        assert kernel.reply(held) == (errno.EINTR, b"")

    assert kernel.ask(Op.GETATTR, node, wire.GETATTR.pack(0, 0, 0))[0] == 0
    assert (kernel.world.state / "file").read_bytes() == b""


def test_an_interrupt_of_nothing_is_nothing(kernel: Kernel) -> None:
    kernel.send(Op.INTERRUPT, 0, wire.INTERRUPT.pack(987_654))

    assert kernel.ask(Op.STATFS)[0] == 0


def test_who_stopped_or_was_sent_another_signal_is_not_dying() -> None:
    with process() as other:
        other.send_signal(signal.SIGSTOP)
        assert eventually(lambda: "T (stopped)" in Path(f"/proc/{other.pid}/status").read_text())
        other.send_signal(signal.SIGUSR1)

        assert not is_dying(other.pid)
    assert not is_dying(other.pid)


@contextmanager
def stuck(monkeypatch: pytest.MonkeyPatch, data: bytes) -> Iterator[threading.Event]:
    """Have the backing directory keep whoever writes *data*, as a frozen disk does; yield what is set then."""
    write, kept, frozen = os.pwrite, threading.Event(), threading.Event()

    def pwrite(fd: int, what: bytes | memoryview, offset: int) -> int:
        if what == data:
            kept.set()
            frozen.wait(PATIENCE_S)
        return write(fd, what, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    try:
        yield kept
    finally:
        frozen.set()


def test_a_call_that_is_stuck_keeps_nobody_who_only_looks(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, handle = kernel.create(b"file")
    kernel.ask(Op.WRITE, node, write_body(handle, b"before"))
    with stuck(monkeypatch, b"stuck!") as kept:
        writing = kernel.send(Op.WRITE, node, write_body(handle, b"stuck!"))
        assert kept.wait(PATIENCE_S)

        for _ in range(3):
            assert kernel.ask(Op.GETATTR, node, wire.GETATTR.pack(0, 0, 0))[0] == 0
            assert kernel.ask(Op.LOOKUP, ROOT, wire.name(b"file"))[0] == 0
        code, body = kernel.ask(Op.OPEN, node, wire.OPEN.pack(os.O_RDONLY, 0))
        assert code == 0
        reading = int(wire.OPEN_OUT.unpack(body)[0])
        read = wire.READ.pack(reading, 0, 100, 0, 0, 0, 0)
        assert kernel.ask(Op.READ, node, read) == (0, b"before")
        making = kernel.send(Op.MKDIR, ROOT, wire.MKDIR.pack(0o755, 0) + wire.name(b"d"))
        kernel.send(Op.FORGET, node, wire.FORGET.pack(1))
        assert kernel.ask(Op.STATFS)[0] == 0
        assert not kernel.is_answered(writing)
        assert not kernel.is_answered(making)

    assert kernel.reply(writing) == (0, wire.WRITE_OUT.pack(6, 0))
    assert kernel.reply(making)[0] == 0
    assert kernel.world.fs.table[node].lookups == 4 - 1  # created, and looked up three times


def test_a_stand_in_that_is_stuck_too_has_a_stand_in(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, handle = kernel.create(b"file")
    stat, thawed = os.stat, threading.Event()

    def slow_stat(
        path: bytes, *, dir_fd: int | None = None, follow_symlinks: bool = True
    ) -> os.stat_result:
        if path in (b"slow0", b"slow1"):
            thawed.wait(PATIENCE_S)
        return stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    with stuck(monkeypatch, b"stuck!") as kept:
        writing = kernel.send(Op.WRITE, node, write_body(handle, b"stuck!"))
        assert kept.wait(PATIENCE_S)
        monkeypatch.setattr(os, "stat", slow_stat)
        slow = [kernel.send(Op.LOOKUP, ROOT, wire.name(b"slow%d" % i)) for i in range(2)]

        assert kernel.ask(Op.GETATTR, node, wire.GETATTR.pack(0, 0, 0))[0] == 0
        assert not any(kernel.is_answered(number) for number in slow)
    assert kernel.reply(writing)[0] == 0
    assert kernel.ask(Op.WRITE, node, write_body(handle, b"after"))[0] == 0
    assert not any(kernel.is_answered(number) for number in slow)
    thawed.set()

    assert [kernel.reply(number)[0] for number in slow] == [0, 0]


def test_a_read_of_what_is_in_memory_is_answered_by_the_loop_itself(tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir():
        pytest.skip("needs a tmpfs")
    for directory in (tmp_path, Path(tempfile.mkdtemp(dir=shared))):
        with served(directory) as kernel:
            node, handle = kernel.create(b"file")
            kernel.ask(Op.WRITE, node, write_body(handle, b"data"))
            answers = [
                kernel.ask(Op.READ, node, wire.READ.pack(handle, 0, 10, 0, 0, 0, 0))
                for _ in range(5)
            ]

            assert answers == [(0, b"data")] * 5
            threads = {thread.name for thread in threading.enumerate()}
            assert ("dkfs-worker" in threads) == (directory != tmp_path)  # for the first read only
    shutil.rmtree(directory)


def test_what_a_thread_says_after_the_end_reaches_no_other_file(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        device = Device(theirs.detach(), b"", is_ours=True)
        number = device.fd
        device.close()
        fd = os.open(tmp_path / "other", os.O_CREAT | os.O_RDWR)
        try:
            assert fd == number
            device.answer(b"\x10\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0")
            assert os.fstat(fd).st_size == 0
        finally:
            os.close(fd)
