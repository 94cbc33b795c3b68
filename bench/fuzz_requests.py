# ruff: noqa: SLF001 -- a file system that was used is emptied from within
"""Requests of a kernel for the fuzzer: sound ones to begin with, and what must hold for any bytes.

An input is a series of requests, each as long as its header says.  Numbers of inodes that a kernel has
from a reply stand in it as small numbers, from 2 on, in the order in which they became known.

Whatever comes: a request has one reply, or none where the protocol has none, whose header fits; nothing
raises; nothing is a bug by dkfs's own account; no fd is left open; nothing outside the directory changes.
"""

import atexit
import itertools
import os
import shutil
import stat
import struct
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dkfs.fuse.kernel.dispatcher import Dispatcher
from dkfs.fuse.kernel.request import Deferred
from dkfs.history.recorder import Recorder
from dkfs.history.replay import reconcile
from dkfs.overlay.backing import by_fd
from dkfs.overlay.inodes import Inode
from dkfs.overlay.mounted import FileSystem
from dkfs.overlay.virtual import VIRTUAL
from dkfs.store import Store

_HEADER = struct.Struct("<IIQQIIIHH")
_REPLY = struct.Struct("<IiQ")
_NODE_AT, _BODY = 16, 40
_LONGEST = 1 << 16  # bytes of one request
_INPUTS = 1000  # served by one file system, emptied after each
_MEMORY = Path("/dev/shm")
_SILENT = {2, 36, 41, 42}  # FORGET INTERRUPT NOTIFY_REPLY BATCH_FORGET
_MKNOD, _RENAME, _LINK, _IOCTL, _RENAME2, _COPY = 8, 12, 13, 39, 45, (47, 53)
_INODE_IN_BODY = {_RENAME: 0, _LINK: 0, _RENAME2: 0, _COPY[0]: 16, _COPY[1]: 16}  # offsets
_IOCTLS = (0x8008_6601, 0x801C_581F)  # reading flags; one that sets them may make a file immutable


class RequestError(Exception):
    """The dispatcher did what it must not."""


class _Caller(NamedTuple):
    pid: int = 0
    uid: int = os.geteuid()
    gid: int = os.getegid()


_ME = _Caller()


class _Meter:
    def __init__(self) -> None:
        self.internal_errors = 0

    def observe_request(self, operation: str, seconds: float) -> None:
        """See Meter."""

    def count_internal_error(self) -> None:
        """See Meter."""
        self.internal_errors += 1


