"""The INIT handshake with the kernel, with flags that libfuse 3.14 knows and never sets.

libfuse reads INIT from its fd and writes the answer to it.  For these two messages the fd is one end
of a socket pair: what the kernel asks is handed to libfuse, and what libfuse answers is changed and
handed to the kernel.  Then the fd becomes /dev/fuse itself (dup2), and nothing is in between.

Layouts: linux/fuse.h, struct fuse_in_header (40 bytes), fuse_init_in, fuse_out_header (16 bytes),
fuse_init_out.  Tested: Linux 6.18, libfuse 3.14.
"""

import os
import socket
import struct

_REQUEST_MOST = 1 << 20  # bytes; the kernel refuses a read with less room than 8 KiB
_IN_FLAGS = struct.Struct("<52xI")  # header, major, minor, max_readahead, then flags
_OUT_FLAGS = struct.Struct("<28xI")
_OUT_FLAGS_AT = 28

_AUTO_INVAL_DATA = 1 << 12
_HANDLE_KILLPRIV_V2 = 1 << 28

# The kernel asks for security.capability before every write, unless the file system takes set-id
# bits and capabilities away itself: 10,000 of the 44,000 requests of an untar of 2,700 files.
_WANTED = _HANDLE_KILLPRIV_V2
# Pages are invalidated by dkfs, which owns the backing directory.  With this flag the kernel drops
# them whenever a refreshed mtime differs, under writes too, and SQLite reads stale ones (0003).
NOT_WANTED = _AUTO_INVAL_DATA


class Handshake:
    """One INIT, from the kernel through libfuse and back."""

    def __init__(self, device: int, *, wanted: int = _WANTED, unwanted: int = NOT_WANTED) -> None:
        """Take over *device*, an fd of /dev/fuse that is mounted; of what the kernel offers, take *wanted*, not *unwanted*."""
        self._device = device
        self._wanted = wanted
        self._unwanted = unwanted
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours = ours
        self.fd = theirs.detach()  # libfuse's, which closes it
        self._flags = 0
        self.is_done = False

    @classmethod
    def between(cls, fd: int, *, unwanted: int = NOT_WANTED) -> "Handshake":
        """Come between the kernel and libfuse, whose *fd* leads to a mount that it made by itself.

        That is so for users, who may not take away capabilities either.
        """
        made = cls(os.dup(fd), wanted=0, unwanted=unwanted)
        os.dup2(made.fd, fd, inheritable=False)
        os.close(made.fd)
        made.fd = fd
        return made

    def step(self) -> None:
        """Hand over the next message: first the kernel's, then, when libfuse has answered, its own."""
        if not self._flags:
            request = os.read(self._device, _REQUEST_MOST)
            (self._flags,) = _IN_FLAGS.unpack_from(request)
            self._ours.send(request)
            return
        answer = bytearray(self._ours.recv(4096))
        if len(answer) >= _OUT_FLAGS.size:
            (flags,) = _OUT_FLAGS.unpack_from(answer)
            flags = (flags | self._flags & self._wanted) & ~self._unwanted
            struct.pack_into("<I", answer, _OUT_FLAGS_AT, flags)
        os.write(self._device, answer)
        os.dup2(self._device, self.fd, inheritable=False)
        self.close()

    def close(self) -> None:
        """Let go of everything but libfuse's fd."""
        if not self.is_done:
            self.is_done = True
            os.close(self._device)
            self._ours.close()
