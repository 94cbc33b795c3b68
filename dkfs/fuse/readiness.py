"""How pyfuse3's workers wait for requests: take the next one at once if it is there.

pyfuse3 takes a trio.Lock and waits in epoll before every request, about 20 us of 40 (docs/decisions/
0003).  It looks both up in its module attribute `trio`, the seam through which pyfuse3.asyncio
replaces them; this puts cheaper ones there: an uncontended lock that costs nothing, and one poll(2)
before the wait.  While requests come in, that poll blocks for up to _LINGER_MS, unless another
request waits for a thread; after _BURST requests in a row other tasks get their turn.
"""

import contextlib
import select
import types
from collections.abc import Iterator
from typing import Any

import pyfuse3
import trio

from dkfs.fuse.handshake import NOT_WANTED, Handshake

_BURST = 64  # requests
_LINGER_MS = 1


class _Lock:
    """A lock that is taken without a pass through the scheduler when it is free.

    A release alone wakes nobody, because mostly the same worker comes straight back.  Whoever takes
    a request and then waits for something else must do so within busy().
    """

    def __init__(self) -> None:
        self._held = False
        self.waiting = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        while self._held:
            await self.waiting.park()
        self._held = True

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._held = False
        if kind is not None:
            self.waiting.unpark_all()


class _Readiness:
    """Waits until the FUSE fd is readable."""

    def __init__(self) -> None:
        self.lock = _Lock()
        self.turn = 0  # odd from one return of wait_readable() to the next call: within a request
        self.slow = 0  # requests that wait for a thread
        self._poll = select.poll()
        self._fd = -1
        self._burst = 0
        self.handshake: Handshake | None = None  # to be done before anything else
        self.unwanted = NOT_WANTED  # of what the kernel offers, if libfuse has mounted

    async def wait_readable(self, fd: int) -> None:
        """Return when *fd* is readable."""
        self.turn += self.turn & 1
        try:
            await self._wait_readable(fd)
        finally:
            self.turn += 1

    async def _wait_readable(self, fd: int) -> None:
        if fd != self._fd:
            self._poll = select.poll()
            self._poll.register(fd, select.POLLIN)
            self._fd = fd
            if self.handshake is None:
                self.handshake = Handshake.between(fd, unwanted=self.unwanted)
        if self.handshake is not None:
            self.handshake.step()
            if not self.handshake.is_done:
                return
            self.handshake = None
        if self._burst < _BURST:
            self._burst += 1
            if self._ready(0 if self.slow else _LINGER_MS):
                return
        self._burst = 0
        await trio.lowlevel.wait_readable(fd)
        self._ready(0)

    def _ready(self, timeout_ms: int) -> bool:
        events = self._poll.poll(timeout_ms)
        if events and events[0][1] & ~select.POLLIN:
            self.lock.waiting.unpark_all()  # unmounted: the others are to see it and end
        return bool(events)


_readiness = _Readiness()


def turn() -> int:
    """Return a number that grows at the beginning and at the end of each request: odd within one."""
    return _readiness.turn


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Let another worker take requests, because this one waits for something else meanwhile."""
    _readiness.slow += 1
    _readiness.lock.waiting.unpark()
    try:
        yield
    finally:
        _readiness.slow -= 1


def install(handshake: Handshake | None, *, unwanted: int) -> None:
    """Make pyfuse3 wait our way, and do *handshake* first; to be called before pyfuse3.main().

    Without one libfuse has mounted, and the handshake is made on its fd, not taking *unwanted*.
    """
    _readiness.handshake = handshake
    _readiness.unwanted = unwanted
    lowlevel = types.SimpleNamespace(
        wait_readable=_readiness.wait_readable,
        current_task=trio.lowlevel.current_task,
        current_trio_token=trio.lowlevel.current_trio_token,
        notify_closing=trio.lowlevel.notify_closing,
    )
    seam: Any = types.SimpleNamespace(  # stands for the module `trio`, as pyfuse3.asyncio does
        lowlevel=lowlevel,
        Lock=lambda: _readiness.lock,
        open_nursery=trio.open_nursery,
        ClosedResourceError=trio.ClosedResourceError,
        from_thread=trio.from_thread,
    )
    pyfuse3.trio = seam  # type: ignore[attr-defined]  # not declared, see the module
