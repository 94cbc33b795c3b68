"""One inode of the backing directory, as the kernel knows it."""

import os
import threading
from typing import TYPE_CHECKING, Final

from dkfs.model.ids import NO_NODE, NodeId, Seq

if TYPE_CHECKING:
    from dkfs.history.frozen import FrozenFile
    from dkfs.overlay.handles import Handle


class _InUse:
    """What is true of few inodes at a time."""

    __slots__ = (
        *("bypassed", "frozen", "handle", "handles", "ino", "pinned", "recorded_size", "synced"),
        "unlinked",
    )

    def __init__(self) -> None:
        self.bypassed = False
        self.frozen: list[FrozenFile] | None = None
        self.handle: bytes | None = None
        self.handles: list[Handle] | None = None
        self.ino = 0  # 0: the number is the kernel's too
        self.pinned = False
        self.recorded_size = 0
        self.synced = False
        self.unlinked = False

    @property
    def is_nothing(self) -> bool:
        """Whether nothing of it is true."""
        return (
            self.handles is None
            and self.frozen is None
            and self.handle is None
            and not (self.ino or self.pinned or self.unlinked or self.synced or self.bypassed)
        )


_DIR: Final = 1  # bits of an inode
_PLAIN: Final = 2

_NOTHING: Final = _InUse()  # that of most inodes; never changed
# Two threads may change one inode at once, each another attribute.  One lock for all: it is held for a microsecond.
_CHANGING: Final = threading.Lock()


def devices_of(inode: "Inode") -> frozenset[int]:
    """Return the devices that a change of *inode* is about.

    Of a file its directory's too: over overlayfs a file has that of its layer, and is changed by names, too.
    """
    parent = inode.parent  # once: another thread may forget the inode meanwhile
    if inode.is_dir or parent is None or parent.dev == inode.dev:
        return frozenset((inode.dev,))
    return frozenset((inode.dev, parent.dev))


class Inode:
    """A file, directory, ... of the backing directory that the kernel, or a child, refers to.

    A million may be known: each takes 128 bytes, with its number, name and place in the table 250 (decisions/0015).
    """

    __slots__ = (
        *("_bits", "_in_use", "children", "dev", "fd", "generation", "id", "last", "lookups"),
        *("name", "node", "parent"),
    )

    def __init__(
        self, number: int, status: os.stat_result, device: int, generation: int = 0
    ) -> None:
        self.id = number  # the kernel's node id
        self.dev = device  # the same object in each
        self.generation = generation  # tells it from whatever else has had its number; likewise
        self.fd = -1  # O_PATH, or -1
        self.parent: Inode | None = None
        self.name = b""
        self.children = 0  # inodes whose parent is this
        self.lookups = 0  # references of the kernel
        self.node: NodeId = NO_NODE  # in the history, once known
        self.last = Seq(0)  # the last operation that concerned it
        self._bits = _DIR if (status.st_mode & 0o170000) == 0o040000 else 0
        self._in_use = _NOTHING
        if number != status.st_ino:
            self._used().ino = status.st_ino

    def _used(self) -> _InUse:
        """Return what is this inode's own, to be changed under _CHANGING."""
        if self._in_use is _NOTHING:
            self._in_use = _InUse()
        return self._in_use

    def _settle(self) -> None:
        """Let go of what is this inode's own, if nothing of it is true any more; under _CHANGING."""
        if self._in_use.is_nothing:
            self._in_use = _NOTHING

    @property
    def ino(self) -> int:
        """The number of the backing file system."""
        return self._in_use.ino or self.id

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return bool(self._bits & _DIR)

    @property
    def plain(self) -> bool:
        """Whether it is known to have no set-id bits and no security.capability."""
        return bool(self._bits & _PLAIN)

    @plain.setter
    def plain(self, value: bool) -> None:
        self._bits = self._bits | _PLAIN if value else self._bits & ~_PLAIN

    @property
    def pinned(self) -> bool:
        """The fd is not closed to save fds."""
        return self._in_use.pinned

    @pinned.setter
    def pinned(self, value: bool) -> None:
        if self._in_use.pinned != value:
            with _CHANGING:
                self._used().pinned = value
                self._settle()

    @property
    def unlinked(self) -> bool:
        """It has lost its last name."""
        return self._in_use.unlinked

    @unlinked.setter
    def unlinked(self, value: bool) -> None:
        if self._in_use.unlinked != value:
            with _CHANGING:
                self._used().unlinked = value
                self._settle()

    @property
    def synced(self) -> bool:
        """An application has asked for its contents to be durable."""
        return self._in_use.synced

    @synced.setter
    def synced(self, value: bool) -> None:
        if self._in_use.synced != value:
            with _CHANGING:
                self._used().synced = value
                self._settle()

    @property
    def bypassed(self) -> bool:
        """The kernel's pages may be older than the file that it went past."""
        return self._in_use.bypassed

    @bypassed.setter
    def bypassed(self, value: bool) -> None:
        if self._in_use.bypassed != value:
            with _CHANGING:
                self._used().bypassed = value
                self._settle()

    @property
    def handle(self) -> bytes | None:
        """The file handle of what has lost its known name and has others."""
        return self._in_use.handle

    @handle.setter
    def handle(self, value: bytes | None) -> None:
        if self._in_use.handle != value:
            with _CHANGING:
                self._used().handle = value
                self._settle()

    @property
    def handles(self) -> "list[Handle] | None":
        """The open files through which it is written."""
        return self._in_use.handles

    @handles.setter
    def handles(self, value: "list[Handle] | None") -> None:
        if self._in_use.handles is not value:
            with _CHANGING:
                self._used().handles = value
                self._settle()

    @property
    def frozen(self) -> "list[FrozenFile] | None":
        """Contents that are being recorded."""
        return self._in_use.frozen

    @frozen.setter
    def frozen(self, value: "list[FrozenFile] | None") -> None:
        if self._in_use.frozen is not value:
            with _CHANGING:
                self._used().frozen = value
                self._settle()

    @property
    def recorded_size(self) -> int:
        """Bytes of the contents last frozen; valid while handles is set."""
        return self._in_use.recorded_size

    @recorded_size.setter
    def recorded_size(self, value: int) -> None:
        if self._in_use.recorded_size != value:
            with _CHANGING:
                self._used().recorded_size = value
