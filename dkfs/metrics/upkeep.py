"""The metrics of maintenance: what collections did, and how the store stands against its budget."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

# Above the budget because the policy keeps all that is left, or because more was written than could be forgotten so soon.
Over = Literal["", "policy", "writing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """What maintenance did since the mount began, and what it knows."""

    runs: int = 0  # collections that ended well
    failures: int = 0  # ... and those that did not
    freed_bytes: int = 0  # that came back to the disk
    forgotten: int = 0  # versions, to stay below the budget
    live_bytes: int | None = (
        None  # of segments, as the newest collection found; None = there was none
    )
    dead_bytes: int | None = None
    budget_bytes: int | None = None  # None = there is none
    over: Over = ""  # why the store is above its budget


def families(upkeep: Upkeep) -> Iterator[Metric]:
    """Yield the metrics of *upkeep*."""
    runs = CounterMetricFamily("dkfs_gc_runs", "Collections", labels=("outcome",))
    runs.add_metric(("success",), upkeep.runs)
    runs.add_metric(("error",), upkeep.failures)
    yield runs
    yield CounterMetricFamily(
        "dkfs_gc_freed_bytes",
        "Bytes that collections gave back to the disk",
        value=upkeep.freed_bytes,
    )
    yield CounterMetricFamily(
        "dkfs_budget_forgotten_versions",
        "Versions forgotten to stay below the budget",
        value=upkeep.forgotten,
    )
    gauges = (
        ("live_bytes", "Bytes of segments that were needed at the last collection"),
        ("dead_bytes", "Bytes of segments that were of no use before the last collection"),
        ("budget_bytes", "Bytes above which versions are forgotten"),
    )
    for name, text in gauges:
        value = getattr(upkeep, name)
        if value is not None:
            yield GaugeMetricFamily(f"dkfs_store_{name}", text, value=value)
    if upkeep.budget_bytes is not None:
        over = GaugeMetricFamily(
            "dkfs_store_over_budget",
            "1 while the store is above its budget, by why: the policy keeps more, or too much is being written",
            labels=("reason",),
        )
        for reason in ("policy", "writing"):
            over.add_metric((reason,), upkeep.over == reason)
        yield over
