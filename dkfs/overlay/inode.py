"""One inode of the backing directory, as the kernel knows it."""

import os
from typing import TYPE_CHECKING

from dkfs.model.ids import NO_NODE, NodeId, Seq

if TYPE_CHECKING:
    from dkfs.history.frozen import FrozenFile
    from dkfs.overlay.handles import Handle


class Inode:
    """A file, directory, ... of the backing directory that the kernel, or a child, refers to."""

    __slots__ = (
        "bypassed",
        "children",
        "dev",
        "fd",
        "frozen",
        "generation",
        "handle",
        "handles",
        "id",
        "ino",
        "is_dir",
        "last",
        "lookups",
        "name",
        "node",
        "parent",
        "pinned",
        "plain",
        "recorded_size",
        "synced",
        "unlinked",
    )

    def __init__(
        self, number: int, status: os.stat_result, device: int, generation: int = 0
    ) -> None:
        self.id = number  # the kernel's node id
        self.dev = device  # a million may be known: the same object in each
        self.ino = number if number == status.st_ino else status.st_ino
        self.generation = generation  # tells it from whatever else has had its number
        self.is_dir = (status.st_mode & 0o170000) == 0o040000
        self.fd = -1  # O_PATH, or -1
        self.pinned = False  # the fd is not closed to save fds
        self.handle: bytes | None = None  # of what has lost its known name and has others
        self.parent: Inode | None = None
        self.name = b""
        self.children = 0  # inodes whose parent is this
        self.lookups = 0  # references of the kernel
        self.node: NodeId = NO_NODE  # in the history, once known
        self.last = Seq(0)  # the last operation that concerned it
        self.unlinked = False
        self.synced = False  # an application has asked for its contents to be durable
        self.plain = False  # known to have no set-id bits and no security.capability
        self.bypassed = False  # the kernel's pages may be older than the file that it went past
        self.handles: list[Handle] | None = None  # open for writing
        self.frozen: list[FrozenFile] | None = None  # contents being recorded
        self.recorded_size = 0  # bytes, of the contents last frozen; valid while handles is set
