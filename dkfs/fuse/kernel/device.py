"""/dev/fuse: the connection to the kernel, mounted and unmounted; the only module that reads or writes it."""

import contextlib
import errno
import logging
import os
import select
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dkfs.errors import MountError
from dkfs.fuse.kernel import system
from dkfs.fuse.kernel.messages import OUT_HEADER, refusal
from dkfs.fuse.kernel.request import Payload
from dkfs.fuse.point import Point

log = logging.getLogger(__name__)

_HELPER: Final = "fusermount3"
# Unmounted; the connection was aborted; closed.
_GONE: Final = frozenset((errno.ENODEV, errno.ECONNABORTED, errno.EBADF))
_AGAIN: Final = frozenset((errno.ENOENT, errno.EINTR))  # who asked was killed; a signal
_READAHEAD_KIB: Final = 1024  # the kernel's own 128 makes 8 requests of each MiB that is read


class Device:
    """A connection that is mounted; close() lets go of it, which ends it."""

    def __init__(self, fd: int, point: bytes, *, is_ours: bool) -> None:
        """Take over *fd*; *is_ours*: it was mounted by mount(2), not by fusermount3."""
        self.fd = fd
        self.is_ours = is_ours
        self._point = Point(point)
        os.set_blocking(fd, False)

    @classmethod
    def mounted(cls, mountpoint: Path, *, source: str, options: set[str]) -> "Device":
        """Mount on *mountpoint*; see Engine.mounted(); raises MountError."""
        point = os.fsencode(mountpoint)
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        try:
            system.mount(fd, source, point, options)
        except OSError as exc:
            os.close(fd)
            if exc.errno != errno.EPERM:
                raise MountError(f"mounting on {mountpoint} failed: {exc.strerror}") from None
            return cls(_mounted_by_helper(mountpoint, source, options), point, is_ours=False)
        return cls(fd, point, is_ours=True)

    def wait(self, seconds: float) -> bool:
        """Return whether there is a request within so many *seconds*."""
        if (fd := self.fd) < 0:  # closed: read() says so
            return True
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def read(self, address: int, room: int) -> int:
        """Read a request to *address*; return its size, 0 if there is none, -1 if the mount is gone."""
        while (size := int(system.read(self.fd, address, room))) < 0:
            code = system.failure()
            if code == errno.EAGAIN:
                return 0
            if code in _GONE:
                return -1
            if code not in _AGAIN:
                raise OSError(code, os.strerror(code))
        return size

    def answer(self, reply: Payload) -> None:
        """Write a reply; in any thread.  That nobody waits for it any more is no error."""
        if type(reply) is bytes:
            if system.write(self.fd, reply, len(reply)) >= 0:
                return
            code = system.failure()
        else:
            try:
                os.write(self.fd, reply)
            except OSError as exc:
                code = exc.errno or errno.EIO
            else:
                return
        if code == errno.ENOENT or code in _GONE:
            return
        _, _, unique = OUT_HEADER.unpack_from(reply)
        log.error("the kernel refused a reply of %d bytes: %s", len(reply), os.strerror(code))
        with contextlib.suppress(OSError):  # else who asked would wait for ever
            os.write(self.fd, refusal(unique, errno.EIO))

    def tell(self, notification: bytes) -> None:
        """Write a notification; not in the loop's thread; raises OSError."""
        os.write(self.fd, notification)

    def read_ahead(self) -> None:
        """Have the kernel read further ahead than it does by itself, where that is permitted."""
        if self._point.number is None:
            return
        with contextlib.suppress(OSError):
            Path(f"/sys/class/bdi/{self._point.number}/read_ahead_kb").write_text(
                f"{_READAHEAD_KIB}\n"
            )

    def unmount(self) -> None:
        """Unmount, if that has not happened yet, even if somebody uses it."""
        self._point.unmount(self.fd)

    def close(self) -> None:
        """Let go: requests that were not answered fail with ENOTCONN or ECONNABORTED."""
        fd, self.fd = self.fd, -1  # what a thread that is left behind has to say, nobody hears
        os.close(fd)


def _mounted_by_helper(mountpoint: Path, source: str, options: Iterable[str]) -> int:
    """Have fusermount3 mount, as it may for users; return the fd; raises MountError."""
    name = source.replace("\\", "\\\\").replace(",", "\\,")
    words = [*sorted(options), f"fsname={name}", "subtype=dkfs", "default_permissions"]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        try:
            done = subprocess.run(
                [_HELPER, "-o", ",".join(words), "--", os.fspath(mountpoint)],
                env=dict(os.environ, _FUSE_COMMFD=str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except FileNotFoundError:
            raise MountError(
                f"mounting on {mountpoint} failed: not permitted, and {_HELPER} is not installed"
            ) from None
        if done.returncode != 0:
            said = done.stderr.strip() or f"{_HELPER} ended with status {done.returncode}"
            raise MountError(f"mounting on {mountpoint} failed: {said}")
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    if not fds:
        raise MountError(f"mounting on {mountpoint} failed: {_HELPER} handed over no device")
    return fds[0]
