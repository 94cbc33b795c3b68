"""A worker of the crash machine: does random calls on a mount, and writes down outside of it what it is about to do and what was answered."""

import ctypes
import errno
import json
import mmap
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from tests.crash.ops import CURRENT, LOG, MOST, SHARED, Model, Node, Op, contents, record

_SLOTS = 4
_libc = ctypes.CDLL(None)
_PAGE = mmap.PAGESIZE
_WEIGHTS = {
    "pwrite": 22,
    "append": 10,
    "ftruncate": 4,
    "truncate": 2,
    "mstore": 4,
    "mstore_close": 2,
    "create": 10,
    "open": 10,
    "close": 12,
    "fsync": 6,
    "fdatasync": 4,
    "mkdir": 4,
    "symlink": 2,
    "link": 4,
    "unlink": 5,
    "rmdir": 2,
    "rename": 10,
    "publish": 3,
    "record": 4,
    "chmod": 6,
    "setxattr": 3,
    "removexattr": 2,
    "fsyncdir": 3,
    "syncfs": 1,
}


class Chooser:
    """Chooses calls that will succeed, with a worker's model of what is there."""

    def __init__(self, worker: int, model: Model, rng: random.Random) -> None:
        self._worker = worker
        self._model = model
        self._rng = rng
        self._names, self._shares = list(_WEIGHTS), list(_WEIGHTS.values())
        self._home = f"p{worker}"

    def next(self) -> Op:
        while True:
            (name,) = self._rng.choices(self._names, self._shares)
            op: Op | None = getattr(self, f"_{name}")()
            if op is not None:
                return op

    # what there is

    def _some(self, *kinds: str) -> str | None:
        found = [path for path, node in self._model.names.items() if node.kind in kinds]
        return self._rng.choice(found) if found else None

    def _slot(self) -> int | None:
        return self._rng.choice(list(self._model.slots)) if self._model.slots else None

    def _free_slot(self) -> int | None:
        free = [slot for slot in range(_SLOTS) if slot not in self._model.slots]
        return free[0] if free else None

    def _new_path(self) -> str:
        name = f"n{self._rng.randrange(30)}"
        above = self._rng.choice([self._home, self._some("dir") or self._home, SHARED])
        return f"{SHARED}/{self._worker}-{name}" if above == SHARED else f"{above}/{name}"

    def _free_path(self) -> str | None:
        path = self._new_path()
        return None if path in self._model.names or path.count("/") > 4 else path

    # contents

    def _pwrite(self) -> Op | None:
        slot = self._slot()
        if slot is None:
            return None
        size = len(self._model.slots[slot].data)
        offset = self._rng.choice([0, size, self._rng.randrange(size + 1), size + 5000])
        length = self._rng.choice([1, 100, 4096, 9001, self._rng.randrange(1, 20_000)])
        return Op("pwrite", (slot, offset, length)) if offset + length <= MOST else None

    def _append(self) -> Op | None:
        slot = self._slot()
        length = self._rng.choice([1, 700, 5000])
        if slot is None or len(self._model.slots[slot].data) + length > MOST:
            return None
        return Op("append", (slot, length))

    def _ftruncate(self) -> Op | None:
        slot = self._slot()
        return None if slot is None else Op("ftruncate", (slot, self._rng.randrange(20_000)))

    def _truncate(self) -> Op | None:
        path = self._some("file")
        return None if path is None else Op("truncate", (path, self._rng.randrange(20_000)))

    def _mstore(self, name: str = "mstore") -> Op | None:
        slot = self._slot()
        if slot is None or not (size := len(self._model.slots[slot].data)):
            return None
        offset = self._rng.randrange(size)
        most = min(size - offset, _PAGE - offset % _PAGE, 300)  # in one page, and one write
        return Op(name, (slot, offset, most))

    def _mstore_close(self) -> Op | None:
        return self._mstore("mstore_close")

    def _create(self) -> Op | None:
        slot, path = self._free_slot(), self._free_path()
        return None if slot is None or path is None else Op("create", (slot, path))

    def _open(self) -> Op | None:
        slot, path = self._free_slot(), self._some("file")
        if slot is None or path is None:
            return None
        return Op("open", (slot, path, int(self._rng.random() < 0.3)))

    def _of_slot(self, name: str) -> Op | None:
        slot = self._slot()
        return None if slot is None else Op(name, (slot,))

    def _close(self) -> Op | None:
        return self._of_slot("close")

    def _fsync(self) -> Op | None:
        return self._of_slot("fsync")

    def _fdatasync(self) -> Op | None:
        return self._of_slot("fdatasync")

    # names

    def _mkdir(self) -> Op | None:
        path = self._free_path()
        return None if path is None else Op("mkdir", (path,))

    def _symlink(self) -> Op | None:
        path = self._free_path()
        return None if path is None else Op("symlink", (f"to-{self._rng.randrange(9)}", path))

    def _link(self) -> Op | None:
        old, path = self._some("file"), self._free_path()
        return None if old is None or path is None else Op("link", (old, path))

    def _unlink(self) -> Op | None:
        path = self._some("file", "link")
        return None if path is None else Op("unlink", (path,))

    def _rmdir(self) -> Op | None:
        path = self._some("dir")
        if path is None or path in {self._home, SHARED} or self._holds(path):
            return None
        return Op("rmdir", (path,))

    def _holds(self, path: str) -> bool:
        return any(each.startswith(f"{path}/") for each in self._model.names)

    def _rename(self) -> Op | None:
        old = self._some("file", "dir", "link")
        over = self._some("file", "link") if self._rng.random() < 0.5 else None
        new = over or self._free_path()
        if old is None or new is None or old == self._home or new.startswith(f"{old}/"):
            return None
        names = self._model.names
        if over is not None and (names[old].kind == "dir" or names[over] is names[old]):
            return None
        return Op("rename", (old, new))

    def _publish(self) -> Op | None:
        path = self._some("file")
        if path is None or self._is_shared(self._model.names[path]):
            return None
        return Op("publish", (path,))

    def _is_shared(self, node: Node) -> bool:
        """Whether it has another name, or is open: what is done to it must be done through one name."""
        names = sum(each is node for each in self._model.names.values())
        return names > 1 or any(each is node for each in self._model.slots.values())

    def _record(self) -> Op | None:
        return Op("record", (int(self._rng.random() < 0.3),))

    # attributes

    def _chmod(self) -> Op | None:
        path = self._open_one() or self._some("file", "dir")
        modes = (0o700, 0o755, 0o750)
        return None if path is None else Op("chmod", (path, self._rng.choice(modes)))

    def _open_one(self) -> str | None:
        """Return a name of a file that is open, half of the time."""
        is_open = set(map(id, self._model.slots.values()))
        found = [path for path, node in self._model.names.items() if id(node) in is_open]
        return self._rng.choice(found) if found and self._rng.random() < 0.5 else None

    def _setxattr(self) -> Op | None:
        path = self._some("file", "dir")
        name = f"user.x{self._rng.randrange(3)}"
        return None if path is None else Op("setxattr", (path, name, self._rng.randrange(1, 90)))

    def _removexattr(self) -> Op | None:
        path = self._some("file", "dir")
        if path is None or not self._model.names[path].xattrs:
            return None
        return Op("removexattr", (path, self._rng.choice(list(self._model.names[path].xattrs))))

    def _fsyncdir(self) -> Op | None:
        path = self._some("dir")
        return None if path is None else Op("fsyncdir", (path,))

    def _syncfs(self) -> Op | None:
        return Op("syncfs")


