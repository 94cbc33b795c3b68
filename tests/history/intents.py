"""A store that is recorded into while the recorder may be held up: what was synced is in its intent log only."""

import contextlib
import os
import shutil
from pathlib import Path

from dkfs.history.change import Link, NameChange, NodeChange
from dkfs.history.content import read
from dkfs.history.frozen import FrozenBytes
from dkfs.history.recorder import Recorder
from dkfs.history.recovery import open_store
from dkfs.history.tree import Tree
from dkfs.model.ids import ROOT, NodeId, Seq
from dkfs.model.operation import Operation, OpKind, Origin
from dkfs.store import Store

SIZE = 20_000  # bytes of the file


class World:
    """A directory with a file that is written to, and synced, while the recorder may be held up."""

    def __init__(self, top: Path) -> None:
        self.path = top / "store"
        Store.create(self.path)
        self.store = open_store(self.path, writable=True)
        self.recorder = Recorder(
            self.store, clock_ns=self.clock, on_commit=lambda _: None, on_drop=lambda _: None
        )
        self.time_ns = 100
        self.file = top / "file"
        self.contents = bytearray(SIZE)
        self.file.write_bytes(self.contents)
        self.fd = os.open(self.file, os.O_RDWR)
        self.recorder.append(
            self.operation(OpKind.FOUND, self.recorder.new_node()), (NodeChange(ROOT, top.stat()),)
        )
        self.node = self.recorder.new_node()
        whole = NodeChange(
            self.node, os.fstat(self.fd), Link(ROOT, b"f"), self.frozen(0, SIZE), {b"user.a": b"b"}
        )
        self.recorder.append(
            self.operation(OpKind.CREATE, self.node), (whole,), (NameChange(ROOT, b"f", self.node),)
        )
        assert self.recorder.flush()

    def clock(self) -> int:
        self.time_ns += 1
        return self.time_ns

    def operation(self, kind: OpKind, node: NodeId) -> Operation:
        return Operation(kind, self.recorder.now_ns(), Origin(1, 2, b"test"), node, ROOT, b"f")

    def frozen(self, start: int, end: int) -> FrozenBytes:
        return FrozenBytes(self.fd, ((start, end),), SIZE)

    def write(self, start: int, data: bytes) -> Seq:
        os.pwrite(self.fd, data, start)
        self.contents[start : start + len(data)] = data
        change = NodeChange(
            self.node, os.fstat(self.fd), None, self.frozen(start, start + len(data))
        )
        return self.recorder.append(self.operation(OpKind.WRITE, self.node), (change,))

    def close(self) -> None:
        self.recorder.close()
        self.store.close()
        os.close(self.fd)

    def killed(self, name: str = "killed") -> Path:
        """Return the store as a kill would leave it now."""
        copy = self.path.with_name(name)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(copy)
        return Path(shutil.copytree(self.path, copy, ignore=shutil.ignore_patterns("*-lock")))


def contents_at(store: Store, seq: int) -> bytes:
    with store.read() as reader:
        node = Tree(reader, Seq(seq)).resolve(b"f")
        state = reader.node(node, Seq(seq))
        assert state is not None
        return read(reader, state, 0, SIZE)
