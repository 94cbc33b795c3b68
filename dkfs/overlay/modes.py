"""Io modes: how each file is opened, given its rule, what is open already, and what the kernel has granted.

Until grant() everything is as in strict.  What is opened is counted here, so that the kernel is never
asked for a mix that it refuses (core.io_mode).
"""

import errno
import logging
import os
import threading
from collections import Counter
from typing import NamedTuple

from dkfs.core.io_mode import NO_OPENS, IoMode, IoRules, OpenKind, Opens, decide
from dkfs.overlay.backing import by_fd, xattrs_of
from dkfs.overlay.handles import Handle
from dkfs.overlay.inodes import Inode, InodeTable
from dkfs.overlay.privileges import is_plain

log = logging.getLogger(__name__)


class IoState(NamedTuple):
    """What `dkfs status` tells."""

    asked: IoMode  # for what no rule is about
    rules: int
    mode: IoMode  # in effect
    why: str  # why that is not what was asked for; empty if it is
    opens: dict[str, int]  # open files, by the kind of their opens; only where there may be several


class Modes:
    """See the module; all that concerns one inode is called by one thread at a time."""

    def __init__(self, table: InodeTable, rules: IoRules) -> None:
        self._table = table
        self._rules = rules
        self._opens: dict[Inode, Opens] = {}
        self._counting = threading.Lock()
        self._kinds: Counter[OpenKind] = Counter(dict.fromkeys(OpenKind, 0))
        self._granted = False
        self._why = ""
        self._refused: set[int] = set()  # devices whose files the kernel does not pass through
        self._directs: dict[int, bool] = {}  # by device: whether files can be opened with O_DIRECT

    @property
    def wants_passthrough(self) -> bool:
        """Whether some file is to be served past dkfs."""
        return not self._rules.is_strict

    @property
    def is_granted(self) -> bool:
        """Whether the kernel passes files through."""
        return self._granted

    @property
    def state(self) -> IoState:
        """Return what is asked for and what is done."""
        asked = self._rules.default
        mode = asked if self._granted or not self.wants_passthrough else IoMode.STRICT
        opens = {kind.name.lower(): count for kind, count in self._kinds.items() if count}
        return IoState(asked, len(self._rules.rules), mode, self._why, opens)

    def grant(self) -> None:
        """Hear that the kernel passes files through."""
        self._granted = self.wants_passthrough

    def refuse(self, why: str) -> None:
        """Hear that the kernel does not, and *why*: everything is served in strict, for good; said once."""
        if self.wants_passthrough and not self._why:
            log.warning("io=%s is served as io=strict: %s", self._shown(), why)
            self._why = why
        self._granted = False

    def refuse_device(self, inode: Inode, why: str) -> None:
        """Hear that the files on the device of *inode* are not passed through; said once for each."""
        if inode.dev not in self._refused:
            path = os.fsdecode(self._table.path(inode))
            log.warning("%s and what else is on its device is served as io=strict: %s", path, why)
            self._refused.add(inode.dev)
            if inode.dev == self._table.root.dev:
                self._why = why

    def _shown(self) -> str:
        strict = self._rules.default is IoMode.STRICT
        return "..., of some paths," if strict else str(self._rules.default)

    def decide(self, inode: Inode, flags: int) -> OpenKind:
        """Return how *inode* is to be opened with *flags*, those of open(2); raises OSError."""
        opens = self._opens.get(inode, NO_OPENS)
        if opens.passed and flags & os.O_DIRECT and not self._can_be_direct(inode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if not opens.passed and (not self._granted or self._is_barred(inode, flags)):
            return OpenKind.CACHED
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        return decide(
            self.mode_of(inode), opens, writes=writes, syncs=writes and self._sees(inode, flags)
        )

    def _sees(self, inode: Inode, flags: int) -> bool:
        """Return whether dkfs must see each write(2) through an open of *inode* with *flags* come."""
        if flags & os.O_DSYNC:
            return True
        # What it is about to change may not be recorded yet.
        if not all(frozen.wait_released(0) for frozen in inode.frozen or ()):
            return True
        if not inode.plain:
            # It takes set-id bits away; past dkfs the kernel writes as dkfs's user, who keeps them.
            fd = self._table.fd(inode)
            inode.plain = is_plain(os.fstat(fd), xattrs_of(by_fd(fd)))
        return not inode.plain

    def mode_of(self, inode: Inode) -> IoMode:
        """Return the mode that the rules say for *inode*, by the name that it is known by now."""
        if not self._rules.rules:
            return self._rules.default
        return self._rules.mode_of(self._table.path(inode))

    def _is_barred(self, inode: Inode, flags: int) -> bool:
        """Return whether *inode* has to stay in dkfs's hands although its rule says otherwise."""
        if inode.dev in self._refused:
            return True
        return bool(flags & os.O_DIRECT) and not self._can_be_direct(inode)

    def _can_be_direct(self, inode: Inode) -> bool:
        """Return whether the kernel, which opens the backing file as the application does, can do so."""
        known = self._directs.get(inode.dev)
        if known is None:
            try:
                os.close(
                    os.open(by_fd(self._table.fd(inode)), os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
                )
            except OSError:
                known = False
            else:
                known = True
            self._directs[inode.dev] = known
        return known

    def opened(self, handle: Handle, kind: OpenKind) -> None:
        """Count *handle*, just opened, of *kind*."""
        handle.kind = kind
        with self._counting:
            self._kinds[kind] += 1
        opens = self._opens.get(handle.inode)
        if opens is None:
            opens = self._opens[handle.inode] = Opens()
        opens.add(kind)

    def released(self, handle: Handle) -> bool:
        """Take *handle* back; return whether none is left of its inode that the kernel passes through."""
        with self._counting:
            self._kinds[handle.kind] -= 1
        opens = self._opens[handle.inode]
        opens.add(handle.kind, -1)
        if opens.is_empty:
            del self._opens[handle.inode]
        return not opens.passed
