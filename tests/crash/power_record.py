"""A workload that records what is done to files, as a mount does: for power_work.

What it promises is a version: the last one when a sync returned.  What the history was at each version is known when
all is done, and does not depend on which versions were committed together.
"""

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from dkfs.history.recorder import Recorder
from dkfs.history.replay import reconcile
from dkfs.model.ids import Seq
from dkfs.overlay.inodes import Inode
from dkfs.overlay.mounted import FileSystem
from dkfs.store import Store
from dkfs.store.reader import Reader
from tests.overlay.world import ME

_NAMES = (b"a", b"b", b"c", b"d", b"e")
_SIZES = (0, 1, 100, 4096, 5000, 70_000, 150_000)


def prefix(reader: Reader, last: int) -> str:
    """Return what tells the history up to version *last* from any other."""
    state = hashlib.sha256()
    for table in ("log", "nodes", "names"):
        for key, value in reader.rows(table):
            if int.from_bytes(key[-8:], "big") <= last:
                state.update(b"%d %d " % (len(key), len(value)) + key + value)
    return state.hexdigest()


class Recording:
    """A file system without a kernel, and what is done to it."""

    def __init__(
        self, store: Path, state: Path, rng: random.Random, promise: Callable[[int], object]
    ) -> None:
        self._rng = rng
        self._promise = promise
        self._ticks = iter(range(1 << 60, 1 << 61))
        Store.create(store)
        self._store = Store.open(store, writable=True, segment_limit=200_000)
        self._root_fd = os.open(state, os.O_RDONLY)
        reconcile(self._store, self._root_fd, prefer="newer", clock_ns=self._now, identity=b"here")
        self._recorder = Recorder(
            self._store, clock_ns=self._now, on_commit=lambda _: None, on_drop=lambda _: None
        )
        self._fs = FileSystem(
            self._root_fd, self._store, self._recorder, reserved=None, clock_ns=self._now
        )

    def _now(self) -> int:
        return next(self._ticks)

    def run(self, steps: int) -> Iterator[tuple[int, str]]:
        """Do so many things, and end; then yield each version and its prefix()."""
        for _ in range(steps):
            choice = self._rng.choice(["save"] * 3 + ["write"] * 4 + ["remove", "rename", "mode"])
            getattr(self, f"_{choice}")()
        self._fs.close()
        with self._store.read() as reader:
            for seq in range(reader.last + 1):
                yield seq, prefix(reader, seq)
        self._store.close()
        os.close(self._root_fd)

    @property
    def _root(self) -> Inode:
        return self._fs.table.root

    def _any(self) -> bytes | None:
        names = sorted(os.listdir(self._root_fd))
        return os.fsencode(self._rng.choice(names)) if names else None

    def _write_to(self, number: int) -> None:
        for _ in range(self._rng.randrange(1, 4)):
            data = self._rng.randbytes(self._rng.choice(_SIZES))
            self._fs.files.write(number, self._rng.choice((0, 10, 5000)), data)
        if self._rng.random() < 0.7:
            self._sync(number)
        self._fs.files.flush(number)
        self._fs.files.release(number)

    def _sync(self, number: int) -> None:
        fd, seq = self._fs.files.fsync(number)
        self._recorder.sync(fd, os.fsync, seq, self._fs.files.handles[number].inode.node)
        self._promise(seq)

    def _write(self) -> None:
        name = self._rng.choice(_NAMES)
        if os.fsdecode(name) in os.listdir(self._root_fd):
            inode = self._fs.names.lookup(self._root, name)[0]
            number = self._fs.files.open(inode, os.O_RDWR, ME)
        else:
            number = self._fs.names.create(self._root, name, 0o644, os.O_RDWR, ME)[0]
        self._write_to(number)

    def _save(self) -> None:
        if "tmp" in os.listdir(self._root_fd):
            return
        self._write_to(self._fs.names.create(self._root, b"tmp", 0o644, os.O_RDWR, ME)[0])
        self._fs.names.rename(self._root, b"tmp", self._root, self._rng.choice(_NAMES), 0, ME)

    def _remove(self) -> None:
        name = self._any()
        if name is not None:
            self._fs.names.unlink(self._root, name, ME)

    def _rename(self) -> None:
        name = self._any()
        if name is not None:
            self._fs.names.rename(self._root, name, self._root, self._rng.choice(_NAMES), 0, ME)

    def _mode(self) -> None:
        """Wait until all is committed, now and then: so that transactions end at different places."""
        self._recorder.flush()
        self._promise(Seq(self._recorder.committed))