class Hands:
    """Does calls on a real directory."""

    def __init__(self, top: Path, worker: int, model: Model) -> None:
        self._top = str(top)
        self._worker = worker
        self._model = model
        self._fds: dict[int, int] = {}
        self._simple: dict[str, Callable[[Op], object]] = {
            "ftruncate": lambda op: os.ftruncate(self._fd(op), op.number(1)),
            "truncate": lambda op: os.truncate(self._at(op), op.number(1)),
            "close": lambda op: os.close(self._fds.pop(op.number(0))),
            "fsync": lambda op: os.fsync(self._fd(op)),
            "fdatasync": lambda op: os.fdatasync(self._fd(op)),
            "mkdir": lambda op: os.mkdir(self._at(op), 0o755),
            "symlink": lambda op: os.symlink(op.path(), self._at(op, 1)),
            "link": lambda op: os.link(self._at(op), self._at(op, 1)),
            "unlink": lambda op: os.unlink(self._at(op)),
            "rmdir": lambda op: os.rmdir(self._at(op)),
            "rename": lambda op: os.rename(self._at(op), self._at(op, 1)),
            "publish": lambda op: os.rename(self._at(op), f"{self._top}/{CURRENT}"),
            "chmod": lambda op: os.chmod(self._at(op), op.number(1)),
            "removexattr": lambda op: os.removexattr(self._at(op), op.path(1)),
        }

    def do(self, index: int, op: Op) -> None:
        simple = self._simple.get(op.name)
        if simple is not None:
            simple(op)
        else:
            getattr(self, f"_{op.name}")(self._model.key + index, op)

    def _at(self, op: Op, at: int = 0) -> str:
        return f"{self._top}/{op.path(at)}"

    def _fd(self, op: Op) -> int:
        return self._fds[op.number(0)]

    def _pwrite(self, key: int, op: Op) -> None:
        data = contents(key, op.number(2))
        _expect_whole(os.pwrite(self._fd(op), data, op.number(1)), data)

    def _append(self, key: int, op: Op) -> None:
        fd = os.open(f"/proc/self/fd/{self._fd(op)}", os.O_WRONLY | os.O_APPEND)
        data = contents(key, op.number(1))
        try:
            _expect_whole(os.write(fd, data), data)
        finally:
            os.close(fd)

    def _create(self, key: int, op: Op) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        self._fds[op.number(0)] = os.open(self._at(op, 1), flags, 0o644)

    def _open(self, key: int, op: Op) -> None:
        flags = os.O_RDWR | (os.O_TRUNC if op.number(2) else 0)
        self._fds[op.number(0)] = os.open(self._at(op, 1), flags)

    def _mstore(self, key: int, op: Op) -> None:
        self._store(key, op, is_synced=True)

    def _mstore_close(self, key: int, op: Op) -> None:
        self._store(key, op, is_synced=False)
        os.close(self._fds.pop(op.number(0)))

    def _store(self, key: int, op: Op, *, is_synced: bool) -> None:
        offset, length = op.number(1), op.number(2)
        with mmap.mmap(self._fd(op), 0) as view:
            view[offset : offset + length] = contents(key, length)
            if is_synced:
                view.flush()
        if is_synced and self._model.passes:
            os.fsync(self._fd(op))  # where the kernel does not tell of msync(2)

    def _record(self, key: int, op: Op) -> None:
        fd = os.open(f"{self._top}/{LOG}", os.O_WRONLY | os.O_APPEND)
        os.write(fd, record(self._worker, self._model.appended))
        if op.number(0):
            os.fsync(fd)
        os.close(fd)

    def _setxattr(self, key: int, op: Op) -> None:
        os.setxattr(self._at(op), op.path(1), contents(key, op.number(2)))

    def _fsyncdir(self, key: int, op: Op) -> None:
        fd = os.open(self._at(op), os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(fd)
        os.close(fd)

    def _syncfs(self, key: int, op: Op) -> None:
        fd = os.open(self._top, os.O_RDONLY)
        _libc.syncfs(fd)
        os.close(fd)


def _expect_whole(written: int, data: bytes) -> None:
    """Raise OSError after a short write: the kernel had cut it in two, and the daemon died between."""
    if written < len(data):
        raise OSError(errno.ECONNABORTED, f"{written} of {len(data)} bytes written")


def work(top: Path, log: Path, worker: int, model: Model, rng: random.Random, most: int) -> None:
    """Do up to *most* calls; end at the first that fails, which is written down."""
    os.umask(0)
    chooser, hands = Chooser(worker, model, rng), Hands(top, worker, model)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def say(*words: object) -> None:
        os.write(out, json.dumps(words).encode() + b"\n")

    for index in range(most):
        op = chooser.next()
        say("do", index, time.monotonic_ns(), op.name, op.args)
        try:
            hands.do(index, op)
        except OSError as exc:
            say("failed", index, time.monotonic_ns(), exc.errno, str(exc))
            return
        say("done", index, time.monotonic_ns())
        model.apply(index, op)
