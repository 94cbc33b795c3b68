"""A picture of a run, if matplotlib is there."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from bench.peer import BenchError, Peer, Raw
from bench.results import Measured


def draw(path: Path, measured: Sequence[Measured], peers: Sequence[type[Peer]]) -> None:
    """Write an SVG of the speed of every peer as a share of the raw directory's; raises BenchError."""
    try:
        importlib.import_module("matplotlib").use("svg")
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        raise BenchError("--plot needs matplotlib, which is not installed") from None
    shown = [item for item in measured if item.of_raw(Raw.name)]
    others = [peer for peer in peers if peer is not Raw]
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.45 * len(shown)))
    height = 0.8 / max(1, len(others))
    for index, peer in enumerate(others):
        speeds = [100 * _speed(item, peer) for item in shown]
        rows = [row + (index - (len(others) - 1) / 2) * height for row in range(len(shown))]
        axes.barh(rows, speeds, height, label=f"{peer.name} ({peer.engine}, {peer.io})")
    axes.axvline(100, color="black", linewidth=0.8)
    axes.set_yticks(range(len(shown)), [item.kind.title for item in shown])
    axes.invert_yaxis()
    axes.set_xlabel("speed, % of the raw directory")
    axes.legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _speed(item: Measured, peer: type[Peer]) -> float:
    share = item.of_raw(peer.name)
    if not share:
        return 0.0
    return share if item.kind.more_is_better else 1 / share
