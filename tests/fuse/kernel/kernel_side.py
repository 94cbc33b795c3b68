"""The kernel's side of a dispatcher, without a device: sends bytes, looks at every byte that comes back."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from dkfs.fuse.kernel.dispatcher import Dispatcher
from dkfs.fuse.kernel.request import Deferred, Held
from tests.fuse.kernel import wire
from tests.fuse.kernel.wire import ROOT, UNIQUE, Attr, Dirent, Entry, Op
from tests.overlay.driver import Driver, driven

DAY_S = 86_400  # how long names and attributes may be believed
# What a kernel of 7.45 offers: every flag.
FLAGS = 0x7FFF_FFFF
FLAGS2 = 0x7FF
READ_MOST = 1 << 20  # bytes of a message, more than any test needs


class CountingMeter:
    """A meter that remembers."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.internal_errors = 0

    def observe_request(self, operation: str, seconds: float) -> None:
        """See Meter."""
        assert seconds >= 0
        self.seen.append(operation)

    def count_internal_error(self) -> None:
        """See Meter."""
        self.internal_errors += 1


class Reply(NamedTuple):
    """What came back."""

    error: int  # an errno, positive; 0 is success
    body: bytes


class KernelSide:
    """Asks a dispatcher as the kernel would."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.top = driver.top
        self.meter = CountingMeter()
        self.dispatcher = Dispatcher(driver.fs, self.meter)
        self._buffer = bytearray(b"\xa5" * (READ_MOST + 8192))
        self.uid = os.geteuid()
        self.gid = os.getegid()

    def raw(self, request: bytes) -> bytes | None:
        """Return the bytes of the reply to *request*; None if there is none."""
        # As the device does it: into a buffer in which older ones are left.
        self._buffer[: len(request)] = request
        answer = self.dispatcher.handle(self._buffer, len(request))
        while isinstance(answer, Held):
            answer.wait()
            answer = self.dispatcher.handle(answer.request)
        if isinstance(answer, Deferred):
            answer = answer.finish()
        return None if answer is None else bytes(answer)

    def ask(self, op: int, node: int = ROOT, body: bytes = b"", *, uid: int | None = None) -> Reply:
        """Return the reply to a request, whose header must be right."""
        asked_by = self.uid if uid is None else uid
        gid = self.gid if uid is None else uid
        answer = self.raw(wire.request(op, node, body, uid=asked_by, gid=gid, pid=os.getpid()))
        assert answer is not None, "no reply"
        return reply_of(answer)

    def done(
        self, op: int, node: int = ROOT, body: bytes = b"", *, uid: int | None = None
    ) -> bytes:
        """Return the body of the reply to a request that must succeed."""
        reply = self.ask(op, node, body, uid=uid)
        assert reply.error == 0, os.strerror(reply.error)
        return reply.body

    def tell(self, op: int, node: int, body: bytes) -> None:
        """Send what has no reply."""
        assert self.raw(wire.request(op, node, body)) is None

    # What many tests begin with

    def init(self, *, minor: int = 45, flags: int = FLAGS, flags2: int = FLAGS2) -> tuple[int, ...]:
        """Return the fields of the answer to INIT."""
        body = wire.INIT.pack(7, minor, 1 << 20, flags, flags2, *[0] * 11)
        return wire.INIT_OUT.unpack(self.done(Op.INIT, 0, body))

    def lookup(self, name: bytes, parent: int = ROOT) -> Entry:
        """Look *name* up, which must be there."""
        body = self.done(Op.LOOKUP, parent, wire.name(name))
        assert len(body) == wire.ENTRY_SIZE
        return wire.entry_of(body)

    def attr(self, node: int) -> Attr:
        """Return the attributes of *node*."""
        return wire.attr_of(self.done(Op.GETATTR, node, wire.GETATTR.pack(0, 0, 0)))

    def create(
        self, name: bytes, data: bytes = b"", *, flags: int = os.O_RDWR
    ) -> tuple[Entry, int]:
        """Create a file in the root, with *data* in it, and leave it open; return its entry and handle."""
        head = wire.CREATE.pack(flags | os.O_CREAT, 0o100644, 0o022, 0)
        body = self.done(Op.CREATE, ROOT, head + wire.name(name))
        assert len(body) == wire.ENTRY_SIZE + wire.OPEN_OUT.size
        entry = wire.entry_of(body)
        fh = int(wire.OPEN_OUT.unpack_from(body, wire.ENTRY_SIZE)[0])
        if data:
            assert self.write(entry.nodeid, fh, 0, data) == len(data)
        return entry, fh

    def mkdir(self, name: bytes, parent: int = ROOT) -> Entry:
        """Make a directory."""
        return wire.entry_of(
            self.done(Op.MKDIR, parent, wire.MKDIR.pack(0o755, 0o022) + wire.name(name))
        )

    def open(self, node: int, flags: int = os.O_RDONLY) -> int:
        """Open a file; return its handle."""
        return int(wire.OPEN_OUT.unpack(self.done(Op.OPEN, node, wire.OPEN.pack(flags, 0)))[0])

    def read(self, node: int, fh: int, offset: int, size: int) -> bytes:
        """Return what a READ was answered with."""
        return self.done(Op.READ, node, wire.READ.pack(fh, offset, size, 0, 0, 0, 0))

    def write(self, node: int, fh: int, offset: int, data: bytes, *, write_flags: int = 0) -> int:
        """Return how much was written."""
        head = wire.WRITE.pack(fh, offset, len(data), write_flags, 0, os.O_RDWR, 0)
        size, padding = wire.WRITE_OUT.unpack(self.done(Op.WRITE, node, head + data))
        assert padding == 0
        return int(size)

    def release(self, node: int, fh: int) -> None:
        """Close a file."""
        assert self.done(Op.FLUSH, node, wire.FLUSH.pack(fh, 0, 0, 0)) == b""
        assert self.done(Op.RELEASE, node, wire.RELEASE.pack(fh, 0, 0, 0)) == b""

    def file(self, name: bytes, data: bytes = b"") -> Entry:
        """Make a file and close it."""
        entry, fh = self.create(name, data)
        self.release(entry.nodeid, fh)
        return entry

    def opendir(self, node: int = ROOT) -> int:
        """Open a directory; return its handle."""
        return int(
            wire.OPEN_OUT.unpack(self.done(Op.OPENDIR, node, wire.OPEN.pack(os.O_RDONLY, 0)))[0]
        )

    def readdir(
        self, node: int, fh: int, offset: int = 0, size: int = 4096, *, plus: bool = False
    ) -> list[Dirent]:
        """Return one buffer of a directory."""
        op = Op.READDIRPLUS if plus else Op.READDIR
        body = self.done(op, node, wire.READ.pack(fh, offset, size, 0, 0, 0, 0))
        assert len(body) <= size
        return wire.dirents_of(body, plus=plus)

    def lookups(self, node: int) -> int:
        """Return how many references of the kernel the overlay counts; 0 if it does not know *node*."""
        try:
            return self.driver.fs.table[node].lookups
        except OSError:
            return 0


def reply_of(answer: bytes) -> Reply:
    """Return what *answer* says; its header must be right."""
    length, error, unique = wire.OUT_HEADER.unpack_from(answer)
    assert length == len(answer)
    assert unique == UNIQUE
    assert error <= 0
    body = answer[wire.OUT_HEADER.size :]
    assert not (error and body), "a refusal has no body"
    return Reply(-error, body)


@contextmanager
def kernel_side(base: Path) -> Iterator[KernelSide]:
    """Make an overlay below *base* and a kernel that asks it; at the end nothing may have gone wrong inside."""
    with driven(base) as driver:
        side = KernelSide(driver)
        yield side
        assert side.meter.internal_errors == 0
