"""A store to damage, and what becomes of everything in it when it was: each time in a process of its own.

The process reads every path at every version that is kept and compares it with what was there before the damage; then
it runs a whole check. What it may not do: die, hang, take much memory, or show one wrong byte.
"""

import hashlib
import json
import os
import random
import resource
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from dkfs.core.delta import Copy, Like
from dkfs.core.manifest import encode_manifest_node
from dkfs.errors import CorruptError, DkfsError, StoreError
from dkfs.history import content
from dkfs.history.damage import affected
from dkfs.history.forget import forget
from dkfs.history.tree import Tree
from dkfs.model.ids import Seq
from dkfs.model.node import Chunk, Kind, NodeState
from dkfs.store import Reader, Store, Writer
from dkfs.store.check import DamageKind, check
from tests.history.model_history import ModelHistory

HANG_S = 60.0
ADDRESS_SPACE = 4 << 30  # bytes
SEGMENT_LIMIT = 24 * 1024  # bytes: several segments


# ---- a store with something of everything


class EveryKind(ModelHistory):
    """A history in several segments, in which what is long is a tree of two levels and a delta to what it was."""

    CHUNK = 970  # bytes
    LONG = 10_000

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.store.close()
        self.store = Store.open(place, writable=True, segment_limit=SEGMENT_LIMIT)
        self._before = b""

    def _with_data(self, writer: Writer, state: NodeState, data: bytes) -> NodeState:
        if len(data) < self.LONG:
            return super()._with_data(writer, state, data)
        before, self._before = self._before, data
        chunks = [
            self._put(writer, data[at : at + self.CHUNK], before[at : at + self.CHUNK])
            for at in range(0, len(data), self.CHUNK)
        ]
        leaves = []
        for at in range(0, len(chunks), 8):
            part = chunks[at : at + 8]
            blob = writer.put_blob(encode_manifest_node(0, part)).blob
            leaves.append(Chunk(sum(chunk.length for chunk in part), blob))
        root = writer.put_blob(encode_manifest_node(1, leaves)).blob
        attr = replace(state.attr, size=len(data))
        return replace(state, attr=attr, content=root, is_manifest=True)

    def _put(self, writer: Writer, data: bytes, before: bytes) -> Chunk:
        like = None
        if before and before != data:
            differing = [at for at in range(len(data)) if data[at] != before[at]]
            first, end = differing[0], differing[-1] + 1
            copies = (Copy(0, 0, first), Copy(end, end, len(data) - end))
            like = Like((self.store.hash(before),), tuple(copy for copy in copies if copy.length))
        return Chunk(len(data), writer.put_blob(data, like=like).blob)


def make(place: Path, seed: int) -> None:
    """Make a store of some 60 versions at *place*."""
    rng = random.Random(seed)
    with EveryKind(place) as history:
        history.mkdir(b"etc")
        history.mkdir(b"etc/deep")
        for name in (b"a", b"b", b"etc/conf", b"etc/deep/c"):
            history.create(name, rng.randbytes(300))
        history.setxattr(b"etc/conf", {b"user.k": rng.randbytes(40)})
        history.link(b"a", b"etc/link")
        history.symlink(b"sym", b"etc/conf")
        history.tag("first", history.last)
        big = bytearray(rng.randbytes(20_000))
        history.create(b"big", bytes(big))
        while history.last < 56:
            _step(history, rng, big)
        history.rename(b"etc", b"conf")
        history.unlink(b"b")
        history.rollback(30)
        history.tag("last", history.last)
        gone = [(Seq(15), Seq(17)), (Seq(22), Seq(22)), (Seq(40), Seq(44))]
        forget(history.store, gone, tags=(), now_ns=history.time_ns(100))


def _step(history: ModelHistory, rng: random.Random, big: bytearray) -> None:
    path = rng.choice((b"a", b"etc/conf", b"etc/deep/c", b"big", b"new"))
    if path == b"big":
        at = rng.randrange(len(big) - 50)
        big[at : at + 50] = rng.randbytes(50)
        history.write(path, bytes(big))
    elif path == b"new":
        history.create(b"etc/n%d" % history.last, rng.randbytes(rng.randrange(1, 500)))
    elif rng.random() < 0.2:
        history.chmod(path, rng.choice((0o600, 0o640)))
    else:
        history.write(path, rng.randbytes(rng.randrange(100, 900)))


# ---- everything that is in it


Truth = dict[int, dict[str, str]]  # by version, by path: a hash of all that is known of it


