"""Finds what a real directory has that a version has not, and the other way round, by looking at every file once.

A file is the same if kind, size, mtime, mode and owner are what was recorded, and either its ctime is too (nothing was
done to the inode since) or its extended attributes are.  What may have been changed within the tick of a clock, or in a
crash, is told by the caller with *rehash_since_ns*: such files are compared by content (see doubt).

Names are matched by name and kind.  Files with more than one link are matched by inode as well: one that has no name in
the history comes at the end, when it is known whether another name of it has a node.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from dkfs.core.codec import glance
from dkfs.errors import CorruptError
from dkfs.history import content
from dkfs.history.doubt import Doubt, has_content
from dkfs.history.metadata import has_xattrs, path_in, read_xattrs
from dkfs.history.places import Directories
from dkfs.history.tree import shown
from dkfs.model.ids import NO_NODE, ROOT, NodeId, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.store import Reader
from dkfs.store.reach import reach_of_lost


class What(Enum):
    """How the directory and the version differ at one name."""

    NEW = auto()  # a node that only the directory has; the name may have led to another one
    LINK = auto()  # a name that only the directory has, of a node that has others
    CHANGED = auto()  # the same node, another state
    MISSING = auto()  # a name that only the version has
    SKIPPED = auto()  # cannot be looked at: as if it were unchanged


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference.  *dir_fd* is good until the next one is asked for."""

    what: What
    parent: NodeId
    name: bytes
    node: NodeId  # NEW: an id never used; MISSING: what the version has
    old: NodeState | None = None  # CHANGED, MISSING: in the version
    replaced: NodeId = NO_NODE  # NEW, LINK: what the name led to in the version
    status: os.stat_result | None = None
    dir_fd: int = -1
    why: str = ""  # SKIPPED: for people, path first


def scan(
    reader: Reader, root_fd: int, *, at: Seq, rehash_since_ns: int | None
) -> Iterator[Finding]:
    """Yield how the directory *root_fd* differs from version *at*; 0: from nothing.

    A directory comes before what it holds, except that files with several links and no known name come last.  Of a
    directory that is MISSING only its name is given, not what it held.  Other file systems mounted in it are SKIPPED.
    Raises OSError and CorruptError.
    """
    scanner = _Scanner(reader, root_fd, at, rehash_since_ns)
    with scanner.directories:
        yield from scanner.run()


