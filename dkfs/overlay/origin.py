"""Who asked for an operation."""

import os
import time
from typing import Protocol

from dkfs.model.operation import NOBODY, Origin

_FRESH_S = 1.0  # a pid may be reused, and a process may exec: look again after this
_MOST = 1024
_CAP_SYS_ADMIN = 1 << 21


class Caller(Protocol):
    """The process behind a request, as the kernel names it."""

    @property
    def pid(self) -> int:
        """The process id; 0 if it is in a pid namespace that cannot be seen."""
        ...

    @property
    def uid(self) -> int:
        """The user id for file system access."""
        ...

    @property
    def gid(self) -> int:
        """The group id for file system access."""
        ...


class Origins:
    """Turns callers into origins; remembers the names of processes for a moment."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[Origin, float]] = {}

    def of(self, caller: Caller | None) -> Origin:
        """Return the origin of *caller*; NOBODY if there is none."""
        if caller is None:
            return NOBODY
        key = (caller.pid, caller.uid)
        now = time.monotonic()
        known = self._known.get(key)
        if known is not None and known[1] > now:
            return known[0]
        origin = Origin(pid=caller.pid, uid=caller.uid, comm=_comm(caller.pid))
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[key] = (origin, now + _FRESH_S)
        return origin


def _comm(pid: int) -> bytes:
    """Return the name of process *pid*; empty if it is gone or in another pid namespace (pid 0)."""
    if pid == 0:
        return b""
    try:
        with open(f"/proc/{pid}/comm", "rb", buffering=0) as file:
            return file.read(64).rstrip(b"\n")[:16]
    except OSError:
        return b""


def is_admin(caller: Caller) -> bool:
    """Return whether *caller* has CAP_SYS_ADMIN, and not in a user namespace of its own; root, if that cannot be seen."""
    try:
        if os.readlink(f"/proc/{caller.pid}/ns/user") != os.readlink("/proc/self/ns/user"):
            return False
        with open(f"/proc/{caller.pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"CapEff:"):
                    return bool(int(line.split()[1], 16) & _CAP_SYS_ADMIN)
    except OSError:
        pass
    return caller.uid == 0


def is_in_group(pid: int, gid: int) -> bool:
    """Return whether process *pid* is in group *gid*, as its own or a supplementary one; False if it is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Gid:") and int(line.split()[4]) == gid:  # the one for files
                    return True
                if line.startswith(b"Groups:"):
                    return b"%d" % gid in line.split()[1:]
    except OSError:
        return False
    return False


def groups_of(pid: int) -> frozenset[int]:
    """Return the supplementary groups of process *pid*; none if it is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:  # a process may have 65,536 groups: a line cut off would name others
                if line.startswith(b"Groups:"):
                    return frozenset(int(word) for word in line.split()[1:])
    except OSError:
        return frozenset()
    return frozenset()
