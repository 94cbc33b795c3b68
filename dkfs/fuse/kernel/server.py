"""The loop: takes requests from the device until there are none, and waits for more in trio.

What is cheap is answered at once, in the loop's thread.  What is not is done by a thread that writes
the reply itself; one slow request never holds up the others.
"""

import contextlib
import errno
import logging
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio

from dkfs.errors import MountError
from dkfs.fuse.kernel import system
from dkfs.fuse.kernel.alertness import CALM_S, Alertness
from dkfs.fuse.kernel.changes import Changes
from dkfs.fuse.kernel.device import Device
from dkfs.fuse.kernel.dispatcher import Dispatcher
from dkfs.fuse.kernel.kinds import Kind, claim_of, kind_of
from dkfs.fuse.kernel.lanes import Lanes
from dkfs.fuse.kernel.messages import READ_LEAST, refusal
from dkfs.fuse.kernel.negotiate import MAX_WRITE
from dkfs.fuse.kernel.request import Buffer, Deferred, Held, Own, Payload, Task
from dkfs.fuse.kernel.standin import StandIns
from dkfs.fuse.kernel.workers import Workers
from dkfs.overlay.inode import Inode, devices_of

log = logging.getLogger(__name__)

_BURST: Final = 64  # requests; after so many in a row other tasks get their turn
_GLANCES: Final = 20  # at the device before sleeping, 30 us in all: to be woken takes as long on a machine at rest
_LINGER_MS: Final = 1  # to wait for the next request before going through trio
_INIT_S: Final = 10.0  # for the kernel to say what it offers: it does so at once
_AGAIN_S: Final = 0.01
_MOST_FOREIGN: Final = 32  # of the threads that finish requests, on a device that is not the root's
_SIGKILL: Final = 1 << 8  # in the sets of /proc/PID/status


