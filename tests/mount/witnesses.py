"""Processes that look at a mount while it changes, and count what they see that is not, or no longer, true.

Run as `python -m tests.mount.witnesses NAME SHARED PLACE [ARGUMENTS]`; SHARED is a file that all of them map and that
is not on the mount.  Each prints how often it looked and how often what it saw was wrong.  Who had no processor
before the end looks LEAST times after it.
"""

import functools
import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

# ---- generations: the whole tree is of generation 1 or 2, and a rollback goes from one to the other

GENERATIONS = (1, 2)
MAPPED = 32_768  # bytes that the file has in both
SIZES = {1: 40_000, 2: 65_536}
_ENDED, PAUSE, PAUSED = 8, 16, 24  # offsets in the shared page
LEAST = 20  # times that a witness looks, or writes
_NUMBER = struct.Struct("<Q")


class Shared:
    """Numbers that processes share through a file."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.truncate(self._fd, 4096)
        # As items of a memoryview they are loaded and stored at once; struct goes byte by byte.
        self._page = memoryview(mmap.mmap(self._fd, 4096)).cast("Q")

    def get(self, at: int = 0) -> int:
        """Return the number at *at*."""
        return self._page[at // 8]

    def set(self, value: int, at: int = 0) -> None:
        """Set the number at *at*."""
        self._page[at // 8] = value


def make_generation(top: Path, generation: int) -> None:
    """Make the tree at *top*, which is of the other one or empty, be of *generation*."""
    old = next(each for each in GENERATIONS if each != generation)
    with (top / "file").open("r+b" if (top / "file").exists() else "w+b") as file:
        file.write(_NUMBER.pack(generation) * (SIZES[generation] // 8))
        file.truncate()
    for name in ("link", f"only-{old}"):
        (top / name).unlink(missing_ok=True)
    (top / "link").symlink_to(f"target-{generation}")
    (top / f"only-{generation}").write_text("here")
    (top / "dir").mkdir(exist_ok=True)
    (top / "dir" / f"in-{old}").unlink(missing_ok=True)
    (top / "dir" / f"in-{generation}").touch()


def _read(top: str, _: mmap.mmap) -> set[int]:
    with open(f"{top}/file", "rb") as file:
        data = file.read()
    sizes = {generation for generation, size in SIZES.items() if size == len(data)}
    return sizes | set(_numbers(data))


def _pread(top: str, _: mmap.mmap) -> set[int]:
    fd = _open_once(f"{top}/file")
    found = set(_numbers(os.pread(fd, 4001, 8)))
    found |= set(_numbers(os.pread(fd, 1 << 17, 0)))
    return found | {g for g, size in SIZES.items() if size == os.fstat(fd).st_size}


@functools.cache
def _open_once(path: str) -> int:
    return os.open(path, os.O_RDONLY)


def _map(_: str, pages: mmap.mmap) -> set[int]:
    return set(_numbers(pages[:MAPPED]))


def _names(top: str, _: mmap.mmap) -> set[int]:
    found = {int(os.readlink(f"{top}/link").removeprefix("target-"))}
    listed = os.listdir(top) + os.listdir(f"{top}/dir")
    for generation in GENERATIONS:
        seen = [f"only-{generation}" in listed, f"in-{generation}" in listed]
        seen.append(os.path.exists(f"{top}/only-{generation}"))
        seen.append(os.path.exists(f"{top}/dir/in-{generation}"))
        if any(seen):
            found.add(generation if all(seen) else 0)
    return found


LOOKS: dict[str, Callable[[str, mmap.mmap], set[int]]] = {
    "read": _read,
    "pread": _pread,
    "map": _map,
    "names": _names,
}


def _numbers(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8])


def watch_generations(shared: Shared, top: str, how: str) -> tuple[int, int]:
    """Look until it ends; return how often nothing changed meanwhile, and how often another generation was seen.

    The shared number is that of a state; states that are odd are on the way to the next.
    """
    fd = os.open(f"{top}/file", os.O_RDONLY)
    pages = mmap.mmap(fd, MAPPED, prot=mmap.PROT_READ)
    looked = wrong = 0
    while not shared.get(_ENDED) or (looked < LEAST and not shared.get() & 1):
        before = shared.get()
        try:
            found = LOOKS[how](top, pages)
        except FileNotFoundError:
            found = {0}
        if before & 1 or shared.get() != before:
            continue  # it was changing
        looked += 1
        if found != {1 + before // 2 % 2}:
            wrong += 1
            print(f"{how}: {sorted(found)} in state {before}", file=sys.stderr)
    return looked, wrong


def store_in_map(shared: Shared, path: str) -> tuple[int, int]:
    """Store a number into the first bytes of each page of a map again and again, until it ends."""
    fd = os.open(path, os.O_RDWR)
    pages = mmap.mmap(fd, MAPPED)
    count = 0
    while not shared.get(_ENDED) or count < LEAST:
        count += 1
        for at in range(0, MAPPED, mmap.PAGESIZE):
            _NUMBER.pack_into(pages, at, 1 << 32 | count)
    return count, 0


def overwrite(shared: Shared, path: str) -> tuple[int, int]:
    """Write 100 bytes here and there in the file again and again, but while it is to pause, until it ends."""
    fd = os.open(path, os.O_RDWR)
    count = 0
    while not shared.get(_ENDED) or count < LEAST:
        is_paused = shared.get(PAUSE)
        shared.set(is_paused, PAUSED)
        if not is_paused:
            count += 1
            os.pwrite(fd, count.to_bytes(4, "little") * 25, count * 7919 % (MAPPED - 100))
    return count, 0


# ---- records: one process writes numbered records into a ring, and says which is the latest

RING = 64
RECORD = 3001  # bytes, so that records share pages


def write_records(shared: Shared, path: str, seconds: float) -> tuple[int, int]:
    """Write for so long; return how many."""
    fd = os.open(path, os.O_RDWR)
    until = time.monotonic() + seconds
    number = RING
    while number % 64 or time.monotonic() < until:
        os.pwrite(fd, record(number), number % RING * RECORD)
        shared.set(number)
        number += 1
    shared.set(1, _ENDED)
    return number - RING, 0


def record(number: int) -> bytes:
    """Return record *number*."""
    return (_NUMBER.pack(number) * (RECORD // 8 + 1))[:RECORD]


def read_records(shared: Shared, path: str, asks: str) -> tuple[int, int]:
    """Read what was said to be there; return how often, and how often it was not."""
    fd = os.open(path, os.O_RDONLY)
    looked = wrong = 0
    while not shared.get(_ENDED) or looked < LEAST:
        number = shared.get()
        if not number:
            continue
        number -= looked % 8  # not only the latest: the ring holds the last 64
        if number < RING:
            continue
        if asks == "fstat":
            os.fstat(fd)
        data = os.pread(fd, RECORD, number % RING * RECORD)
        if shared.get() >= number + RING - 1:
            continue  # it may have been written over meanwhile
        looked += 1
        if data != record(number):
            wrong += 1
            seen = sorted(set(_numbers(data)))[:4]
            print(f"record {number}: {len(data)} bytes, {seen}", file=sys.stderr)
    return looked, wrong


# ---- names: a process that is told by a line what to do, and answers with one

ANSWERS: dict[str, Callable[[str], str]] = {
    "ls": lambda place: " ".join(sorted(os.listdir(place))),
    "has": lambda place: str(os.path.lexists(place)),
    "link": os.readlink,
    "size": lambda place: str(os.stat(place).st_size),
    "read": lambda place: Path(place).read_text(),
}


def look_when_asked(shared: Shared, top: str) -> tuple[int, int]:
    """Answer lines of a key of ANSWERS and a path until there are no more."""
    for line in sys.stdin:
        what, _, path = line.rstrip("\n").partition(" ")
        try:
            answer = ANSWERS[what](os.path.join(top, path))
        except OSError as exc:
            answer = type(exc).__name__
        print(answer, flush=True)
    return 0, 0


# ---- starting them

_MODULE = "tests.mount.witnesses"
CHECKOUT = Path(__file__).resolve().parent.parent.parent


def start(name: str, shared: Path, *args: str | Path | float) -> subprocess.Popen[str]:
    """Start a witness."""
    return subprocess.Popen(
        [sys.executable, "-m", _MODULE, name, str(shared), *map(str, args)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(process: subprocess.Popen[str], seconds: float) -> tuple[int, int, str]:
    """Return what it counted at its end, (looked, wrong, what it said)."""
    out, said = process.communicate(timeout=seconds)
    assert process.returncode == 0, said
    looked, wrong = map(int, out.split())
    return looked, wrong, said


_WITNESSES: dict[str, Callable[..., tuple[int, int]]] = {
    "generations": watch_generations,
    "overwrite": overwrite,
    "store": store_in_map,
    "write": lambda shared, path, seconds: write_records(shared, path, float(seconds)),
    "read": read_records,
    "look": look_when_asked,
}

if __name__ == "__main__":
    which, page, *rest = sys.argv[1:]
    looks, mistakes = _WITNESSES[which](Shared(Path(page)), *rest)
    if which != "look":
        print(looks, mistakes)
