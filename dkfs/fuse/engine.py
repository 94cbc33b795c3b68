"""What an engine is: a way to serve a file system to the kernel; and which one is used.

There are two: `pyfuse3`, through libfuse, and `kernel`, which speaks the protocol itself.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from dkfs.overlay.mounted import FileSystem
from dkfs.overlay.rollback import Stale


class Meter(Protocol):
    """What an engine tells the metrics."""

    def observe_request(self, operation: str, seconds: float) -> None:
        """Hear how long a request took; in the loop's thread."""
        ...

    def count_internal_error(self) -> None:
        """Hear of an error that is a bug of dkfs."""
        ...


class Invalidator(Protocol):
    """Makes the kernel forget what a rollback made untrue."""

    def invalidate(self, stale: Stale, mountpoint: bytes) -> None:
        """Drop names, attributes and pages; in a thread other than the loop's; raises OSError."""
        ...


class Engine(Invalidator, Protocol):
    """Serves one mount."""

    @property
    def name(self) -> str:
        """What `-o engine=` calls it."""
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
