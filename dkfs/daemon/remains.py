"""The processes that a program started under dkfs leaves: found by a mark in their environment.

Process groups are not enough, a shell's job control and setsid(2) leave them; and whoever has lost
his parent has lost the way up to who started him.
"""

import logging
import os
import signal

log = logging.getLogger(__name__)

MARK = "DKFS_RUN"  # in the environment of the program, and so of all that it starts


def kill_remains(mark: bytes) -> None:
    """Kill every process with the *mark*, which is MARK=VALUE, and those that it starts meanwhile."""
    killed: set[int] = set()
    while found := _marked(mark) - killed:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError) as exc:
                log.debug("process %d: %s", pid, exc.strerror)
        killed |= found


def _marked(mark: bytes) -> set[int]:
    found = set()
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if mark in file.read().split(b"\0"):
                    found.add(int(name))
        except OSError:
            continue  # ended meanwhile, or another user's
    return found
