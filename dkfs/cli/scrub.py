"""Read and verify everything in a store, slowly.

    dkfs scrub [--rate SIZE]     begin, or go on where the last scrub stopped
    dkfs scrub --status          how far it is, and what the last one found
    dkfs scrub --stop            stop it; the next one goes on there

On a mounted directory this tells its daemon, which does it in the background and starts one by itself every 30 days
(--scrub-interval of mount and run; 0 = never).  On a store that is not mounted it is done here and now.  SIZE is read
a second (default 20M).  What is damaged is named in the daemon's log, in `dkfs status` and in the metrics; `dkfs check
--read-data` names the paths and versions, and `dkfs check --repair` repairs.

exit status:
  0 no damage, or a scrub was started or stopped, 1 none could be, 2 usage, 4 store trouble, 5 damage found
"""

import argparse
import ctypes
import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dkfs.cli.asking import ask, number
from dkfs.cli.checking import Found, Printer, Request, look, summary_members, summary_text
from dkfs.cli.location import find
from dkfs.cli.output import emit
from dkfs.cli.parser import Parser, new_parser
from dkfs.cli.scrubbing import scrub_lines
from dkfs.config.settings import SCRUB_RATE
from dkfs.config.values import Given, size
from dkfs.daemon.control import scrub_members
from dkfs.errors import CorruptError, NotMountedError, UsageError
from dkfs.store import verified
from dkfs.store.check import Check
from dkfs.store.selection import Everything
from dkfs.store.verified import SCRUB, Verified

_LEAST: Final = (
    4096  # bytes that a blob counts for, so that many small ones are not read at full speed
)
_SLICE_S: Final = 0.2
_TELL_S: Final = 1.0
_SAVE_S: Final = 30.0

_IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30}  # numbers of the system call
_IDLE: Final = 3 << 13  # of I/O: what nobody else wants; linux/ioprio.h


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("scrub", __doc__)
    parser.add_argument("--rate", metavar="SIZE", help="read so much a second (default 20M)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--status", action="store_true", help="tell how far it is")
    what.add_argument("--stop", action="store_true", help="stop it")
    what.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # what a daemon starts
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    rate = size(Given(args.rate, "--rate")) if "rate" in args else SCRUB_RATE
    if not rate:
        raise UsageError("--rate: 0, expected bytes a second such as 20M")
    store = find(args).store
    if "here" in args:
        _step_back()
        return _scrub(args, store, rate)
    action = "status" if "status" in args else "stop" if "stop" in args else "start"
    try:
        members = {"rate": rate} if action == "start" else {}
        answer = ask(store, "scrub", action=action, **members)
    except NotMountedError:
        if action == "start":
            return _scrub(args, store, rate)
        known = verified.load(store, SCRUB)
        answer = {"scrub_running": False, **scrub_members(known)}
    return _tell(args, answer)


def _tell(args: argparse.Namespace, answer: Mapping[str, object]) -> int:
    """Print what is known of scrubs; return 5 if the last one, or this one so far, found damage."""
    if "json" in args:
        emit("scrub", {key: value for key, value in answer.items() if key != "message_type"})
    else:
        print("\n".join(scrub_lines(answer)))
    if "status" not in args:
        return 0
    found = number(answer, "scrub_found") or number(answer, "scrub_damage")
    return CorruptError.exit_status if found else 0


class _Pace:
    """Keeps to a rate; remembers, and tells the daemon, how far it is."""

    def __init__(self, store: Path, rate: int, before: Verified, *, tells: bool) -> None:
        self._check: Check | None = None  # the one whose place is remembered
        self._found = Found()
        self._store = store
        self._rate = rate
        self._before = before
        self._tells = tells
        self._due_s = self._told_s = self._saved_s = time.monotonic()

    def __call__(self, passed: int) -> bool:
        """Wait as long as *passed* bytes take; always go on."""
        now_s = time.monotonic()
        if passed:
            # What was not used of the last second is lost, so that there are no bursts.
            self._due_s = max(self._due_s, now_s - 1) + max(passed, _LEAST) / self._rate
        while (left_s := self._due_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _SLICE_S))
        if now_s - self._saved_s > _SAVE_S:
            self._saved_s = now_s
            self.save()
        return True

    def watch(self, check: Check, found: Found) -> None:
        """Remember how far *check* is from now on."""
        self._check, self._found = check, found

    def tell(self, what: str, done: int, total: int) -> None:
        """Tell the daemon now and then; if it is gone, this raises BrokenPipeError, and all is over."""
        now_s = time.monotonic()
        if self._tells and now_s - self._told_s > _TELL_S:
            self._told_s = now_s
            emit("progress", what=what, done=done, total=total)
            sys.stdout.flush()

    def save(self) -> None:
        """Remember how far it is."""
        at = None if self._check is None else self._check.at
        if at is not None:
            verified.save(self._store, SCRUB, self._before.reach(at, len(self._found.damages)))


def _scrub(args: argparse.Namespace, store: Path, rate: int) -> int:
    """Scrub in this process; return the exit status."""
    before = verified.load(store, SCRUB).begin(time.time_ns())
    verified.save(store, SCRUB, before)
    pace = _Pace(store, rate, before, tells="here" in args)
    request = Request(
        read=Everything(),
        start=before.at,
        goes_on=pace,
        on_progress=pace.tell,
        on_check=pace.watch,
        from_disk=True,
    )
    try:
        found = look(store, request, Printer(args))
    except BaseException:
        pace.save()
        raise
    # With an index that leads nowhere there is nothing that could be gone on with.
    if found.at is None or not found.is_structure_checked:
        done = before.reach(before.at, len(found.damages)).finish(time.time_ns())
        verified.save(store, SCRUB, done)
    if "json" in args:
        emit("summary", summary_members(found))
    else:
        print(summary_text(found))
    return CorruptError.exit_status if found.damages else 0


def _step_back() -> None:
    """Let everybody else go first."""
    os.nice(19)
    call = _IOPRIO_SET.get(platform.machine())
    if call is not None:
        ctypes.CDLL(None).syscall(call, 1, 0, _IDLE)  # of this process; if it may not, it may not
