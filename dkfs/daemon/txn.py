"""`dkfs run --txn`: a version is held before a program starts, and the mount goes back to it if the program fails.

No isolation: what others did in the mount meanwhile goes back too, and they see what the program does at once.

Beside a hold lies a file of its name in the store, locked by flock(2) for as long as the program runs.  Of a dkfs that was
killed the file is there, and not locked: the next mount, or run, releases the hold.
"""

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from dkfs.daemon.control import request
from dkfs.errors import CommandError, DkfsError, NotFoundError, NotMountedError, StoreError

log = logging.getLogger(__name__)


class Txn:
    """One program's time on the mount that uses *store*."""

    def __init__(self, store: Path) -> None:
        """Hold the present version, everything written so far in it; raises DkfsError."""
        self._store = store
        release_abandoned(store, lambda name: request(store, {"command": "release", "name": name}))
        began = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self.name = f"txn-{began}-{os.getpid()}"
        self._mark = store / self.name
        self._fd = _marked(self._mark)
        try:
            request(store, {"command": "hold", "name": self.name, "freeze": True})
        except BaseException:
            self._unmark()
            raise

    def end(self, *, failed: bool) -> str:
        """Go back if the program *failed*; return a line for people, empty if there is nothing to say.

        Where that cannot be done the hold stays, and the line names it.
        """
        try:
            return self._end(failed=failed)
        finally:
            self._unmark()

    def _unmark(self) -> None:
        with suppress(OSError):
            self._mark.unlink()
        os.close(self._fd)

    def _end(self, *, failed: bool) -> str:
        said = ""
        try:
            if failed:
                version = request(self._store, {"command": "rollback", "version": self.name})
                said = f"rolled back to what was before: version {version['target']}"
                if problems := version.get("problems"):
                    return f"{said}; not all of it could be: {problems}; hold {self.name} stays"
            request(self._store, {"command": "release", "name": self.name})
        except (DkfsError, OSError) as exc:
            if said:
                return f"{said}; hold {self.name} stays: {exc}"
            what = f"not rolled back, `dkfs rollback {self.name}` does it" if failed else "done"
            return f"{what}; hold {self.name} stays: {exc}"
        return said


def _marked(mark: Path) -> int:
    """Make the file *mark*; return an fd that locks it; raises StoreError."""
    try:
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(mark, flags, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return fd
            os.close(fd)  # release_abandoned() has found it before it was locked
    except OSError as exc:
        raise StoreError(f"{mark} cannot be made: {exc.strerror}") from exc


def release_abandoned(store: Path, release: Callable[[str], object]) -> None:
    """Have *release* take away each hold of *store* whose `dkfs run --txn` was killed; one that it cannot stays."""
    for mark in sorted(store.glob("txn-*")):
        try:
            fd = os.open(mark, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(NotFoundError):  # killed before there was a hold, or after
                release(mark.name)
                log.info("released hold %s: its `dkfs run --txn` was killed", mark.name)
            mark.unlink(missing_ok=True)
        except BlockingIOError:
            pass  # its program runs
        except (DkfsError, OSError) as exc:
            log.warning("hold %s of a `dkfs run --txn` that was killed stays: %s", mark.name, exc)
        finally:
            os.close(fd)


def is_served(store: Path) -> bool:
    """Return whether a mount uses *store*."""
    try:
        request(store, {"command": "status"})
    except (NotMountedError, OSError):
        return False
    return True


def run_there(store: Path, argv: list[str]) -> int:
    """Run *argv* on the mount that uses *store*, and take back what it did if it fails; return its exit status.

    128 + n if signal n ended it.  Raises CommandError if it cannot be run, and DkfsError.
    """
    txn = Txn(store)
    try:
        child = subprocess.Popen(argv)
    except OSError as exc:
        txn.end(failed=False)
        status = 127 if exc.errno == errno.ENOENT else 126
        raise CommandError(f"{argv[0]}: {exc.strerror}", status) from None

    def pass_on(number: int, _: FrameType | None) -> None:
        child.send_signal(number)

    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, pass_on)
    for each in (signal.SIGINT, signal.SIGQUIT):  # the terminal tells the program too
        signal.signal(each, lambda *_: None)
    code = child.wait()
    tell(txn.end(failed=code != 0))
    return 128 - code if code < 0 else code


def tell(said: str) -> None:
    """Print what Txn.end() returned."""
    if said:
        print(f"dkfs: {said}", file=sys.stderr, flush=True)
