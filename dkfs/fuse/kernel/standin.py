"""Stand-ins: threads that serve while the loop is stuck in a call on the backing directory.

A disk that is frozen, or a server of the backing file system that is gone, keeps whoever asks it for as long as it likes.
The loop makes small calls itself, and may be kept too.  A thread looks at it now and then; if it is in the same request as
before, stand-ins take requests from the device.  They serve those that only look at something, each in its own
thread until none of them is kept as well.  What changes something is done by one of them, or the loop, at a time, unless it is
about a device where somebody is kept who changes something himself: see changes.
Of a device other than the root's only a few look at a time, so that its callers do not keep all of them; see Lanes.

Meanwhile the table of inodes closes no fd: who is kept still has its number.
"""

import logging
import struct
import threading
from typing import Final, Protocol

from dkfs.fuse.kernel import system
from dkfs.fuse.kernel.changes import Changes
from dkfs.fuse.kernel.device import Device
from dkfs.fuse.kernel.dispatcher import Dispatcher
from dkfs.fuse.kernel.kinds import Kind, kind_of
from dkfs.fuse.kernel.lanes import Lanes
from dkfs.fuse.kernel.messages import READ_LEAST
from dkfs.fuse.kernel.negotiate import MAX_WRITE
from dkfs.fuse.kernel.request import Deferred, Held, Own, Task

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.05  # between looks at the loop: who waits so long may wait twice as long
_QUIET_LOOKS: Final = 20  # after so many without a request nobody looks until the next one
_MOST: Final = 64  # stand-ins at a time
_MOST_FOREIGN: Final = 8  # of them on a device that is not the root's; see decisions/0023
_NODE: Final = struct.Struct("<16xQ")


class Loop(Protocol):
    """What stand-ins need of the loop."""

    turn: int  # grows at the beginning and at the end of each request: odd within one
    at: Task  # the request that it is in, or was in last
    changes: Changes[Task]
    reading: threading.Lock  # of requests that change something, while others may read the device

    def defer(self, deferred: Deferred) -> None:
        """Have *deferred* finished and answered."""

    def leave(self, request: bytes) -> None:
        """Have *request* handled when the loop goes on."""

    def go_on(self) -> None:
        """Do what waits in changes, soon."""

    def relieved(self) -> None:
        """Hear that the last stand-in has gone."""


