"""Between the file system and the recorder: which node an inode is, and what is to be recorded."""

import os
import stat
import threading
from collections.abc import Mapping

from dkfs.history.change import Link, NameChange, NodeChange
from dkfs.history.frozen import COPY_MOST, Frozen, FrozenBytes, FrozenFile
from dkfs.history.recorder import Recorder
from dkfs.model.ids import NO_NODE, ROOT, NodeId, Seq
from dkfs.model.operation import NOBODY, Operation, OpKind, Origin
from dkfs.overlay.backing import by_fd, xattrs_of
from dkfs.overlay.inodes import Inode, InodeTable
from dkfs.overlay.origin import Caller, Origins
from dkfs.store import Store


class Journal:
    """Appends operations to the log in the order in which the file system performed them."""

    def __init__(self, recorder: Recorder, store: Store, table: InodeTable) -> None:
        self.recorder = recorder
        self.store = store
        self._table = table
        self._origins = Origins()
        self._adopting: dict[int, threading.Lock] = {}  # by device
        table.root.node = ROOT

    def origin(self, caller: Caller | None) -> Origin:
        """Return who *caller* is."""
        return self._origins.of(caller)

    def node(self, inode: Inode) -> NodeId:
        """Return the node that *inode* is in the history; records it first if it is not there."""
        if inode.node:
            return inode.node
        chain = [inode]
        while (parent := chain[-1].parent) is not None and not parent.node:
            chain.append(parent)
        with self.store.read() as reader:
            for step in reversed(chain):
                # Another thread may adopt it at the same time: what it has set stays.
                if step.parent is not None and not step.node:
                    found = reader.child(step.parent.node, step.name, reader.last)
                    step.node = step.node or found
                if not step.node:
                    break
        for step in reversed(chain):
            if not step.node:
                # Two would adopt the same directory above: one of the root's device, the other is below what is mounted in it.
                with self._adopting.setdefault(step.dev, threading.Lock()):
                    if not step.node:
                        self._adopt(step)
        return inode.node

    def _adopt(self, inode: Inode) -> None:
        """Record an inode that appeared behind the mount, as it is now."""
        fd = self._table.fd(inode)
        status = os.fstat(fd)
        contents: Frozen | None = None
        target = None
        if stat.S_ISREG(status.st_mode):
            contents = _contents(inode, fd, status.st_size)
        elif stat.S_ISLNK(status.st_mode):
            target = os.readlink(b"", dir_fd=fd)
        parent = inode.parent.node if inode.parent is not None else NO_NODE
        node = self.recorder.new_node()
        change = NodeChange(
            node,
            status,
            Link(parent, inode.name),
            contents,
            xattrs_of(by_fd(fd)),
            target,
        )
        names = (NameChange(parent, inode.name, node),)
        with self.recorder.appending:
            operation = self.operation(OpKind.FOUND, NOBODY, node, parent, inode.name)
            inode.last = self.recorder.append(operation, (change,), names)
        inode.node = node  # last: whoever finds it may rely on its being in the log

    def operation(
        self, kind: OpKind, origin: Origin, node: NodeId, parent: NodeId, name: bytes
    ) -> Operation:
        """Return an operation that happens now; with recorder.appending, until it is appended."""
        return Operation(kind, self.recorder.now_ns(), origin, node, parent, name)

    def created(
        self,
        kind: OpKind,
        caller: Caller,
        inode: Inode,
        status: os.stat_result,
        parent_status: os.stat_result,
        *,
        xattrs: Mapping[bytes, bytes],
        target: bytes | None = None,
        contents: Frozen | None = None,
    ) -> None:
        """Record that *inode*, new, is now in the directory and under the name that it has."""
        parent = inode.parent
        assert parent is not None
        directory = self.node(parent)
        inode.node = node = self.recorder.new_node()
        name = inode.name
        origin = self.origin(caller)
        nodes = (
            NodeChange(node, status, Link(directory, name), contents, xattrs, target),
            NodeChange(directory, parent_status),
        )
        names = (NameChange(directory, name, node),)
        with self.recorder.appending:
            operation = self.operation(kind, origin, node, directory, name)
            inode.last = parent.last = self.recorder.append(operation, nodes, names)

    def named(
        self,
        kind: OpKind,
        caller: Caller,
        concerned: tuple[Inode, ...],
        place: Link,
        new_place: Link | None = None,
        *,
        nodes: tuple[NodeChange, ...],
        names: tuple[NameChange, ...],
        node: NodeId | None = None,
    ) -> None:
        """Record a change of names; *node* is what it was done to, else the first of *nodes*."""
        origin = self.origin(caller)
        with self.recorder.appending:
            operation = Operation(
                kind,
                self.recorder.now_ns(),
                origin,
                nodes[0].node if node is None else node,
                place.parent,
                place.name,
                new_place.parent if new_place else NO_NODE,
                new_place.name if new_place else b"",
            )
            seq = self.recorder.append(operation, nodes, names)
        for inode in concerned:
            inode.last = seq

    def changed(
        self,
        kind: OpKind,
        origin: Origin,
        inode: Inode,
        change: NodeChange,
    ) -> Seq:
        """Record a new state of *inode* under its known name."""
        parent = inode.parent.node if inode.parent is not None else NO_NODE
        with self.recorder.appending:
            operation = self.operation(kind, origin, inode.node, parent, inode.name)
            inode.last = self.recorder.append(operation, (change,))
        return inode.last


def _contents(inode: Inode, path_fd: int, size: int) -> Frozen:
    """Freeze all of *inode*, a file; raises OSError."""
    fd = os.open(by_fd(path_fd), os.O_RDONLY | os.O_CLOEXEC)
    if size > COPY_MOST:
        frozen = FrozenFile(fd, ((0, size),), size)
        inode.frozen = [*(inode.frozen or ()), frozen]
        return frozen
    try:
        return FrozenBytes(fd, ((0, size),), size)
    finally:
        os.close(fd)
