"""The namespace: lookup, create, unlink, rename, ... on the backing directory and in the log."""

import os
from collections.abc import Callable

from dkfs.failpoints import failpoint
from dkfs.history.change import Link, NameChange, NodeChange
from dkfs.model.ids import NO_NODE, Seq
from dkfs.model.operation import OpKind
from dkfs.overlay import backing
from dkfs.overlay.backing import by_fd, xattrs_of
from dkfs.overlay.creation import Creation
from dkfs.overlay.inodes import Inode, InodeTable
from dkfs.overlay.origin import Caller


class _UnpinnedOnError:
    """Takes back the pin of an inode, if there is one, when its block fails; cheaper than a generator."""

    __slots__ = ("_inode", "_table")

    def __init__(self, table: InodeTable, inode: Inode | None) -> None:
        self._table = table
        self._inode = inode

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._inode is not None:
            self._table.unpin(self._inode)


class Names(Creation):
    """The names in the backing directory: all of it, and removing and moving."""

    def unlink(self, parent: Inode, name: bytes, caller: Caller) -> Seq | None:
        """Remove a name that is not a directory's; raises OSError.

        Return the version to wait for if the file was made durable: removing it may be how an
        application commits.  SQLite's rollback journal is removed so, and its directory not synced.
        """
        inode = self._remove(
            OpKind.UNLINK, parent, name, caller, lambda fd: os.unlink(name, dir_fd=fd)
        )
        return parent.last if inode is not None and inode.synced else None

    def rmdir(self, parent: Inode, name: bytes, caller: Caller) -> None:
        """Remove an empty directory; raises OSError."""
        self._remove(OpKind.RMDIR, parent, name, caller, lambda fd: os.rmdir(name, dir_fd=fd))

    def _remove(
        self,
        kind: OpKind,
        parent: Inode,
        name: bytes,
        caller: Caller,
        remove: Callable[[int], None],
    ) -> Inode | None:
        self._check(parent, name)
        inode = self._about_to_lose(parent, name)
        with _UnpinnedOnError(self._table, inode):
            node = self._journal.node(parent)
            directory = self._table.fd(parent)
            failpoint("backing.remove")
            remove(directory)
        try:
            self._journal.named(
                kind,
                caller,
                (parent,),
                Link(node, name),
                nodes=(NodeChange(node, os.fstat(directory)),),
                names=(NameChange(node, name, NO_NODE),),
                node=inode.node if inode is not None else NO_NODE,
            )
        finally:
            if inode is not None:
                self._lost(inode, parent, name)
        return inode

    def _about_to_lose(self, parent: Inode, name: bytes) -> Inode | None:
        """Return the known inode that *name* leads to, held by an fd so that it outlives the name."""
        try:
            status = os.stat(name, dir_fd=self._table.fd(parent), follow_symlinks=False)
        except FileNotFoundError:
            return None
        inode = self._table.get(status)
        if inode is not None:
            try:
                self._journal.node(inode)  # the name is how a node is found in the history
            except PermissionError:
                pass  # what may not be read is not in the history
            self._table.pin(inode)
        return inode

    def _lost(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """Note that *name* in *parent* is no name of *inode* any more."""
        status = os.fstat(inode.fd)
        if inode.is_dir or status.st_nlink == 0:
            inode.unlinked = True
        else:  # whoever syncs it by another name has lost this one for good, as on other file systems
            inode.last = max(inode.last, parent.last)
        if not inode.is_dir:
            # What was written since the last capture was not counted.
            size = inode.recorded_size if inode.handles else status.st_size
            self._count.change(-1, size)
        if inode.parent is parent and inode.name == name:
            self._table.unnamed(inode)
        self._table.unpin(inode)
        self._table.forget(inode, 0)

    def rename(
        self,
        old_parent: Inode,
        old: bytes,
        new_parent: Inode,
        new: bytes,
        flags: int,
        caller: Caller,
    ) -> None:
        """Rename as renameat2(2) with *flags*; raises OSError."""
        self._check(old_parent, old)
        self._check(new_parent, new)
        self._refuse_other_mount(old_parent, new_parent)
        inode = self._source(old_parent, old)
        victim = self._about_to_lose(new_parent, new)
        if victim is inode:
            self._table.unpin(inode)
            return  # two names of one file: rename(2) does nothing
        exchanged = victim if flags & backing.RENAME_EXCHANGE else None
        with _UnpinnedOnError(self._table, victim):
            # The contents come before the name: no version shows the new name with older bytes.
            origin = self._journal.origin(caller)
            for each in (inode, exchanged) if exchanged is not None else (inode,):
                self._captures.capture(each, origin)
            concerned = (inode, old_parent, new_parent, *((exchanged,) if exchanged else ()))
            for one in concerned:
                self._journal.node(one)
            fds = self._table.pair(old_parent, new_parent)
            failpoint("backing.rename")
            moving = {inode: (new_parent, new)}
            if exchanged is not None:
                moving[exchanged] = old_parent, old
            self._table.begin_moving(moving)
            try:
                backing.rename(fds[0], old, fds[1], new, flags)
            except OSError:
                self._table.end_moving(moving)
                raise
        places = (old_parent, old), (new_parent, new)
        try:
            left = self._record_rename(inode, *places, exchanged, flags, caller)
        finally:  # it is done, recorded or not
            self._renamed(inode, *places, victim, exchanged)
            self._table.end_moving(moving)
        if left is not None:
            self._table.forget(left, 0)  # the kernel has not asked for a whiteout yet

    def _record_rename(
        self,
        inode: Inode,
        old: tuple[Inode, bytes],
        new: tuple[Inode, bytes],
        exchanged: Inode | None,
        flags: int,
        caller: Caller,
    ) -> Inode | None:
        """Record what was just renamed; return what is under the old name now."""
        old_place, new_place = Link(old[0].node, old[1]), Link(new[0].node, new[1])
        old_fd, new_fd = self._table.pair(old[0], new[0])
        status = os.stat(new[1], dir_fd=new_fd, follow_symlinks=False)
        changes = [
            NodeChange(inode.node, status, new_place),
            NodeChange(old_place.parent, os.fstat(old_fd)),
        ]
        if new[0] is not old[0]:
            changes.append(NodeChange(new_place.parent, os.fstat(new_fd)))
        left = exchanged
        if exchanged is not None:
            status = os.stat(old[1], dir_fd=old_fd, follow_symlinks=False)
            changes.append(NodeChange(exchanged.node, status, old_place))
        elif flags & backing.RENAME_WHITEOUT:
            left, whiteout = self._whiteout(*old, caller)
            changes.append(whiteout)
        node_left = left.node if left is not None else NO_NODE
        self._journal.named(
            OpKind.EXCHANGE if exchanged is not None else OpKind.RENAME,
            caller,
            (inode, old[0], new[0], *((left,) if left is not None else ())),
            old_place,
            new_place,
            nodes=tuple(changes),
            names=(NameChange(*old_place, node_left), NameChange(*new_place, inode.node)),
        )
        return left

    def _whiteout(self, parent: Inode, name: bytes, caller: Caller) -> tuple[Inode, NodeChange]:
        """Take in what RENAME_WHITEOUT has left behind, which is the caller's."""
        directory = self._table.fd(parent)
        fd = os.open(name, backing.O_PATH, dir_fd=directory)
        try:
            status = self._own(fd, directory, 0, caller)
            xattrs = xattrs_of(by_fd(fd))
        finally:
            os.close(fd)
        inode = self._table.found(parent, name, status)
        inode.node = self._journal.recorder.new_node()
        self._count.change(1)
        return inode, NodeChange(inode.node, status, Link(parent.node, name), None, xattrs)

    def known(self, parent: Inode, name: bytes) -> Inode | None:
        """Return the known inode that *name* in *parent* leads to; None if there is none."""
        try:
            status = os.stat(name, dir_fd=self._table.fd(parent), follow_symlinks=False)
        except OSError:
            return None
        return self._table.get(status)

    def _source(self, parent: Inode, name: bytes) -> Inode:
        status = os.stat(name, dir_fd=self._table.fd(parent), follow_symlinks=False)
        return self._table.found(parent, name, status)

    def _renamed(
        self,
        inode: Inode,
        old: tuple[Inode, bytes],
        new: tuple[Inode, bytes],
        victim: Inode | None,
        exchanged: Inode | None,
    ) -> None:
        if exchanged is not None:
            if (exchanged.parent, exchanged.name) == new:
                self._table.moved(exchanged, *old)
            self._table.unpin(exchanged)
        elif victim is not None:
            self._lost(victim, *new)
        if (inode.parent, inode.name) == old or inode.parent is None:
            self._table.moved(inode, *new)
