"""The overlay on a real directory and a real store, called as the kernel would call it, without a mount."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dkfs.history import content
from dkfs.history.recorder import Recorder
from dkfs.history.replay import reconcile
from dkfs.history.tree import Tree
from dkfs.model.ids import NodeId, Seq
from dkfs.model.operation import OpKind
from dkfs.overlay.inodes import Inode
from dkfs.overlay.mounted import FileSystem
from dkfs.store import Store


@dataclass(frozen=True, slots=True)
class Caller:
    pid: int = 0
    uid: int = os.geteuid()
    gid: int = os.getegid()


ME = Caller()


class Driver:
    """One overlay; what it opens is named by paths here, and by inodes there."""

    def __init__(self, top: Path, store: Store) -> None:
        self.top = top
        self.store = store
        self.root_fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        self.recorder = Recorder(
            store, clock_ns=time.time_ns, on_commit=lambda _: None, on_drop=lambda _: None
        )
        self.fs = FileSystem(
            self.root_fd, store, self.recorder, reserved=b".dkfs", clock_ns=time.time_ns
        )

    @property
    def root(self) -> Inode:
        return self.fs.table.root

    def lookup(self, path: bytes) -> Inode:
        inode = self.root
        for name in path.split(b"/"):
            inode = self.fs.names.lookup(inode, name)[0]
        return inode

    def create(self, name: bytes, data: bytes = b"") -> Inode:
        """Make a file in the root, write and close it."""
        flags = os.O_CREAT | os.O_RDWR
        number, inode, _ = self.fs.names.create(self.root, name, 0o644, flags, ME)
        if data:
            self.fs.files.write(number, 0, data)
        self.close(number)
        return inode

    def open(self, inode: Inode, flags: int = os.O_RDWR) -> int:
        return self.fs.files.open(inode, flags, ME)

    def close(self, number: int) -> None:
        self.fs.files.flush(number)
        self.fs.files.release(number)

    def forget(self, inode: Inode) -> None:
        """Have the kernel forget everything about *inode*."""
        self.fs.forget(inode.id, inode.lookups)

    # What is recorded

    def flush(self) -> Seq:
        self.fs.captures.capture_all()
        assert self.recorder.flush()
        return self.recorder.committed

    def recorded(self, path: bytes, at: Seq | None = None) -> bytes:
        seq = at or self.flush()
        with self.store.read() as reader:
            tree = Tree(reader, seq)
            state = tree.state(tree.resolve(path))
            return content.read(reader, state, 0, state.attr.size)

    def node(self, path: bytes) -> NodeId:
        seq = self.flush()
        with self.store.read() as reader:
            return Tree(reader, seq).resolve(path)

    def kinds(self) -> list[OpKind]:
        last = self.flush()
        with self.store.read() as reader:
            return [record.operation.kind for record in reader.log(Seq(1), last)][1:]


@contextmanager
def driven(base: Path) -> Iterator[Driver]:
    """Make an overlay of BASE/top, recording into BASE/store, both of which may be there already."""

    top, path = base / "top", base / "store"
    top.mkdir(exist_ok=True)
    if not path.exists():
        Store.create(path)
    with Store.open(path, writable=True) as store:
        fd = os.open(top, os.O_RDONLY)
        reconcile(store, fd, prefer="newer", clock_ns=time.time_ns, identity=b"same")
        os.close(fd)
        driver = Driver(top, store)
        try:
            yield driver
        finally:
            assert driver.fs.close()
            os.close(driver.root_fd)
