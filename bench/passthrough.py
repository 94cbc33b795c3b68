"""A plain pass-through on pyfuse3: what a mount of this kind costs when nothing is recorded.

`python -m bench.passthrough BACKING MOUNTPOINT` serves in the foreground and says "ready".  It is as
careful as a good one, and no more: an O_PATH fd per inode, long timeouts, negative entries, extended
attributes served, pages kept; stock pyfuse3, the backing directory unchanged by anybody else.
"""

# ruff: noqa: ARG002, FBT001 - names and arguments are pyfuse3.Operations'

import ctypes
import errno
import os
import resource
import stat
import sys
from collections.abc import Callable, Sequence
from types import CoroutineType
from typing import Any

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FUSEError, RequestContext

_FOREVER_S = 86_400.0
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_PASSED = os.O_APPEND | os.O_DIRECT | os.O_CREAT | os.O_EXCL | os.O_NOCTTY
_libc = ctypes.CDLL(None, use_errno=True)


class _Inode:
    __slots__ = ("fd", "lookups", "path")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.path = f"/proc/self/fd/{fd}"
        self.lookups = 0


def _entry(status: os.stat_result, number: int) -> EntryAttributes:
    entry = EntryAttributes()
    entry.st_ino = number
    entry.entry_timeout = entry.attr_timeout = _FOREVER_S
    for name in ("mode", "nlink", "uid", "gid", "rdev", "size", "blocks", "blksize"):
        setattr(entry, f"st_{name}", getattr(status, f"st_{name}"))
    entry.st_atime_ns = status.st_atime_ns
    entry.st_mtime_ns = status.st_mtime_ns
    entry.st_ctime_ns = status.st_ctime_ns
    return entry


