"""What people and programs read: names that cannot harm a terminal, times, sizes, JSON Lines."""

import base64
import json
import os
import stat
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from dkfs.errors import CorruptError
from dkfs.model.node import Attr, Kind

Json = Mapping[str, object]

_ESCAPES: Final = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", "'": "\\'"}
_KIND_BITS: Final = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIR: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
    Kind.CHAR: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
}
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def status_of_problems(problems: int, damaged: int) -> int:
    """Return the exit status of a command that did all but so many things, some for damage."""
    if damaged:
        return CorruptError.exit_status
    return 1 if problems else 0


def printable(text: bytes | str) -> str:
    """Return *text* for a terminal: as it is, or as $'...' if it holds what is not printable.

    The form is that of bash, zsh and ksh, so it can be pasted back.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "$'" + "".join(_escaped(char) for char in text) + "'"


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def json_path(path: bytes, key: str = "path") -> dict[str, str]:
    """Return the JSON members for *path*: the text, and its bytes too if they are not UTF-8."""
    try:
        return {key: path.decode("utf-8")}
    except UnicodeDecodeError:
        return {
            key: path.decode("utf-8", "replace"),
            f"{key}_b64": base64.b64encode(path).decode("ascii"),
        }


def emit(message_type: str, *parts: Json, **members: object) -> None:
    """Print one JSON line."""
    line: dict[str, object] = {"message_type": message_type}
    for part in parts:
        line.update(part)
    line.update(members)
    print(json.dumps(line))


def note(text: str) -> None:
    """Print a line for people on stderr."""
    print(text, file=sys.stderr)


def local_time(time_ns: int) -> str:
    """Return *time_ns* in the local time zone, to the millisecond; dkfs accepts it as a version."""
    moment = datetime.fromtimestamp(time_ns // 10**9, UTC).astimezone()
    return moment.replace(microsecond=time_ns // 1000 % 10**6).isoformat(timespec="milliseconds")


def utc_time(time_ns: int) -> str:
    """Return *time_ns* as RFC 3339 in UTC with nine digits; for JSON."""
    moment = datetime.fromtimestamp(time_ns // 10**9, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ns % 10**9:09d}Z"


def size_text(size: int) -> str:
    """Return *size* bytes in the largest unit that leaves at least one whole."""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{size} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def mode_text(attr: Attr) -> str:
    """Return the type and permissions of *attr* as ls -l has them."""
    return stat.filemode(_KIND_BITS[attr.kind] | attr.mode)


def aligned(rows: Iterable[tuple[str, ...]], *, right: tuple[int, ...] = ()) -> list[str]:
    """Return *rows* as lines in columns, the last one as long as it is, columns *right* flush right."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def silence() -> None:
    """Send what is still to be printed nowhere: the reader of stdout has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
