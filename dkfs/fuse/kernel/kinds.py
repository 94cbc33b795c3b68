"""Kinds of requests: which only look at something, and on which devices those are that change something."""

import os
import struct
from enum import Enum
from typing import Final, Protocol

from dkfs.fuse.kernel.messages import BATCH_FORGET_IN, FORGET_ONE, IN_HEADER, Op
from dkfs.fuse.kernel.request import Buffer, Held, Own, Task
from dkfs.overlay.virtual import VIRTUAL


class Kind(Enum):
    """Who may serve a request while the loop is kept."""

    LOOK = "look"  # anybody
    CHANGE = "change"  # whose turn it is, see changes
    LOOPS = "loop's"  # nobody


_LOOKS: Final = frozenset(
    (
        *(Op.LOOKUP, Op.GETATTR, Op.STATX, Op.READLINK, Op.ACCESS, Op.STATFS, Op.READ, Op.LSEEK),
        *(Op.OPENDIR, Op.READDIR, Op.READDIRPLUS, Op.GETXATTR, Op.LISTXATTR, Op.INTERRUPT),
    )
)
_LOOPS: Final = frozenset((Op.INIT, Op.DESTROY, Op.NOTIFY_REPLY))  # of the connection
_OF_ONE_NODE: Final = frozenset(
    (
        *(Op.SETATTR, Op.MKNOD, Op.MKDIR, Op.SYMLINK, Op.UNLINK, Op.RMDIR, Op.OPEN, Op.CREATE),
        *(Op.TMPFILE, Op.WRITE, Op.FLUSH, Op.RELEASE, Op.FSYNC, Op.RELEASEDIR, Op.FSYNCDIR),
        *(Op.SETXATTR, Op.REMOVEXATTR, Op.FALLOCATE, Op.IOCTL),
    )
)
# Where the number of the other node is.
_SECOND_NODE: Final = {
    Op.LINK: IN_HEADER.size,
    Op.RENAME: IN_HEADER.size,
    Op.RENAME2: IN_HEADER.size,
    Op.COPY_FILE_RANGE: IN_HEADER.size + 16,
    Op.COPY_FILE_RANGE_64: IN_HEADER.size + 16,
}
_OPCODE: Final = struct.Struct("<4xI")
_NODE: Final = struct.Struct("<16xQ")
_NUMBER: Final = struct.Struct("<Q")
_FLAGS: Final = struct.Struct(f"<{IN_HEADER.size}xI")  # of OPEN
_CHANGES: Final = os.O_ACCMODE | os.O_TRUNC
_IOCTL: Final = struct.Struct(f"<{IN_HEADER.size + 12}xI")  # the command
_IOC_WRITE: Final = (
    1 << 30
)  # in a command: the caller gives data.  Who asks for a terminal gives none

Claim = frozenset[int] | None  # devices; None: everything
NOTHING: Final[frozenset[int]] = frozenset()


def kind_of(request: Buffer, size: int) -> Kind:
    """Return the kind of *request*, whose first *size* bytes count; what makes no sense changes nothing."""
    if size < IN_HEADER.size:
        return Kind.LOOK
    (opcode,) = _OPCODE.unpack_from(request)
    if opcode in _LOOKS:
        return Kind.LOOK
    if opcode == Op.OPEN and size >= _FLAGS.size:
        is_look = not _FLAGS.unpack_from(request)[0] & _CHANGES
    elif opcode == Op.IOCTL and size >= _IOCTL.size:
        is_look = not _IOCTL.unpack_from(request)[0] & _IOC_WRITE
    else:
        return Kind.LOOPS if opcode in _LOOPS else Kind.CHANGE
    return Kind.LOOK if is_look else Kind.CHANGE


class Where(Protocol):
    """Knows where nodes are."""

    def devices(self, node: int) -> frozenset[int]:
        """Return the devices that a change of *node* is about."""

    def devices_above(self, node: int) -> frozenset[int]:
        """Return those of *node* and of the directories above it."""


def claim_of(task: Task, where: Where) -> Claim:
    """Return the devices on which *task* changes something.

    What only looks claims nothing: who looks and who changes things bear each other, see decisions/0019.
    """
    if isinstance(task, Own):
        return task.claim
    request = task.request if isinstance(task, Held) else task
    size = len(request)
    if kind_of(request, size) is not Kind.CHANGE:
        return NOTHING
    (opcode,), (node,) = _OPCODE.unpack_from(request), _NODE.unpack_from(request)
    second = _SECOND_NODE.get(opcode)
    if second is not None and size >= second + _NUMBER.size:
        other = _NUMBER.unpack_from(request, second)[0]
        return NOTHING.union(*(where.devices(each) for each in (node, other) if each < VIRTUAL))
    if opcode in (Op.FORGET, Op.BATCH_FORGET):
        # With a file the directories above it are given up, if nothing else is in them: fds are closed.
        nodes = (node,) if opcode == Op.FORGET else _forgotten(request)
        return NOTHING.union(*(where.devices_above(each) for each in nodes if each < VIRTUAL))
    if opcode not in _OF_ONE_NODE:
        return None
    if node < VIRTUAL:
        return where.devices(node)
    return None if opcode in (Op.MKDIR, Op.RMDIR) else NOTHING  # they make and remove tags


def _forgotten(request: Buffer) -> list[int]:
    """Return the nodes that BATCH_FORGET *request* is about."""
    start = IN_HEADER.size + BATCH_FORGET_IN.size
    room = len(request) - (len(request) - start) % FORGET_ONE.size
    return [node for node, _ in FORGET_ONE.iter_unpack(memoryview(request)[start:room])]
