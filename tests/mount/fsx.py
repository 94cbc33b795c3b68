"""Does random things of every kind to one file, and compares it with a model after each: as fsx does, which Debian has not.

    python -m tests.mount.fsx FILE [--seed N] [--operations N] [--direct]

More than exercisers.OneFile does: space reserved and given back, ranges zeroed, cut out and pushed in, copies within
the file and from another one, holes, a second fd, vectors, pages dropped from the cache, maps that outlive what they
were made of. What the file system does not have is left out, and said on the first line.
"""

import argparse
import ctypes
import errno
import mmap
import os
import random
from collections.abc import Callable

from tests.mount.exercisers import MOST, OneFile, exercise_file

KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE = 1, 2, 8, 16, 32
BLOCK = 4096  # bytes: what is cut out and pushed in are multiples of it
# What may be missing, and how it is tried on a file of two blocks and its other fd.
OPTIONAL: dict[str, Callable[[int], object]] = {
    "reserve": lambda fd: fallocate(fd, 0, 0, BLOCK),
    "reserve_beyond": lambda fd: fallocate(fd, KEEP_SIZE, 0, BLOCK),
    "punch": lambda fd: fallocate(fd, KEEP_SIZE | PUNCH_HOLE, 0, BLOCK),
    "zero": lambda fd: fallocate(fd, ZERO_RANGE, 0, BLOCK),
    "zero_within": lambda fd: fallocate(fd, ZERO_RANGE | KEEP_SIZE, 0, BLOCK),
    "cut_out": lambda fd: fallocate(fd, COLLAPSE_RANGE, 0, BLOCK),
    "push_in": lambda fd: fallocate(fd, INSERT_RANGE, 0, BLOCK),
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate64.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Call fallocate(2); raises OSError."""
    if _libc.fallocate64(fd, mode, offset, length) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def missing(path: str) -> set[str]:
    """Return what of OPTIONAL the file system of the new file *path* does not have."""
    absent = set()
    for name, attempt in OPTIONAL.items():
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.pwrite(fd, b"x" * 2 * BLOCK, 0)
        try:
            attempt(fd)
        except OSError as exc:
            if exc.errno != errno.EOPNOTSUPP:
                raise
            absent.add(name)
        finally:
            os.close(fd)
    os.unlink(path)
    return absent


class AnyFile(OneFile):
    """See the module."""

    def __init__(self, path: str, rng: random.Random, *, direct: bool) -> None:
        super().__init__(path, rng, direct=direct)
        self.absent = missing(path + ".tried")
        self.other = os.open(path, os.O_RDWR)
        self.kept: list[tuple[mmap.mmap, int]] = []
        self.sends = True
        more = [(8, self.reserve), (4, self.reserve_beyond), (8, self.punch), (8, self.zero)]
        more += [(4, self.zero_within), (4, self.cut_out), (4, self.push_in), (3, self.drop_cache)]
        more += [(3, self.holes)]
        if not direct:
            more += [(6, self.read_other), (6, self.write_other), (4, self.write_vector)]
            more += [(8, self.copy_within), (4, self.copy_from), (3, self.keep_map)]
            more += [(5, self.use_kept_map), (3, self.send)]
        self.steps += [(weight, step) for weight, step in more if step.__name__ not in self.absent]

    def close(self) -> None:
        """Let go of everything."""
        for pages, _ in self.kept:
            pages.close()
        os.close(self.other)
        super().close()

    # Space

    def fall(self, mode: int, offset: int, length: int) -> None:
        fallocate(self.rng.choice((self.fd, self.other)), mode, offset, length)

    def reserve(self) -> str:
        offset, length = self.range()
        self.fall(0, offset, length)
        self.resize(max(len(self.model), offset + length))
        return f"reserve {offset} {length}"

    def reserve_beyond(self) -> str:
        offset, length = self.range()
        self.fall(KEEP_SIZE, offset, length)
        return f"reserve, size kept {offset} {length}"

    def blank(self, offset: int, length: int) -> None:
        end = min(len(self.model), offset + length)
        if offset < end:
            self.model[offset:end] = bytes(end - offset)

    def punch(self) -> str:
        offset, length = self.range()
        self.fall(KEEP_SIZE | PUNCH_HOLE, offset, length)
        self.blank(offset, length)
        return f"punch {offset} {length}"

    def zero(self) -> str:
        offset, length = self.range()
        self.fall(ZERO_RANGE, offset, length)
        self.resize(max(len(self.model), offset + length))
        self.blank(offset, length)
        return f"zero {offset} {length}"

    def zero_within(self) -> str:
        offset, length = self.range()
        self.fall(ZERO_RANGE | KEEP_SIZE, offset, length)
        self.blank(offset, length)
        return f"zero, size kept {offset} {length}"

    def blocks(self) -> tuple[int, int]:
        offset, length = self.range()
        return offset // BLOCK * BLOCK, max(BLOCK, length // BLOCK * BLOCK)

    def cut_out(self) -> str:
        offset, length = self.blocks()
        if offset + length >= len(self.model):
            return ""
        self.fall(COLLAPSE_RANGE, offset, length)
        del self.model[offset : offset + length]
        return f"cut out {offset} {length}"

    def push_in(self) -> str:
        offset, length = self.blocks()
        if offset >= len(self.model) or len(self.model) > MOST:
            return ""
        self.fall(INSERT_RANGE, offset, length)
        self.model[offset:offset] = bytes(length)
        return f"push in {offset} {length}"

    def holes(self) -> str:
        """What is no data has to be zeros, and the parts follow each other up to the end."""
        at, size = 0, len(self.model)
        while at < size:
            try:
                data = os.lseek(self.other, at, os.SEEK_DATA)
            except OSError as exc:
                if exc.errno != errno.ENXIO:
                    raise
                data = size  # only a hole follows
            assert at <= data <= size
            assert not any(self.model[at:data]), f"a hole at {at} to {data} holds something"
            if data == size:
                break
            at = os.lseek(self.other, data, os.SEEK_HOLE)
            assert data < at <= size
        return "holes"

    # Other ways to the same bytes

    def read_other(self) -> str:
        offset, length = self.range()
        data = os.pread(self.other, length, offset)
        assert data == self.model[offset : offset + length], (offset, length)
        return f"read by another fd {offset} {length}"

    def put(self, offset: int, data: bytes) -> None:
        self.resize(max(len(self.model), offset + len(data)))
        self.model[offset : offset + len(data)] = data

    def write_other(self) -> str:
        offset, length = self.range()
        data = self.rng.randbytes(length)
        assert os.pwrite(self.other, data, offset) == length
        self.put(offset, data)
        return f"write by another fd {offset} {length}"

    def write_vector(self) -> str:
        offset, _ = self.range()
        parts = [self.rng.randbytes(self.rng.randrange(1, 6000)) for _ in range(5)]
        whole = b"".join(parts)
        assert os.pwritev(self.fd, parts, offset) == len(whole)
        self.put(offset, whole)
        return f"write a vector {offset} {len(whole)}"

    def drop_cache(self) -> str:
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return "drop the cache"

    def copy_within(self) -> str:
        source, length = self.range()
        target, _ = self.range()
        length = min(length, len(self.model) - source)
        if length <= 0 or abs(source - target) < length:
            return ""
        copied = os.copy_file_range(self.fd, self.other, length, source, target)
        assert 0 < copied <= length
        self.put(target, bytes(self.model[source : source + copied]))
        return f"copy {source} to {target}, {copied} of {length}"

    def copy_from(self) -> str:
        """From a file beside it, which lives only for that."""
        offset, length = self.range()
        data = self.rng.randbytes(length)
        name = self.path + ".source"
        fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        os.write(fd, data)
        copied = os.copy_file_range(fd, self.fd, length, 0, offset)
        os.close(fd)
        os.unlink(name)
        self.put(offset, data[:copied])
        return f"copy from another file to {offset}, {copied} of {length}"

    def send(self) -> str:
        if not self.sends:
            return ""
        offset, length = self.range()
        name = self.path + ".target"
        with open(name, "w+b", buffering=0) as target:
            count = os.sendfile(target.fileno(), self.fd, offset, length)
            assert os.pread(target.fileno(), length, 0) == self.model[offset : offset + count]
        os.unlink(name)
        return f"send {offset} {length}"

    # Maps that stay

    def keep_map(self) -> str:
        if len(self.kept) > 2:
            self.kept.pop(0)[0].close()
        base = self.rng.randrange(MOST) // mmap.PAGESIZE * mmap.PAGESIZE
        if base >= len(self.model):
            return ""
        fd = os.open(self.path, os.O_RDWR)
        self.kept.append((mmap.mmap(fd, min(100_000, len(self.model) - base), offset=base), base))
        os.close(fd)
        return f"keep a map of {base}"

    def use_kept_map(self) -> str:
        if not self.kept:
            return ""
        pages, base = self.rng.choice(self.kept)
        end = min(len(self.model) - base, len(pages))  # beyond the end of the file is SIGBUS
        if end <= 0:
            return ""
        start = self.rng.randrange(end)
        end = min(end, start + self.rng.randrange(1, 20_000))
        assert pages[start:end] == self.model[base + start : base + end], (base + start, base + end)
        pages[start:end] = data = self.rng.randbytes(end - start)
        self.model[base + start : base + end] = data
        return f"read and write by a kept map {base + start} {base + end}"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--operations", type=int, default=1000)
    parser.add_argument("--direct", action="store_true")
    parser.add_argument("--no-send", action="store_true", help="do not use sendfile(2)")
    given = parser.parse_args()
    file = AnyFile(given.file, random.Random(given.seed), direct=given.direct)
    file.sends = not given.no_send
    print("without", *sorted(file.absent))
    print("seed", given.seed, flush=True)
    exercise_file(file, given.operations)


if __name__ == "__main__":
    main()
