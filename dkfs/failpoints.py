"""Failpoints: named steps at which a test kills dkfs, lets a call fail, or waits.  Off unless arm() was called.

A failpoint lies before the step that it names; the table of all is in docs/failpoints.md.  What happens at one is a chain of
terms, ``NAME=[COUNT*]ACTION[->...]``, separated by ``;``: each term is for COUNT passes, the last one for all that follow if it has
no count.  Actions are ``off``, ``kill`` (SIGKILL to this process), ``sleep(SECONDS)`` and the name of an errno, which is raised as OSError:

    DKFS_FAILPOINTS='index.commit=3*off->kill;backing.write=1*ENOSPC'
"""

import errno
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator

from dkfs.errors import UsageError

VARIABLE = "DKFS_FAILPOINTS"

_TERM = re.compile(r"(?:(?P<count>\d+)\*)?(?P<action>off|kill|E[A-Z0-9]+|sleep\((?P<s>[\d.]+)\))")

_armed: dict[str, Iterator[Callable[[], None]]] = {}
_turn = threading.Lock()


def failpoint(name: str) -> None:
    """Do what was set for the step *name*, mostly nothing; raises OSError if that is to fail."""
    if _armed:  # 80 ns in all when not: docs/failpoints.md
        _pass(name)


def arm(text: str) -> None:
    """Set failpoints as *text* says, see the module; empty: none.  Raises UsageError."""
    chains = [each.partition("=") for each in text.split(";") if each.strip()]
    armed = {name.strip(): _chain(name.strip(), terms.strip()) for name, _, terms in chains}
    _armed.clear()
    _armed.update(armed)


def _pass(name: str) -> None:
    with _turn:
        action = next(_armed.get(name, iter(())), None)
    if action is not None:
        action()


def _chain(name: str, text: str) -> Iterator[Callable[[], None]]:
    terms = []
    for term in text.split("->"):
        match = _TERM.fullmatch(term.strip())
        code = getattr(errno, match["action"], 0) if match else 0
        if match is None or (match["action"].startswith("E") and not code):
            raise UsageError(
                f"{VARIABLE}: {name}={text}: expected off, kill, sleep(SECONDS) or an errno, perhaps with COUNT*"
            )
        seconds = float(match["s"] or 0)
        terms.append((int(match["count"] or 0), _action(match["action"], code, seconds)))
    return _passes(terms)


def _passes(terms: list[tuple[int, Callable[[], None]]]) -> Iterator[Callable[[], None]]:
    for count, action in terms:
        for _ in range(count):
            yield action
        while not count:
            yield action


def _action(word: str, code: int, seconds: float) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(code, os.strerror(code))

    if word == "kill":
        return lambda: os.kill(os.getpid(), signal.SIGKILL)
    if word == "off":
        return lambda: None
    return fail if code else lambda: time.sleep(seconds)
