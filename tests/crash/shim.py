"""The shim between a program and libc: built from shim.c, preloaded into a child, and spoken with there.

In the log of a child, syncs are only noted and not made: what is to be durable is decided by the reader of the log.
"""

import ctypes
import errno
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Final

import pytest

from tests.mounting import CHECKOUT

_ENTRY: Final = struct.Struct(
    "=IIQqQ"
)  # op, length of the path, inode, offset, length of what follows


class Op(IntEnum):
    """What an entry of the log tells."""

    WRITE = 1
    TRUNCATE = 2
    SYNC = 3
    CREATE = 4
    MKDIR = 5
    RENAME = 6
    UNLINK = 7
    RMDIR = 8
    LINK = 9
    SYMLINK = 10
    SPACE = 11
    OTHER = 12
    DURABLE = 13  # a write that is durable when it returns
    DIRECT = 14  # a write past the page cache: durable when the disk has flushed its own
    FLUSH = 15  # a file elsewhere was synced, and all of the disk's cache flushed with it


class Calls(IntFlag):
    """Kinds of calls that may fail."""

    READS = 1
    WRITES = 2
    SYNCS = 4
    NAMES = 8
    OPENS = 16
    LOOKS = 32
    MAPS = 64
    LOCKS = 128
    ATTRS = 256
    SPACE = 512
    CLOSES = 1024

    ALL = 2047
    CHANGES = 2 | 8 | 16 | 256 | 512


@dataclass(frozen=True, slots=True)
class Entry:
    """One call that changed something."""

    op: Op
    path: bytes  # relative to the root; of a rename, where from
    inode: int
    offset: int  # of a truncation: the size
    data: bytes  # of a rename or link: where to, relative


@dataclass(frozen=True, slots=True)
class Fault:
    """What is to go wrong."""

    name: str
    number: int  # errno; 0 with is_short
    calls: Calls
    is_short: bool = False


def _fault(name: str, calls: Calls) -> Fault:
    return Fault(name, getattr(errno, name), calls)


# Each error for the calls that may give it.
FAULTS: Final = {
    "EIO": _fault("EIO", Calls.ALL),
    "ENOSPC": _fault("ENOSPC", Calls.CHANGES | Calls.CLOSES),
    "EINTR": _fault("EINTR", Calls.READS | Calls.WRITES | Calls.SYNCS | Calls.OPENS | Calls.LOCKS),
    "short": Fault("short", 0, Calls.WRITES, is_short=True),
    "EDQUOT": _fault("EDQUOT", Calls.CHANGES | Calls.CLOSES),
    "EROFS": _fault("EROFS", Calls.CHANGES),
    "ENOMEM": _fault("ENOMEM", Calls.ALL & ~Calls.WRITES & ~Calls.CLOSES),
}


def build(directory: Path) -> Path:
    """Compile the shim into *directory*; skip the test where that cannot be."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc")
    target = directory / "shim.so"
    source = Path(__file__).with_name("shim.c")
    command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", str(target), str(source), "-ldl"], check=True)
    return target


def start(shim: Path | None, module: str, *words: str | Path) -> subprocess.Popen[bytes]:
    """Run *module* of the tests, with the shim if there is one, speaking with it through pipes."""
    preload = {"LD_PRELOAD": str(shim)} if shim is not None else {}
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=CHECKOUT,
        env={**os.environ, **preload, "PYTHONPATH": str(CHECKOUT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


class Shim:
    """The shim of this process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.shim_root.argtypes = [ctypes.c_char_p]
        self._library.shim_failed.restype = ctypes.c_char_p
        self._library.shim_count.restype = self._library.shim_failures.restype = ctypes.c_long
        self._library.shim_arm.argtypes = [ctypes.c_long, *[ctypes.c_int] * 4]

    def root(self, directory: Path) -> None:
        """Look at calls on *directory* and what is below it from now on."""
        self._library.shim_root(os.fsencode(directory))

    def log(self, fd: int) -> None:
        """Log to *fd*, with -1 no more."""
        self._library.shim_log(fd)

    def arm(self, n: int, fault: Fault, *, is_sticky: bool) -> None:
        """Let the *n*-th call from now on fail, and all after it if *is_sticky*."""
        self._library.shim_arm(n, fault.number, is_sticky, fault.is_short, fault.calls)

    def disarm(self) -> tuple[int, str]:
        """Let nothing fail any more; return how many did since arm(), and which the first was."""
        self._library.shim_disarm()
        return self._library.shim_failures(), os.fsdecode(self._library.shim_failed())


def read_log(path: Path, root: Path) -> Iterator[Entry]:
    """Yield what was logged in the file *path* of calls below *root*."""
    prefix = os.fsencode(root) + b"/"
    data = path.read_bytes()
    at = 0
    while at < len(data):
        op, path_length, inode, offset, length = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size
        name = data[at : at + path_length]
        at += path_length
        content = b""
        if op != Op.SPACE:
            content = data[at : at + length]
            at += length
        if op in (Op.RENAME, Op.LINK):
            content = content.removeprefix(prefix)
        name = b"" if name + b"/" == prefix else name.removeprefix(prefix)
        yield Entry(Op(op), name, inode, offset, content)
