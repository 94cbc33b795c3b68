"""Where a daemon in Python spends its time during one workload, by py-spy."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.peer import BenchError, Peer
from bench.run import sample
from bench.workload import Level, Workload

_RATE_HZ = 400
_SHOWN = 25


def profile(
    kind: type[Workload], on: type[Peer], *, base: Path, materials: Path, level: Level
) -> str:
    """Run *kind* once on a peer under py-spy; return the functions that took the time."""
    workload = kind(level, materials)
    stacks = base / "stacks"
    peer = on(base / on.name)
    workload.populate(peer.backing)
    with peer:
        taken = sample(workload, peer, 0, observed=_spying(peer, stacks))
    about = f"{kind.name} on {peer.label}: {taken.value:.4g} {kind.unit}, slowed down by py-spy"
    return f"{about}\n{_summary(stacks.read_text().splitlines())}"


@contextmanager
def _spying(peer: Peer, stacks: Path) -> Iterator[None]:
    """Write into *stacks* what the daemon of *peer* does meanwhile."""
    words = [_py_spy(), "record", "--pid", str(peer.pid), "--rate", str(_RATE_HZ), "--threads"]
    words += ["--nonblocking", "--format", "raw", "--output", os.fspath(stacks)]
    spy = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert spy.stdout is not None
    try:
        said = ""
        while "Sampling process" not in said:
            said = spy.stdout.readline()
            if not said:
                raise BenchError(f"py-spy ended with status {spy.wait()}")
        yield
    finally:
        spy.send_signal(signal.SIGINT)
        spy.communicate()


def _py_spy() -> str:
    beside = Path(sys.executable).parent / "py-spy"
    found = os.fspath(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise BenchError("--profile needs py-spy, which is not installed")
    return found


def _summary(lines: list[str]) -> str:
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    threads: Counter[str] = Counter()
    for line in lines:
        stack, _, text = line.rpartition(" ")
        frames = stack.split(";")
        threads[frames[0]] += int(text)
        own[frames[-1]] += int(text)
        for frame in set(frames[1:]):
            within[frame] += int(text)
    total = sum(threads.values()) or 1
    parts = [f"{total} samples at {_RATE_HZ} Hz"]
    for title, counter in (("threads", threads), ("self", own), ("with callees", within)):
        parts.append(f"\n{title}:")
        parts += [f"  {n / total:6.1%}  {name}" for name, n in counter.most_common(_SHOWN)]
    return "\n".join(parts)
