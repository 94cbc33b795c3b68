"""The pyfuse3 engine: what adapter and connection do, behind the face that both engines have."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from dkfs.fuse import connection, invalidate, readiness
from dkfs.fuse.adapter import Operations
from dkfs.fuse.engine import Meter
from dkfs.overlay.inode import Inode
from dkfs.overlay.mounted import FileSystem
from dkfs.overlay.rollback import Stale


class Pyfuse3Engine:
    """See Engine."""

    name = "pyfuse3"

    @property
    def turn(self) -> int:
        """See Engine."""
        return readiness.turn()

    def at_work(self) -> AbstractContextManager[None]:
        """See Engine; it has nobody who serves meanwhile."""
        return nullcontext()

    def in_steps(self) -> AbstractContextManager[Callable[[Inode], bool]]:
        """See Engine."""
        return nullcontext(lambda _: True)

    def hold(self) -> bool:
        """See Engine: nobody else does."""
        return True

    def let_go(self) -> None:
        """See Engine."""

    @contextmanager
    def mounted(
        self, fs: FileSystem, meter: Meter, mountpoint: Path, *, source: str, options: set[str]
    ) -> Iterator[None]:
        """See Engine."""
        operations = Operations(fs, meter)
        with connection.mounted(operations, mountpoint, source=source, options=options):
            yield

    async def serve(self) -> None:
        """See Engine."""
        await connection.serve()

    def end(self) -> None:
        """See Engine."""
        connection.end()

    def write_back(self, numbers: Sequence[int]) -> None:
        """See Invalidator."""
        invalidate.write_back(numbers)

    def invalidate(self, stale: Stale, mountpoint: bytes) -> None:
        """See Invalidator."""
        invalidate.invalidate(stale, mountpoint)
