"""From the bytes of a request to the bytes of its reply.  Needs no device and no mount.

Its edge is that of every request: an OSError or DkfsError becomes its errno; anything else is a bug
of dkfs, becomes EIO, and is logged and counted, because it would end the mount for everybody.
"""

import copy
import errno
import functools
import logging
import os
import time
from collections import deque
from collections.abc import Callable

from dkfs.errors import DkfsError
from dkfs.fuse.engine import Meter, NotSupportedError
from dkfs.fuse.kernel.attributes import AttributeRequests
from dkfs.fuse.kernel.directories import DirectoryRequests
from dkfs.fuse.kernel.files import FileRequests
from dkfs.fuse.kernel.messages import FORGET_IN, IN_HEADER, INTERRUPT_IN, OUT_HEADER, Op, refusal
from dkfs.fuse.kernel.names import NameRequests
from dkfs.fuse.kernel.negotiate import Terms, negotiate
from dkfs.fuse.kernel.notify import Notifier
from dkfs.fuse.kernel.ranges import RangeRequests
from dkfs.fuse.kernel.request import (
    HEADER_SIZE,
    Answer,
    Buffer,
    Deferred,
    First,
    Handler,
    Held,
    Payload,
    Request,
    Work,
)
from dkfs.overlay.mounted import FileSystem

log = logging.getLogger(__name__)

_SILENT = frozenset((Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT, Op.NOTIFY_REPLY))
_ERRNO_MOST = 511  # the kernel takes no greater one for a reply
_OUT_SIZE = OUT_HEADER.size


