"""The pyfuse3 adapter: every request of the kernel becomes one call of the overlay; no behaviour."""

import errno
import functools
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FUSEError, RequestContext

from dkfs.fuse import readiness
from dkfs.fuse.convert import bare_entry_of, entry_of, statvfs_of, virtual_entry_of, wanted_of
from dkfs.fuse.engine import Meter
from dkfs.fuse.invalidate import drop_pages
from dkfs.fuse.served import changes, served
from dkfs.model.ids import Seq
from dkfs.overlay.inodes import Inode
from dkfs.overlay.listing import DOTS, Listed
from dkfs.overlay.mounted import FileSystem
from dkfs.overlay.virtual import VIRTUAL

log = logging.getLogger(__name__)


class Operations(pyfuse3.Operations):
    """See the module."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = True

    def __init__(self, fs: FileSystem, meter: Meter) -> None:
        super().__init__()
        self._fs = fs
        self._table = fs.table
        self._names = fs.names
        self._files = fs.files
        self._attributes = fs.attributes
        self._virtual = fs.virtual
        self._recorder = fs.recorder
        self._entry_of = functools.partial(entry_of, valid_s=fs.valid_s)
        self.meter = meter

    # Names

    @served
    def lookup(self, parent: int, name: bytes, ctx: RequestContext) -> Any:
        if self._virtual.owns(parent, name):
            if self._recorder.owes:
                return self._settled(parent, name, ctx)
            return virtual_entry_of(self._virtual.lookup(parent, name, ctx))
        try:
            inode, status = self._names.lookup(self._table[parent], name)
        except FileNotFoundError:
            entry = EntryAttributes()
            entry.st_ino = pyfuse3.InodeT(0)
            entry.entry_timeout = self._fs.valid_s
            return entry
        return self._entry_of(status, inode)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        try:
            for number, lookups in inode_list:
                if number < VIRTUAL:
                    self._fs.forget(number, lookups)
                else:
                    self._virtual.forget(number, lookups)
        except Exception:  # there is no reply to it, so that not even a FUSEError may be raised
            self.meter.count_internal_error()
            log.exception("forget failed")

    @changes
    def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> Any:
        self._refuse_virtual(parent_inode)
        inode, status = self._names.mknod(self._table[parent_inode], name, mode, rdev, ctx)
        return self._entry_of(status, inode)

    @changes
    def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> Any:
        if parent_inode >= VIRTUAL:
            return virtual_entry_of(self._virtual.mkdir(parent_inode, name, ctx))
        inode, status = self._names.mkdir(self._table[parent_inode], name, mode, ctx)
        return self._entry_of(status, inode)

    @changes
    def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> Any:
        self._refuse_virtual(parent_inode)
        inode, status = self._names.symlink(self._table[parent_inode], name, target, ctx)
        return self._entry_of(status, inode)

    @changes
    def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> Any:
        self._refuse_virtual(inode, new_parent_inode)
        linked, status = self._names.link(
            self._table[inode], self._table[new_parent_inode], new_name, ctx
        )
        return self._entry_of(status, linked)

    @changes
    def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> Any:
        self._refuse_virtual(parent_inode)
        seq = self._names.unlink(self._table[parent_inode], name, ctx)
        return None if seq is None else self._slowly(self._recorder.keep, seq)

    @changes
    def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> Any:
        if parent_inode >= VIRTUAL:
            self._virtual.rmdir(parent_inode, name, ctx)
            return
        self._names.rmdir(self._table[parent_inode], name, ctx)

    @changes
    def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> Any:
        self._refuse_virtual(parent_inode_old, parent_inode_new)
        self._names.rename(
            self._table[parent_inode_old],
            name_old,
            self._table[parent_inode_new],
            name_new,
            flags,
            ctx,
        )

    def _refuse_virtual(self, *numbers: int) -> None:
        for number in numbers:
            if number >= VIRTUAL:
                raise FUSEError(errno.EROFS)

    # Directories

    @served
    def opendir(self, inode: int, ctx: RequestContext) -> Any:
        if inode >= VIRTUAL:
            return self._virtual.opendir(inode, ctx)
        return self._names.opendir(self._table[inode])

    @served
    def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> Any:
        if fh >= VIRTUAL:
            self._read_virtual(fh, start_id, token)
            return
        directory = self._names.inode_of(fh)
        replied = False
        try:
            for each in self._names.listing(fh, start_id):
                if not self._reply(token, directory, each):
                    break
                replied = True
        except OSError:
            # The kernel is to have what was referenced for it; it goes on there, and hears of this then.
            if not replied:
                raise

    def _reply(self, token: pyfuse3.ReaddirToken, directory: Inode, each: Listed) -> bool:
        """Report a name, if it is still there; return False if there was no room for it."""
        name, after, *_ = each
        if name in DOTS:
            return self._reply_dot(token, directory.id, name, after)
        if self._virtual.owns(directory.id, name):
            return self._reply_virtual(token, directory.id, name, after)
        fd = self._table.fd(directory)
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return True
        except OSError:  # who asks for more of it hears of that
            return pyfuse3.readdir_reply(token, name, bare_entry_of(each), after)
        inode = self._table.referred(directory, name, status)
        if pyfuse3.readdir_reply(token, name, self._entry_of(status, inode), after):
            return True
        self._table.forget(inode, 1)
        return False

    def _dots(self, number: int, start_id: int, token: pyfuse3.ReaddirToken) -> bool:
        """Report "." and ".."."""
        return all(
            self._reply_dot(token, number, name, position)
            for position, name in enumerate(DOTS, 1)
            if position > start_id
        )

    def _reply_dot(
        self, token: pyfuse3.ReaddirToken, number: int, name: bytes, position: int
    ) -> bool:
        """Report "." or ".."; the kernel takes no reference to them."""
        entry = EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(number)
        entry.st_mode = pyfuse3.ModeT(0o040755)
        return pyfuse3.readdir_reply(token, name, entry, position)

    def _read_virtual(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        number, names = self._virtual.names(fh, again=start_id == 0)
        if start_id < 2 and not self._dots(number, start_id, token):
            return
        for index in range(max(0, start_id - 2), len(names)):
            if not self._reply_virtual(token, number, names[index], index + 3):
                break

    def _reply_virtual(
        self, token: pyfuse3.ReaddirToken, parent: int, name: bytes, position: int
    ) -> bool:
        """Report *name*, if it is still there; return False if there was no room for it."""
        found = self._virtual.peek(parent, name)
        if found is None:
            return True
        if not pyfuse3.readdir_reply(token, name, virtual_entry_of(found), position):
            return False
        self._virtual.reference(found)
        return True

    @served
    def releasedir(self, fh: int) -> Any:
        if fh >= VIRTUAL:
            self._virtual.releasedir(fh)
        else:
            self._names.releasedir(fh)

    @served
    def fsyncdir(self, fh: int, datasync: bool) -> Any:
        if fh >= VIRTUAL:
            return None
        fd, seq = self._attributes.fsyncdir(self._names.inode_of(fh))

        def sync() -> None:
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            self._recorder.keep(seq)

        return self._slowly(sync)

    # Files

    @changes
    def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> Any:
        self._refuse_virtual(parent_inode)
        number, inode, status = self._names.create(
            self._table[parent_inode], name, mode, flags, ctx
        )
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(number)), self._entry_of(status, inode)

    @served
    def open(self, inode: int, flags: int, ctx: RequestContext) -> Any:
        if inode >= VIRTUAL:
            number = self._virtual.open(inode, flags, ctx)
        else:
            number = self._files.open(self._table[inode], flags, ctx)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(number))

    @served
    def read(self, fh: int, off: int, size: int) -> Any:
        if fh >= VIRTUAL:
            return self._slowly(self._virtual.read, fh, off, size)
        return self._files.read(fh, off, size)

    @changes
    def write(self, fh: int, off: int, buf: bytes) -> Any:
        if fh >= VIRTUAL:
            raise FUSEError(errno.EROFS)
        written = self._files.write(fh, off, buf)
        handle = self._files.handles[fh]
        if handle.direct:
            return self._past_cache(fh, written)
        if handle.sync:
            return self._synced(fh, written, os.fsync)
        return written

    async def _past_cache(self, fh: int, written: int) -> int:
        handle = self._files.handles[fh]
        with readiness.busy():
            handle.direct = await drop_pages(handle.inode.id)
        if handle.sync:
            await self._synced(fh, written, os.fsync)
        return written

    @served
    def flush(self, fh: int) -> Any:
        if fh < VIRTUAL:
            self._files.flush(fh)

    @served
    def release(self, fh: int) -> Any:
        if fh >= VIRTUAL:
            self._virtual.release(fh)
        else:
            self._files.release(fh)

    @served
    def fsync(self, fh: int, datasync: bool) -> Any:
        if fh >= VIRTUAL:
            return None
        return self._synced(fh, None, os.fdatasync if datasync else os.fsync)

    async def _synced(self, fh: int, result: int | None, sync: Callable[[int], None]) -> int | None:
        fd, seq = self._files.fsync(fh)
        await self._slowly(self._sync, sync, fd, seq, self._files.handles[fh].inode)
        return result

    def _sync(self, sync: Callable[[int], None], fd: int, seq: Seq, inode: Inode) -> None:
        self._recorder.sync(fd, sync, seq, inode.node)
        if not inode.unlinked:  # nobody will ever find it by a name
            self._recorder.refuse_lost(inode.node)

    async def _settled(self, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        await self._slowly(self._recorder.settle)
        return virtual_entry_of(self._virtual.lookup(parent, name, ctx))

    async def _slowly(self, work: Callable[..., Any], *args: Any) -> Any:
        """Run *work* in a thread while other requests are served."""
        with readiness.busy():
            return await trio.to_thread.run_sync(work, *args)

    def room(self) -> Awaitable[None] | None:
        """Return what to await before changing anything: the recorder is behind; None if not."""
        if self._fs.is_read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if self._recorder.is_full:
            self._recorder.refuse_unrecorded()
            return self._slowly(self._recorder.wait_room)
        return None

    # Attributes

    @served
    def getattr(self, inode: int, ctx: RequestContext) -> Any:
        if inode >= VIRTUAL:
            return virtual_entry_of(self._virtual.getattr(inode))
        found = self._table[inode]
        return self._entry_of(self._attributes.get(found), found)

    @changes
    def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> Any:
        self._refuse_virtual(inode)
        found = self._table[inode]
        return self._entry_of(self._attributes.set(found, wanted_of(attr, fields), fh, ctx), found)

    @served
    def readlink(self, inode: int, ctx: RequestContext) -> Any:
        if inode >= VIRTUAL:
            return self._virtual.readlink(inode, ctx)
        return self._attributes.readlink(self._table[inode])

    @served
    def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> Any:
        if inode >= VIRTUAL:
            return self._virtual.getxattr(inode, name, ctx)
        return self._attributes.getxattr(self._table[inode], name)

    @served
    def listxattr(self, inode: int, ctx: RequestContext) -> Any:
        if inode >= VIRTUAL:
            return self._virtual.listxattr(inode, ctx)
        return self._attributes.listxattr(self._table[inode], ctx)

    @changes
    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> Any:
        self._refuse_virtual(inode)
        found = self._table[inode]
        self._attributes.setxattr(
            found, name, value, ctx, kills_setgid=self._attributes.is_foreign_acl(found, name, ctx)
        )

    @changes
    def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> Any:
        self._refuse_virtual(inode)
        self._attributes.removexattr(self._table[inode], name, ctx)

    @served
    def statfs(self, ctx: RequestContext) -> Any:
        return statvfs_of(self._attributes.statfs())

    @served
    def access(self, inode: int, mode: int, ctx: RequestContext) -> Any:
        return True  # the kernel checks: default_permissions is always on
