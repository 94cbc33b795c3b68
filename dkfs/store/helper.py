"""A second process for a long piece of work; if it fails, the first one does the work itself.

It is forked, reads only, and ends with the first one.  It has none of the open files: locks of the first process must end when
that ends.
"""

import ctypes
import gc
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_END: Final = b"."  # behind an answer that is whole


class Helper:
    """See the module; close() ends it."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._pid = 0
        self._reading = -1

    def start(self, work: Callable[[], bytes]) -> None:
        """Begin with *work*; raises OSError."""
        reading, writing = os.pipe()
        starter = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            raise
        if pid == 0:
            self._be(work, writing, starter)
        os.close(writing)
        self._pid, self._reading = pid, reading

    def answer(self) -> bytes | None:
        """Wait for what came out and return it; None if the process has failed, or was never started."""
        if self._reading < 0:
            return None
        with open(self._reading, "rb") as file:
            self._reading = -1
            data = file.read()
        self._wait()
        if not data.endswith(_END):
            return None
        return data[: -len(_END)]

    def close(self) -> None:
        """End the process."""
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1
        if self._pid:
            with suppress(ProcessLookupError):  # see _wait()
                os.kill(self._pid, signal.SIGKILL)
            self._wait()

    def _wait(self) -> None:
        # Whoever started the first process may have it ignore its children.
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        self._pid = 0

    def _be(self, work: Callable[[], bytes], writing: int, starter: int) -> None:
        """Be the process: never returns."""
        try:
            ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL)
            logging.disable()  # the log may be closed now, and what is wrong is found again
            _close_all_but({0, 1, 2, writing})
            gc.disable()  # what is collected here is the first process's, and is gone with this one
            if os.getppid() == starter:
                data = work() + _END
                with open(writing, "wb") as file:
                    file.write(data)
        finally:  # whatever went wrong: the first one hears that nothing came
            os._exit(0)


def _close_all_but(kept: set[int]) -> None:
    at = 0
    for fd in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        if at < fd:  # CPython 3.11 takes an empty range for all
            os.closerange(at, fd)
        at = fd + 1
