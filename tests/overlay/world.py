"""A file system without a kernel, whose recorder and store a test may disturb."""

import os
from pathlib import Path
from typing import NamedTuple

from dkfs.core.chunking import Chunking
from dkfs.history import content
from dkfs.history.commit import Commit
from dkfs.history.recorder import Recorder
from dkfs.history.replay import reconcile
from dkfs.history.tree import Tree
from dkfs.model.ids import Seq
from dkfs.overlay.inodes import Inode
from dkfs.overlay.mounted import FileSystem
from dkfs.store import Store


class _Caller(NamedTuple):
    pid: int = 0
    uid: int = os.getuid()
    gid: int = os.getgid()


ME = _Caller()
CHUNKING = Chunking()


class World:
    """A file system without a kernel."""

    def __init__(self, top: Path, chunking: Chunking = CHUNKING) -> None:
        self.chunking = chunking
        self.state = top / "state"
        self.state.mkdir()
        Store.create(top / "store")
        self.store = Store.open(top / "store", writable=True)
        self.root_fd = os.open(self.state, os.O_RDONLY)
        self.clock = iter(range(1, 1 << 40))
        self.reconcile()
        self.dropped: list[int] = []
        self.commits: list[Commit] = []
        self.start()

    def reconcile(self) -> None:
        """Do what comes before a mount."""
        reconcile(
            self.store,
            self.root_fd,
            prefer="newer",
            clock_ns=lambda: next(self.clock),
            identity=b"directory",
        )

    def start(self) -> None:
        self.recorder = Recorder(
            self.store,
            clock_ns=lambda: next(self.clock),
            on_commit=self.commits.append,
            on_drop=self.dropped.append,
            chunking=self.chunking,
        )
        self.fs = FileSystem(
            self.root_fd, self.store, self.recorder, reserved=None, clock_ns=lambda: 0
        )

    def reopen(self) -> None:
        """Be another mount, which remembers nothing."""
        self.fs.close()
        self.store.close()
        self.store = Store.open(self.store.path, writable=True)
        self.start()

    @property
    def root(self) -> Inode:
        return self.fs.table.root

    def create(self, name: bytes, data: bytes = b"") -> int:
        """Make a file with *data* in it and leave it open; return the handle."""
        number, _, _ = self.fs.names.create(self.root, name, 0o644, os.O_RDWR, ME)
        if data:
            self.fs.files.write(number, 0, data)
        return number

    def open(self, name: bytes) -> int:
        """Open a file for writing; return the handle."""
        return self.fs.files.open(self.lookup(name), os.O_RDWR, ME)

    def lookup(self, name: bytes) -> Inode:
        return self.fs.names.lookup(self.root, name)[0]

    def inode(self, number: int) -> Inode:
        return self.fs.files.handles[number].inode

    def read(self, name: bytes, seq: int | None = None) -> bytes:
        """Return the contents of *name* as of a version, by default the last."""
        assert self.recorder.flush()
        with self.store.read() as reader:
            at = Seq(seq) if seq is not None else reader.last
            node = reader.node(Tree(reader, at).find(name), at)
            assert node is not None
            return content.read(reader, node, 0, node.attr.size)

    def part(self, name: bytes, offset: int, length: int) -> bytes:
        """Return some bytes of *name* as of the last version."""
        with self.store.read() as reader:
            tree = Tree(reader, reader.last)
            return content.read(reader, tree.state(tree.resolve(name)), offset, length)

    def close(self) -> None:
        self.fs.close()
        self.store.close()
        os.close(self.root_fd)
