"""Between the file system and the recorder: which node an inode is, and what is to be recorded."""

import os
import stat
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
                if step.parent is not None:
                    step.node = reader.child(step.parent.node, step.name, reader.last)
                if not step.node:
                    break
        for step in reversed(chain):
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
        inode.node = self.recorder.new_node()
        change = NodeChange(
            inode.node,
            status,
            Link(parent, inode.name),
            contents,
            xattrs_of(by_fd(fd)),
            target,
        )
        inode.last = self.recorder.append(
            self.operation(OpKind.FOUND, NOBODY, inode.node, parent, inode.name),
            (change,),
            (NameChange(parent, inode.name, inode.node),),
        )

    def operation(
        self, kind: OpKind, origin: Origin, node: NodeId, parent: NodeId, name: bytes
    ) -> Operation:
        """Return an operation that happens now."""
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
        inode.last = parent.last = self.recorder.append(
            self.operation(kind, self.origin(caller), node, directory, name),
            (
                NodeChange(node, status, Link(directory, name), contents, xattrs, target),
                NodeChange(directory, parent_status),
            ),
            (NameChange(directory, name, node),),
        )

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
        operation = Operation(
            kind,
            self.recorder.now_ns(),
            self.origin(caller),
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
        inode.last = self.recorder.append(
            self.operation(kind, origin, inode.node, parent, inode.name), (change,)
        )
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
