"""dkfs.metrics.registry: names, labels and buckets are a contract with dashboards, so they are written out here."""

from dataclasses import replace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from dkfs.metrics.registry import Metrics, Stored
from tests.metrics.conftest import SetSource

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(metrics: Metrics) -> Samples:
    text = metrics.render("")[0].decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, tuple(sorted(labels.items()))]


def bounds(metrics: Metrics, name: str) -> list[str]:
    return [dict(labels)["le"] for found, labels in samples(metrics) if found == f"{name}_bucket"]


def test_every_metric_of_the_seed_that_applies_has_its_name_and_labels(metrics: Metrics) -> None:
    metrics.observe_recovery(seconds=0.1, reason="startup", succeeded=True)

    found = {(name, tuple(key for key, _ in labels)) for name, labels in samples(metrics)}
    seed = {pair for pair in found if pair[0].startswith("diffkeeper_")}

    assert seed == {
        ("diffkeeper_capture_duration_ms_bucket", ("le", "type")),
        ("diffkeeper_capture_duration_ms_count", ("type",)),
        ("diffkeeper_capture_duration_ms_sum", ("type",)),
        ("diffkeeper_capture_total", ("outcome", "type")),
        ("diffkeeper_storage_saved_bytes_total", ()),
        ("diffkeeper_storage_saved_ratio", ()),
        ("diffkeeper_recovery_duration_ms_bucket", ("le", "reason")),
        ("diffkeeper_recovery_duration_ms_count", ("reason",)),
        ("diffkeeper_recovery_duration_ms_sum", ("reason",)),
        ("diffkeeper_recovery_total", ("outcome",)),
        ("diffkeeper_chunk_total", ("outcome",)),
        ("diffkeeper_chunk_dedup_ratio", ()),
        ("diffkeeper_chunk_capture_duration_ms_bucket", ("le",)),
        ("diffkeeper_chunk_capture_duration_ms_count", ()),
        ("diffkeeper_chunk_capture_duration_ms_sum", ()),
        ("diffkeeper_large_file_tracked_total", ()),
        ("diffkeeper_deltas_total", ("compression",)),
        ("diffkeeper_store_size_bytes", ("type",)),
        ("diffkeeper_files_tracked_total", ()),
        ("diffkeeper_up", ()),
        ("diffkeeper_agent_info", ("arch", "capture_backend", "os", "version")),
    }


def test_the_buckets_of_the_seed_are_in_milliseconds(metrics: Metrics) -> None:
    metrics.observe_recovery(seconds=0.1, reason="startup", succeeded=True)

    capture = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)
    recovery = (5, 10, 25, 50, 100, 250, 500, 1000, 2500)
    assert bounds(metrics, "diffkeeper_capture_duration_ms") == [
        *(f"{bound}.0" for bound in capture),
        "+Inf",
    ]
    assert bounds(metrics, "diffkeeper_recovery_duration_ms") == [
        *(f"{bound}.0" for bound in recovery),
        "+Inf",
    ]


def test_a_commit_is_counted_in_captures_savings_and_chunks(metrics: Metrics) -> None:
    for _ in range(2):
        metrics.observe_commit(
            seconds=0.002,
            latencies_s=(0.004, 0.02),
            stored=Stored(
                plain_bytes=1000,
                stored_bytes=400,
                chunks_new=1,
                chunks_reused=3,
                chunked_s=(0.004, 0.03),
                encodings={"zstd": 1, "extents": 2},
                saved_bytes={"dedup": 300, "delta": 200, "compression": 100},
            ),
        )
    metrics.count_failed_captures(2)

    assert value(metrics, "diffkeeper_capture_total", type="file", outcome="success") == 4
    assert value(metrics, "diffkeeper_capture_total", type="file", outcome="error") == 2
    assert value(metrics, "diffkeeper_capture_duration_ms_sum", type="file") == pytest.approx(48)
    assert value(metrics, "diffkeeper_capture_duration_ms_bucket", type="file", le="5.0") == 2
    assert value(metrics, "diffkeeper_storage_saved_bytes_total") == 1200
    assert value(metrics, "diffkeeper_storage_saved_ratio") == 0.6
    assert value(metrics, "diffkeeper_chunk_total", outcome="new") == 2
    assert value(metrics, "diffkeeper_chunk_total", outcome="reuse") == 6
    assert value(metrics, "diffkeeper_chunk_dedup_ratio") == 0.75
    assert value(metrics, "diffkeeper_chunk_capture_duration_ms_count") == 4
    assert value(metrics, "diffkeeper_chunk_capture_duration_ms_sum") == pytest.approx(68)
    assert value(metrics, "diffkeeper_deltas_total", compression="extents") == 4
    assert value(metrics, "diffkeeper_deltas_total", compression="none") == 0
    assert value(metrics, "dkfs_captured_bytes_total") == 2000
    assert value(metrics, "dkfs_stored_bytes_total") == 800
    assert value(metrics, "dkfs_saved_bytes_total", cause="dedup") == 600
    assert value(metrics, "dkfs_saved_bytes_total", cause="delta") == 400
    assert value(metrics, "dkfs_saved_bytes_total", cause="compression") == 200
    assert value(metrics, "dkfs_commit_duration_seconds_count") == 2
    assert value(metrics, "dkfs_commit_duration_seconds_sum") == pytest.approx(0.004)


