"""A file system that can be stopped, and those who are stuck because of that."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.building import built

PATIENCE_S = 60.0


class Slow:
    """A file system within the state directory that can be stopped: whoever asks it then is stuck."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def stop(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it: whoever asks it is refused from then on."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)


@contextmanager
def slow_mount(behind: Path, point: Path) -> Iterator[Slow]:
    """Show *behind* at *point*."""
    with subprocess.Popen([built("passthrough"), behind, point], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        slow = Slow(process.pid)
        try:
            yield slow
        finally:
            subprocess.run(["umount", "--lazy", point], check=True)
            process.kill()


class Stuck(threading.Thread):
    """Somebody who does something that is stuck."""

    def __init__(self, attempt: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._attempt = attempt
        self.result: object = None
        self.begun = threading.Event()
        self.start()
        assert self.begun.wait(PATIENCE_S)

    def run(self) -> None:
        self.begun.set()
        try:
            self.result = self._attempt()
        except Exception as exc:  # noqa: BLE001 - for the thread that waits
            self.result = exc


def soon(attempt: Callable[[], object]) -> object:
    """Return what *attempt* returns; fails if that takes too long."""
    who = Stuck(attempt)
    who.join(PATIENCE_S)
    assert not who.is_alive(), "somebody else is kept waiting"
    return who.result
