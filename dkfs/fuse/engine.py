"""What an engine is: a way to serve a file system to the kernel; and which one is used.

There are two: `pyfuse3`, through libfuse, and `kernel`, which speaks the protocol itself.  `auto` is
the kernel engine where the kernel's protocol is one that it speaks, else pyfuse3.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

import trio

from dkfs.errors import MountError
from dkfs.overlay.inode import Inode
from dkfs.overlay.mounted import FileSystem
from dkfs.overlay.rollback import Stale

log = logging.getLogger(__name__)

_AGAIN_S = 0.01


class NotSupportedError(MountError):
    """The kernel's protocol is not one that an engine speaks."""


class Meter(Protocol):
    """What an engine tells the metrics."""

    def observe_request(self, operation: str, seconds: float) -> None:
        """Hear how long a request took; in the loop's thread."""
        ...

    def count_internal_error(self) -> None:
        """Hear of an error that is a bug of dkfs."""
        ...


class Invalidator(Protocol):
    """Makes the kernel forget what a rollback makes untrue."""

    def write_back(self, numbers: Sequence[int]) -> None:
        """Have the kernel write what maps have stored in these inodes; in a thread as invalidate(); raises OSError."""
        ...

    def invalidate(self, stale: Stale, mountpoint: bytes) -> None:
        """Drop names, attributes and pages; in a thread other than the loop's; raises OSError, after all have been tried."""
        ...


class Engine(Invalidator, Protocol):
    """Serves one mount."""

    @property
    def name(self) -> str:
        """What `-o engine=` calls it."""
        ...

    @property
    def turn(self) -> int:
        """A number that grows at the beginning and at the end of each request: odd within one. For any thread."""
        ...

    def at_work(self) -> AbstractContextManager[None]:
        """In the loop's thread, around what asks the backing directory and is no request: who looks is served if that is stuck."""
        ...

    def in_steps(self) -> AbstractContextManager[Callable[[Inode], bool]]:
        """See at_work(), for what is done of one file after another: if it is stuck, who changes others is served, too.

        Before each file the function that is given is called with it, and tells whether it may be touched now.
        """
        ...

    def hold(self) -> bool:
        """Return whether nobody but the loop's thread changes anything; then nobody begins to before let_go()."""
        ...

    def let_go(self) -> None:
        """See hold()."""
        ...

    def mounted(
        self, fs: FileSystem, meter: Meter, mountpoint: Path, *, source: str, options: set[str]
    ) -> AbstractContextManager[None]:
        """Mount on *mountpoint* for as long as the context lasts; raises MountError.

        *source* is what mountinfo shows; *options* are words of mount(8).
        """
        ...

    async def serve(self) -> None:
        """Answer requests until the mount is gone, or end() is called."""
        ...

    def end(self) -> None:
        """Make serve() return, although somebody may still use the mount; in the loop's thread."""
        ...


def choose(name: str) -> Engine:
    """Return the engine that `-o engine=` *name* asks for: auto, kernel or pyfuse3."""
    # Imported here: what is not used, libfuse above all, is not to be loaded.
    if name == "pyfuse3":
        from dkfs.fuse.libfuse import Pyfuse3Engine  # noqa: PLC0415

        return Pyfuse3Engine()
    from dkfs.fuse.kernel.connection import KernelEngine  # noqa: PLC0415

    return KernelEngine() if name == "kernel" else _Auto(KernelEngine())


class _Auto:
    """The first engine that there is a connection with."""

    def __init__(self, first: Engine) -> None:
        self._engine = first

    @property
    def name(self) -> str:
        """See Engine."""
        return self._engine.name

    @property
    def turn(self) -> int:
        """See Engine."""
        return self._engine.turn

    def at_work(self) -> AbstractContextManager[None]:
        """See Engine."""
        return self._engine.at_work()

    def in_steps(self) -> AbstractContextManager[Callable[[Inode], bool]]:
        """See Engine."""
        return self._engine.in_steps()

    def hold(self) -> bool:
        """See Engine."""
        return self._engine.hold()

    def let_go(self) -> None:
        """See Engine."""
        self._engine.let_go()

    @contextmanager
    def mounted(
        self, fs: FileSystem, meter: Meter, mountpoint: Path, *, source: str, options: set[str]
    ) -> Iterator[None]:
        """See Engine."""
        try:
            with self._engine.mounted(fs, meter, mountpoint, source=source, options=options):
                yield
                return
        except NotSupportedError as exc:
            log.info("%s: going on with the engine pyfuse3", exc)
        self._engine = choose("pyfuse3")
        fs.modes.refuse("it takes the engine kernel")
        with self._engine.mounted(fs, meter, mountpoint, source=source, options=options):
            yield

    async def serve(self) -> None:
        """See Engine."""
        await self._engine.serve()

    def end(self) -> None:
        """See Engine."""
        self._engine.end()

    def write_back(self, numbers: Sequence[int]) -> None:
        """See Invalidator."""
        self._engine.write_back(numbers)

    def invalidate(self, stale: Stale, mountpoint: bytes) -> None:
        """See Invalidator."""
        self._engine.invalidate(stale, mountpoint)


@asynccontextmanager
async def alone(engine: Engine) -> AsyncIterator[None]:
    """Wait until nobody but the loop's thread changes anything; nobody does within the context, which must not wait."""
    while not engine.hold():  # noqa: ASYNC110 - threads that know nothing of trio let go
        await trio.sleep(_AGAIN_S)
    try:
        yield
    finally:
        engine.let_go()
