"""Random operations, done on a mount and on a model alike."""

import ctypes
import errno
import os
import random
import stat
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.mount.model import Model, Node, join, split

NAMES = (b"a", b"b", b"c", b"d", b"long-" + b"n" * 250, b"\xff\xfe", b"with space", b"new\nline")
EDGES = (0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 131072, 200_000)
NOREPLACE, EXCHANGE = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old: bytes, new: bytes, flags: int) -> None:
    if _libc.renameat2(-100, old, -100, new, ctypes.c_uint(flags)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fsdecode(old))


class Open(NamedTuple):
    fd: int
    node: Node


class ImpossibleError(Exception):
    """There is nothing in the tree that this could be done to."""


class Twin:
    """The same tree twice; what time something was changed is asked of the mount."""

    def __init__(self, top: bytes, rng: random.Random) -> None:
        self.top = top
        self.rng = rng
        self.model = Model()
        self.open: list[Open] = []
        status = os.lstat(top)
        root = self.model.root
        root.mode, root.uid, root.gid = status.st_mode, status.st_uid, status.st_gid
        root.mtime_ns = status.st_mtime_ns
        self._verbs: tuple[tuple[int, Callable[[], str]], ...] = (
            *((10, self.create), (16, self.write), (5, self.append), (6, self.truncate)),
            *((5, self.rewrite), (12, self.rename), (3, self.rename_noreplace)),
            *((3, self.exchange), (6, self.link), (8, self.unlink), (3, self.symlink)),
            *((6, self.mkdir), (3, self.rmdir), (4, self.chmod), (4, self.chown)),
            *((5, self.utime), (5, self.setxattr), (3, self.removexattr), (2, self.mknod)),
            *((5, self.open_file), (12, self.write_open), (3, self.truncate_open)),
            *((3, self.fsync_open), (3, self.dup_close), (5, self.close_one), (3, self.refused)),
        )

    def step(self) -> str:
        """Do one thing; return what it was."""
        weights = [weight for weight, _ in self._verbs]
        while True:
            verb = self.rng.choices(self._verbs, weights)[0][1]
            try:
                return f"{verb.__name__} {verb()}"
            except ImpossibleError:
                continue

    def close(self) -> None:
        while self.open:
            os.close(self.open.pop().fd)

    # Choosing

    def full(self, path: bytes) -> bytes:
        return join(self.top, path) if path else self.top

    def pick(self, wanted: Callable[[Node], bool]) -> tuple[bytes, Node]:
        found = [(path, node) for path, node in self.model.walk() if path and wanted(node)]
        if not found:
            raise ImpossibleError
        return self.rng.choice(sorted(found, key=lambda pair: pair[0]))

    def directory(self) -> bytes:
        paths = [p for p, node in self.model.walk() if node.is_dir and p.count(b"/") < 4]
        return self.rng.choice(sorted(paths))

    def free(self) -> bytes:
        directory = self.directory()
        taken = self.model.find(directory).children
        names = [name for name in NAMES if name not in taken]
        if not names:
            raise ImpossibleError
        return join(directory, self.rng.choice(names))

    def bytes_to_write(self) -> tuple[int, bytes]:
        rng = self.rng
        sparse = rng.random() < 0.05
        offset = rng.randrange(1 << 20) if sparse else max(0, rng.choice(EDGES) - rng.randrange(3))
        length = rng.choice((1, 10, 100, 4096, 5000, 70_000))
        return offset, rng.randbytes(length) if rng.random() < 0.9 else bytes(length)

    # What both are told

    def touched(self, *paths: bytes) -> None:
        """Take over when these were changed."""
        for path in paths:
            self.model.find(path).mtime_ns = os.lstat(self.full(path)).st_mtime_ns

    def changed(self, node: Node, fd: int) -> None:
        node.mtime_ns = os.fstat(fd).st_mtime_ns

    def put(self, path: bytes, node: Node) -> Node:
        directory, name = split(path)
        parent = self.model.find(directory)
        parent.children[name] = node
        self.touched(directory)
        return parent

    def put_new(self, path: bytes, node: Node) -> None:
        parent = self.put(path, node)
        self.touched(path)
        if parent.mode & stat.S_ISGID:
            node.gid = parent.gid
            if node.is_dir:
                node.mode |= stat.S_ISGID

    def drop(self, path: bytes) -> Node:
        directory, name = split(path)
        node = self.model.find(directory).children.pop(name)
        self.touched(directory)
        return node

    # Making and removing

    def create(self) -> str:
        path, mode = self.free(), self.rng.choice((0o644, 0o600, 0o755, 0o444))
        fd = os.open(self.full(path), os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)
        node = Node(stat.S_IFREG | mode)
        self.put_new(path, node)
        if self.rng.random() < 0.7:
            offset, data = self.bytes_to_write()
            os.pwrite(fd, data, offset)
            node.write(offset, data)
            self.changed(node, fd)
        if self.rng.random() < 0.2 and len(self.open) < 6:
            self.open.append(Open(fd, node))
        else:
            os.close(fd)
        return repr(path)

    def mkdir(self) -> str:
        path, mode = self.free(), self.rng.choice((0o755, 0o700, 0o1777))
        os.mkdir(self.full(path), mode)
        self.put_new(path, Node(stat.S_IFDIR | mode))
        return repr(path)

    def symlink(self) -> str:
        path = self.free()
        target = self.rng.choice((b"a", b"../x", b"/nowhere", b"\xff", b"t" * 4000))
        os.symlink(target, self.full(path))
        self.put_new(path, Node(stat.S_IFLNK | 0o777, target=target))
        return repr(path)

    def mknod(self) -> str:
        path = self.free()
        kind = self.rng.choice((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK))
        is_device = kind in (stat.S_IFCHR, stat.S_IFBLK)
        rdev = os.makedev(self.rng.randrange(1, 300), self.rng.randrange(300)) if is_device else 0
        os.mknod(self.full(path), kind | 0o640, rdev)
        self.put_new(path, Node(kind | 0o640, rdev=rdev))
        return repr(path)

    def link(self) -> str:
        source, node = self.pick(lambda node: not node.is_dir)
        path = self.free()
        os.link(self.full(source), self.full(path), follow_symlinks=False)
        self.put(path, node)
        return f"{source!r} {path!r}"

    def unlink(self) -> str:
        path, _ = self.pick(lambda node: not node.is_dir)
        os.unlink(self.full(path))
        self.drop(path)
        return repr(path)

    def rmdir(self) -> str:
        path, _ = self.pick(lambda node: node.is_dir and not node.children)
        os.rmdir(self.full(path))
        self.drop(path)
        return repr(path)

    # Names

    def rename(self) -> str:
        source, node = self.pick(lambda _: True)
        old_directory, _ = split(source)
        if self.rng.random() < 0.5:
            target = self.free()
        else:
            target, victim = self.pick(
                lambda v: v is not node and v.is_dir == node.is_dir and not v.children
            )
            assert victim is not node
        if node.is_dir and (target + b"/").startswith(source + b"/"):
            raise ImpossibleError
        os.rename(self.full(source), self.full(target))
        directory, name = split(target)
        self.model.find(old_directory).children.pop(split(source)[1])
        self.model.find(directory).children[name] = node
        self.touched(old_directory, directory)
        return f"{source!r} {target!r}"

    def rename_noreplace(self) -> str:
        source, node = self.pick(lambda _: True)
        target = self.free()
        if node.is_dir and (target + b"/").startswith(source + b"/"):
            raise ImpossibleError
        renameat2(self.full(source), self.full(target), NOREPLACE)
        self.drop_moved(source, target, node)
        return f"{source!r} {target!r}"

    def drop_moved(self, source: bytes, target: bytes, node: Node) -> None:
        old_directory, old_name = split(source)
        directory, name = split(target)
        del self.model.find(old_directory).children[old_name]
        self.model.find(directory).children[name] = node
        self.touched(old_directory, directory)

    def exchange(self) -> str:
        one, first = self.pick(lambda _: True)
        other, second = self.pick(lambda node: node is not first)
        if (one + b"/").startswith(other + b"/") or (other + b"/").startswith(one + b"/"):
            raise ImpossibleError
        renameat2(self.full(one), self.full(other), EXCHANGE)
        (one_dir, one_name), (other_dir, other_name) = split(one), split(other)
        self.model.find(one_dir).children[one_name] = second
        self.model.find(other_dir).children[other_name] = first
        self.touched(one_dir, other_dir)
        return f"{one!r} {other!r}"

    # Contents, by name

    def write(self) -> str:
        path, node = self.pick(lambda node: node.is_file)
        fd = os.open(self.full(path), self.rng.choice((os.O_WRONLY, os.O_RDWR)))
        writes = [self.bytes_to_write() for _ in range(self.rng.randrange(1, 4))]
        for offset, data in writes:
            os.pwrite(fd, data, offset)
            node.write(offset, data)
        os.close(fd)
        self.touched(path)
        return f"{path!r} {[(offset, len(data)) for offset, data in writes]}"

    def append(self) -> str:
        path, node = self.pick(lambda node: node.is_file)
        fd = os.open(self.full(path), os.O_WRONLY | os.O_APPEND)
        data = self.rng.randbytes(self.rng.choice((1, 100, 5000)))
        os.write(fd, data)
        os.close(fd)
        node.write(len(node.data), data)
        self.touched(path)
        return f"{path!r} {len(data)}"

    def truncate(self) -> str:
        path, node = self.pick(lambda node: node.is_file)
        size = self.rng.choice(EDGES)
        os.truncate(self.full(path), size)
        node.truncate(size)
        self.touched(path)
        return f"{path!r} {size}"

    def rewrite(self) -> str:
        path, node = self.pick(lambda node: node.is_file)
        data = self.rng.randbytes(self.rng.choice((0, 1, 5000, 66_000)))
        with open(self.full(path), "wb") as file:
            file.write(data)
        node.truncate(0)
        node.write(0, data)
        self.touched(path)
        return f"{path!r} {len(data)}"

    # Contents, through what stays open

    def open_file(self) -> str:
        if len(self.open) >= 6:
            raise ImpossibleError
        path, node = self.pick(lambda node: node.is_file)
        self.open.append(Open(os.open(self.full(path), os.O_RDWR), node))
        return repr(path)

    def one_open(self) -> Open:
        if not self.open:
            raise ImpossibleError
        return self.rng.choice(self.open)

    def write_open(self) -> str:
        fd, node = self.one_open()
        offset, data = self.bytes_to_write()
        os.pwrite(fd, data, offset)
        node.write(offset, data)
        self.changed(node, fd)
        return f"fd {fd} {offset} {len(data)}"

    def truncate_open(self) -> str:
        fd, node = self.one_open()
        size = self.rng.choice(EDGES)
        os.ftruncate(fd, size)
        node.truncate(size)
        self.changed(node, fd)
        return f"fd {fd} {size}"

    def fsync_open(self) -> str:
        fd, _ = self.one_open()
        self.rng.choice((os.fsync, os.fdatasync))(fd)
        return f"fd {fd}"

    def dup_close(self) -> str:
        fd, _ = self.one_open()
        os.close(os.dup(fd))
        return f"fd {fd}"

    def close_one(self) -> str:
        one = self.one_open()
        self.open.remove(one)
        assert os.fstat(one.fd).st_size == len(one.node.data)
        assert os.pread(one.fd, len(one.node.data) + 1, 0) == one.node.data
        os.close(one.fd)
        return f"fd {one.fd}"

    # Metadata

    def chmod(self) -> str:
        path, node = self.pick(lambda node: not node.is_symlink)
        mode = self.rng.choice((0o644, 0o600, 0o755, 0o4755, 0o2750, 0o000, 0o1777))
        os.chmod(self.full(path), mode)
        node.mode = stat.S_IFMT(node.mode) | mode
        return f"{path!r} {mode:o}"

    def chown(self) -> str:
        path, node = self.pick(lambda _: True)
        uid, gid = self.rng.choice((0, 1000, 65534)), self.rng.choice((-1, 0, 100))
        os.chown(self.full(path), uid, gid, follow_symlinks=False)
        node.uid = uid
        node.gid = node.gid if gid == -1 else gid
        if not node.is_dir:  # chown(2) clears these, even for root
            node.mode &= ~stat.S_ISUID
            if node.mode & stat.S_IXGRP:
                node.mode &= ~stat.S_ISGID
        return f"{path!r} {uid} {gid}"

    def utime(self) -> str:
        path, node = self.pick(lambda _: True)
        mtime_ns = self.rng.randrange(4_000_000_000 * 10**9)
        os.utime(self.full(path), ns=(1, mtime_ns), follow_symlinks=False)
        node.mtime_ns = mtime_ns
        return f"{path!r} {mtime_ns}"

    def setxattr(self) -> str:
        path, node = self.pick(lambda _: True)
        space = b"user." if node.is_file or node.is_dir else b"trusted."
        name = space + self.rng.choice((b"one", b"two", b"\xc3\xa4"))
        value = self.rng.randbytes(self.rng.choice((0, 1, 50, 900)))
        os.setxattr(self.full(path), name, value, follow_symlinks=False)
        node.xattrs[name] = value
        return f"{path!r} {name!r}"

    def removexattr(self) -> str:
        path, node = self.pick(lambda node: bool(node.xattrs))
        name = self.rng.choice(sorted(node.xattrs))
        os.removexattr(self.full(path), name, follow_symlinks=False)
        del node.xattrs[name]
        return f"{path!r} {name!r}"

    # What the kernel or the backing file system says no to

    def refused(self) -> str:
        path, node = self.pick(lambda _: True)
        full = self.full(path)
        tries: list[tuple[int, Callable[[], object]]] = [
            (errno.EEXIST, lambda: os.mkdir(full)),
            (errno.EEXIST, lambda: renameat2(full, full, NOREPLACE)),
            (errno.ENOENT, lambda: os.rename(self.top + b"/nothing", full)),
        ]
        if node.is_dir:
            tries.append((errno.EISDIR, lambda: os.unlink(full)))
            tries.append((errno.EINVAL, lambda: os.rename(full, full + b"/in")))
            if node.children:
                tries.append((errno.ENOTEMPTY, lambda: os.rmdir(full)))
        else:
            tries.append((errno.ENOTDIR, lambda: os.rmdir(full)))
        code, attempt = self.rng.choice(tries)
        with pytest.raises(OSError) as refusal:
            attempt()
        assert refusal.value.errno == code, f"{path!r}: {refusal.value}"
        return f"{path!r} {errno.errorcode[code]}"
