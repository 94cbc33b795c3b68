"""Requests about open files: open, create, tmpfile, read, write, flush, release, fsync."""

import errno
import os
from collections.abc import Callable
from typing import Final

from dkfs.fuse.kernel.entries import Validity, entry
from dkfs.fuse.kernel.messages import (
    CREATE_IN,
    FLUSH_IN,
    FSYNC_FDATASYNC,
    FSYNC_IN,
    OPEN_IN,
    OPEN_KILL_SUIDGID,
    OPEN_OUT,
    OUT_HEADER,
    READ_IN,
    RELEASE_IN,
    WRITE_CACHE,
    WRITE_IN,
    WRITE_KILL_SUIDGID,
    WRITE_OUT,
    Fopen,
    Init,
    Op,
)
from dkfs.fuse.kernel.negotiate import MAX_WRITE, Terms
from dkfs.fuse.kernel.notify import Notifier
from dkfs.fuse.kernel.passthrough import Passthrough
from dkfs.fuse.kernel.request import (
    HEADER_SIZE,
    Answer,
    First,
    Handler,
    Request,
    Work,
    invalid,
    refuse_virtual,
)
from dkfs.fuse.kernel.system import is_in_memory
from dkfs.model.ids import Seq
from dkfs.overlay.inodes import Inode
from dkfs.overlay.mounted import FileSystem
from dkfs.overlay.virtual import VIRTUAL

_DATA: Final = HEADER_SIZE + WRITE_IN.size
_OUT_SIZE: Final = OUT_HEADER.size
_KEEP: Final = int(Fopen.KEEP_CACHE)
_NOFLUSH: Final = int(Fopen.NOFLUSH)  # nothing to capture at close
_NOWAIT: Final = os.RWF_NOWAIT


