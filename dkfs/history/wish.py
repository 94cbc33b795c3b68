"""What a restore is to do: which part of a version is meant, and what becomes of what is there already."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from dkfs.core.patterns import EVERYTHING, Selection
from dkfs.history.fill import Progress
from dkfs.model.node import Kind, NodeState

DEVICES = (Kind.CHAR, Kind.BLOCK)
_SET_ID = 0o6000
_CAPABILITY = b"security.capability"


class Overwrite(Enum):
    """What happens to a file that is there already; the meanings are restic's."""

    ALWAYS = "always"  # it becomes what the version has
    IF_CHANGED = "if-changed"  # as always; one of the same size and time is not read to compare it
    IF_NEWER = "if-newer"  # it becomes what the version has if that was modified later
    NEVER = "never"  # it stays


class Action(Enum):
    """What is done, or would be, to one path."""

    MAKE = "make"
    CHANGE = "change"  # contents, or what kind of thing it is
    SETTLE = "settle"  # owner, mode, time, attributes
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Wish:
    """One restore."""

    overwrite: Overwrite | None = None  # None: nothing may be there
    selection: Selection = EVERYTHING
    delete: bool = False  # remove what the version does not have
    privileged: bool = False  # make devices too, and set-id bits and capabilities of files
    verify: bool = False  # read everything again at the end
    dry_run: bool = False
    on_action: Callable[[Action, bytes], None] | None = None
    on_progress: Progress | None = None


def permitted(
    wish: Wish, state: NodeState, xattrs: dict[bytes, bytes]
) -> tuple[NodeState | None, dict[bytes, bytes], str]:
    """Return what is made of a file and its attributes, and what of it is not unless *wish* asks for it.

    A restore by root must not make programs that run as somebody else, nor doors to hardware, by the way.
    """
    attr = state.attr
    if wish.privileged:
        return state, xattrs, ""
    if attr.kind in DEVICES:
        return None, xattrs, "device"
    omitted = []
    if attr.kind is Kind.FILE and attr.mode & _SET_ID:
        state = replace(state, attr=replace(attr, mode=attr.mode & ~_SET_ID))
        omitted.append("set-id bits")
    if _CAPABILITY in xattrs:
        xattrs = {name: value for name, value in xattrs.items() if name != _CAPABILITY}
        omitted.append("capabilities")
    return state, xattrs, " and ".join(omitted)