def _served(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a handler of *method*: an OSError is answered with its errno."""

    async def handler(self: "Operations", *args: Any) -> Any:
        try:
            result = method(self, *args)
            return await result if type(result) is CoroutineType else result
        except OSError as exc:
            raise FUSEError(exc.errno or errno.EIO) from None

    return handler


class Operations(pyfuse3.Operations):
    """See the module."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = True

    def __init__(self, root_fd: int) -> None:
        super().__init__()
        self._inodes: dict[int, _Inode] = {pyfuse3.ROOT_INODE: _Inode(root_fd)}
        self._root_ino = os.fstat(root_fd).st_ino
        self._listings: dict[int, tuple[int, list[str]]] = {}
        self._next = 1

    # Inodes

    def _number(self, status: os.stat_result) -> int:
        return pyfuse3.ROOT_INODE if status.st_ino == self._root_ino else status.st_ino

    def _found(self, parent: int, name: bytes | str) -> EntryAttributes:
        fd = os.open(name, _PATH, dir_fd=self._inodes[parent].fd)
        status = os.fstat(fd)
        number = self._number(status)
        inode = self._inodes.get(number)
        if inode is None:
            inode = self._inodes[number] = _Inode(fd)
        else:
            os.close(fd)
        inode.lookups += 1
        return _entry(status, number)

    @_served
    def lookup(self, parent: int, name: bytes, ctx: RequestContext) -> Any:
        try:
            return self._found(parent, name)
        except FileNotFoundError:
            missing = EntryAttributes()
            missing.st_ino = pyfuse3.InodeT(0)
            missing.entry_timeout = _FOREVER_S
            return missing

    @_served
    def forget(self, inode_list: Sequence[tuple[int, int]]) -> Any:
        self._forget(inode_list)

    def _forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for number, lookups in inode_list:
            inode = self._inodes[number]
            inode.lookups -= lookups
            if inode.lookups <= 0 and number != pyfuse3.ROOT_INODE:
                os.close(self._inodes.pop(number).fd)

    # Attributes

    @_served
    def getattr(self, inode: int, ctx: RequestContext) -> Any:
        return _entry(os.fstat(self._inodes[inode].fd), inode)

    @_served
    def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> Any:
        node = self._inodes[inode]
        if fields.update_size:
            os.truncate(node.path if fh is None else fh, attr.st_size)
        if fields.update_uid or fields.update_gid:
            uid = attr.st_uid if fields.update_uid else -1
            os.chown(node.path, uid, attr.st_gid if fields.update_gid else -1)
        if fields.update_mode:
            os.chmod(node.path, stat.S_IMODE(attr.st_mode))
        if fields.update_atime or fields.update_mtime:
            status = os.fstat(node.fd)
            atime_ns = attr.st_atime_ns if fields.update_atime else status.st_atime_ns
            mtime_ns = attr.st_mtime_ns if fields.update_mtime else status.st_mtime_ns
            os.utime(node.path, ns=(atime_ns, mtime_ns))
        return _entry(os.fstat(node.fd), inode)

    @_served
    def readlink(self, inode: int, ctx: RequestContext) -> Any:
        return os.readlink(b"", dir_fd=self._inodes[inode].fd)

    @_served
    def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> Any:
        return os.getxattr(self._inodes[inode].path, name)

    @_served
    def listxattr(self, inode: int, ctx: RequestContext) -> Any:
        return [os.fsencode(name) for name in os.listxattr(self._inodes[inode].path)]

    @_served
    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> Any:
        os.setxattr(self._inodes[inode].path, name, value)

    @_served
    def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> Any:
        os.removexattr(self._inodes[inode].path, name)

    @_served
    def statfs(self, ctx: RequestContext) -> Any:
        status = os.fstatvfs(self._inodes[pyfuse3.ROOT_INODE].fd)
        data = pyfuse3.StatvfsData()
        for name in ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail"):
            setattr(data, f"f_{name}", getattr(status, f"f_{name}"))
        data.f_namemax = status.f_namemax
        return data

    @_served
    def access(self, inode: int, mode: int, ctx: RequestContext) -> Any:
        return True  # the kernel checks: default_permissions

    # Names

    def _owned(self, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Give a new name to who asked for it: the process runs as root."""
        fd = self._inodes[parent].fd
        if ctx.uid or ctx.gid:
            setgid = os.fstat(fd).st_mode & stat.S_ISGID
            os.chown(name, ctx.uid, -1 if setgid else ctx.gid, dir_fd=fd, follow_symlinks=False)
        return self._found(parent, name)

    @_served
    def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> Any:
        os.mknod(name, mode & ~ctx.umask, rdev, dir_fd=self._inodes[parent_inode].fd)
        return self._owned(parent_inode, name, ctx)

    @_served
    def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> Any:
        os.mkdir(name, mode & ~ctx.umask, dir_fd=self._inodes[parent_inode].fd)
        return self._owned(parent_inode, name, ctx)

    @_served
    def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> Any:
        os.symlink(target, name, dir_fd=self._inodes[parent_inode].fd)
        return self._owned(parent_inode, name, ctx)

    @_served
    def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> Any:
        os.link(
            self._inodes[inode].path,
            new_name,
            dst_dir_fd=self._inodes[new_parent_inode].fd,
            follow_symlinks=True,
        )
        return self._found(new_parent_inode, new_name)

    @_served
    def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> Any:
        os.unlink(name, dir_fd=self._inodes[parent_inode].fd)

    @_served
    def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> Any:
        os.rmdir(name, dir_fd=self._inodes[parent_inode].fd)

    @_served
    def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> Any:
        old, new = self._inodes[parent_inode_old].fd, self._inodes[parent_inode_new].fd
        if flags == 0:
            os.rename(name_old, name_new, src_dir_fd=old, dst_dir_fd=new)
        elif _libc.renameat2(old, name_old, new, name_new, flags):
            raise FUSEError(ctypes.get_errno())

    # Directories

    @_served
    def opendir(self, inode: int, ctx: RequestContext) -> Any:
        self._next += 1
        self._listings[self._next] = (inode, [])
        return pyfuse3.FileHandleT(self._next)

    @_served
    def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> Any:
        inode, names = self._listings[fh]
        if start_id == 0:
            names = sorted(os.listdir(self._inodes[inode].path))
            self._listings[fh] = (inode, names)
        for index in range(start_id, len(names)):
            try:
                entry = self._found(inode, names[index])
            except FileNotFoundError:
                continue
            if not pyfuse3.readdir_reply(token, os.fsencode(names[index]), entry, index + 1):
                self._forget([(entry.st_ino, 1)])
                break

    @_served
    def releasedir(self, fh: int) -> Any:
        del self._listings[fh]

    @_served
    def fsyncdir(self, fh: int, datasync: bool) -> Any:
        fd = os.open(self._inodes[self._listings[fh][0]].path, os.O_RDONLY | os.O_CLOEXEC)
        return _slowly(os.fsync, fd, close=True)

    # Files

    @_served
    def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> Any:
        directory = self._inodes[parent_inode].fd
        flags = flags & ~os.O_APPEND & ~os.O_DIRECT | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(name, flags, mode & ~ctx.umask, dir_fd=directory)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(fd)), self._owned(parent_inode, name, ctx)

    @_served
    def open(self, inode: int, flags: int, ctx: RequestContext) -> Any:
        fd = os.open(self._inodes[inode].path, flags & ~_NOT_PASSED & ~os.O_NOFOLLOW | os.O_CLOEXEC)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(fd), keep_cache=True)

    @_served
    def read(self, fh: int, off: int, size: int) -> Any:
        return os.pread(fh, size, off)

    @_served
    def write(self, fh: int, off: int, buf: bytes) -> Any:
        return os.pwrite(fh, buf, off)

    @_served
    def flush(self, fh: int) -> Any:
        os.close(os.dup(fh))

    @_served
    def release(self, fh: int) -> Any:
        os.close(fh)

    @_served
    def fsync(self, fh: int, datasync: bool) -> Any:
        return _slowly(os.fdatasync if datasync else os.fsync, fh, close=False)


async def _slowly(sync: Callable[[int], None], fd: int, *, close: bool) -> None:
    """Sync *fd* in a thread while other requests are served."""
    try:
        await trio.to_thread.run_sync(sync, fd)
    finally:
        if close:
            os.close(fd)


def serve(backing: str, mountpoint: str) -> None:
    """Serve *backing* at *mountpoint* until it is unmounted."""
    os.umask(0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    root_fd = os.open(backing, _PATH | os.O_DIRECTORY)
    options = set(pyfuse3.default_options) | {"fsname=bench", "subtype=passthrough", "allow_other"}
    pyfuse3.init(Operations(root_fd), mountpoint, options)
    print("ready", flush=True)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
