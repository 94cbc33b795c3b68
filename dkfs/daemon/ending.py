"""How a mount ends: unmounted by somebody, by a signal, or because who started it is gone."""

import errno
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import trio

from dkfs.daemon.commands import OTHERS_S
from dkfs.daemon.remains import MARK, kill_remains
from dkfs.errors import MountError
from dkfs.overlay import backing

_ENDING = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger(__name__)


class Ending:
    """The end of the mount at one mount point."""

    def __init__(self, mountpoint: Path, *, cut: Callable[[], None]) -> None:
        """*cut* ends the serving although somebody may still use the mount."""
        self._mountpoint = mountpoint
        self._cut = cut
        self._told = 0  # the signal that told it to end before anybody waited for one

    def take_signals(self) -> None:
        """From now on a signal, the first or a second, ends the mount in an orderly way only."""

        def take(number: int, _: object) -> None:
            self._told = number

        for number in _ENDING:
            signal.signal(number, take)

    async def by_signal(self) -> None:
        """Wait for a signal, and end the mount."""
        with trio.open_signal_receiver(*_ENDING) as received:
            number = self._told or await anext(received)
            log.info("%s: unmounting", signal.Signals(number).name)
            try:
                await self.stop(lazily=False)
                # The end of the mount ends this task, unless another namespace still has it.
                await trio.sleep(OTHERS_S)
            except MountError:
                # Somebody still uses it, but dkfs was told to end.
                await self.stop(lazily=True)
            self._cut()
            await trio.sleep_forever()

    async def by_lifeline(self, lifeline: int) -> None:
        """End the mount, and what runs on it, when the other end of the pipe *lifeline* closes."""
        mark = b""
        while data := await _read(lifeline):
            mark += data
        if mark:
            await trio.to_thread.run_sync(kill_remains, MARK.encode() + b"=" + mark)
        log.info("the process that started this mount is gone: unmounting")
        await self.stop(lazily=True)
        self._cut()

    async def stop(self, *, lazily: bool) -> None:
        """Unmount; the requests still under way are served.  Raises MountError if it is busy."""
        point = os.fsencode(self._mountpoint)
        try:
            await trio.to_thread.run_sync(lambda: backing.unmount(point, lazily=lazily))
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                return  # not mounted any more
            raise MountError(f"{self._mountpoint}: {exc.strerror}") from None


async def _read(fd: int) -> bytes:
    await trio.lowlevel.wait_readable(fd)
    return os.read(fd, 64)
