"""A mount of the history alone: its root, which the kernel calls 1, is the top of the history."""

from typing import Final

from dkfs.fuse.kernel.dispatcher import Dispatcher
from dkfs.fuse.kernel.messages import NODE, NODE_AT
from dkfs.fuse.kernel.request import HEADER_SIZE, Buffer, Deferred, Payload
from dkfs.overlay.virtual import VIRTUAL

_ROOT: Final = 1


class HistoryDispatcher(Dispatcher):
    """See Dispatcher; for a FileSystem that is_history."""

    def handle(self, buffer: Buffer, size: int | None = None) -> Payload | Deferred | None:
        """See Dispatcher.

        No other place in a request that is not refused names the root.
        """
        if len(buffer) >= HEADER_SIZE and NODE.unpack_from(buffer, NODE_AT) == (_ROOT,):
            if isinstance(buffer, bytes):
                buffer = bytearray(buffer)
            NODE.pack_into(buffer, NODE_AT, VIRTUAL)
        return super().handle(buffer, size)
