"""Addresses of the metrics server: :9911, 127.0.0.1:9911, [::1]:9911, unix:/run/dkfs.sock."""

import re
from dataclasses import dataclass
from typing import Final

from dkfs.errors import UsageError

_TCP: Final = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]/]*)):(?P<port>[0-9]{1,5})"
)


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A port of this machine."""

    host: str | None  # None: every address of the machine
    port: int  # 0: any free one


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket in the file system."""

    path: str


Address = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """Return what *text* means; raises UsageError."""
    if text.startswith("unix:") and len(text) > len("unix:"):
        return UnixAddress(text.removeprefix("unix:"))
    match = _TCP.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise UsageError(
            f"metrics address {text!r}: expected :PORT, HOST:PORT, [IPV6]:PORT, unix:PATH, or nothing"
        )
    return TcpAddress(match["six"] or match["host"] or None, int(match["port"]))
