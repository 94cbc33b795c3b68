"""Programs that do random things to one file, or to one tree at the same time, and say when something is wrong.

The one of many processes is run as `python -m tests.mount.exercisers DIRECTORY SEED SECONDS`, on the mount or elsewhere;
that of one file is the base of fsx.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import random
import sys
import time
from collections.abc import Callable

MOST = 700_000  # bytes
_libc = ctypes.CDLL(None, use_errno=True)


class OneFile:
    """A file, and what it has to hold: read, written, mapped, cut, appended to, reopened, moved."""

    def __init__(self, path: str, rng: random.Random, *, direct: bool) -> None:
        self.path = path
        self.rng = rng
        self.flags = os.O_RDWR | os.O_CREAT | (os.O_DIRECT if direct else 0)
        self.grid = 4096 if direct else 1
        self.buffer = mmap.mmap(-1, 128 * 1024)  # aligned, as O_DIRECT wants it
        self.fd = os.open(path, self.flags | os.O_TRUNC, 0o644)
        self.model = bytearray()
        steps = [(20, self.write), (20, self.read), (6, self.truncate), (3, self.truncate_by_name)]
        steps += [(3, self.sync), (5, self.reopen), (2, self.reopen_empty), (2, self.move)]
        if not direct:
            steps += [(6, self.read_map), (8, self.write_map), (4, self.append)]
        self.steps: list[tuple[int, Callable[[], str]]] = steps

    def range(self) -> tuple[int, int]:
        offset, length = self.rng.randrange(MOST), self.rng.randrange(1, 70_000)
        return offset // self.grid * self.grid, max(self.grid, length // self.grid * self.grid)

    def resize(self, size: int) -> None:
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    def write(self) -> str:
        offset, length = self.range()
        self.buffer[:length] = data = self.rng.randbytes(length)
        with memoryview(self.buffer) as view:
            assert os.pwritev(self.fd, [view[:length]], offset) == length
        self.resize(max(len(self.model), offset + length))
        self.model[offset : offset + length] = data
        return f"write {offset} {length}"

    def read(self) -> str:
        offset, length = self.range()
        with memoryview(self.buffer) as view:
            count = os.preadv(self.fd, [view[:length]], offset)
        assert self.buffer[:count] == self.model[offset : offset + length], (offset, length)
        return f"read {offset} {length}"

    def truncate(self) -> str:
        size, _ = self.range()
        os.ftruncate(self.fd, size)
        self.resize(size)
        return f"ftruncate {size}"

    def truncate_by_name(self) -> str:
        size, _ = self.range()
        os.truncate(self.path, size)
        self.resize(size)
        return f"truncate {size}"

    def sync(self) -> str:
        os.fsync(self.fd)
        return "fsync"

    def reopen(self) -> str:
        os.close(self.fd)
        self.fd = os.open(self.path, self.flags)
        return "reopen"

    def reopen_empty(self) -> str:
        os.close(self.fd)
        self.fd = os.open(self.path, self.flags | os.O_TRUNC)
        self.model.clear()
        return "reopen, O_TRUNC"

    def move(self) -> str:
        os.rename(self.path, self.path + ".moved")
        os.rename(self.path + ".moved", self.path)
        return "move away and back"

    @contextlib.contextmanager
    def mapped(self, start: int, end: int):  # type: ignore[no-untyped-def]
        base = start // mmap.PAGESIZE * mmap.PAGESIZE
        with mmap.mmap(self.fd, end - base, offset=base) as pages:
            yield pages, slice(start - base, end - base)

    def part(self) -> tuple[int, int]:
        start = self.rng.randrange(len(self.model))
        return start, min(len(self.model), start + self.rng.randrange(1, 70_000))

    def read_map(self) -> str:
        if not self.model:
            return ""
        start, end = self.part()
        with self.mapped(start, end) as (pages, where):
            assert pages[where] == self.model[start:end], (start, end)
        return f"read by map {start} {end}"

    def write_map(self) -> str:
        if not self.model:
            return ""
        start, end = self.part()
        with self.mapped(start, end) as (pages, where):
            pages[where] = self.model[start:end] = self.rng.randbytes(end - start)
            if self.rng.random() < 0.3:
                pages.flush()
        return f"write by map {start} {end}"

    def append(self) -> str:
        if len(self.model) > MOST:
            return ""
        data = self.rng.randbytes(self.rng.randrange(1, 5000))
        with open(self.path, "ab", buffering=0) as file:
            file.write(data)
        self.model += data
        return f"append {len(data)}"

    def close(self) -> None:
        """Let go of everything."""
        os.close(self.fd)


def exercise_file(file: OneFile, operations: int) -> None:
    """Do so many of its steps; raises AssertionError, with the last steps on stderr, if one of them finds anything."""
    weights = [weight for weight, _ in file.steps]
    done: list[str] = []
    try:
        for _ in range(operations):
            step = file.rng.choices(file.steps, weights)[0][1]
            done.append(step.__name__)
            done[-1] = step()
            assert os.fstat(file.fd).st_size == len(file.model)
    except AssertionError:
        print(*done[-30:], sep="\n", file=sys.stderr)
        raise
    file.close()
    with open(file.path, "rb") as whole:
        assert whole.read() == file.model


# ---- many processes, few names

_EXPECTED = frozenset(
    (
        *(errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL),
        *(errno.ELOOP, errno.ENODATA, errno.EBUSY, errno.EPERM, errno.EACCES),
    )
)


class Racer:
    """Does random things to names that others use too; raises OSError if the error is no race's."""

    def __init__(self, top: str, rng: random.Random) -> None:
        self.top = top
        self.rng = rng
        self.held: list[int] = []
        self.steps: list[tuple[int, Callable[[str], object]]] = [
            *((5, self.write), (2, os.mkdir), (1, os.rmdir), (3, os.unlink), (4, self.rename)),
            *((1, self.exchange), (2, self.link), (1, self.symlink), (1, self.truncate)),
            *((1, self.chmod), (1, self.chown), (1, self.utime), (1, self.xattr), (1, self.list)),
            (1, self.use_held),
        ]

    def path(self) -> str:
        parts = self.rng.choices(("d0", "d1", "d2"), k=self.rng.choice((0, 0, 1, 1, 2)))
        return "/".join((self.top, *parts, self.rng.choice(("a", "b", "c", "e", "d0", "d1"))))

    def write(self, path: str) -> None:
        more = self.rng.choice((0, 0, os.O_TRUNC, os.O_APPEND))
        fd = os.open(path, os.O_RDWR | os.O_CREAT | more, self.rng.choice((0o644, 0o600, 0o4755)))
        self.held.append(fd)
        for _ in range(self.rng.randrange(4)):
            os.pwrite(
                fd, self.rng.randbytes(self.rng.randrange(90_000)), self.rng.randrange(1 << 18)
            )
        if self.rng.random() < 0.2:
            os.fsync(fd)
        if self.rng.random() < 0.8 or len(self.held) > 8:
            os.close(self.held.pop())

    def rename(self, path: str) -> None:
        os.rename(path, self.path())

    def exchange(self, path: str) -> None:
        flags = ctypes.c_uint(self.rng.choice((1, 2)))
        _libc.renameat2(-100, path.encode(), -100, self.path().encode(), flags)

    def link(self, path: str) -> None:
        os.link(path, self.path())

    def symlink(self, path: str) -> None:
        os.symlink("x" * self.rng.randrange(1, 200), path)

    def truncate(self, path: str) -> None:
        os.truncate(path, self.rng.randrange(300_000))

    def chmod(self, path: str) -> None:
        os.chmod(path, self.rng.randrange(0o10000) | 0o600)

    def chown(self, path: str) -> None:
        os.lchown(path, self.rng.randrange(3), self.rng.randrange(3))

    def utime(self, path: str) -> None:
        times = self.rng.randrange(10**18), self.rng.randrange(10**18)
        os.utime(path, ns=times, follow_symlinks=False)

    def xattr(self, path: str) -> None:
        name = f"user.{self.rng.choice('ab')}"
        if self.rng.random() < 0.6:
            value = self.rng.randbytes(self.rng.randrange(100))
            os.setxattr(path, name, value, follow_symlinks=False)
        else:
            os.removexattr(path, name, follow_symlinks=False)

    def list(self, path: str) -> None:
        for entry in os.scandir(os.path.dirname(path)):
            entry.stat(follow_symlinks=False)

    def use_held(self, _: str) -> None:
        if self.held:
            fd = self.rng.choice(self.held)
            os.ftruncate(fd, self.rng.randrange(200_000))
            os.fchmod(fd, self.rng.randrange(0o1000) | 0o600)

    def run(self, until: float) -> None:
        weights = [weight for weight, _ in self.steps]
        while time.monotonic() < until:
            step = self.rng.choices(self.steps, weights)[0][1]
            try:
                step(self.path())
            except OSError as exc:
                if exc.errno not in _EXPECTED:
                    raise
        while self.held:
            os.close(self.held.pop())


def exercise_one_tree(top: str, seed: int, seconds: int) -> None:
    until = time.monotonic() + seconds
    racers = []
    for number in range(6):
        pid = os.fork()
        if pid == 0:
            Racer(top, random.Random(seed * 100 + number)).run(until)
            os._exit(0)
        racers.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in racers] == [0] * len(racers)


if __name__ == "__main__":
    place, *numbers = sys.argv[1:]
    exercise_one_tree(place, *map(int, numbers))
