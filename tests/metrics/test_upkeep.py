"""What the metrics tell of maintenance."""

from dataclasses import replace

from dkfs.metrics.registry import Metrics
from dkfs.metrics.upkeep import Upkeep
from tests.metrics.conftest import SetSource


def told(metrics: Metrics, source: SetSource, upkeep: Upkeep | None) -> list[str]:
    source.state = replace(source.state, upkeep=upkeep)
    lines = metrics.render("text/plain")[0].decode().splitlines()
    names = ("dkfs_gc", "dkfs_store_", "dkfs_budget")
    return [line for line in lines if line.startswith(names) and "_created" not in line]


def test_nothing_is_told_of_what_is_not_known(metrics: Metrics, source: SetSource) -> None:
    assert told(metrics, source, None) == []
    assert told(metrics, source, Upkeep()) == [
        'dkfs_gc_runs_total{outcome="success"} 0.0',
        'dkfs_gc_runs_total{outcome="error"} 0.0',
        "dkfs_gc_freed_bytes_total 0.0",
        "dkfs_budget_forgotten_versions_total 0.0",
    ]


def test_collections_and_the_budget_are_told(metrics: Metrics, source: SetSource) -> None:
    upkeep = Upkeep(
        runs=3,
        failures=1,
        freed_bytes=4096,
        forgotten=7,
        live_bytes=100,
        dead_bytes=50,
        budget_bytes=1000,
        over="policy",
    )

    assert told(metrics, source, upkeep) == [
        'dkfs_gc_runs_total{outcome="success"} 3.0',
        'dkfs_gc_runs_total{outcome="error"} 1.0',
        "dkfs_gc_freed_bytes_total 4096.0",
        "dkfs_budget_forgotten_versions_total 7.0",
        "dkfs_store_live_bytes 100.0",
        "dkfs_store_dead_bytes 50.0",
        "dkfs_store_budget_bytes 1000.0",
        'dkfs_store_over_budget{reason="policy"} 1.0',
        'dkfs_store_over_budget{reason="writing"} 0.0',
    ]