class Victim:
    """A dispatcher over an overlay, beside which lies what nobody may touch."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="dkfs-fuzz-", dir=_memory()))
        top = self.base / "top"
        top.mkdir()
        (self.base / "outside").write_bytes(b"untouched")
        Store.create(self.base / "store")
        self._store = Store.open(self.base / "store", writable=True)
        self._root_fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        reconcile(
            *(self._store, self._root_fd),
            prefer="newer",
            clock_ns=time.time_ns,
            identity=b"directory",
        )
        recorder = Recorder(
            self._store, clock_ns=time.time_ns, on_commit=lambda _: None, on_drop=lambda _: None
        )
        self.fs = FileSystem(
            self._root_fd, self._store, recorder, reserved=b".dkfs", clock_ns=time.time_ns
        )
        self._meter = _Meter()
        self._dispatcher = Dispatcher(self.fs, self._meter)
        self._buffer = bytearray(b"\xa5" * _LONGEST)
        self._serve(_init())
        self._before = self._outside()

    def serve(self, data: bytes) -> list[int | None]:
        """Serve the requests in *data*; return the errno of each reply; raises RequestError."""
        codes = []
        at = 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 4], "little")
            length = min(max(length, 1), _LONGEST)
            codes.append(self._serve(self._translated(data[at : at + length])))
            at += length
        if self._outside() != self._before:
            raise RequestError(f"something outside changed: {data.hex()}")
        self._empty()
        return codes

    def _serve(self, request: bytes) -> int | None:
        if len(request) < _HEADER.size:
            return None  # the kernel sends none, and what is done with it is logged
        self._buffer[: len(request)] = request  # as the device does it: older ones are left in it
        answer = self._dispatcher.handle(self._buffer, len(request))
        while isinstance(answer, Deferred):
            answer = answer.finish()
        if self._meter.internal_errors:
            self._meter.internal_errors = 0
            raise RequestError(f"an internal error: {request.hex()}")
        _, opcode, unique, *_ = _HEADER.unpack_from(request)
        is_silent = opcode in _SILENT
        if answer is None or is_silent:
            if answer is not None or not is_silent:
                raise RequestError(f"a reply too many or too few: {request.hex()}")
            return None
        length, code, answered = map(int, _REPLY.unpack_from(answer))
        if (length, answered) != (len(answer), unique) or not -512 < code <= 0:
            raise RequestError(f"a wrong header {bytes(answer[:16]).hex()}: {request.hex()}")
        if code and length != _REPLY.size:
            raise RequestError(f"a refusal with a body: {request.hex()}")
        return -code

    def _translated(self, request: bytes) -> bytes:
        """Put the numbers of inodes in, and leave out what would harm who runs the fuzzer."""
        changed = bytearray(request)
        if len(changed) < _HEADER.size:
            return request
        self._put_inode(changed, _NODE_AT)
        opcode = int.from_bytes(changed[4:8], "little")
        if opcode in _INODE_IN_BODY:
            self._put_inode(changed, _BODY + _INODE_IN_BODY[opcode])
        if opcode == _MKNOD and len(changed) >= _BODY + 4:
            mode = int.from_bytes(changed[_BODY : _BODY + 4], "little")
            if stat.S_IFMT(mode) in (stat.S_IFCHR, stat.S_IFBLK):
                mode = mode & 0o7777 | stat.S_IFIFO  # opened, a device may do anything
            changed[_BODY : _BODY + 4] = mode.to_bytes(4, "little")
        if opcode == _IOCTL and len(changed) >= _BODY + 16:
            command = int.from_bytes(changed[_BODY + 12 : _BODY + 16], "little")
            if command not in _IOCTLS:
                changed[_BODY + 12 : _BODY + 16] = bytes(4)
        return bytes(changed)

    def _put_inode(self, request: bytearray, at: int) -> None:
        number = int.from_bytes(request[at : at + 8], "little")
        known = self.fs.table.known()
        if 2 <= number < len(known) + 1:
            request[at : at + 8] = known[number - 1].id.to_bytes(8, "little")

    def _empty(self) -> None:
        """Close and forget everything and remove it, so that the next input finds what the first one found."""
        names, files = self.fs.names, self.fs.files
        for table, close, first in (
            (files.handles, files.release, 1),
            (names.directories, names.releasedir, 1),
            (self.fs.virtual._files, self.fs.virtual.release, VIRTUAL + 1),
            (self.fs.virtual._directories, self.fs.virtual.releasedir, VIRTUAL + 1),
        ):
            for number in [*table._items]:
                close(number)
            table._numbers = itertools.count(first)
        for inode in self.fs.table.known():
            if inode is not self.fs.table.root:
                self.fs.table.forget(inode, inode.lookups)
        self._remove(self.fs.table.root)

    def _remove(self, directory: Inode) -> None:
        names = self.fs.names
        for name in os.listdir(by_fd(self.fs.table.fd(directory))):
            inode, _ = names.lookup(directory, name)
            if inode.is_dir:
                self._remove(inode)
                names.rmdir(directory, name, _ME)
            else:
                names.unlink(directory, name, _ME)
            self.fs.table.forget(inode, 1)

    def _outside(self) -> tuple[list[str], bytes, tuple[int, ...]]:
        status = (self.base / "outside").stat()
        seen = (status.st_mode, status.st_nlink, status.st_uid, status.st_mtime_ns)
        return sorted(os.listdir(self.base)), (self.base / "outside").read_bytes(), seen

    def close(self) -> None:
        """End it; raises RequestError if fds stay open."""
        self.fs.close()
        self._store.close()
        below = os.fsencode(self.base / "top")
        left = [path for path in map(_link, os.listdir("/proc/self/fd")) if path.startswith(below)]
        os.close(self._root_fd)
        shutil.rmtree(self.base)
        if len(left) > 1:
            raise RequestError(f"fds are left open: {left}")


def _link(fd: str) -> bytes:
    try:
        return os.readlink(b"/proc/self/fd/" + fd.encode())
    except FileNotFoundError:  # the one of listdir()
        return b""


def _memory() -> Path | None:
    return _MEMORY if _MEMORY.is_dir() else None


_victims: list[tuple[Victim, int]] = []


def serve(data: bytes) -> object:
    """Serve the requests in *data* in a file system that others have used before; raises RequestError."""
    if not _victims:
        atexit.register(_end)
        _victims.append((Victim(), 0))
    victim, count = _victims.pop()
    if count >= _INPUTS:
        victim.close()
        victim, count = Victim(), 0
    _victims.append((victim, count + 1))
    return victim.serve(data)


def _end() -> None:
    for victim, _ in _victims:
        victim.close()


# ---- sound requests


def request(opcode: int, node: int, body: bytes = b"", *, unique: int = 7) -> bytes:
    """Return one request."""
    head = _HEADER.pack(_HEADER.size + len(body), opcode, unique, node, 0, 0, 0, 0, 0)
    return head + body


def _pack(layout: str, *values: int) -> bytes:
    return struct.pack("<" + layout, *values)


def _init() -> bytes:
    flags, flags2 = 0x7FFF_FFFF, 0x7FF
    return request(26, 0, _pack("IIIII11I", 7, 45, 1 << 17, flags, flags2, *[0] * 11))


def _bodies(fh: int) -> list[tuple[int, int, bytes]]:
    """Return (opcode, inode, body) of every request, about file 2, open as *fh*, and directory 3."""
    return [*_first_bodies(fh), *_later_bodies(fh)]


def _first_bodies(fh: int) -> list[tuple[int, int, bytes]]:
    io = _pack("QQIIQII", fh, 1, 3, 0, 0, os.O_RDWR, 0)
    return [
        (1, 1, b"file\0"),
        (1, 1, b"none\0"),
        (2, 2, _pack("Q", 1)),
        (3, 2, _pack("IIQ", 0, 0, 0)),
        (4, 2, _pack("IIQQQqqqIIIIIIII", 0x1FF, 0, fh, 3, 0, 5, 6, 7, 1, 2, 3, 0o644, 0, 0, 0, 0)),
        (5, 4, b""),
        (6, 1, b"link\0target\0"),
        (8, 1, _pack("IIII", 0o100644, 0, 0, 0) + b"node\0"),
        (9, 1, _pack("II", 0o755, 0) + b"dir\0"),
        (10, 1, b"node\0"),
        (11, 1, b"dir\0"),
        (12, 1, _pack("Q", 1) + b"file\0moved\0"),
        (13, 1, _pack("Q", 2) + b"other\0"),
        (14, 2, _pack("II", os.O_RDWR, 0)),
        (15, 2, io),
        (16, 2, io + b"abc"),
        (17, 1, b""),
        (18, 2, _pack("QIIQ", fh, 0, 0, 0)),
        (20, 2, _pack("QII", fh, 1, 0)),
        (21, 2, _pack("IIII", 2, 0, 0, 0) + b"user.a\0ab"),
        (22, 2, _pack("II", 100, 0) + b"user.a\0"),
        (23, 2, _pack("II", 100, 0)),
        (24, 2, b"user.a\0"),
        (25, 2, _pack("QIIQ", fh, 0, 0, 0)),
    ]


def _later_bodies(fh: int) -> list[tuple[int, int, bytes]]:
    listing = _pack("QQIIQII", fh, 0, 4096, 0, 0, 0, 0)
    lock = _pack("QQQQIIII", fh, 1, 0, 9, 1, 4, 0, 0)
    copy = _pack("QQQQQQQ", fh, 0, 2, fh, 5, 3, 0)
    return [
        (27, 1, _pack("II", 0, 0)),
        (28, 1, listing),
        (29, 1, _pack("QIIQ", fh, 0, 0, 0)),
        (30, 1, _pack("QII", fh, 0, 0)),
        (31, 2, lock),
        (32, 2, lock),
        (33, 2, lock),
        (34, 2, _pack("II", 4, 0)),
        (35, 1, _pack("IIII", os.O_RDWR | os.O_CREAT, 0o100644, 0, 0) + b"file\0"),
        (36, 0, _pack("Q", 7)),
        (37, 2, _pack("QII", 0, 4096, 0)),
        (38, 0, b""),
        (39, 2, _pack("QIIQII", fh, 0, _IOCTLS[0], 0, 0, 4)),
        (40, 2, _pack("QQII", fh, 1, 0, 1)),
        (41, 2, _pack("QQIIQQ", 0, 0, 3, 0, 0, 0) + b"abc"),
        (42, 0, _pack("II", 2, 0) + _pack("QQQQ", 2, 1, 3, 1)),
        (43, 2, _pack("QQQII", fh, 0, 100, 0, 0)),
        (44, 1, listing),
        (45, 1, _pack("QII", 1, 1, 0) + b"moved\0file\0"),
        (46, 2, _pack("QQII", fh, 0, os.SEEK_DATA, 0)),
        (47, 2, copy),
        (48, 2, _pack("QQQQQ", fh, 0, 4096, 1, 0)),
        (49, 2, _pack("IQQ", 1, 0, 4096)),
        (50, 1, _pack("Q", 0)),
        (51, 1, _pack("IIII", os.O_RDWR, 0o100600, 0, 0) + b"#1\0"),
        (52, 2, _pack("IIQII", 0, 0, 0, 0, 0xFFF)),
        (53, 2, copy),
        (4096, 0, bytes(16)),
    ]


def seeds() -> Sequence[bytes]:
    """Return sound inputs: each request after those that make what it is about, and all in a row."""
    before = [
        request(35, 1, _pack("IIII", os.O_RDWR | os.O_CREAT, 0o100644, 0, 0) + b"file\0"),
        request(9, 1, _pack("II", 0o755, 0) + b"dir\0"),
        request(27, 1, _pack("II", 0, 0)),
        request(6, 1, b"link\0target\0"),
    ]
    made = b"".join(before)
    every = [request(*each) for each in _bodies(1)]
    history = [request(1, 1, b".dkfs\0"), request(1, 1 << 62 | 1, b"tags\0")]
    return [_init(), *(made + each for each in every), made + b"".join(every), b"".join(history)]
