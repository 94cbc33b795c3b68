"""The kernel engine: mounts, agrees with the kernel, serves, tells it what to forget, unmounts."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final

from dkfs.fuse.engine import Meter
from dkfs.fuse.kernel.device import Device
from dkfs.fuse.kernel.dispatcher import Dispatcher
from dkfs.fuse.kernel.history import HistoryDispatcher
from dkfs.fuse.kernel.notify import Notifier
from dkfs.fuse.kernel.passthrough import DeviceBackings, agreed, stack_depth
from dkfs.fuse.kernel.server import Server
from dkfs.overlay.inode import Inode
from dkfs.overlay.mounted import FileSystem
from dkfs.overlay.rollback import Stale

# A thread of ours that looked into the mount while we are killed would keep the mount, and us, alive.
_LOOK: Final = """
import os, sys
for path in sys.stdin.buffer.read().split(b"\\0"):
    try:
        os.stat(path, follow_symlinks=False)
    except OSError:
        pass
"""


class KernelEngine:
    """See Engine."""

    name = "kernel"

    def __init__(self) -> None:
        self._server: Server | None = None
        self._notifier: Notifier | None = None
        self._settling: set[int] = set()

    @property
    def turn(self) -> int:
        """See Engine."""
        return 0 if self._server is None else self._server.turn

    def at_work(self) -> AbstractContextManager[None]:
        """See Engine."""
        return nullcontext() if self._server is None else self._server.at_work()

    def in_steps(self) -> AbstractContextManager[Callable[[Inode], bool]]:
        """See Engine."""
        return nullcontext(lambda _: True) if self._server is None else self._server.in_steps()

    def hold(self) -> bool:
        """See Engine."""
        return self._server is None or self._server.hold()

    def let_go(self) -> None:
        """See Engine."""
        if self._server is not None:
            self._server.let_go()

    @contextmanager
    def mounted(
        self, fs: FileSystem, meter: Meter, mountpoint: Path, *, source: str, options: set[str]
    ) -> Iterator[None]:
        """See Engine; raises NotSupportedError too: then nothing is mounted."""
        device = Device.mounted(mountpoint, source=source, options=options)
        notifier = Notifier(device.tell)
        dispatcher = (HistoryDispatcher if fs.is_history else Dispatcher)(
            fs,
            meter,
            notifier=notifier,
            is_root=device.is_ours,
            stack_depth=stack_depth(fs.table.root.fd) if fs.modes.wants_passthrough else 0,
        )
        server = Server(device, dispatcher)
        self._server, self._notifier = server, notifier
        self._settling = fs.rollback.settling
        try:
            server.shake_hands()
            dispatcher.files.passthrough = agreed(
                fs, DeviceBackings(device.fd), is_root=device.is_ours, taken=dispatcher.terms.flags
            )
            device.read_ahead()
            yield
        finally:
            device.unmount()
            server.close()  # first: a number that is closed may soon be that of another file
            device.close()

    async def serve(self) -> None:
        """See Engine."""
        assert self._server is not None
        await self._server.serve()

    def end(self) -> None:
        """See Engine."""
        if self._server is not None:
            self._server.end()

    def write_back(self, numbers: Sequence[int]) -> None:
        """See Invalidator."""
        assert self._notifier is not None
        for number in numbers:
            self._notifier.inode(number)

    def invalidate(self, stale: Stale, mountpoint: bytes) -> None:
        """See Invalidator."""
        assert self._notifier is not None
        failures: list[OSError] = []  # one must not keep the rest from being told
        # Names first: then nobody is left who could put an old listing into the cache of a directory.
        for directory, name in stale.names:
            try:
                self._notifier.entry(directory, name)
            except OSError as exc:
                failures.append(exc)
        for number in stale.inodes:
            try:
                self._notifier.inode(number)
            except OSError as exc:
                failures.append(exc)
            self._settling.discard(number)
        if stale.sizes:
            # The kernel appends at the size that it last heard of, and does not ask before it does.
            _look_at([os.path.join(mountpoint, path) for path in stale.sizes])
        if failures:
            raise failures[0]


def _look_at(paths: list[bytes]) -> None:
    """Have another process ask for the attributes of *paths*."""
    with contextlib.suppress(OSError):
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", _LOOK],
            input=b"\0".join(paths),
            check=False,
            cwd="/",
        )
