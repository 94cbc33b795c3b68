"""One request of the kernel as its handler sees it, and the answers that a handler may give."""

import errno
import os
from collections.abc import Callable
from typing import Final, NamedTuple

from dkfs.fuse.kernel.messages import IN_HEADER, OUT_HEADER
from dkfs.fuse.kernel.negotiate import MAX_WRITE
from dkfs.overlay.listing import DOTS
from dkfs.overlay.virtual import VIRTUAL

HEADER_SIZE: Final = IN_HEADER.size
REPLY_MOST: Final = OUT_HEADER.size + MAX_WRITE  # bytes

Buffer = bytes | bytearray
Payload = bytes | memoryview


class Work:
    """What a reply needs and must not hold up other requests; for any thread, once."""

    __slots__ = ("can_be_given_up", "run")

    def __init__(self, run: Callable[[], bytes], *, can_be_given_up: bool = False) -> None:
        """*run* returns the payload, or raises OSError or DkfsError.

        If it *can be given up*, the kernel may be answered EINTR before it has ended, when who asked is dying.
        """
        self.run = run
        self.can_be_given_up = can_be_given_up


class First:
    """What is to be done in another thread before the request is handled, as if it came then; raises nothing."""

    __slots__ = ("is_look", "run")

    def __init__(self, run: Callable[[], None], *, is_look: bool = True) -> None:
        """*is_look*: it finds out what a capture of the file needs, see PassedCaptures.before()."""
        self.run = run
        self.is_look = is_look


# A handler returns the payload of its reply; or a memoryview whose first 16 bytes are room for the header; or what is
# to be done in another thread; or None if there is no reply.
Answer = Payload | Work | First | None


class Deferred:
    """A reply that takes time: finish() may be called in any thread, once; it raises nothing."""

    __slots__ = ("finish", "node", "pid", "unique")

    def __init__(
        self, unique: int, finish: Callable[[], bytes], *, pid: int | None, node: int = 0
    ) -> None:
        self.unique = unique
        self.node = node  # that it is about
        self.finish = finish  # returns the bytes of the reply
        self.pid = (
            pid  # of who may be answered EINTR before, when it is dying; None: not before the end
        )


class Held(Deferred):
    """A request that changes something, while the recorder is behind.

    wait() may be called in any thread; then *request* is to be handled again, in the loop's thread, as
    finish() does.
    """

    __slots__ = ("is_first", "looks", "request", "wait")

    def __init__(
        self,
        unique: int,
        request: bytes,
        wait: Callable[[], None],
        handle: Callable[[bytes], bytes],
        *,
        pid: int,
        is_first: bool = False,
        looks: int = 0,
    ) -> None:
        """*handle* handles a request to its end, whatever that takes.

        *is_first*: it waits for no room, but for wait(), which finds something out as the last of so many *looks*,
        0 if it does not; see Dispatcher.handle_again().
        """

        def finish() -> bytes:
            wait()
            return handle(request)

        super().__init__(unique, finish, pid=pid)
        self.request = request
        self.wait = wait
        self.is_first = is_first
        self.looks = looks


class Own:
    """What the loop does that is no request: a tick, a capture for a command."""

    __slots__ = ("claim",)

    def __init__(self, claim: frozenset[int] | None) -> None:
        self.claim = claim  # the devices that it changes something on; None: all


# What a thread may be kept in.
Task = Buffer | Held | Own


class Request:
    """One request.  There is one object for all of them: what outlives the call is to be copied.

    It is its own Caller (overlay.origin).
    """

    __slots__ = ("buffer", "gid", "node", "pid", "room", "size", "uid", "unique", "view")

    def __init__(self) -> None:
        self.buffer: Buffer = b""
        self.view = memoryview(b"")  # of buffer
        self.room = memoryview(bytearray(REPLY_MOST))  # for a reply that is a memoryview
        self.size = 0  # bytes of buffer that are the request; what follows is older
        self.unique = 0  # its number
        self.node = 0  # the inode that it is about
        self.uid = 0
        self.gid = 0
        self.pid = 0  # of the thread; 0 if it is in a pid namespace that cannot be seen

    def name(self, at: int) -> bytes:
        """Return the name that begins at *at* in the buffer; raises OSError(EINVAL)."""
        name, _ = self.text(at)
        if not name or b"/" in name or name in DOTS:  # which LOOKUP alone may ask for
            raise invalid()
        return name

    def two_names(self, at: int) -> tuple[bytes, bytes]:
        """Return the two names from *at* on; raises OSError(EINVAL)."""
        first = self.name(at)
        return first, self.name(at + len(first) + 1)

    def text(self, at: int) -> tuple[bytes, int]:
        """Return what stands from *at* to a zero byte, and where what follows begins; raises OSError(EINVAL)."""
        end = self.buffer.find(0, at, self.size)
        if end < 0:
            raise invalid()
        return bytes(self.view[at:end]), end + 1


class Handler(NamedTuple):
    """How one kind of request is served."""

    answer: Callable[[Request], Answer]
    least: int  # bytes that a request must have, with its header
    name: str  # for metrics
    makes_changes: bool = False  # it waits while the recorder is behind


def error(number: int) -> OSError:
    """Return the error of errno *number*."""
    return OSError(number, os.strerror(number))


def invalid() -> OSError:
    """Return the error for a request that makes no sense."""
    return error(errno.EINVAL)


def refuse_virtual(*numbers: int) -> None:
    """Raise OSError(EROFS) if one of the inodes or handles *numbers* is the history's: nobody changes it."""
    for number in numbers:
        if number >= VIRTUAL:
            raise error(errno.EROFS)