def read_all(reader: Reader) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield every version that is kept, with a hash of every path in it, or the error that reading it raised."""
    contents: dict[object, str] = {}
    seq = reader.next_version(0)
    while seq is not None:
        found: dict[str, str] = {}
        try:
            for path, _, state in Tree(reader, seq).walk():
                found[path.decode("latin-1")] = _digest(reader, state, contents)
        except DkfsError as exc:  # the rest of this version is not known
            found["*"] = f"{type(exc).__name__}: {exc}"
        yield seq, found
        seq = reader.next_version(seq)
    yield 0, {"tags": repr([(tag.name, tag.seq) for tag in reader.tags()])}


def _digest(reader: Reader, state: NodeState, contents: dict[object, str]) -> str:
    key = (state.content, state.attr.size, state.xattrs)
    found = contents.get(key)
    if found is None:
        try:
            data = b""
            if state.attr.kind is Kind.FILE:
                data = content.read(reader, state, 0, state.attr.size)
            xattrs = content.xattrs(reader, state)
            found = hashlib.sha256(repr((data, xattrs)).encode()).hexdigest()[:16]
        except DkfsError as exc:
            found = f"{type(exc).__name__}: {exc}"
        contents[key] = found
    if ": " in found:
        return found
    return hashlib.sha256(repr((found, state)).encode()).hexdigest()[:16]


def truth(place: Path) -> Truth:
    """Return everything that is in the sound store at *place*."""
    with Store.open(place, writable=False) as store, store.read() as reader:
        return dict(read_all(reader))


# ---- a process that reads a damaged store


@dataclass
class Verdict:
    """What became of one mutation."""

    name: str
    wrong: list[str] = field(default_factory=list)  # what may not be
    refused: str = ""  # the store could not be opened: why
    unreadable: int = 0  # paths at versions
    damages: int = 0  # that a check found


def judge(place: Path, right: Truth, name: str) -> Verdict:
    """Read the store at *place*, which was damaged, in a child; return what became of it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        _be_child(place, right, writing)
    os.close(writing)
    data = b""
    until_s = time.monotonic() + 2 * HANG_S
    while time.monotonic() < until_s:
        if select.select([reading], [], [], until_s - time.monotonic())[0]:
            more = os.read(reading, 1 << 20)
            data += more
            if not more:
                break
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    verdict = Verdict(name)
    if os.WIFSIGNALED(status):
        verdict.wrong.append(f"ended by {signal.Signals(os.WTERMSIG(status)).name}")
    elif os.WEXITSTATUS(status) or not data:
        verdict.wrong.append(f"ended with status {os.WEXITSTATUS(status)}: {data.decode()}")
    else:
        answer = json.loads(data)
        verdict = Verdict(name, **answer)
    return verdict


def _mapped() -> int:
    """Return how many bytes of address space this process uses."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _be_child(place: Path, right: Truth, writing: int) -> None:
    status = 1
    try:
        signal.alarm(int(2 * HANG_S))
        limit = (
            _mapped() + ADDRESS_SPACE
        )  # what the tests before this one have left mapped is theirs
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # LMDB speaks before it aborts
        answer = _answer(place, right)
        os.write(writing, json.dumps(answer).encode())
        status = 0
    except BaseException as exc:  # noqa: BLE001 - the edge of a process: what it was is told
        os.write(writing, repr(exc).encode())
    finally:
        os._exit(status)


def _answer(place: Path, right: Truth) -> dict[str, object]:
    begun_s = time.monotonic()
    wrong: list[str] = []
    unreadable: set[tuple[int, str]] = set()
    refused = ""
    damages = []
    try:
        with Store.open(place, writable=False) as store:
            with store.read() as reader:
                wrong += _compare(reader, right, unreadable)
            if time.monotonic() - begun_s > HANG_S:
                wrong.append("takes too long")
            damages = list(check(store, read_data=True))
            with store.read() as reader:
                named = {
                    (seq, found.path.decode("latin-1"))
                    for found in affected(reader, damages)
                    for seq in range(found.first, found.last + 1)
                }
    except (CorruptError, StoreError) as exc:
        refused = f"{type(exc).__name__}: {exc}"
        named = set()
    if not refused:
        if unreadable and not damages:
            wrong.append(f"check finds nothing, but {len(unreadable)} cannot be read")
        kept = {(seq, path) for seq, path in named if path in right.get(seq, {})}
        if all(damage.kind in {DamageKind.BLOB, DamageKind.SEGMENT} for damage in damages):
            wrong += [f"not named: {p!r} at {s}" for s, p in sorted(unreadable - kept)[:3]]
    return {
        "wrong": wrong,
        "refused": refused,
        "unreadable": len(unreadable),
        "damages": len(damages),
    }


def _compare(reader: Reader, right: Truth, unreadable: set[tuple[int, str]]) -> Iterator[str]:
    """Yield what is there and differs from *right*; add what an error stands for to *unreadable*."""
    try:
        seen = dict(read_all(reader))
    except DkfsError as exc:
        unreadable |= {(seq, path) for seq, paths in right.items() for path in paths}
        if not isinstance(exc, CorruptError | StoreError):
            yield f"{type(exc).__name__}: {exc}"
        return
    for seq, paths in right.items():
        there = seen.get(seq)
        if there is None:
            yield f"version {seq} is gone"
            continue
        is_cut = "*" in there
        for path, expected in paths.items():
            found = there.get(path)
            if found == expected:
                continue
            if (found is None and is_cut) or (found and ": " in found):
                unreadable.add((seq, path))
                error = found or there["*"]
                if not error.startswith(("CorruptError", "StoreError")):
                    yield f"{path!r} at {seq}: {error}"
            else:
                yield f"{path!r} at {seq} is {'gone' if found is None else 'other'}"
        yield from (f"{p!r} at {seq} was never there" for p in there if p not in paths and p != "*")
