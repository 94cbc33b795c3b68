"""A survey of the store in a process of its own, so that the daemon's interpreter stays with the requests.

The two talk over a socket pair, one call at a time: ("look", {...}) is answered by ("progress", ...) as often as there
is some, and then ("value", ...) or ("error", ...).  What yields is asked for one item after the other.  The process ends
when the daemon does.  If it is killed, the call under way fails, and with it the work; the next one goes on with it.
"""

import errno
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, Self, TypeVar

import dkfs
from dkfs import errors
from dkfs.errors import DkfsError, StoreError
from dkfs.history.pruning import Intent, PruningSurvey, Wish
from dkfs.history.retain import Row
from dkfs.model.ids import Seq
from dkfs.store import Store
from dkfs.store.collect_copy import Copied
from dkfs.store.collect_repack import Repacking
from dkfs.store.collect_survey import CopiedEnd, Findings, Progress
from dkfs.store.collect_sweep import JournalRecord, Swap

COMMAND: Final = "__survey"  # what this process is started as

_NICE: Final = 10  # the requests come first
_NEXT: Final = "next"  # asks for an item of the last call

T = TypeVar("T")

log = logging.getLogger(__name__)


class RemoteSurvey:
    """A PruningSurvey of another process; a context manager around the life of that. See there."""

    def __init__(self, store: Path, *, limit: int, say: Progress) -> None:
        """Start the process; raises StoreError."""
        self._say = say
        ours, theirs = socket.socketpair()
        with theirs:
            words = (COMMAND, os.fspath(store), str(theirs.fileno()), str(limit))
            try:
                self._process = subprocess.Popen(
                    (sys.executable, "-P", "-m", "dkfs", *words),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    cwd="/",
                    env=_environment(),
                )
            except OSError as exc:
                ours.close()
                raise StoreError(f"no process can look through the store: {exc.strerror}") from exc
        self._connection = Connection(ours.detach())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.wait()
        self._connection.close()

    def kill(self) -> None:
        """End the process, whatever it is doing: whoever waits for it hears of it. For any thread."""
        self._process.kill()

    def look(self, *, max_unused: float, repacking: Repacking | None = None) -> Findings:
        """See Survey."""
        return self._ask(Findings, "look", max_unused=max_unused, repacking=repacking)

    def refresh(self) -> Seq:
        """See Survey."""
        return Seq(self._ask(int, "refresh"))

    def dead(self) -> Iterator[list[Swap]]:
        """See Survey."""
        return self._ask_for_many(list, "dead")

    def copy(self, number: int, segments: Sequence[int], *, with_journals: bool) -> Copied | None:
        """See Survey."""
        return self._ask_perhaps(
            Copied, "copy", number=number, segments=tuple(segments), with_journals=with_journals
        )

    def copy_end(
        self, number: int, segment: int, *, most: int, with_journals: bool
    ) -> CopiedEnd | None:
        """See Survey."""
        return self._ask_perhaps(
            CopiedEnd,
            "copy_end",
            number=number,
            segment=segment,
            most=most,
            with_journals=with_journals,
        )

    def moves(self) -> Iterator[list[Swap]]:
        """See Survey."""
        return self._ask_for_many(list, "moves")

    def checkpoint(self) -> Iterator[JournalRecord]:
        """See Survey."""
        return self._ask_for_many(JournalRecord, "checkpoint")

    def intend(self, wish: Wish) -> Intent:
        """See PruningSurvey."""
        return self._ask(Intent, "intend", wish=wish)

    def contents(self, wish: Wish) -> Iterator[list[Row]]:
        """See PruningSurvey."""
        return self._ask_for_many(list, "contents", wish=wish)

    def foresee(self, wish: Wish, *, max_unused: float) -> Findings:
        """See PruningSurvey."""
        return self._ask(Findings, "foresee", wish=wish, max_unused=max_unused)

    def _ask_for_many(self, kind: type[T], name: str, **members: object) -> Iterator[T]:
        self._call(name, members)
        while (item := self._ask_perhaps(kind, _NEXT)) is not None:
            yield item

    def _ask(self, kind: type[T], name: str, **members: object) -> T:
        found = self._ask_perhaps(kind, name, **members)
        assert found is not None, "only what may be missing is asked for by _ask_perhaps()"
        return found

    def _ask_perhaps(self, kind: type[T], name: str, **members: object) -> T | None:
        found = self._call(name, members)
        assert found is None or isinstance(found, kind), "both ends are of one release"
        return found

    def _call(self, name: str, members: Mapping[str, object]) -> object:
        try:
            self._connection.send((name, members))
            while True:
                match self._connection.recv():
                    case ("progress", str(what), int(done), int(total)):
                        self._say(what, done, total)
                    case ("error", str(kind), str(text), int(number)):
                        raise _error(kind, text, number)
                    case ("value", value):
                        return value
        except (EOFError, OSError) as exc:
            raise StoreError("the process that looks through the store has ended") from exc


def serve(store: Path, fd: int, *, limit: int) -> int:
    """Be the other process: answer what comes on the socket *fd* until nobody is there; return the exit status."""
    # The daemon ends it; a signal that is meant for the daemon's terminal does not.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whoever serves has the processor at once.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.nice(_NICE)  # for the disk
    with Connection(fd) as connection:
        with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the daemon has gone
            _answer(connection, store, limit)
    return 0


def _answer(connection: Connection, store: Path, limit: int) -> None:
    def say(what: str, done: int, total: int) -> None:
        connection.send(("progress", what, done, total))

    survey: PruningSurvey | None = None
    opened: Store | None = None
    items: Iterator[object] = iter(())
    try:
        while True:
            name, members = connection.recv()
            try:
                if survey is None:
                    opened = Store.open(store, writable=False)
                    survey = PruningSurvey(opened, limit=limit, say=say)
                if name == _NEXT:
                    value: object = next(items, None)
                else:
                    value = getattr(survey, name)(**members)
                    if isinstance(value, Iterator):
                        items, value = value, None
            except DkfsError as exc:
                connection.send(("error", type(exc).__name__, str(exc), exc.errno))
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception as exc:  # the edge of the process: the daemon is told
                log.exception("a survey failed")
                connection.send(("error", "DkfsError", f"internal error: {exc!r}", errno.EIO))
            else:
                connection.send(("value", value))
    finally:
        if opened is not None:
            opened.close()


def _error(kind: str, text: str, number: int) -> DkfsError:
    found = getattr(errors, kind, DkfsError)
    error = found(text) if issubclass(found, DkfsError) else DkfsError(text)
    error.errno = number
    return error


def _environment() -> dict[str, str]:
    """Return the environment in which the process finds the dkfs that this one is."""
    place = os.path.dirname(os.path.dirname(os.path.abspath(dkfs.__file__)))
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{place}:{known}" if known else place}
