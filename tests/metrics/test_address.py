"""dkfs.metrics.address."""

import pytest

from dkfs.errors import UsageError
from dkfs.metrics.address import Address, TcpAddress, UnixAddress, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":9911", TcpAddress(None, 9911)),
        (":0", TcpAddress(None, 0)),
        ("127.0.0.1:9911", TcpAddress("127.0.0.1", 9911)),
        ("localhost:65535", TcpAddress("localhost", 65535)),
        ("[::1]:9911", TcpAddress("::1", 9911)),
        ("unix:/run/dkfs.sock", UnixAddress("/run/dkfs.sock")),
    ],
)
def test_every_form_is_read(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "9911", ":", ":x", ":65536", "::1:9911", "[::1]", "unix:", "http://h:1"]
)
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected :PORT, HOST:PORT, \[IPV6\]:PORT, unix:PATH"):
        parse_address(text)
