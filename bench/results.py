"""What was measured: best, median, ratio to the raw directory, targets; as a table and as JSON."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.peers import Peer, Raw
from bench.workload import Workload, median

FORMAT = 1  # of the JSON
JUDGED = "dkfs"  # the peer that the targets are for


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition on one peer."""

    value: float  # in the workload's unit
    wall_s: float  # of run(), what it prepares included
    settle_s: float  # after run(), until everything was in the history
    daemon_cpu_s: float  # of the daemon, settling included


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
        mine, raw = self.median(peer), self.median(Raw.name)
        return mine / raw if mine is not None and raw else None

    def reached(self) -> bool | None:
        """Return whether the target is reached; None if there is none, or nothing to judge."""
        target = self.kind.target
        if target is None or self.errors.get(JUDGED):
            return None if target is None else False
        value = self.of_raw(JUDGED) if target.of_raw else self.median(JUDGED)
        if value is None:
            return None
        return value >= target.bound if self.kind.more_is_better else value <= target.bound

    def as_json(self) -> dict[str, object]:
        """Return it for the file."""
        kind, target = self.kind, self.kind.target
        return {
            "name": kind.name,
            "title": kind.title,
            "unit": kind.unit,
            "more_is_better": kind.more_is_better,
            "target": {"bound": target.bound, "kind": target.kind} if target else None,
            "reached": self.reached(),
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
    """Return what is shown."""
    names = {peer: f"{peer.name} ({peer.engine}, {peer.io})" for peer in peers}
    rows = [["workload", "unit", *names.values(), "target", ""]]
    for item in measured:
        cells = [_cell(item, peer) for peer in peers]
        rows.append([item.kind.name, item.kind.unit, *cells, _target(item), _verdict(item)])
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


def _target(item: Measured) -> str:
    target = item.kind.target
    if target is None:
        return ""
    sign = ">=" if item.kind.more_is_better else "<="
    if target.of_raw:
        return f"{sign} {_share(item.kind, target.bound)} of raw"
    return f"{sign} {number(target.bound)} {item.kind.unit}"


def _verdict(item: Measured) -> str:
    reached = item.reached()
    if item.kind.target is None or reached is None:
        return ""
    return "reached" if reached else "NOT REACHED"


def number(value: float) -> str:
    """Return *value* with three digits that mean something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