class _Scanner:
    def __init__(self, reader: Reader, root_fd: int, at: Seq, rehash_since_ns: int | None) -> None:
        self._reader = reader
        self._root_fd = root_fd
        self._at = at
        self._doubt = Doubt(reader, rehash_since_ns)
        self._device = os.fstat(root_fd).st_dev
        self._lost = reach_of_lost(reader)
        self._next = max(reader.next_node(), ROOT + 1)
        self._inodes: dict[int, NodeId] = {}  # of files with several links
        self._seen: dict[NodeId, int] = {}  # inode of each node that is not a directory
        self._waiting: list[tuple[NodeId, bytes, NodeId]] = []  # directory, name, what it led to
        self._directories: list[tuple[NodeId, bool]] = []  # still to be looked into; whether new
        self.directories = Directories(root_fd, self._recorded_place)

    def run(self) -> Iterator[Finding]:
        """Find everything."""
        status = os.fstat(self._root_fd)
        found = self._reader.node_seq(ROOT, self._at) if self._at else None
        old = found[1] if found is not None else None
        if found is None:
            yield Finding(What.NEW, ROOT, b"", ROOT, status=status, dir_fd=self._root_fd)
        elif self._differs(*found, status, b".", self._root_fd):
            yield Finding(
                What.CHANGED, ROOT, b"", ROOT, old=old, status=status, dir_fd=self._root_fd
            )
        self._directories.append((ROOT, old is None))
        while self._directories:
            yield from self._look_into(*self._directories.pop())
        for parent, name, replaced in self._waiting:
            yield from self._decide_waiting(parent, name, replaced)

    def _look_into(self, directory: NodeId, is_new: bool) -> Iterator[Finding]:  # noqa: FBT001 - of the stack
        try:
            fd = self.directories.fd(directory)
        except PermissionError as exc:
            yield self._skipped(directory, b"", exc.strerror or str(exc))
            return
        known = {} if is_new else dict(self._reader.children(directory, self._at))
        # All names first: what is found may be removed or replaced before the next is asked for.
        names = [os.fsencode(name) for name in os.listdir(fd)]
        records = self._reader.records(known.values(), self._at)
        for name in names:
            child = known.pop(name, NO_NODE)
            fd = self.directories.fd(directory)
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                if child:
                    known[name] = child
                continue
            if child:
                record = records.get(child)
                if record is not None and self._is_plainly_same(child, *record, status):
                    continue
                finding = self._compare(directory, name, child, status, fd)
                if finding is None:
                    continue
            elif status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                self._waiting.append((directory, name, NO_NODE))
                continue
            else:
                finding = self._new(directory, name, NO_NODE, status, fd)
            yield finding
        for name, child in known.items():
            old = self._reader.node(child, self._at)
            yield Finding(What.MISSING, directory, name, child, old=old)

    def _is_plainly_same(
        self, node: NodeId, seq: Seq, record: bytes, status: os.stat_result
    ) -> bool:
        """Return whether a file with one name is what it was, no doubt; if not, _compare() says more."""
        known = glance(record)
        return (
            known is not None
            and known[0] == status.st_ctime_ns < self._doubt.since_ns
            and known[1] == (status.st_mode, *status[4:7], status.st_mtime_ns)  # owner, group, size
            and status.st_nlink == 1
            and status.st_mtime_ns < self._doubt.since_ns
            and status.st_dev == self._device
            and self._lost is None
            and not self._doubt.is_timeless(seq)
            and self._seen.setdefault(node, status.st_ino) == status.st_ino
        )

    def _compare(
        self, directory: NodeId, name: bytes, child: NodeId, status: os.stat_result, fd: int
    ) -> Finding | None:
        """Return how a name that both have differs; None if not, or if it is decided later."""
        found = self._reader.node_seq(child, self._at)
        if found is None:
            raise CorruptError(f"node {child} has a name but no state at version {self._at}")
        seq, old = found
        if status.st_dev != self._device:
            return self._skipped(directory, name, "another file system is mounted there")
        if stat.S_IFMT(status.st_mode) != _FORMATS[old.attr.kind] or not _is_same_node(
            old, status, name, fd
        ):
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                self._waiting.append((directory, name, child))
                return None
            return self._new(directory, name, child, status, fd)
        if old.attr.kind is Kind.DIR:
            self.directories.put(child, (directory, name))
            self._directories.append((child, False))
        else:
            inode = self._seen.setdefault(child, status.st_ino)
            is_other = inode != status.st_ino  # than the one under another name of the same node
            if status.st_nlink > 1:
                if is_other or self._inodes.setdefault(status.st_ino, child) != child:
                    self._waiting.append((directory, name, child))
                    return None
            elif is_other:
                return self._new(directory, name, child, status, fd)
        try:
            if not self._differs(seq, old, status, name, fd):
                return None
        except PermissionError as exc:
            return self._skipped(directory, name, exc.strerror or str(exc))
        return Finding(What.CHANGED, directory, name, child, old=old, status=status, dir_fd=fd)

    def _differs(
        self, seq: Seq, old: NodeState, status: os.stat_result, name: bytes, fd: int
    ) -> bool:
        attr = old.attr
        if (
            attr.mtime_ns != status.st_mtime_ns
            or (attr.mode != status.st_mode & 0o7777 and attr.kind is not Kind.SYMLINK)
            or attr.uid != status.st_uid
            or attr.gid != status.st_gid
            or (attr.kind is Kind.FILE and attr.size != status.st_size)
        ):
            return True
        if self._lost is not None and self._lost.of(old) is not None:
            return (
                True  # the store has nothing to compare with, but the directory still has the file
            )
        is_touched = status.st_ctime_ns != attr.ctime_ns or self._doubt.about_attributes(
            seq, status
        )
        if is_touched and self._xattrs_differ(old, name, fd):
            return True
        if attr.kind is Kind.FILE and self._doubt.about(seq, attr.ctime_ns, status):
            return not has_content(self._reader, old, name, fd)
        return False

    def _xattrs_differ(self, old: NodeState, name: bytes, fd: int) -> bool:
        if old.xattrs is None and not has_xattrs(name, fd):
            return False
        path = path_in(name, fd)
        return read_xattrs(path, follow=False) != content.xattrs(self._reader, old)

    def _new(
        self, directory: NodeId, name: bytes, replaced: NodeId, status: os.stat_result, fd: int
    ) -> Finding:
        if status.st_dev != self._device:
            return self._skipped(directory, name, "another file system is mounted there")
        node = NodeId(self._next)
        self._next += 1
        if stat.S_ISDIR(status.st_mode):
            self.directories.put(node, (directory, name))
            self._directories.append((node, True))
        return Finding(What.NEW, directory, name, node, replaced=replaced, status=status, dir_fd=fd)

    def _decide_waiting(
        self, directory: NodeId, name: bytes, replaced: NodeId
    ) -> Iterator[Finding]:
        fd = self.directories.fd(directory)
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        node = self._inodes.get(status.st_ino)
        if node is None:
            finding = self._new(directory, name, replaced, status, fd)
            self._inodes[status.st_ino] = finding.node
            yield finding
        elif node != replaced:
            yield Finding(
                What.LINK, directory, name, node, replaced=replaced, status=status, dir_fd=fd
            )

    def _skipped(self, directory: NodeId, name: bytes, why: str) -> Finding:
        names = [name] if name else []
        above = directory
        while above != ROOT:
            above, step = self.directories.place(above)
            names.append(step)
        return Finding(
            What.SKIPPED,
            directory,
            name,
            NO_NODE,
            why=f"{shown(b'/'.join(reversed(names)))}: {why}",
        )

    def _recorded_place(self, node: NodeId) -> tuple[NodeId, bytes]:
        raise CorruptError(f"directory node {node} was not found")


_FORMATS = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIR: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
    Kind.CHAR: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
}


def _is_same_node(old: NodeState, status: os.stat_result, name: bytes, fd: int) -> bool:
    """Return whether what cannot change in a node is the same: where a symlink leads, which device it is."""
    if old.attr.kind is Kind.SYMLINK:
        return status.st_ctime_ns == old.attr.ctime_ns or os.readlink(name, dir_fd=fd) == old.target
    if old.attr.kind in (Kind.CHAR, Kind.BLOCK):
        return status.st_rdev == old.attr.rdev
    return True
