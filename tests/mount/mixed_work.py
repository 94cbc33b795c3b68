"""Many clients at once: each does a bit of everything in a directory of its own and in one that all share.

`python -m tests.mount.mixed_work TOP PROCESS THREADS ROUNDS`: works in TOP, which has the directory "shared", the
file "slots" and the file "counter"; says how many times the counter was raised.  What is read is not what was
written: status 1, and why.
"""

import fcntl
import os
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mount.behaviours import tried

SLOT = 4096  # bytes
_SIZE_MOST = 300_000  # bytes of a file


class Client:
    """One thread's work; raises AssertionError if something is not as it was left."""

    def __init__(self, top: Path, number: int) -> None:
        self._top = top
        self._number = number
        self._own = top / f"own{number}"
        self._own.mkdir()
        self._files: dict[str, bytes] = {}
        self._rng = random.Random(number)
        self._raised = 0

    def work(self, rounds: int) -> int:
        """Do it *rounds* times; return how often the counter was raised."""
        deeds = (
            *(self.write, self.write, self.change, self.read, self.move, self.remove),
            *(self.shared_name, self.shared_slot, self.count, self.directories, self.look),
        )
        for _ in range(rounds):
            self._rng.choice(deeds)()
        for name in self._files:
            self._check(name)
        assert sorted(self._files) == sorted(os.listdir(self._own))
        return self._raised

    def write(self) -> None:
        name = f"file{self._rng.randrange(20)}"
        data = self._rng.randbytes(self._rng.choice((0, 10, 5000, self._rng.randrange(_SIZE_MOST))))
        with open(self._own / name, "wb") as file:
            file.write(data)
            if self._rng.random() < 0.2:
                file.flush()
                os.fsync(file.fileno())
        self._files[name] = data

    def change(self) -> None:
        if not self._files:
            return
        name = self._any()
        data = bytearray(self._files[name])
        patch, at = self._rng.randbytes(100), self._rng.randrange(len(data) + 100)
        if self._rng.random() < 0.3:
            os.truncate(self._own / name, at)
            data = data[:at].ljust(at, b"\0")
        else:
            with open(self._own / name, "r+b", buffering=0) as file:
                os.pwrite(file.fileno(), patch, at)
            data = data.ljust(at, b"\0")
            data[at : at + len(patch)] = patch
        self._files[name] = bytes(data)

    def read(self) -> None:
        if self._files:
            self._check(self._any())

    def move(self) -> None:
        if self._files:
            name, new = self._any(), f"moved{self._rng.randrange(10)}"
            os.rename(self._own / name, self._own / new)
            self._files[new] = self._files.pop(name)

    def remove(self) -> None:
        if self._files:
            name = self._any()
            os.unlink(self._own / name)
            del self._files[name]

    def shared_name(self) -> None:
        """Make, rename and remove among the names of everybody."""
        one, two = (self._top / "shared" / f"{self._number}.{end}" for end in ("a", "b"))
        one.write_bytes(b"%d" % self._number)
        os.rename(one, two)
        assert two.name in os.listdir(self._top / "shared")
        assert two.read_bytes() == b"%d" % self._number
        os.link(two, one)
        assert os.stat(two).st_nlink == 2
        os.unlink(two)
        os.unlink(one)

    def shared_slot(self) -> None:
        """Write into a file that everybody writes to, each into a part."""
        data = self._rng.randbytes(SLOT)
        fd = os.open(self._top / "slots", os.O_RDWR)
        try:
            os.pwrite(fd, data, self._number * SLOT)
            assert os.pread(fd, SLOT, self._number * SLOT) == data, "a slot"
        finally:
            os.close(fd)

    def count(self) -> None:
        """Raise a number that everybody raises, under a lock."""
        with open(self._top / "counter", "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            value = int(os.pread(file.fileno(), 20, 0))
            os.pwrite(file.fileno(), b"%020d" % (value + 1), 0)
        self._raised += 1

    def directories(self) -> None:
        deep = self._top / f"deep{self._number}" / "a" / "b"
        deep.mkdir(parents=True)
        (deep / "link").symlink_to("nowhere")
        assert os.readlink(deep / "link") == "nowhere"
        assert tried(lambda: os.rmdir(deep)) == "ENOTEMPTY"
        (deep / "link").unlink()
        for directory in (deep, deep.parent, deep.parent.parent):
            directory.rmdir()

    def look(self) -> None:
        for name, data in self._files.items():
            assert os.stat(self._own / name).st_size == len(data), name
        os.statvfs(self._top)

    def _any(self) -> str:
        return self._rng.choice(sorted(self._files))

    def _check(self, name: str) -> None:
        assert (self._own / name).read_bytes() == self._files[name], f"contents of {name}"


def main() -> None:
    """See the module."""
    top = Path(sys.argv[1])
    process, threads, rounds = map(int, sys.argv[2:])
    start = threading.Barrier(threads)

    def one(thread: int) -> int:
        client = Client(top, process * threads + thread)
        start.wait()
        return client.work(rounds)

    with ThreadPoolExecutor(threads) as pool:
        print(sum(pool.map(one, range(threads))))


if __name__ == "__main__":
    main()