class Server:
    """Serves one connection."""

    def __init__(self, device: Device, dispatcher: Dispatcher) -> None:
        self._device = device
        self._dispatcher = dispatcher
        self._buffer = bytearray(MAX_WRITE + READ_LEAST)
        self._address = system.address(self._buffer)
        self._workers = Workers()
        self._lanes = Lanes[Deferred](_MOST_FOREIGN)  # to them
        self._underway: dict[int, Deferred] = {}  # by the number of the request
        self._held: list[Held] = []  # in the order in which they came
        self._waits_for_room = False
        self._holds = False  # see hold()
        self._holding = threading.Lock()  # of the two
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._poll = select.poll()
        self._poll.register(device.fd, select.POLLIN)
        self._is_gone = False
        self._has_handed_on = False  # the last request, to a thread: it gets the interpreter
        self._left: deque[bytes] = deque()  # requests that stand-ins left for the loop
        self.turn = 0  # see Loop
        self.at: Task = b""
        self.changes = Changes[Task](lambda task: claim_of(task, dispatcher))
        self.reading = threading.Lock()
        dispatcher.interrupted = self._interrupted
        self._stand_ins = StandIns(device, dispatcher, self)
        self._alertness = Alertness.of_machine()

    def shake_hands(self) -> None:
        """Answer INIT; raises NotSupportedError if there is no agreement."""
        while not self._dispatcher.is_ready:
            if not self._device.wait(_INIT_S) or not self._step():
                raise MountError(f"the kernel has not begun to speak FUSE within {_INIT_S:.0f} s")
            if self._dispatcher.refused is not None:
                raise self._dispatcher.refused

    async def serve(self) -> None:
        """Answer requests until the mount is gone, or end() is called."""
        self._token = trio.lowlevel.current_trio_token()
        self._stand_ins.start()
        with self._scope:
            while not self._is_gone:
                is_busy = self._drain()
                self._alertness.look(self.turn >> 1)
                if is_busy:
                    await trio.lowlevel.checkpoint()
                elif not self._is_gone:
                    await self._sleep()

    async def _sleep(self) -> None:
        """Wait for a request."""
        if self._alertness.is_kept:
            with trio.move_on_after(CALM_S):
                await trio.lowlevel.wait_readable(self._device.fd)
                return
            self._alertness.calm()
        await trio.lowlevel.wait_readable(self._device.fd)

    def end(self) -> None:
        """Make serve() return; in the loop's thread."""
        self._scope.cancel()

    def close(self) -> None:
        """Wait for what is still under way."""
        self._stand_ins.close()
        if not self.hold():
            log.warning(
                "a call on the backing directory has not returned: what it changes is waited for"
            )
            while not self.hold():
                time.sleep(_AGAIN_S)
        self._workers.close()
        self._alertness.close()

    def _drain(self) -> bool:
        """Serve what is there; return whether there may be more."""
        return all(self._step() or self._comes() for _ in range(_BURST))

    def _comes(self) -> bool:
        """Return whether there is a request, or soon was: then it is served."""
        for _ in range(0 if self._has_handed_on else _GLANCES):
            if self._step():
                return True
            if self._is_gone:
                return False
        return bool(self._poll.poll(_LINGER_MS))

    def _step(self) -> bool:
        """Serve one request; return whether there was one."""
        if self.changes.is_shared:
            return self._step_shared()
        size = self._device.read(self._address, len(self._buffer))
        if size <= 0:
            self._is_gone = size < 0
            return False
        self._handle(self._buffer, size)
        if self._left:
            self._take_left()
        return True

    def _step_shared(self) -> bool:
        """See _step(), while others may change things, too."""
        self._change()
        with self.reading:
            size = self._device.read(self._address, len(self._buffer))
            if size <= 0:
                self._is_gone = size < 0
                return False
            is_change = kind_of(self._buffer, size) is Kind.CHANGE
            if is_change:
                self.changes.submit(bytes(memoryview(self._buffer)[:size]))
        if is_change:
            self._change()
        else:
            self._handle(self._buffer, size)
        if self._left:
            self._take_left()
        return True

    def _change(self) -> None:
        """Do what waits to be changed, while it is nobody else's turn."""
        while (task := self.changes.next(self)) is not None:
            assert not isinstance(task, Own)
            if isinstance(task, Held):
                self._again(task)
            else:
                self._handle(task, len(task))

    def _handle(self, request: Buffer, size: int) -> None:
        self.at = request
        self.turn += 1
        if self._stand_ins.sleeps:  # after turn has changed: else it might fall asleep in between
            self._stand_ins.wake()
        reply = self._dispatcher.handle(request, size)
        self.turn += 1
        self._finished(reply)

    def _again(self, held: Held) -> None:
        self.at = held
        self.turn += 1
        if self._stand_ins.sleeps:
            self._stand_ins.wake()
        reply = self._dispatcher.handle_again(held)
        self.turn += 1
        self._finished(reply)

    def _finished(self, reply: Payload | Deferred | None) -> None:
        self._has_handed_on = isinstance(reply, Deferred)
        if isinstance(reply, Deferred):
            self.defer(reply)
        elif reply is not None:
            self._device.answer(reply)
        if self.changes.is_shared:
            self.changes.done(self)

    # What is no request

    def hold(self) -> bool:
        """See Engine."""
        self._holds = not self.changes.is_shared or self.changes.hold(self, None)
        return self._holds

    def let_go(self) -> None:
        """See Engine."""
        self._holds = False
        if self.changes.is_shared:
            self.changes.done(self)
            self.go_on()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """See Engine."""
        self._begin(Own(None))
        try:
            yield
        finally:
            self.turn += 1
            if not self._holds:
                self.let_go()

    @contextmanager
    def in_steps(self) -> Iterator[Callable[[Inode], bool]]:
        """See Engine."""
        own = Own(frozenset())
        self._begin(own)

        def may(inode: Inode) -> bool:
            self.turn += 1  # between two steps: nobody takes the turn then
            claim = devices_of(inode)
            is_free = True
            if self.changes.is_shared:
                self.changes.done(self)
                is_free = self.changes.hold(self, claim)
            own.claim = claim if is_free else frozenset()
            self.turn += 1
            return is_free

        try:
            yield may
        finally:
            self.turn += 1
            self.let_go()

    def _begin(self, own: Own) -> None:
        self.at = own
        self.turn += 1
        if self._stand_ins.sleeps:
            self._stand_ins.wake()

    # What stand-ins need

    def leave(self, request: bytes) -> None:
        """See Loop."""
        self._left.append(request)
        self._soon(self._take_left)

    def _take_left(self) -> None:
        while self._left:
            request = self._left.popleft()
            self._handle(request, len(request))

    def go_on(self) -> None:
        """See Loop."""
        self._soon(self._change)

    def relieved(self) -> None:
        """See Loop."""
        self._soon(self._relieve)

    def _relieve(self) -> None:
        self._change()
        self._stand_ins.are_gone()

    def _soon(self, work: Callable[[], object]) -> None:
        """Have *work* done by the loop; once, however often that was said meanwhile."""
        assert self._token is not None
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(work, idempotent=True)

    # What takes time

    def defer(self, deferred: Deferred) -> None:
        """Have *deferred* finished and answered."""
        self._underway[deferred.unique] = deferred
        if isinstance(deferred, Held) and deferred.is_first:
            self._workers.do(lambda: self._wait_first(deferred))
        elif isinstance(deferred, Held):
            with self._holding:
                self._held.append(deferred)
                waits, self._waits_for_room = self._waits_for_room, True
            if not waits:
                self._wait_for_room(deferred)
        elif (device := self._dispatcher.foreign_device(deferred.node)) is None:
            self._workers.do(lambda: self._finish(deferred))
        elif self._lanes.enter(device, deferred):
            self._workers.do(lambda: self._finish_in_lane(device, deferred))

    def _finish_in_lane(self, device: int, first: Deferred) -> None:
        deferred: Deferred | None = first
        while deferred is not None:
            self._finish(deferred)
            deferred = self._lanes.leave(device)

    def _finish(self, deferred: Deferred) -> None:
        """Finish *deferred* and answer; in a thread."""
        reply = deferred.finish()
        if self._underway.pop(deferred.unique, None) is not None:
            self._device.answer(reply)

    def _wait_for_room(self, held: Held) -> None:
        def wait() -> None:
            held.wait()
            self._soon(self._go_on)

        self._workers.do(wait)

    def _go_on(self) -> None:
        """Handle what was held back while the recorder was behind."""
        with self._holding:
            self._waits_for_room = False
            held, self._held = self._held, []
        for each in held:
            if self._underway.pop(each.unique, None) is None:
                continue  # given up
            if self.changes.is_shared:
                self.changes.submit(each.request)
            else:
                self._handle(each.request, len(each.request))
        self._change()

    def _wait_first(self, held: Held) -> None:
        """Find out what *held* needs, and have it handled; in a thread."""
        held.wait()
        assert self._token is not None
        try:
            self._token.run_sync_soon(self._handle_again, held)
        except trio.RunFinishedError:
            pass  # the mount is gone

    def _handle_again(self, held: Held) -> None:
        if self._underway.pop(held.unique, None) is None:
            return  # given up
        if self.changes.is_shared and kind_of(held.request, len(held.request)) is Kind.CHANGE:
            self.changes.submit(held)
            self._change()
        else:
            self._again(held)

    def _interrupted(self, unique: int) -> None:
        """Give up request *unique* if who asked is dying.

        A signal that a program handles interrupts no write and no fsync on Linux, and programs count on that.
        """
        deferred = self._underway.get(unique)
        if deferred is None or deferred.pid is None or not is_dying(deferred.pid):
            return
        if self._underway.pop(unique, None) is not None:
            self._device.answer(refusal(unique, errno.EINTR))


def is_dying(pid: int) -> bool:
    """Return whether thread *pid* was killed; False if that cannot be seen."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return False
    sets = [
        line.split()[1] for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd"))
    ]
    return any(int(mask, 16) & _SIGKILL for mask in sets)
