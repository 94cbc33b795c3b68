"""The HTTP server beside a mount: GET /metrics, /healthz, /readyz, and nothing else.

It must never trouble the file system: few connections, short time-outs, and the text is made in a thread.
"""

import logging
import os
import socket
import stat
from collections.abc import Sequence
from typing import Final

import trio

from dkfs.metrics.address import Address, UnixAddress, parse_address
from dkfs.metrics.registry import Metrics

log = logging.getLogger(__name__)

_MOST_CONNECTIONS: Final = 16
_MOST_REQUEST: Final = 16 * 1024  # bytes of request line and headers
_TIMEOUT_S: Final = 10.0  # for one connection, from its beginning to its end
_PLAIN: Final = "text/plain; charset=utf-8"
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}

Listeners = Sequence[trio.SocketListener]


class Server:
    """Serves *metrics*; one connection, one request."""

    def __init__(self, metrics: Metrics, *, timeout_s: float = _TIMEOUT_S) -> None:
        """Give each connection *timeout_s* seconds."""
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._open = 0

    async def serve(
        self,
        address: str,
        *,
        task_status: trio.TaskStatus[Listeners] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve at *address* until cancelled; if it cannot be had, warn once and return."""
        parsed = parse_address(address)
        try:
            listeners = await _listen(parsed)
        except OSError as exc:
            log.warning("no metrics: cannot listen on %s: %s", address, exc.strerror or exc)
            task_status.started(())
            return
        try:
            await trio.serve_listeners(self._connection, listeners, task_status=task_status)
        finally:
            if isinstance(parsed, UnixAddress):
                _remove_socket(parsed.path)

    async def _connection(self, stream: trio.SocketStream) -> None:
        self._open += 1
        try:
            with trio.move_on_after(self._timeout_s):
                if self._open > _MOST_CONNECTIONS:
                    await stream.send_all(_response(503, b"too many connections\n"))
                else:
                    await stream.send_all(await self._answer(stream))
                    await stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("a client of the metrics server went away")
        finally:
            self._open -= 1
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    async def _answer(self, stream: trio.SocketStream) -> bytes:
        head = bytearray()
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            if len(head) > _MOST_REQUEST:
                return _response(431, b"request too large\n")
            received = await stream.receive_some(4096)
            if not received:
                return _response(400, b"incomplete request\n")
            head += received
        request, *headers = head.decode("latin-1").splitlines()
        words = request.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(400, b"not an HTTP request\n")
        if words[0] not in ("GET", "HEAD"):
            return _response(405, b"expected GET\n", extra="Allow: GET, HEAD\r\n")
        return await self._page(
            words[1].partition("?")[0], _accept(headers), has_body=words[0] == "GET"
        )

    async def _page(self, path: str, accept: str, *, has_body: bool) -> bytes:
        if path == "/metrics":
            body, content_type = await trio.to_thread.run_sync(self._metrics.render, accept)
            return _response(200, body, content_type=content_type, has_body=has_body)
        if path not in ("/healthz", "/readyz"):
            return _response(404, b"expected /metrics, /healthz or /readyz\n", has_body=has_body)
        gauges = await trio.to_thread.run_sync(self._metrics.gauges)
        if not gauges.ready:
            return _response(503, b"the mount does not answer\n", has_body=has_body)
        if path == "/healthz" and not gauges.recording:
            return _response(503, b"no versions are being made\n", has_body=has_body)
        return _response(200, b"ok\n", has_body=has_body)


def _accept(headers: Sequence[str]) -> str:
    for header in headers:
        name, _, value = header.partition(":")
        if name.lower() == "accept":
            return value.strip()
    return ""


def _response(
    status: int,
    body: bytes,
    *,
    content_type: str = _PLAIN,
    extra: str = "",
    has_body: bool = True,
) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n{extra}Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + (body if has_body else b"")


async def _listen(address: Address) -> list[trio.SocketListener]:
    if not isinstance(address, UnixAddress):
        return await trio.open_tcp_listeners(address.port, host=address.host)
    _remove_socket(address.path)
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await sock.bind(address.path)
        sock.listen(_MOST_CONNECTIONS)
    except BaseException:
        sock.close()
        raise
    return [trio.SocketListener(sock)]


def _remove_socket(path: str) -> None:
    # A socket left behind by a killed daemon; a file that is none makes bind fail with a clear error.
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        return
