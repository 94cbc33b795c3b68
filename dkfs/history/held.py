"""What frozen contents hold while they wait to be recorded."""

import threading

from dkfs.history.frozen import Frozen


class Held:
    """Counts bytes and fds: the file system's threads what comes, the recorder's what goes."""

    def __init__(self) -> None:
        self._coming = threading.Lock()
        self._bytes_in = self._fds_in = 0
        self._bytes_out = self._fds_out = 0

    @property
    def bytes(self) -> int:
        """The bytes of memory that are held."""
        return self._bytes_in - self._bytes_out

    @property
    def fds(self) -> int:
        """The files that are kept open."""
        return self._fds_in - self._fds_out

    def add(self, contents: Frozen) -> None:
        """Count *contents*, which wait from now on."""
        with self._coming:
            self._bytes_in += contents.held
            self._fds_in += contents.fds

    def saved(self, count: int) -> None:
        """Count *count* bytes that contents which wait hold in addition."""
        with self._coming:
            self._bytes_in += count

    def release(self, contents: Frozen) -> None:
        """Release *contents*, and count them no longer."""
        self._bytes_out += contents.release()
        self._fds_out += contents.fds
