"""How files are served, as metrics."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Io:
    """The io modes of a mount."""

    mode: str  # in effect, for files that no rule is about
    asked: str  # what `-o io=` says
    opens: Mapping[str, int] = field(default_factory=dict)  # open files, by the kind of the open
    watched: int = 0  # files that are written past dkfs


def families(io: Io) -> Iterator[Metric]:
    """Yield the metrics of *io*."""
    info = GaugeMetricFamily("dkfs_io_info", "Always 1", labels=("mode", "asked"))
    info.add_metric((io.mode, io.asked), 1)
    yield info
    opens = GaugeMetricFamily(
        "dkfs_io_open_files", "Open files, by how the kernel serves them", labels=("kind",)
    )
    for kind, count in sorted(io.opens.items()):
        opens.add_metric((kind,), count)
    yield opens
    yield GaugeMetricFamily(
        "dkfs_io_watched_files", "Files that are or were written past dkfs", value=io.watched
    )
