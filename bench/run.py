"""Runs workloads on peers, the repetitions interleaved, so that all meet the same machine."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

from bench.history import IncompleteError
from bench.peer import BenchError, Peer
from bench.results import Measured, Sample
from bench.workload import Level, Stopwatch, Workload, sync
from dkfs.errors import DkfsError

# What a workload, a peer or a program may fail with; the others go on.
_FAILURES = (BenchError, IncompleteError, DkfsError, OSError, subprocess.SubprocessError)

_LARGE = 1024 * 1024  # bytes


def measure(
    kinds: Sequence[type[Workload]],
    peers: Sequence[type[Peer]],
    *,
    base: Path,
    materials: Path,
    level: Level,
    repetitions: int,
    say: Callable[[str], None],
) -> Iterator[Measured]:
    """Yield what each workload measured; works in *base*, with what is in or goes to *materials*.

    What is not to touch a disk works in *materials* too, which is on tmpfs if there is one.
    """
    for kind in kinds:
        place = (materials if kind.in_memory else base) / kind.name
        own = [
            peer
            for peer in peers
            if (peer.records or not kind.records_only) and peer.name not in kind.not_on
        ]
        if not own:
            continue
        measured = Measured(kind, tuple(own))
        workload = kind(level, materials)
        with ExitStack() as stack:
            mounted = _mount(stack, own, workload, place, measured)
            for repetition in range(kind.repetitions or repetitions):
                for peer in mounted:
                    say(f"{kind.name}: {peer.label}, {repetition + 1}")
                    _repeat(workload, peer, repetition, measured)
        if kind.in_memory:
            shutil.rmtree(place)
        else:
            _make_room(place)
        yield measured


def _make_room(place: Path) -> None:
    """Remove the large files below *place*; small ones stay until the end.

    For minutes ext4 looks at every inode that was freed before it takes one for a new file: after
    12,000 unlinks a create took 1 ms instead of 18 us, on Linux 6.18.
    """
    for directory, _, names in os.walk(place):
        for name in names:
            path = os.path.join(directory, name)
            if os.lstat(path).st_size >= _LARGE:
                os.unlink(path)


def _mount(
    stack: ExitStack,
    kinds: Sequence[type[Peer]],
    workload: Workload,
    base: Path,
    measured: Measured,
) -> list[Peer]:
    """Mount the peers, populated by *workload*, until *stack* ends."""
    mounted = []
    for kind in kinds:
        try:
            peer = kind(base / kind.name)
            workload.populate(peer.backing)
            mounted.append(stack.enter_context(peer))
        except _FAILURES as exc:
            _failed(measured, kind.name, exc)
    return mounted


def _repeat(workload: Workload, peer: Peer, repetition: int, measured: Measured) -> None:
    try:
        measured.samples.setdefault(peer.name, []).append(sample(workload, peer, repetition))
    except _FAILURES as exc:
        _failed(measured, peer.name, exc)


def _failed(measured: Measured, peer: str, exc: BaseException) -> None:
    line = f"{type(exc).__name__}: {exc}"
    measured.errors.setdefault(peer, []).append(line)
    print(f"{measured.kind.name}: {peer}: {line}", file=sys.stderr)


def sample(
    workload: Workload,
    peer: Peer,
    repetition: int,
    *,
    observed: AbstractContextManager[object] | None = None,
) -> Sample:
    """Measure *workload* on *peer* once; raises if it, or the history of it, is not right.

    *observed* is entered while it runs and is recorded.
    """
    name = Path(f"r{repetition}")
    before = peer.history.flush() if peer.records else None
    place = peer.directory / name
    place.mkdir()
    workload.setup(place, peer)
    if peer.records and workload.changes:
        before = peer.history.flush()
    sync(peer.backing)  # nobody is to pay for what was written earlier
    with observed or nullcontext():
        value, wall_s, settle_s, cpu_s = _timed(workload, peer, place)
    workload.verify(place, peer)
    if before is not None:
        peer.history.check(peer.backing, name, after=before)
    return Sample(value=value, wall_s=wall_s, settle_s=settle_s, daemon_cpu_s=cpu_s)


def _timed(workload: Workload, peer: Peer, place: Path) -> tuple[float, float, float, float]:
    cpu_s = peer.cpu_s()
    started = time.perf_counter()
    value = workload.run(place, peer)
    wall_s = time.perf_counter() - started
    with Stopwatch() as settling:
        if peer.records:
            peer.history.flush()
    return value, wall_s, settling.s, peer.cpu_s() - cpu_s
