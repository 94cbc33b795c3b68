"""What was measured: best, median, ratio to the raw directory, targets; as tables and as JSON."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.peer import Peer, Raw
from bench.workload import KERNEL, Target, Workload, median

FORMAT = 2  # of the JSON
_TO_BE_BEHIND = "bindfs"  # records nothing, and is to be slower than dkfs all the same


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition on one peer."""

    value: float  # in the workload's unit
    wall_s: float  # of run(), what it prepares included
    settle_s: float  # after run(), until everything was in the history
    daemon_cpu_s: float  # of the daemon, settling included


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a peer reached a target."""

    target: Target
    peer: str
    value: float | None  # in the workload's unit, or as a share; None: nothing was measured
    reached: bool

    def as_json(self) -> dict[str, object]:
        """Return it for the file."""
        bound, of, _ = self.target
        judged = {"by": self.peer, "value": self.value, "reached": self.reached}
        return {"bound": bound, "of": of, **judged}


@dataclass(slots=True)
class Measured:
    """Everything that one workload measured."""

    kind: type[Workload]
    peers: tuple[type[Peer], ...]
    samples: dict[str, list[Sample]] = field(default_factory=dict)  # by the peer's name
    errors: dict[str, list[str]] = field(default_factory=dict)

    def values(self, peer: str) -> list[float]:
        """Return the samples' values; none if all failed."""
        return [sample.value for sample in self.samples.get(peer, ())]

    def median(self, peer: str) -> float | None:
        """Return the median; None without a sample."""
        values = self.values(peer)
        return median(values) if values else None

    def best(self, peer: str) -> float | None:
        """Return the best; None without a sample."""
        return (max if self.kind.more_is_better else min)(self.values(peer), default=None)

    def settle_s(self, peer: str) -> float:
        """Return the median of what recording took after the work was done."""
        return median([sample.settle_s for sample in self.samples[peer]])

    def of_raw(self, peer: str) -> float | None:
        """Return the median as a share of the raw directory's; None if one is missing."""
        return self.share(peer, Raw.name)

    def share(self, peer: str, other: str) -> float | None:
        """Return the median of *peer* as a share of the *other*'s; None if one is missing."""
        mine, theirs = self.median(peer), self.median(other)
        return mine / theirs if mine is not None and theirs else None

    def verdicts(self) -> Iterator["Verdict"]:
        """Judge every target that there is something to judge by."""
        measured = {peer.name for peer in self.peers}
        targets = list(self.kind.targets)
        if targets and not self.kind.records_only:
            targets.append(Target(1.0, _TO_BE_BEHIND, (KERNEL,)))
        for target in targets:
            for peer in target.by:
                if peer in measured and (target.of is None or target.of in measured):
                    yield self._judge(target, peer)

    def _judge(self, target: Target, peer: str) -> "Verdict":
        value = self.median(peer) if target.of is None else self.share(peer, target.of)
        if value is None or self.errors.get(peer):
            return Verdict(target, peer, None, reached=False)
        more = self.kind.more_is_better
        reached = value >= target.bound if more else value <= target.bound
        return Verdict(target, peer, value, reached=reached)

    def as_json(self) -> dict[str, object]:
        """Return it for the file."""
        kind = self.kind
        return {
            "name": kind.name,
            "title": kind.title,
            "unit": kind.unit,
            "more_is_better": kind.more_is_better,
            "backing": "tmpfs" if kind.in_memory else "disk",
            "targets": [verdict.as_json() for verdict in self.verdicts()],
            "peers": [self._peer_as_json(peer) for peer in self.peers],
        }

    def _peer_as_json(self, peer: type[Peer]) -> dict[str, object]:
        return {
            "name": peer.name,
            "engine": peer.engine,
            "io": peer.io,
            "best": self.best(peer.name),
            "median": self.median(peer.name),
            "of_raw": self.of_raw(peer.name),
            "samples": [asdict(sample) for sample in self.samples.get(peer.name, ())],
            "errors": self.errors.get(peer.name, []),
        }


def write(path: Path, about: dict[str, object], measured: Sequence[Measured]) -> None:
    """Put everything into the file *path*."""
    whole = {"format": FORMAT, **about, "workloads": [item.as_json() for item in measured]}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(whole, indent=1) + "\n")
    os.replace(unfinished, path)


def table(measured: Sequence[Measured], peers: Sequence[type[Peer]]) -> str:
    """Return every number."""
    names = {peer: f"{peer.name} ({peer.engine}, {peer.io})" for peer in peers}
    rows = [["workload", "unit", *names.values()]]
    for item in measured:
        name = f"{item.kind.name} (tmpfs)" if item.kind.in_memory else item.kind.name
        rows.append([name, item.kind.unit, *(_cell(item, peer) for peer in peers)])
    return _aligned(rows)


def verdict_table(measured: Sequence[Measured]) -> str:
    """Return every target, and whether it is reached."""
    rows = [["workload", "peer", "to reach", "reached", ""]]
    for item in measured:
        for verdict in item.verdicts():
            value = "-" if verdict.value is None else _in_words(item, verdict.target, verdict.value)
            wanted = _in_words(item, verdict.target, verdict.target.bound)
            sign = ">=" if item.kind.more_is_better else "<="
            judged = "REACHED" if verdict.reached else "NOT REACHED"
            rows.append([item.kind.name, verdict.peer, f"{sign} {wanted}", value, judged])
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _cell(item: Measured, peer: type[Peer]) -> str:
    middle, best, share = item.median(peer.name), item.best(peer.name), item.of_raw(peer.name)
    if item.errors.get(peer.name):
        return "FAILED"
    if middle is None or best is None:
        return "-"
    text = f"{number(middle)} (best {number(best)})"
    if share is not None and peer is not Raw:
        text += f" {_share(item.kind, share)}"
    if peer.records:
        text += f" +{number(item.settle_s(peer.name))} s"
    return text


def _share(kind: type[Workload], share: float) -> str:
    return f"{share:.0%}" if kind.more_is_better else f"{share:.2f}x"


def _in_words(item: Measured, target: Target, value: float) -> str:
    if target.of is None:
        return f"{number(value)} {item.kind.unit}"
    return f"{_share(item.kind, value)} of {target.of}"


def number(value: float) -> str:
    """Return *value* with three digits that mean something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