def test_contents_that_grew_in_the_store_save_nothing(metrics: Metrics) -> None:
    metrics.observe_commit(
        seconds=0, latencies_s=(), stored=Stored(plain_bytes=10, stored_bytes=30, chunks_new=1)
    )

    assert value(metrics, "diffkeeper_storage_saved_bytes_total") == 0


def test_a_replay_is_counted_by_reason_and_outcome(metrics: Metrics) -> None:
    metrics.observe_recovery(seconds=0.03, reason="startup", succeeded=True)
    metrics.observe_recovery(seconds=3, reason="crash", succeeded=False)

    assert value(metrics, "diffkeeper_recovery_duration_ms_sum", reason="startup") == 30
    assert (
        value(metrics, "diffkeeper_recovery_duration_ms_bucket", reason="crash", le="2500.0") == 0
    )
    assert value(metrics, "diffkeeper_recovery_total", outcome="success") == 1
    assert value(metrics, "diffkeeper_recovery_total", outcome="error") == 1


def test_gauges_are_what_the_mount_says_at_the_scrape(metrics: Metrics, source: SetSource) -> None:
    assert value(metrics, "dkfs_recording") == 1
    assert value(metrics, "dkfs_recording_lag_seconds") == 0.25
    assert value(metrics, "dkfs_queue_operations") == 3
    assert value(metrics, "dkfs_queue_bytes") == 4096
    assert value(metrics, "dkfs_version") == 17
    assert value(metrics, "dkfs_inodes") == 5
    assert value(metrics, "dkfs_open_files") == 2
    assert value(metrics, "diffkeeper_files_tracked_total") == 4
    assert value(metrics, "diffkeeper_store_size_bytes", type="deltas") == 2000
    assert value(metrics, "diffkeeper_store_size_bytes", type="metadata") == 1000
    assert value(metrics, "diffkeeper_store_size_bytes", type="store_file") == 3000
    assert value(metrics, "diffkeeper_up") == 1

    source.set(ready=False, recording=False)

    assert value(metrics, "dkfs_recording") == 0
    assert value(metrics, "diffkeeper_up") == 0


def test_a_number_of_files_that_is_not_known_is_not_told(
    metrics: Metrics, source: SetSource
) -> None:
    source.state = replace(source.state, files=None)

    assert ("diffkeeper_files_tracked_total", ()) not in samples(metrics)


def test_requests_are_counted_by_operation(metrics: Metrics) -> None:
    metrics.request("read").observe(0.00002)
    metrics.observe_request("read", 0.5)
    metrics.observe_request("write", 9.0)

    name = "dkfs_request_duration_seconds"
    assert value(metrics, f"{name}_count", operation="read") == 2
    assert value(metrics, f"{name}_bucket", operation="read", le="2.5e-05") == 1
    assert value(metrics, f"{name}_bucket", operation="write", le="5.0") == 0
    assert value(metrics, f"{name}_sum", operation="write") == 9


def test_internal_errors_are_counted(metrics: Metrics) -> None:
    metrics.count_internal_error()

    assert value(metrics, "dkfs_internal_errors_total") == 1


def test_the_process_and_the_version_are_told(metrics: Metrics) -> None:
    found = samples(metrics)

    assert ("process_resident_memory_bytes", ()) in found
    info = next(dict(labels) for name, labels in found if name == "diffkeeper_agent_info")
    assert (info["version"], info["capture_backend"], info["os"]) == ("1.2.3", "fuse", "linux")


def test_openmetrics_is_served_to_who_asks_for_it(metrics: Metrics) -> None:
    text, content_type = metrics.render("application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
    assert {"dkfs_version", "dkfs_internal_errors"} <= {
        family.name
        # prometheus_client has no types; the seed's gauge has a name that its parser takes for a counter's.
        for family in parse_open(  # type: ignore[no-untyped-call]
            text.decode().replace("files_tracked_total", "files_tracked")
        )
    }


def test_two_mounts_in_one_process_share_nothing(source: SetSource) -> None:
    one, other = Metrics(source, version="1"), Metrics(source, version="1")

    one.count_internal_error()

    assert value(other, "dkfs_internal_errors_total") == 0
