"""The reserve: room on the disk that is kept for the moment when there is none left.

Forgetting and collecting write before they can give anything back.  The file STORE/reserve is given up when the disk is
full in the middle of that, and taken again afterwards.  While there is room in plenty there is no need of it, and no file.
"""

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from dkfs.errors import StoreError
from dkfs.failpoints import failpoint
from dkfs.store.closing import close

RESERVE_NAME: Final = "reserve"
RESERVE_SIZE: Final = 16 * 1024 * 1024  # bytes, by default
FULL: Final = 1024 * 1024  # free bytes of a disk that counts as full
# Free bytes of a disk that needs no reserve yet: it takes seconds to fill, and is looked at every two seconds.
PLENTY: Final = 4 * 1024 * 1024 * 1024

T = TypeVar("T")

log = logging.getLogger(__name__)


class Reserve:
    """The reserve of one store that is open for writing; used by one thread at a time."""

    def __init__(self, store: Path, size: int, *, plenty: int = PLENTY) -> None:
        """Keep *size* bytes in reserve once take() is called, with 0 none; see keep() for *plenty*."""
        self._path = store / RESERVE_NAME
        self._size = size
        self._plenty = plenty
        self._is_given_up = False
        self._has_complained = False

    @property
    def held(self) -> int:
        """How many bytes are in reserve now."""
        try:
            return self._path.stat().st_blocks * 512
        except OSError:
            return 0

    def keep(self) -> None:
        """Take the reserve when the disk has less than *plenty* free bytes; have none before."""
        try:
            disk = os.statvfs(self._path.parent)
            has_plenty = disk.f_bavail * disk.f_frsize >= self._plenty
            if has_plenty:
                self._path.unlink(missing_ok=True)
        except OSError as exc:
            self._complain(exc)
            return
        if not has_plenty and self.held < self._size:
            self.take()

    def take(self) -> bool:
        """Make the reserve what it should be; return whether it is. A full disk is no error."""
        self._is_given_up = False
        try:
            if not self._size:
                self._path.unlink(missing_ok=True)
                return True
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(self._path, flags, 0o600)
        except OSError as exc:
            self._complain(exc)
            return False
        try:
            os.fchmod(fd, 0o600)  # the umask may have taken bits away
            os.ftruncate(fd, self._size)
            failpoint("reserve.take")
            os.posix_fallocate(fd, 0, self._size)
        except OSError as exc:
            os.ftruncate(fd, 0)  # a part of it would be missing from the disk for nothing
            self._complain(exc)
            return False
        finally:
            close(fd)
        self._has_complained = False
        return True

    def give_up(self) -> bool:
        """Give the room back to the disk; return whether there was any."""
        held = self.held
        try:
            self._path.unlink()
        except OSError:
            return False
        self._is_given_up = True
        if held:
            log.info("the disk is full: %d bytes that were in reserve are used", held)
        return held > 0

    def attempt(self, work: Callable[[], T]) -> T:
        """Do *work*, and again with the reserve given up if the disk is full; raises what it raises.

        It must be one that changes nothing when it fails.
        """
        try:
            return work()
        except (StoreError, OSError) as exc:
            if not self._is_about_room(exc) or not self.give_up():
                raise
            return work()

    def _complain(self, exc: OSError) -> None:
        """Say that there is no reserve, once until there is one again."""
        if not self._has_complained:
            log.warning("no reserve at %s: %s", self._path, exc.strerror)
        self._has_complained = True

    def _is_about_room(self, exc: StoreError | OSError) -> bool:
        if exc.errno == errno.EIO:
            # LMDB takes a write that is cut short, as the last one on a disk is, for an error of the disk.
            return is_full(self._path.parent)
        return exc.errno == errno.ENOSPC

    @contextmanager
    def spending(self) -> Iterator[None]:
        """At the end of the block, take the reserve again if it was given up."""
        try:
            yield
        finally:
            if self._is_given_up:
                self.take()


def is_full(directory: Path) -> bool:
    """Return whether the disk of *directory* has no room left that is worth speaking of."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize < FULL
