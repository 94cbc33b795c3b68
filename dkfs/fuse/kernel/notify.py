"""Telling the kernel what is no longer true.

The kernel may wait for a page that a request of ours holds: never in the loop's thread.
"""

import contextlib
import errno
import logging
import threading
from collections.abc import Callable
from typing import Final

from dkfs.fuse.kernel.messages import INVAL_ENTRY_OUT, INVAL_INODE_OUT, Notify, notification

log = logging.getLogger(__name__)

_PATIENCE_S: Final = 1.0  # for what takes 0.1 ms
_MOST: Final = 64  # threads at a time that drop pages; one that waits for a page occupies one


class Notifier:
    """Writes notifications; all methods but attributes() are for any thread but the loop's."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        """*write* writes to the device, and raises OSError."""
        self._write = write
        self._room = threading.Semaphore(_MOST)
        self._is_short = False  # the system gives no more threads

    def inode(self, number: int, offset: int = 0, length: int = 0) -> None:
        """Drop attributes, and the pages of [offset, offset + length), 0: to the end; raises OSError.

        A negative offset: attributes only.  What a map has stored is written first; of a directory, the
        cached listing goes.
        """
        self._tell(Notify.INVAL_INODE, INVAL_INODE_OUT.pack(number, offset, length))

    def attributes(self, number: int) -> None:
        """Drop attributes of what somebody is using; waits for nobody: for any thread, the loop's too."""
        with contextlib.suppress(OSError):  # unmounted meanwhile
            self.inode(number, -1)

    def entry(self, parent: int, name: bytes) -> None:
        """Forget what *name* in *parent* is; raises OSError.

        The kernel waits until nobody looks names up, or lists them, in *parent*: what was answered before is
        forgotten too.
        """
        head = INVAL_ENTRY_OUT.pack(parent, len(name), 0)
        self._tell(Notify.INVAL_ENTRY, head + name + b"\0")

    def _tell(self, code: Notify, payload: bytes) -> None:
        try:
            self._write(notification(code, payload))
        except OSError as exc:
            if exc.errno != errno.ENOENT:  # the kernel did not know it
                raise

    def drop_pages(self, number: int, offset: int = 0, length: int = 0) -> None:
        """Drop the cached pages of a range of *number*, see inode(), past which a write went that is not answered yet.

        What a map has stored in them is written first.  Linux drops them before an O_DIRECT write and, if that is asynchronous, not after it: a page that
        was read meanwhile would stay as it was.  Gives up where the write itself holds a page, and where there is
        no thread for it: what was asked for is done, and is answered with success.
        """
        if not self._room.acquire(timeout=_PATIENCE_S):
            return
        thread = threading.Thread(target=self._drop, args=(number, offset, length), daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:
            self._room.release()
            if not self._is_short:
                log.warning("cached pages are not dropped: %s", exc)
            self._is_short = True
            return
        self._is_short = False
        thread.join(_PATIENCE_S)

    def _drop(self, number: int, offset: int, length: int) -> None:
        try:
            self.inode(number, offset, length)
        except OSError:
            pass  # unmounted meanwhile
        finally:
            self._room.release()
