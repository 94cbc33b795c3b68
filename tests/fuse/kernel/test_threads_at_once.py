"""Several threads in the overlay at once: stand-ins that look at things, and the loop that comes back.

As the kernel does it: nobody looks a name up in a directory in which names are being changed, and nobody uses a number
after its references were given up.
"""

import os
import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dkfs.fuse.kernel.dispatcher import Dispatcher
from dkfs.fuse.kernel.request import Deferred
from dkfs.model.ids import Seq
from dkfs.overlay.inodes import Inode
from tests.fuse.kernel import wire
from tests.fuse.kernel.kernel_side import KernelSide, kernel_side, reply_of
from tests.fuse.kernel.wire import ROOT, Op

DIRECTORIES, FILES = 4, 8
LOOKERS = 4
ROUNDS = 150


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let threads take turns as often as possible, above all where an inode becomes known."""

    def made(number: int, status: os.stat_result, device: int, generation: int = 0) -> Inode:
        time.sleep(0)
        return Inode(number, status, device, generation)

    monkeypatch.setattr("dkfs.overlay.inodes.Inode", made)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def hesitating(committed: Callable[[], Seq]) -> Callable[[], Seq]:
    """Return *committed*, and a moment before: it is asked before an inode is dropped."""

    def asked() -> Seq:
        time.sleep(0)
        return committed()

    return asked


class Looker(threading.Thread):
    """Looks at files, and hands on what the kernel would have to give back."""

    def __init__(self, kernel: KernelSide, directories: list[int], seed: int) -> None:
        super().__init__(name=f"looker {seed}")
        self._dispatcher: Dispatcher = kernel.dispatcher.sibling()
        self._uid, self._gid = kernel.uid, kernel.gid
        self._directories = directories
        self._random = random.Random(seed)
        self.forgotten: deque[tuple[int, int]] = deque()  # a number, references
        self.open: deque[tuple[int, int]] = deque()  # a number, a handle
        self.failure: BaseException | None = None

    def ask(self, op: int, node: int, body: bytes) -> bytes:
        request = wire.request(op, node, body, uid=self._uid, gid=self._gid, pid=os.getpid())
        answer = self._dispatcher.handle(bytearray(request), len(request))
        if isinstance(answer, Deferred):
            answer = answer.finish()
        assert answer is not None
        reply = reply_of(bytes(answer))
        assert reply.error == 0, (op, os.strerror(reply.error))
        return reply.body

    def run(self) -> None:
        try:
            for _ in range(ROUNDS):
                self._look()
        except BaseException as exc:  # noqa: BLE001 - told to the test
            self.failure = exc

    def _look(self) -> None:
        directory = self._random.choice(self._directories)
        name = b"%d" % self._random.randrange(FILES)
        node = wire.entry_of(self.ask(Op.LOOKUP, directory, wire.name(name))).nodeid
        attr = wire.attr_of(self.ask(Op.GETATTR, node, wire.GETATTR.pack(0, 0, 0)))
        assert attr.ino == node
        fh = wire.OPEN_OUT.unpack(self.ask(Op.OPEN, node, wire.OPEN.pack(os.O_RDONLY, 0)))[0]
        data = self.ask(Op.READ, node, wire.READ.pack(fh, 0, 100, 0, 0, 0, 0))
        assert data.endswith(b"/" + name)
        self.open.append((node, fh))
        opened = wire.OPEN_OUT.unpack(self.ask(Op.OPENDIR, directory, wire.OPEN.pack(0, 0)))[0]
        body = self.ask(Op.READDIRPLUS, directory, wire.READ.pack(opened, 0, 4096, 0, 0, 0, 0))
        for each in wire.dirents_of(body, plus=True):
            assert each.entry is not None
            if each.entry.nodeid:
                self.forgotten.append((each.entry.nodeid, 1))
        assert self.ask(Op.LISTXATTR, node, wire.GETXATTR.pack(0, 0))
        self.forgotten.append((node, 1))


class Loop:
    """What only the loop does."""

    def __init__(self, kernel: KernelSide, lookers: list[Looker]) -> None:
        self._kernel = kernel
        self._lookers = lookers
        self._moved = Counter[int]()

    def turn(self, number: int) -> None:
        """Give back what was handed on, and move a directory."""
        for looker in self._lookers:
            while looker.open:
                node, fh = looker.open.popleft()
                body = wire.RELEASE.pack(fh, 0, 0, 0)
                assert self._kernel.ask(Op.RELEASE, node, body).error == 0
            while looker.forgotten:
                node, count = looker.forgotten.popleft()
                self._kernel.tell(Op.FORGET, node, wire.FORGET.pack(count))
        index = number % DIRECTORIES
        old, new = (b"%d-%d" % (index, self._moved[index] + step) for step in (0, 1))
        self._moved[index] += 1
        body = wire.RENAME.pack(ROOT) + wire.name(old) + wire.name(new)
        self._kernel.done(Op.RENAME, ROOT, body)
        own = self._kernel.file(b"own", b"x").nodeid
        self._kernel.done(Op.UNLINK, ROOT, wire.name(b"own"))
        self._kernel.tell(Op.FORGET, own, wire.FORGET.pack(1))


def prepared(kernel: KernelSide) -> list[int]:
    """Make the files; return the numbers of their directories."""
    found = []
    for index in range(DIRECTORIES):
        top = kernel.top / f"{index}-0"
        top.mkdir()
        for number in range(FILES):
            (top / str(number)).write_text(f"{index}/{number}")
        found.append(kernel.lookup(os.fsencode(top.name)).nodeid)
    return found


@pytest.mark.usefixtures("hurried")
def test_every_reference_and_every_fd_is_counted(tmp_path: Path) -> None:
    with kernel_side(tmp_path) as kernel:
        kernel.init()
        table = kernel.driver.fs.table
        table._most = 3
        table._committed = hesitating(table._committed)
        directories = prepared(kernel)
        kernel.dispatcher.keep_fds(keep=True)
        lookers = [Looker(kernel, directories, seed) for seed in range(LOOKERS)]
        loop = Loop(kernel, lookers)
        for looker in lookers:
            looker.start()
        number = 0
        while any(looker.is_alive() for looker in lookers):
            loop.turn(number)
            number += 1
        for looker in lookers:
            looker.join()
        assert [looker.failure for looker in lookers] == [None] * LOOKERS
        loop.turn(number)
        kernel.dispatcher.keep_fds(keep=False)

        assert kernel.driver.recorder.flush()
        kernel.driver.fs.tick(0.0)
        assert {inode.id: inode.lookups for inode in table.known() if inode is not table.root} == (
            dict.fromkeys(directories, 1)
        )
        assert table.files == 0
        assert [inode.children for inode in table.known() if inode is not table.root] == (
            [0] * DIRECTORIES
        )
        held = {inode.fd for inode in table.known()} - {-1, table.root.fd}
        assert len(held) == len(table._open) <= 3
        paths = [
            os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if open_(fd)
        ]
        ours = [path for path in paths if path.startswith(os.fspath(kernel.top) + "/")]
        assert len(ours) == len(held)


def open_(fd: str) -> bool:
    """Return whether *fd* is open: the one by which the list was read is not."""
    return os.path.lexists(f"/proc/self/fd/{fd}")
