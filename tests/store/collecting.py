"""What the tests of collections share: stores with versions to forget, and short ways to collect."""

import random
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from dkfs.history.forget import forget
from dkfs.model.ids import ROOT, NodeId, Seq
from dkfs.store import Store
from dkfs.store.collect import Collection, Pace, Report
from dkfs.store.collect_survey import Findings, Survey
from dkfs.store.reserve import Reserve
from tests.store.making import TIME_NS, append, file_state

SEGMENT_LIMIT = 100_000


def silent(what: str, done: int, total: int) -> None:
    """Show no progress."""


def unhurried(seconds: float) -> None:
    """Take no rest."""


def contents(version: int, size: int = 2000) -> bytes:
    """Return what version *version* of a file holds: nothing that can be compressed."""
    return random.Random(version).randbytes(size)


def fill(store: Store, versions: Iterable[int], *, files: int = 4, size: int = 2000) -> None:
    """Make each of *versions*: the next one of one of *files* files."""
    for version in versions:
        with store.write() as writer:
            data = contents(version, size)
            node = NodeId(2 + version % files)
            name = b"f%d" % node
            state = file_state(name, size=size, content=writer.put_blob(data).blob)
            is_new = not writer.child(ROOT, name, writer.last)
            names = {(int(ROOT), name): int(node)} if is_new else {}
            seq = append(writer, {int(node): state}, names, time_ns=TIME_NS + version * 10**9)
            assert seq == version


def lose(store: Store, first: int, last: int) -> None:
    """Forget the versions from *first* to *last*."""
    forget(store, [(Seq(first), Seq(last))], tags=(), now_ns=0)


def collect(
    store: Store,
    *,
    max_unused: float = 0.1,
    reserve: int = 0,
    at: Callable[[str], None] | None = None,
    breathe: Callable[[], None] = lambda: None,
) -> Report:
    """Collect *store* in this process."""
    making = Collection if at is None else partial(Collection, at=at)
    return making(
        store,
        Survey(store, limit=store.segment_limit, say=silent),
        reserve=Reserve(store.path, reserve),
        pace=Pace(slice_s=0.1, pause=unhurried, breathe=breathe),
        say=silent,
    ).run(max_unused=max_unused)


def look(store: Store, *, max_unused: float = 0.1) -> Findings:
    """Return what a collection of *store* would find."""
    survey = Survey(store, limit=store.segment_limit, say=silent)
    return survey.look(max_unused=max_unused)


def expect(store: Store, versions: Iterable[int], *, size: int = 2000) -> None:
    """Fail unless each of *versions* can be read."""
    with store.read() as reader:
        for version in versions:
            record = reader.record(Seq(version))
            assert record is not None
            state = reader.node(record.nodes[0], record.seq)
            assert state is not None
            assert state.content is not None
            assert reader.blob(state.content) == contents(version, size)


def segment_bytes(path: Path) -> int:
    """Return how many bytes the segment files of the store at *path* have."""
    return sum(file.stat().st_size for file in (path / "segments").iterdir())
