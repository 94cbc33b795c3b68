"""What is known of a store's soundness, as metrics."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrub:
    """The state of the scrubbing of a mount's store."""

    age_seconds: float  # since the last whole one ended, or, before the first, since the store was first mounted
    running: bool
    damage: int  # damages that the last whole one found
    damage_found: int  # damages found since the mount began


def families(scrub: Scrub) -> Iterator[Metric]:
    """Yield the metrics of *scrub*."""
    yield GaugeMetricFamily(
        "dkfs_scrub_age_seconds",
        "Time since everything in the store was last read and verified",
        value=scrub.age_seconds,
    )
    yield GaugeMetricFamily("dkfs_scrub_running", "1 during a scrub", value=scrub.running)
    yield GaugeMetricFamily("dkfs_scrub_damage", "Damages in the last scrub", value=scrub.damage)
    yield CounterMetricFamily(
        "dkfs_damage_found", "Damages of the store found by scrubs", value=scrub.damage_found
    )
