"""Keeps processors that have nothing to do from halting while requests come one after the other.

A request wakes the daemon, its reply wakes who asked: twice a processor that halted in between.  On a virtual machine whose
kernel does not wait a little before it halts (haltpoll with guest_halt_poll_ns of 0, as in Firecracker), each costs
50 us, and what a request takes otherwise is 10 (docs/decisions/0018).

What /dev/cpu_dma_latency is told holds until that fd is closed, so also if the daemon is killed; see
Documentation/power/pm_qos_interface.rst of Linux.
"""

import logging
import os
import struct
import time
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_DEVICE: Final = "/dev/cpu_dma_latency"
_AT_ONCE: Final = struct.pack("=i", 0)  # us until a processor that sleeps goes on
_WHENEVER: Final = struct.pack(
    "=i", 2_000_000_000
)  # linux/pm_qos.h: PM_QOS_CPU_LATENCY_DEFAULT_VALUE
_SYS: Final = Path("/sys")
_MOST_PROCESSORS: Final = (
    8  # all of them stay awake: where there are many, that costs others more than it gives
)

_MANY: Final = 32  # requests after which it can be said how fast they come
_WINDOW_S: Final = 0.03  # or a time
_LEAST_RATE: Final = 1000  # a second: of fewer each may wait for its processor
CALM_S: Final = 0.02  # without a request, after which processors may halt


def is_worth_it(sys: Path = _SYS) -> bool:
    """Return whether a processor of this machine halts at once, and takes long to be woken."""
    try:
        driver = (sys / "devices/system/cpu/cpuidle/current_driver").read_text()
        before_ns = (sys / "module/haltpoll/parameters/guest_halt_poll_ns").read_text()
    except OSError:
        return False
    few = (os.cpu_count() or 1) <= _MOST_PROCESSORS
    return few and driver.strip() == "haltpoll" and before_ns.strip() == "0"


class Alertness:
    """See the module; for one thread."""

    def __init__(self, fd: int) -> None:
        """Tell *fd*, which is taken over; -1 tells nobody."""
        self._fd = fd
        self._served = 0
        self._since_s = 0.0
        self.is_kept = False  # processors do not halt

    @classmethod
    def of_machine(cls) -> "Alertness":
        """Return one that does what this machine needs, as far as that is permitted."""
        if not is_worth_it():
            return cls(-1)
        try:
            return cls(os.open(_DEVICE, os.O_WRONLY | os.O_CLOEXEC))
        except OSError as exc:
            log.debug("processors that halt are not kept awake: %s", exc)
            return cls(-1)

    def look(self, served: int, now_s: float | None = None) -> None:
        """Decide what is due now that so many requests were *served* in all."""
        if self._fd < 0:
            return
        if now_s is None:
            now_s = time.monotonic()
        count, elapsed_s = served - self._served, now_s - self._since_s
        if count < _MANY and elapsed_s < _WINDOW_S:
            return
        self._served, self._since_s = served, now_s
        self._keep(is_kept=count >= _LEAST_RATE * elapsed_s)

    def calm(self) -> None:
        """Hear that no request has come for CALM_S."""
        self._keep(is_kept=False)

    def _keep(self, *, is_kept: bool) -> None:
        if is_kept == self.is_kept:
            return
        self.is_kept = is_kept
        try:
            os.write(self._fd, _AT_ONCE if is_kept else _WHENEVER)
        except OSError as exc:
            log.warning("processors are not kept awake any more: %s", exc)
            self.close()

    def close(self) -> None:
        """Let processors halt, from now on."""
        fd, self._fd = self._fd, -1
        self.is_kept = False
        if fd >= 0:
            os.close(fd)
