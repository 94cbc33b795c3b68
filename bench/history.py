"""What a peer recorded, asked from outside: is it complete, is it right."""

import hashlib
import os
import stat
from pathlib import Path

from dkfs.daemon import control
from dkfs.history.content import contents
from dkfs.history.tree import Tree
from dkfs.model.ids import Seq
from dkfs.model.node import Kind, NodeState
from dkfs.store import Reader, Store

_PIECE = 1024 * 1024  # bytes
_CONTENTS_MOST = 32 * _PIECE  # contents compared; names, sizes and times all are


class IncompleteError(Exception):
    """The history does not say what was done."""


class History:
    """The history in one store, beside the daemon that writes it."""

    def __init__(self, store: Path) -> None:
        self._path = store

    def flush(self) -> Seq:
        """Wait until everything done is recorded; return the last version."""
        last = control.request(self._path, {"command": "flush"})["last"]
        assert isinstance(last, int)
        return Seq(last)

    def known(self) -> int:
        """Return how many inodes the daemon knows."""
        known = control.request(self._path, {"command": "status"})["inodes"]
        assert isinstance(known, int)
        return known

    def open(self) -> Store:
        """Return the store for reading, a context manager."""
        return Store.open(self._path, writable=False)

    def check(self, backing: Path, below: Path, *, after: Seq) -> None:
        """Compare the last version with the directory *below* of *backing*; raises IncompleteError.

        *after* is the last version before the work.
        """
        last = self.flush()
        if last <= after:
            raise IncompleteError(f"the log is at version {last}, as before: nothing was recorded")
        top = os.fsencode(backing)
        found = set(_walk(top, os.fsencode(below)))
        with self.open() as store, store.read() as reader:
            recorded = {path: s for path, _, s in Tree(reader, last).walk(os.fsencode(below))}
            if recorded.keys() != found:
                odd = sorted(recorded.keys() ^ found)
                raise IncompleteError(
                    f"version {last} and the directory differ in {len(odd)} names, {odd[0]!r} first"
                )
            left = _CONTENTS_MOST
            # By hash: which contents are compared is not for the workload's order to say.
            for path in sorted(found, key=lambda name: hashlib.blake2b(name).digest()):
                left -= _compare(reader, recorded[path], os.path.join(top, path), left)


def _compare(reader: Reader, state: NodeState, path: bytes, most: int) -> int:
    """Compare *state* with the file at *path*, *most* bytes of it; return how many bytes."""
    status = os.lstat(path)
    is_file = state.attr.kind is Kind.FILE
    if state.attr.mtime_ns != status.st_mtime_ns or (is_file and state.attr.size != status.st_size):
        raise IncompleteError(f"the last version has another size or time of {path!r}")
    if not is_file or most <= 0:
        return 0
    compared = 0
    recorded = contents(reader, state)
    with open(path, "rb", buffering=0) as file:
        for offset in range(0, status.st_size, max(_PIECE, status.st_size * _PIECE // most)):
            data = os.pread(file.fileno(), _PIECE, offset)
            if data != recorded.read(reader, offset, _PIECE):
                raise IncompleteError(f"the last version has other contents of {path!r}")
            compared += len(data)
    return compared


def _walk(top: bytes, below: bytes) -> list[bytes]:
    found = []
    stack = [below]
    while stack:
        path = stack.pop()
        found.append(path)
        full = os.path.join(top, path)
        if stat.S_ISDIR(os.lstat(full).st_mode):
            stack += [os.path.join(path, name) for name in os.listdir(full)]
    return found