class FileRequests:
    """See the module."""

    def __init__(self, fs: FileSystem, notifier: Notifier | None) -> None:
        self._table = fs.table
        self._names = fs.names
        self._files = fs.files
        self._handles = fs.files.handles
        self._modes = fs.modes
        self._virtual = fs.virtual
        self._recorder = fs.recorder
        self._captures = fs.captures
        self._unseen = fs.captures.unseen.files
        self.passthrough: Passthrough | None = None
        self._settling = fs.rollback.settling
        self._notifier = notifier
        self._valid = Validity(fs)
        self._keep = (
            0 if fs.is_read_only else _KEEP
        )  # pages that others may have changed are not kept
        self._knows_kill = False
        # Flags of preadv(2) by device; None: no read is certain not to wait, so that threads read.
        self._how_read: dict[int, int | None] = {}

    def agree(self, terms: Terms) -> None:
        """Hear what INIT led to."""
        self._knows_kill = bool(terms.flags & Init.HANDLE_KILLPRIV_V2)

    def handlers(self) -> dict[int, Handler]:
        """Return the handler of each request."""
        named = HEADER_SIZE + CREATE_IN.size + 2
        return {
            Op.CREATE: Handler(self.create, named, "create", makes_changes=True),
            Op.TMPFILE: Handler(self.tmpfile, named, "tmpfile", makes_changes=True),
            Op.OPEN: Handler(self.open, HEADER_SIZE + OPEN_IN.size, "open"),
            Op.READ: Handler(self.read, HEADER_SIZE + READ_IN.size, "read"),
            Op.WRITE: Handler(self.write, _DATA, "write", makes_changes=True),
            Op.FLUSH: Handler(self.flush, HEADER_SIZE + FLUSH_IN.size, "flush"),
            Op.RELEASE: Handler(self.release, HEADER_SIZE + RELEASE_IN.size, "release"),
            Op.FSYNC: Handler(self.fsync, HEADER_SIZE + FSYNC_IN.size, "fsync"),
        }

    def create(self, request: Request) -> Answer:
        flags, mode, umask, how = CREATE_IN.unpack_from(request.buffer, HEADER_SIZE)
        name = request.name(HEADER_SIZE + CREATE_IN.size)
        refuse_virtual(request.node)
        parent = self._table[request.node]
        try:
            number, inode, status = self._names.create(
                parent, name, mode, flags | os.O_EXCL, request, umask=umask
            )
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            inode, status = self._names.lookup(parent, name)
            return self._created(inode, status, lambda: self._open(inode, flags, how, request))
        return self._created(inode, status, lambda: self._opened(number, flags, is_new=True))

    def _created(
        self, inode: Inode, status: os.stat_result, opened: Callable[[], bytes | First]
    ) -> Answer:
        """Return the entry of *inode*, referenced for it, and what *opened* returns; the reference is taken back else."""
        how = None
        try:
            how = opened()
        finally:
            if type(how) is not bytes:
                self._table.forget(inode, 1)
        return entry(status, inode, self._valid) + how if isinstance(how, bytes) else how

    def tmpfile(self, request: Request) -> bytes:
        flags, mode, umask, _ = CREATE_IN.unpack_from(request.buffer, HEADER_SIZE)
        refuse_virtual(request.node)
        number, inode, status = self._names.tmpfile(
            self._table[request.node], mode, flags, request, umask=umask
        )
        if self.passthrough is not None:
            self.passthrough.kept(number)
        return entry(status, inode, self._valid) + OPEN_OUT.pack(number, _KEEP, 0)

    def open(self, request: Request) -> Answer:
        flags, how = OPEN_IN.unpack_from(request.buffer, HEADER_SIZE)
        if request.node >= VIRTUAL:
            number = self._virtual.open(request.node, flags, request)
            return OPEN_OUT.pack(number, _KEEP | _NOFLUSH, 0)
        if (
            flags & os.O_TRUNC and self._recorder.is_full
        ):  # it changes the file: see Handler.makes_changes
            self._recorder.refuse_unrecorded()
            return First(self._recorder.wait_room, is_look=False)
        return self._open(self._table[request.node], flags, how, request)

    def _open(self, inode: Inode, flags: int, how: int, request: Request) -> bytes | First:
        kill = bool(how & OPEN_KILL_SUIDGID) if self._knows_kill else None
        if flags & os.O_TRUNC and (wait := self._captures.waiting(inode, 0)) is not None:
            return First(wait, is_look=False)
        if self.passthrough is not None:
            wait = self.passthrough.waiting(inode, flags)
            if wait is not None:
                return First(wait, is_look=False)
        if self.passthrough is not None and flags & os.O_TRUNC and flags & os.O_DIRECT:
            self._modes.decide(inode, flags)  # may refuse: before anything is truncated
        is_watched = inode in self._unseen
        number = self._files.open(inode, flags & ~os.O_CREAT, request, kill=kill)
        reply = self._opened(number, flags)
        if inode in self._unseen and not is_watched and self._notifier is not None:
            self._notifier.attributes(inode.id)  # it was told to believe them, see Validity
        return reply

    def _opened(self, number: int, flags: int, *, is_new: bool = False) -> bytes:
        """Return how the kernel is to serve handle *number*, opened with *flags*.

        A file that *is new* and can only be written is captured at RELEASE, which is on its way when close returns.
        It cannot be mapped: FLUSH is when the kernel would send what a map has stored.
        """
        if self.passthrough is None:
            access = flags & os.O_ACCMODE
            quiet = access == os.O_RDONLY or (is_new and access == os.O_WRONLY)
            return OPEN_OUT.pack(number, self._keep | (_NOFLUSH if quiet else 0), 0)
        try:
            return OPEN_OUT.pack(number, *self.passthrough.opened(number, flags))
        except BaseException:
            self._files.release(number)
            raise

    def read(self, request: Request) -> Answer:
        number, offset, size, *_ = READ_IN.unpack_from(request.buffer, HEADER_SIZE)
        if size > MAX_WRITE or offset < 0:
            raise invalid()
        if number >= VIRTUAL:
            return Work(lambda: self._virtual.read(number, offset, size))
        handle = self._handles[number]
        fd = handle.fd
        how = self._how_read.get(handle.inode.dev, _NOWAIT)
        if how is not None:
            try:
                got = os.preadv(fd, [request.room[_OUT_SIZE : _OUT_SIZE + size]], offset, how)
            except BlockingIOError:
                got = -1
            except OSError as exc:
                if exc.errno != errno.EOPNOTSUPP:
                    raise
                self._how_read[handle.inode.dev] = 0 if is_in_memory(handle.inode.dev) else None
                got = -1
            if got == size or (got >= 0 and offset + got >= os.fstat(fd).st_size):
                return request.room[: _OUT_SIZE + got]
        return Work(lambda: os.pread(fd, size, offset))

    def write(self, request: Request) -> Answer:
        number, offset, size, how, _, flags, _ = WRITE_IN.unpack_from(request.buffer, HEADER_SIZE)
        if _DATA + size != request.size or offset < 0:
            raise invalid()
        refuse_virtual(number)
        if how & WRITE_CACHE and self._handles[number].inode.id in self._settling:
            return WRITE_OUT.pack(size, 0)  # a page of before, that a map stored in: it is dropped
        data = request.view[_DATA : _DATA + size]
        kill = bool(how & WRITE_KILL_SUIDGID) if self._knows_kill else None
        written = self._files.write(number, offset, data, kill=kill)
        if not flags & (os.O_DIRECT | os.O_DSYNC):
            return WRITE_OUT.pack(written, 0)
        return self._written(number, written, flags)

    def _written(self, number: int, written: int, flags: int) -> Answer:
        """Return what is still to be done for a write with O_DIRECT or O_DSYNC."""
        node = self._handles[number].inode.id
        notifier = self._notifier if flags & os.O_DIRECT else None
        synced = self._synced(number, os.fsync) if flags & os.O_DSYNC else None
        if notifier is None and synced is None:
            return WRITE_OUT.pack(written, 0)

        def finish() -> bytes:
            if notifier is not None:
                notifier.drop_pages(node)
            if synced is not None:
                synced()
            return WRITE_OUT.pack(written, 0)

        return Work(finish, can_be_given_up=True)

    def flush(self, request: Request) -> bytes:
        number = FLUSH_IN.unpack_from(request.buffer, HEADER_SIZE)[0]
        if number < VIRTUAL:
            self._files.flush(number)
        return b""

    def release(self, request: Request) -> bytes:
        number = RELEASE_IN.unpack_from(request.buffer, HEADER_SIZE)[0]
        if number >= VIRTUAL:
            self._virtual.release(number)
        else:
            if self.passthrough is not None:
                self.passthrough.released(number)
            self._files.release(number)
        return b""

    def fsync(self, request: Request) -> Answer:
        number, how, _ = FSYNC_IN.unpack_from(request.buffer, HEADER_SIZE)
        if number >= VIRTUAL:
            return b""
        first = self._captures.before(self._handles[number].inode)
        if first is not None:
            return First(first)
        sync = os.fdatasync if how & FSYNC_FDATASYNC else os.fsync
        return Work(self._synced(number, sync), can_be_given_up=True)

    def _synced(self, number: int, sync: Callable[[int], None]) -> Callable[[], bytes]:
        """Capture; return what makes it durable, in another thread."""
        fd, seq = self._files.fsync(number)
        inode = self._handles[number].inode
        return lambda: self._sync(sync, fd, seq, inode)

    def _sync(self, sync: Callable[[int], None], fd: int, seq: Seq, inode: Inode) -> bytes:
        self._recorder.sync(fd, sync, seq, inode.node)
        if not inode.unlinked:  # nobody will ever find it by a name
            self._recorder.refuse_lost(inode.node)
        return b""
