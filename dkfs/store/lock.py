"""The lock of a store: one writer at a time, and never a stale one.

The lock is flock(2) on STORE/LOCK, so the kernel takes it back when the holder dies, however it dies. The pid inside
the file is only for the message. The file is never removed: a lock on an unlinked file would exclude nobody.
"""

import errno
import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from dkfs.errors import StoreBusyError, StoreError
from dkfs.failpoints import failpoint
from dkfs.store.closing import close

LOCK_NAME = "LOCK"
_ONLOOKER_S = 0.1  # for which a lock without a pid may be one of is_held(), which lets go at once
_BRIEF_S = 60.0  # for which one that says that it is held for a moment only is waited for
_BRIEFLY = "briefly"


class StoreLock:
    """Held from construction to close()."""

    def __init__(self, store: Path, *, is_brief: bool = False) -> None:
        """Take the lock of *store*; raises StoreBusyError, naming the holder, or StoreError.

        *is_brief*: it is let go soon, by itself: who wants it meanwhile waits for that.
        """
        self._text = f"{os.getpid()} {_BRIEFLY}\n" if is_brief else f"{os.getpid()}\n"
        try:
            self._fd = os.open(
                store / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as exc:
            raise StoreError(f"store {store} cannot be written: {exc.strerror}") from exc
        try:
            self._take(store)
        except BaseException:
            close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the next writer in."""
        if self._fd >= 0:
            # The pid must go before the lock does, or it could wipe out the next holder's.
            with suppress(OSError):  # of a disk that became read-only: it is for messages only
                os.ftruncate(self._fd, 0)
            close(self._fd)
            self._fd = -1

    def _take(self, store: Path) -> None:
        now_s = time.monotonic()
        nameless_until_s, until_s = now_s + _ONLOOKER_S, now_s + _BRIEF_S
        while not self._try(store):
            holder = os.pread(self._fd, 32, 0).strip().decode(errors="replace")
            now_s = time.monotonic()
            if holder.endswith(_BRIEFLY) and now_s < until_s:
                nameless_until_s = now_s + _ONLOOKER_S  # its name goes before the lock does
            elif holder or now_s > nameless_until_s:
                raise StoreBusyError(
                    f"store {store} is in use by process {holder or '(not known)'}"
                )
            time.sleep(_ONLOOKER_S / 50)  # nobody has said that it writes: is_held() may be looking
        os.fchmod(self._fd, 0o600)  # the umask may have taken bits away
        os.ftruncate(self._fd, 0)
        failpoint("store.lock")
        os.pwrite(self._fd, self._text.encode(), 0)

    def _try(self, store: Path) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise StoreError(f"store {store} cannot be locked: {exc.strerror}") from exc
            return False
        return True


def is_held(store: Path) -> bool:
    """Return whether a writer has the lock of *store*, as far as whoever may only read can tell."""
    try:
        fd = os.open(store / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        close(fd)  # and with it the lock
    return False


def may_enter(table: Path) -> bool:
    """Return whether a reader may enter itself into *table*, LMDB's of the readers; raises StoreBusyError.

    If not, it reads without, which is safe as long as nobody writes.
    """
    store = table.parent
    if os.access(table if table.exists() else store, os.W_OK, effective_ids=True):
        return True
    if is_held(store):
        raise StoreBusyError(f"store {store} is being written, and {table} may not be")
    # LMDB knows what to do with a file system that is read-only.
    return bool(os.statvfs(store).f_flag & os.ST_RDONLY)
