"""dkfs.metrics.server, over real sockets."""

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from dkfs.metrics.registry import Metrics
from dkfs.metrics.server import Server
from tests.metrics.conftest import SetSource

Open = Callable[[], Awaitable[trio.SocketStream]]


async def reply(stream: trio.SocketStream) -> str:
    received = b""
    with trio.fail_after(5):
        async for piece in stream:
            received += piece
    return received.decode()


def serving(server: Server, test: Callable[[Open], Awaitable[None]]) -> None:
    """Run *test* beside *server* at a free port; it is given what opens a connection."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(server.serve, "127.0.0.1:0")
            port = listeners[0].socket.getsockname()[1]

            async def connect() -> trio.SocketStream:
                return await trio.open_tcp_stream("127.0.0.1", port)

            await test(connect)
            nursery.cancel_scope.cancel()

    trio.run(main)


def ask(metrics: Metrics, request: str) -> str:
    """Return the answer to *request*, which ends with an empty line."""
    answers: list[str] = []

    async def test(connect: Open) -> None:
        async with await connect() as stream:
            await stream.send_all(request.encode("latin-1"))
            answers.append(await reply(stream))

    serving(Server(metrics), test)
    return answers[0]


def get(metrics: Metrics, path: str, *headers: str) -> str:
    return ask(metrics, "\r\n".join((f"GET {path} HTTP/1.1", "Host: x", *headers, "", "")))


def test_metrics_are_served_in_the_text_format(metrics: Metrics) -> None:
    answer = get(metrics, "/metrics")

    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=")
    assert f"Content-Length: {len(body)}" in head
    assert "\ndkfs_version 17.0\n" in body


def test_metrics_are_served_as_openmetrics_on_request(metrics: Metrics) -> None:
    answer = get(metrics, "/metrics?x=1", "ACCEPT: application/openmetrics-text; version=1.0.0")

    assert "\r\nContent-Type: application/openmetrics-text; version=1.0.0" in answer
    assert answer.endswith("# EOF\n")


def test_head_has_the_length_and_no_body(metrics: Metrics) -> None:
    answer = ask(metrics, "HEAD /metrics HTTP/1.1\r\n\r\n")

    assert answer.startswith("HTTP/1.1 200 OK\r\n")
    assert answer.endswith("\r\n\r\n")


@pytest.mark.parametrize(
    ("ready", "recording", "health", "readiness"),
    [(True, True, 200, 200), (True, False, 503, 200), (False, True, 503, 503)],
)
def test_health_needs_recording_and_readiness_only_the_mount(
    metrics: Metrics,
    source: SetSource,
    *,
    ready: bool,
    recording: bool,
    health: int,
    readiness: int,
) -> None:
    source.set(ready=ready, recording=recording)

    assert get(metrics, "/healthz").startswith(f"HTTP/1.1 {health} ")
    assert get(metrics, "/readyz").startswith(f"HTTP/1.1 {readiness} ")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET / HTTP/1.1", 404),
        ("GET /metrics/x HTTP/1.1", 404),
        ("POST /metrics HTTP/1.1", 405),
        ("GET /metrics", 400),
        ("GET /metrics SIP/2.0", 400),
        ("\xff\xfe", 400),
    ],
)
def test_anything_else_is_refused(metrics: Metrics, request_line: str, status: int) -> None:
    assert ask(metrics, f"{request_line}\r\n\r\n").startswith(f"HTTP/1.1 {status} ")


def test_a_request_that_never_ends_is_cut_off(metrics: Metrics) -> None:
    answer = ask(metrics, "GET /metrics HTTP/1.1\r\n" + "X: y\r\n" * 4000)

    assert answer.startswith("HTTP/1.1 431 ")


def test_a_client_that_says_nothing_is_let_go(metrics: Metrics) -> None:
    async def test(connect: Open) -> None:
        async with await connect() as stream:
            assert await reply(stream) == ""

    serving(Server(metrics, timeout_s=0.05), test)


def test_a_client_that_goes_away_harms_nobody(metrics: Metrics) -> None:
    async def test(connect: Open) -> None:
        (await connect()).socket.close()
        async with await connect() as stream:
            await stream.send_all(b"GET /met")
        async with await connect() as stream:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert (await reply(stream)).startswith("HTTP/1.1 200 ")

    serving(Server(metrics), test)


def test_more_connections_than_allowed_are_turned_away_at_once(metrics: Metrics) -> None:
    async def test(connect: Open) -> None:
        streams = [await connect() for _ in range(16)]
        await trio.testing.wait_all_tasks_blocked()
        async with await connect() as stream:
            assert (await reply(stream)).startswith("HTTP/1.1 503 ")
        for stream in streams:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        async with await connect() as stream:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert (await reply(stream)).startswith("HTTP/1.1 200 ")

    serving(Server(metrics), test)


@pytest.mark.expect_logs(r"no metrics: cannot listen on 127\.0\.0\.1:\d+: ")
def test_a_port_that_is_taken_is_one_warning_and_no_more(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        trio.run(Server(metrics).serve, f"127.0.0.1:{port}")

    assert len(caplog.records) == 1


def test_a_unix_socket_takes_the_place_of_a_dead_one_and_goes_at_the_end(
    metrics: Metrics, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(Server(metrics).serve, f"unix:{path}")
            async with await trio.open_unix_socket(str(path)) as stream:
                await stream.send_all(b"GET /readyz HTTP/1.0\n\n")
                assert (await reply(stream)).startswith("HTTP/1.1 200 OK")
            nursery.cancel_scope.cancel()

    trio.run(main)

    assert not path.exists()


@pytest.mark.expect_logs("no metrics: cannot listen on unix:")
def test_a_file_in_the_place_of_the_socket_is_kept(metrics: Metrics, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")

    trio.run(Server(metrics).serve, f"unix:{path}")

    assert path.read_text() == "mine"
