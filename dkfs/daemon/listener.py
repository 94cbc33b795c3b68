"""The daemon's end of the control socket."""

import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self

import trio

from dkfs.daemon.control import SOCKET_NAME, Message, address, error_message, parse
from dkfs.errors import DkfsError, UsageError

log = logging.getLogger(__name__)

_LINE_MOST = 16 * 1024 * 1024  # bytes of one request: more paths than a command line has room for
_PAUSE_S = 0.1

Say = Callable[[Message], Awaitable[None]]  # sends one line of an answer


class Handler(Protocol):
    """What answers requests."""

    async def answer(self, request: Message, say: Say) -> None:
        """Do what *request* asks for and *say* the lines of the answer; raises DkfsError, OSError."""
        ...


class Listener:
    """The socket STORE/control while the daemon lives."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._socket = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> Self:
        # The store is locked by this process, so a socket that is there is a dead daemon's.
        (self._store / SOCKET_NAME).unlink(missing_ok=True)
        with address(self._store) as path:
            # trio resolves addresses asynchronously; a path needs no resolving.
            plain = socket.socket(fileno=os.dup(self._socket.fileno()))
            with plain:
                plain.bind(path)
        os.chmod(self._store / SOCKET_NAME, 0o600)
        self._socket.listen(16)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        with suppress(OSError):  # of a disk that became read-only
            (self._store / SOCKET_NAME).unlink(missing_ok=True)

    async def serve(self, handler: Handler) -> None:
        """Answer everybody who connects."""
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    connection, _ = await self._socket.accept()
                except OSError as exc:
                    # No fd left: who asks has to wait, and the mount must not end for it.
                    log.warning("control socket: %s", exc.strerror)
                    await trio.sleep(_PAUSE_S)
                    continue
                nursery.start_soon(self._talk, trio.SocketStream(connection), handler)

    async def _talk(self, stream: trio.SocketStream, handler: Handler) -> None:
        async def say(message: Message) -> None:
            await stream.send_all(json.dumps(message).encode() + b"\n")

        async with stream:
            try:
                try:
                    line = await _line(stream)
                    if not line:
                        return
                    await handler.answer(parse(line), say)
                except DkfsError as exc:
                    await say(error_message(exc))
                except OSError as exc:
                    await say(error_message(DkfsError(exc.strerror or str(exc))))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    raise
                except Exception:  # the edge: an error here would end the mount for everybody
                    log.exception("a control request failed")
                    failed = DkfsError("internal error; the daemon's log says more")
                    await say(error_message(failed))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                log.debug("a client of the control socket went away: %s", exc)


async def _line(stream: trio.SocketStream) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n"):
        more = await stream.receive_some(65536)
        if not more:
            break
        data += more
        if len(data) > _LINE_MOST:
            raise UsageError(f"control request of more than {_LINE_MOST} bytes")
    return bytes(data)