class Dispatcher:
    """Serves one connection; handle() only in the loop's thread."""

    def __init__(
        self,
        fs: FileSystem,
        meter: Meter,
        *,
        notifier: Notifier | None = None,
        is_root: bool | None = None,
        stack_depth: int = 0,
    ) -> None:
        """Serve *fs*; *is_root*: dkfs may take away capabilities, by default if its user is root.

        *stack_depth*: see negotiate().
        """
        self._meter = meter
        self._recorder = fs.recorder
        self._captures = fs.captures
        self._table = fs.table
        self._is_root = os.geteuid() == 0 if is_root is None else is_root
        self._stack_depth = stack_depth
        self._request = Request()
        self._took: deque[tuple[str, float]] = deque()  # what other threads finished
        self.terms = Terms()
        self.refused: NotSupportedError | None = None  # why there is no connection
        self.is_ready = False  # INIT was answered
        self.interrupted: Callable[[int], None] = lambda _: None
        self.names = NameRequests(fs)
        self.files = FileRequests(fs, notifier)
        self.attributes = AttributeRequests(fs)
        self.directories = DirectoryRequests(fs)
        self.ranges = RangeRequests(fs, notifier)
        self._handlers: dict[int, Handler] = {
            Op.INIT: Handler(self._init, HEADER_SIZE + 16, "init"),
            Op.DESTROY: Handler(lambda _: b"", HEADER_SIZE, "destroy"),
            Op.INTERRUPT: Handler(self._interrupt, HEADER_SIZE + FORGET_IN.size, "interrupt"),
            Op.NOTIFY_REPLY: Handler(lambda _: None, HEADER_SIZE, "notify_reply"),
        }
        for part in (self.names, self.files, self.attributes, self.directories, self.ranges):
            self._handlers.update(part.handlers())
        self._is_shared = fs.is_read_only
        if (
            fs.is_read_only
        ):  # the kernel refuses most changes by itself, unless somebody remounts it
            changes = {op: each for op, each in self._handlers.items() if each.makes_changes}
            for op, each in changes.items():
                self._handlers[op] = Handler(_refuse_change, each.least, each.name)

    def handle(self, buffer: Buffer, size: int | None = None) -> Payload | Deferred | None:
        """Return the reply to the request in the first *size* bytes of *buffer*; None if it gets none.

        A memoryview is valid until the next call.
        """
        request = self._request
        if buffer is not request.buffer:
            request.buffer = buffer
            request.view = memoryview(buffer)
        request.size = size = len(buffer) if size is None else size
        if size < HEADER_SIZE:
            self._meter.count_internal_error()
            log.error("a request of %d bytes, need %d", size, HEADER_SIZE)
            return None
        (
            length,
            opcode,
            request.unique,
            request.node,
            request.uid,
            request.gid,
            request.pid,
            _,
            _,
        ) = IN_HEADER.unpack_from(buffer)
        handler = self._handlers.get(opcode)
        if handler is None:
            return refusal(request.unique, errno.ENOSYS)
        if length != size or size < handler.least:
            return None if opcode in _SILENT else refusal(request.unique, errno.EINVAL)
        if handler.makes_changes and self._recorder.is_full:
            return self._held(request)
        return self._answered(request, handler, opcode)

    def sibling(self) -> "Dispatcher":
        """Return another one, for another thread, that serves the same connection."""
        made = copy.copy(self)
        made._request = Request()  # noqa: SLF001 - its own
        made._meter = _Relay(self._meter, self._took)  # noqa: SLF001
        return made

    def keep_fds(self, *, keep: bool) -> None:
        """Have the table of inodes close none of its fds, or close them again."""
        self._table.keep_fds(keep=keep)

    def foreign_device(self, node: int) -> int | None:
        """Return the device of *node*; None if it is the root's, or *node* is no known file."""
        return self._table.foreign_device(node)

    def devices(self, node: int) -> frozenset[int]:
        """Return the devices that a change of *node* is about; the root's if it is no known file."""
        return self._table.devices(node)

    def devices_above(self, node: int) -> frozenset[int]:
        """Return the devices of *node* and of the directories above it."""
        return self._table.devices_above(node)

    def _answered(
        self, request: Request, handler: Handler, opcode: int
    ) -> Payload | Deferred | None:
        clock = time.perf_counter
        started = clock()
        unique = request.unique
        reply: Payload | Deferred | None
        try:
            answer = handler.answer(request)
        except Exception as exc:  # noqa: BLE001 - the edge, see the module
            reply = None if opcode in _SILENT else refusal(unique, self._errno(exc, handler.name))
        else:
            if type(answer) is bytes:
                reply = OUT_HEADER.pack(_OUT_SIZE + len(answer), 0, unique) + answer
            elif type(answer) is memoryview:
                OUT_HEADER.pack_into(answer, 0, len(answer), 0, unique)
                reply = answer
            elif answer is None:
                reply = None
            elif type(answer) is First:
                return self._again(request, answer)
            else:
                return self._deferred(unique, answer, handler.name, started)
        self._meter.observe_request(handler.name, clock() - started)
        if self._took:
            self._tell()
        return reply

    def _tell(self) -> None:
        """Tell the meter what other threads have finished; they only add to it."""
        if isinstance(self._meter, _Relay):
            return
        for _ in range(len(self._took)):
            self._meter.observe_request(*self._took.popleft())

    def _errno(self, exc: Exception, name: str) -> int:
        if isinstance(exc, OSError | DkfsError):
            number = exc.errno or errno.EIO
            return number if 0 < number <= _ERRNO_MOST else errno.EIO
        if isinstance(exc, OverflowError):
            return errno.EINVAL  # a number that fits no system call: the kernel sends none
        if isinstance(exc, MemoryError):
            return errno.ENOMEM
        self._meter.count_internal_error()
        log.error("%s failed, the application gets EIO", name, exc_info=exc)
        return errno.EIO

    def _deferred(self, unique: int, answer: Answer, name: str, started: float) -> Deferred:
        assert isinstance(answer, Work)
        run = answer.run

        def finish() -> bytes:
            try:
                payload = run()
            except Exception as exc:  # noqa: BLE001 - the edge, see the module
                reply = refusal(unique, self._errno(exc, name))
            else:
                reply = OUT_HEADER.pack(_OUT_SIZE + len(payload), 0, unique) + payload
            self._took.append((name, time.perf_counter() - started))
            return reply

        request = self._request
        pid = request.pid if answer.can_be_given_up else None
        return Deferred(unique, finish, pid=pid, node=request.node)

    def _held(self, request: Request) -> Held | bytes:
        number = self._recorder.refusal
        if number:
            return refusal(request.unique, number)
        copy = bytes(request.view[: request.size])
        return Held(request.unique, copy, self._recorder.wait_room, self._finished, pid=request.pid)

    def _again(self, request: Request, first: First) -> Held:
        kept = bytes(request.view[: request.size])
        looks = self._captures.looked + 1 if first.is_look else 0
        handle = functools.partial(self._finished_again, looks)
        return Held(
            request.unique,
            kept,
            first.run,
            handle,
            pid=request.pid,
            is_first=True,
            looks=looks,
        )

    def handle_again(self, held: Held) -> Payload | Deferred | None:
        """Handle a request whose wait() has returned, when it is the turn of this thread; see handle()."""
        self._captures.looked = held.looks
        try:
            return self.handle(held.request)
        finally:
            self._captures.looked = 0

    def _finished_again(self, looks: int, request: bytes) -> bytes:
        self._captures.looked = looks
        try:
            return self._finished(request)
        finally:
            self._captures.looked = 0

    def _finished(self, request: bytes) -> bytes:
        """Handle *request* to its end, however long that takes."""
        reply = self.handle(request)
        while isinstance(reply, Deferred):
            reply = reply.finish()
        return bytes(reply or b"")

    # Of the connection itself

    def _init(self, request: Request) -> bytes:
        body = bytes(request.view[HEADER_SIZE : request.size])
        try:
            terms, payload = negotiate(
                body,
                is_root=self._is_root,
                stack_depth=self._stack_depth,
                is_shared=self._is_shared,
            )
        except NotSupportedError as exc:
            self.refused = exc
            raise OSError(errno.EPROTO, str(exc)) from None
        if terms is not None:
            self.terms = terms
            self.is_ready = True
            self.attributes.agree(terms)
            self.files.agree(terms)
        return payload

    def _interrupt(self, request: Request) -> None:
        self.interrupted(INTERRUPT_IN.unpack_from(request.buffer, HEADER_SIZE)[0])


def _refuse_change(_: Request) -> bytes:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


class _Relay:
    """A meter for other threads: what they observe is told in the loop's."""

    def __init__(self, meter: Meter, took: deque[tuple[str, float]]) -> None:
        self._meter = meter
        self._took = took

    def observe_request(self, operation: str, seconds: float) -> None:
        """See Meter."""
        self._took.append((operation, seconds))

    def count_internal_error(self) -> None:
        """See Meter."""
        self._meter.count_internal_error()
