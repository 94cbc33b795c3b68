"""The control socket STORE/control: one JSON line asks, JSON lines answer.

A request is {"command": NAME, ...}.  The answer is any number of {"message_type": "progress", ...} and
then one {"message_type": "result", ...} or {"message_type": "error", "class": ..., "message": ...}.
Only who may enter the store's directory (0700) reaches the socket (0600).
"""

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dkfs import errors
from dkfs.errors import DkfsError, MountError, NotMountedError
from dkfs.store.verified import Verified

SOCKET_NAME = "control"
_MOST = 16 * 1024 * 1024  # bytes in one line

Message = dict[str, object]


def request(
    store: Path,
    command: Mapping[str, object],
    on_progress: Callable[[Mapping[str, object]], None] | None = None,
) -> Message:
    """Ask the daemon that serves *store*; return its result, raise the DkfsError that it raised.

    Raises NotMountedError if no daemon serves the store.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            with address(store) as path:
                connection.connect(path)
        except OSError as exc:
            raise NotMountedError(
                f"no mount is using store {store}: expected one to answer on its control socket"
                f" ({exc.strerror})"
            ) from None
        connection.sendall(json.dumps(command).encode() + b"\n")
        with connection.makefile("rb") as lines:
            for line in lines:
                message: Message = json.loads(line)
                if message.get("message_type") == "result":
                    return message
                if message.get("message_type") == "error":
                    raise _error(message)
                if on_progress is not None:
                    on_progress(message)
    raise MountError(f"the daemon of store {store} ended before it answered")


@contextmanager
def address(store: Path) -> Iterator[str]:
    """Yield a path of the socket that is short enough for a socket address (108 bytes)."""
    directory = os.open(store, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{SOCKET_NAME}"
    finally:
        os.close(directory)


def error_message(exc: DkfsError) -> Message:
    """Return the line that carries *exc* to the other side."""
    return {"message_type": "error", "class": type(exc).__name__, "message": str(exc)}


def scrub_members(known: Verified) -> Message:
    """Return what is remembered of scrubs, as an answer has it."""
    return {
        "scrub_finished": known.finished_ns / 1e9 if known.finished_ns else None,
        "scrub_damage": known.finished_damage if known.finished_ns else None,
    }


def parse(line: bytes) -> Message:
    """Return the request in *line*; raises UsageError."""
    try:
        message = json.loads(line)
    except ValueError:
        raise errors.UsageError(f"control request of {len(line)} bytes is not JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("command"), str):
        raise errors.UsageError('control request has no "command": expected one')
    return message


def _error(message: Message) -> DkfsError:
    kind = getattr(errors, str(message.get("class")), DkfsError)
    if not (isinstance(kind, type) and issubclass(kind, DkfsError)):
        kind = DkfsError
    return kind(str(message.get("message")))
