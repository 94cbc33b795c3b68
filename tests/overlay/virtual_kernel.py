"""Who asks the history tree, and how: people, a small kernel, the tree under test."""

import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from dkfs.errors import DkfsError, ExistsError
from dkfs.model.ids import Seq
from dkfs.model.operation import OpKind
from dkfs.overlay.access import ACL_ACCESS
from dkfs.overlay.virtual import Virtual, VirtualStatus
from tests.history.model_history import ModelHistory
from tests.overlay.acls import IDENTITIES, Entry, oracle

ROOT_INODE = 1
SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Somebody:
    uid: int
    gid: int
    pid: int = 0
    groups: frozenset[int] = frozenset()

    @property
    def all_groups(self) -> set[int]:
        return {self.gid, *self.groups}


ADMIN = Somebody(0, 0)
OWNER = Somebody(1000, 1000, pid=10)  # of all that ModelHistory makes
OTHER = Somebody(1004, 2009, pid=11)
PEOPLE = [
    Somebody(uid, gid, pid, frozenset(groups))
    for pid, (uid, gid, groups) in enumerate(IDENTITIES, start=100)
]


class StoredTags:
    """Keeps tags right in the store."""

    def __init__(self, history: ModelHistory) -> None:
        self._history = history

    def tag(self, name: str) -> Seq:
        with self._history.store.read() as reader:
            if reader.tag(name) is not None:
                raise ExistsError(f"tag {name} exists already")
        seq = self._history.last
        self._history.tag(name, seq)
        return seq

    def untag(self, name: str) -> None:
        with self._history.store.write() as writer:
            writer.delete_tag(name)


class Kernel:
    """Walks, stats, lists and reads as the kernel does with default_permissions and no caches."""

    def __init__(self, virtual: Virtual) -> None:
        self.virtual = virtual

    def find(self, path: bytes, caller: Somebody = ADMIN) -> VirtualStatus:
        """Return what *path*, which begins in the root of the mount, is."""
        parent = ROOT_INODE
        found = None
        for name in path.split(b"/"):
            if found is not None:
                self._need(found, 1, caller)
            found = self.virtual.lookup(parent, name, caller)
            parent = found.number
        assert found is not None
        return self.virtual.getattr(found.number)

    def list(self, path: bytes, caller: Somebody = ADMIN) -> list[bytes]:
        found = self.find(path, caller)
        self._need(found, 4, caller)
        fh = self.virtual.opendir(found.number, caller)
        number, names = self.virtual.names(fh, again=True)
        assert number == found.number
        for name in names:
            peeked = self.virtual.peek(number, name)
            assert peeked is not None
            self.virtual.reference(peeked)
            self.virtual.forget(peeked.number, 1)
        self.virtual.releasedir(fh)
        return names

    def read(self, path: bytes, caller: Somebody = ADMIN) -> bytes:
        found = self.find(path, caller)
        self._need(found, 4, caller)
        fh = self.virtual.open(found.number, os.O_RDONLY, caller)
        data = self.virtual.read(fh, 0, found.size + 10)
        self.virtual.release(fh)
        return data

    def link(self, path: bytes, caller: Somebody = ADMIN) -> bytes:
        return self.virtual.readlink(self.find(path, caller).number, caller)

    def getxattr(self, path: bytes, name: bytes, caller: Somebody = ADMIN) -> bytes:
        return self.virtual.getxattr(self.find(path, caller).number, name, caller)

    def exists(self, path: bytes, caller: Somebody = ADMIN) -> bool:
        try:
            self.find(path, caller)
        except FileNotFoundError:
            return False
        return True

    def _need(self, status: VirtualStatus, want: int, caller: Somebody) -> None:
        entries: list[Entry] | None = None
        try:
            data = self.virtual.getxattr(status.number, ACL_ACCESS, caller)
            entries = list(struct.iter_unpack("<HHI", data[4:]))
        except OSError as exc:
            if exc.errno != errno.ENODATA:
                raise
        case = status.mode, status.uid, status.gid, entries
        if caller.uid != 0 and not oracle(want, case, caller.uid, caller.all_groups):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def virtual_of(history: ModelHistory, *, name: bytes | None = b".dkfs") -> Virtual:
    groups = {who.pid: who.groups for who in PEOPLE}
    return Virtual(
        history.store,
        name=name,
        tags=StoredTags(history),
        clock_ns=lambda: history.time_ns(history.last),
        groups=lambda pid: groups.get(pid, frozenset()),
    )


def number_of_error(call: Callable[[], object]) -> int:
    with pytest.raises((OSError, DkfsError)) as caught:
        call()
    assert isinstance(caught.value, OSError | DkfsError)
    return caught.value.errno or 0


def chown(history: ModelHistory, path: bytes, uid: int, gid: int) -> None:
    node, place = history._at(path)
    state = history._states[node]
    state = history._seen(replace(state, attr=replace(state.attr, uid=uid, gid=gid)), place)
    with history._transaction() as writer:
        history._append(writer, OpKind.SETATTR, node, place, {node: state})


def can(call: Callable[[], object]) -> bool:
    try:
        call()
    except (PermissionError, FileNotFoundError):
        return False
    return True


def shown(state: object) -> object:
    return replace(state, parent=0, name=b"", attr=replace(state.attr, ctime_ns=0))  # type: ignore[type-var, attr-defined]