class StandIns:
    """Looks at the loop, and has others stand in for it."""

    def __init__(self, device: Device, dispatcher: Dispatcher, loop: Loop) -> None:
        self._device = device
        self._dispatcher = dispatcher
        self._loop = loop
        self._mutex = threading.Lock()
        self._serving: set[_StandIn] = set()
        self._lanes = Lanes[bytes](_MOST_FOREIGN)
        self._alarm = threading.Event()
        self._is_over = False
        self._is_short = False  # the system gives no more threads
        self.sleeps = False  # nobody looks: wake() is due when there are requests again
        self._thread = threading.Thread(target=self._watch, name="dkfs-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def wake(self) -> None:
        """Look again: there are requests."""
        self._alarm.set()

    def close(self) -> None:
        """Look no more."""
        self._is_over = True
        self._alarm.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _watch(self) -> None:
        seen, quiet = -1, 0
        while not self._is_over:
            self._wait(seen, sleeps=quiet > _QUIET_LOOKS)
            turn, at = self._loop.turn, self._loop.at
            quiet = quiet + 1 if turn == seen and not turn & 1 else 0
            free = self._free()
            if turn == seen and turn & 1 and not self._is_over:
                self._loop.changes.is_kept(self._loop, turn, at, is_loop=True)
                if not free:
                    self._stand_in(turn)
            seen = turn

    def _free(self) -> bool:
        """Return whether there is a stand-in who is not kept; who is, and changes something, has no turn any more."""
        with self._mutex:
            serving = tuple(self._serving)
        is_free = False
        for each in serving:
            turn = each.kept_in()
            if turn is None:
                is_free = True
            elif self._loop.changes.is_kept(each, turn, each.at, is_loop=False):
                self._loop.go_on()
        return is_free

    def _wait(self, seen: int, *, sleeps: bool) -> None:
        self.sleeps = sleeps
        # A request that began before the loop could see that nobody looks.
        if sleeps and self._loop.turn == seen:
            self._alarm.wait()
        else:
            self._alarm.wait(_LOOK_S)
        self.sleeps = False
        self._alarm.clear()

    def _stand_in(self, turn: int) -> None:
        """Have one more serve."""
        with self._mutex:
            if len(self._serving) >= _MOST or not self._loop.changes.is_shared:
                return
            is_first = not self._serving
            if is_first:
                self._dispatcher.keep_fds(keep=True)
            sibling = self._dispatcher.sibling()
            made = _StandIn(self._device, sibling, self._loop, self._lanes, turn)
            self._serving.add(made)
        thread = threading.Thread(target=self._run, args=(made,), name="dkfs-standin", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:  # the system gives no more threads; it is tried again
            if not self._is_short:
                log.warning("nobody stands in for who is kept: %s", exc)
            self._is_short = True
            self._leave(made)
            return
        self._is_short = False
        if is_first:
            log.info("the backing directory has not answered for %.2f s", _LOOK_S)

    def _run(self, standing: "_StandIn") -> None:
        try:
            standing.run()
        finally:
            self._leave(standing)

    def _leave(self, standing: "_StandIn") -> None:
        with self._mutex:
            self._serving.discard(standing)
            is_last = not self._serving
        if is_last:
            self._loop.relieved()

    def are_gone(self) -> bool:
        """Return whether nobody stands in; then fds may be closed again.  In the loop's thread."""
        with self._mutex:
            if self._serving or not self._loop.changes.end():
                return False
            self._dispatcher.keep_fds(keep=False)
            return True


class _StandIn:
    """Serves until the loop is in another request than *turn*."""

    def __init__(
        self, device: Device, dispatcher: Dispatcher, loop: Loop, lanes: Lanes[bytes], turn: int
    ) -> None:
        self._device = device
        self._dispatcher = dispatcher
        self._loop = loop
        self._lanes = lanes
        self._until = turn
        self.turn = 0  # as Loop's
        self.at: Task = b""
        self._seen = -1

    def kept_in(self) -> int | None:
        """Return the number of the request that it has been in since this was last asked; None if it is not kept."""
        turn, seen = self.turn, self._seen
        self._seen = turn
        return turn if turn == seen and turn & 1 else None

    def run(self) -> None:
        buffer = bytearray(MAX_WRITE + READ_LEAST)
        address = system.address(buffer)
        while self._loop.turn == self._until:
            self._change()
            if not self._device.wait(_LOOK_S):
                continue
            with (
                self._loop.reading
            ):  # those that change something wait in the order in which they came
                size = self._device.read(address, len(buffer))
                kind = kind_of(buffer, size) if size > 0 else None
                if kind is Kind.CHANGE:
                    self._loop.changes.submit(bytes(memoryview(buffer)[:size]))
            if size < 0:
                return
            if kind is Kind.LOOK:
                self._look(buffer, size)
            elif kind is Kind.LOOPS:
                self._loop.leave(bytes(memoryview(buffer)[:size]))
        self._change()

    def _change(self) -> None:
        """Do what waits to be changed, while it is nobody else's turn."""
        changes = self._loop.changes
        while (item := changes.next(self)) is not None:
            self._answer(item, 0)

    def _look(self, buffer: bytearray, size: int) -> None:
        device = self._dispatcher.foreign_device(_NODE.unpack_from(buffer)[0])
        if device is None:
            self._answer(buffer, size)
        elif self._lanes.enter(device, bytes(memoryview(buffer)[:size])):
            self._answer(buffer, size)
            # Also when the loop goes on: it would only be kept by what is left to it.
            while (request := self._lanes.leave(device)) is not None:
                self._answer(request, len(request))

    def _answer(self, work: Task, size: int) -> None:
        assert not isinstance(work, Own)
        self.at = work
        self.turn += 1
        try:
            if isinstance(work, Held):
                reply = self._dispatcher.handle_again(work)
            else:
                reply = self._dispatcher.handle(work, size or len(work))
            self.turn += 1
            if isinstance(reply, Deferred):
                self._loop.defer(reply)
            elif reply is not None:
                self._device.answer(reply)
        finally:
            self._loop.changes.done(self)
