"""The metrics of one mount: what is counted, under which name, with which labels and buckets.

The diffkeeper_* names, labels and buckets (milliseconds) are the seed's; dkfs_* are in base units.  Counters are
fed by method calls; gauges are asked of a Source at each scrape.
"""

import platform
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from dkfs.metrics.histogram import Histogram
from dkfs.metrics.io import Io
from dkfs.metrics.io import families as io_families
from dkfs.metrics.scrub import Scrub
from dkfs.metrics.scrub import families as scrub_families
from dkfs.metrics.upkeep import Upkeep
from dkfs.metrics.upkeep import families as upkeep_families

CAPTURE_MS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)
CHUNKED_MS: Final = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)
ENCODINGS: Final = ("none", "zstd", "extents", "patch", "bsdiff", "xdelta")
CAUSES: Final = ("dedup", "delta", "compression")
RECOVERY_MS: Final = (5, 10, 25, 50, 100, 250, 500, 1000, 2500)
REQUEST_S: Final = (
    *(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)
COMMIT_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """The state of a mount at one scrape."""

    ready: bool  # the mount answers
    recording: bool  # versions are being made; False while the store refuses
    lag_seconds: float  # age of the oldest operation that is not yet committed; 0 = none
    queue_operations: int
    queue_bytes: int
    version: int  # last committed
    inodes: int  # known to the kernel
    open_files: int
    index_bytes: int
    segment_bytes: int
    files: int | None = None  # in the history, as it is now; None = not known
    large_files: int | None = None  # ... those that are stored in chunks
    upkeep: Upkeep | None = None  # None = nobody does any
    scrub: Scrub | None = None  # None = nobody does
    io: Io | None = None  # None = not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What one transaction stored of contents."""

    plain_bytes: int = 0  # as applications wrote them
    stored_bytes: int = 0  # that the store grew by for them
    chunks_new: int = 0
    chunks_reused: int = 0
    chunked_s: Sequence[float] = ()  # for each file of several chunks: how long it took
    encodings: Mapping[str, int] = field(default_factory=dict)  # how many new chunks, by ENCODINGS
    saved_bytes: Mapping[str, int] = field(default_factory=dict)  # of all chunks, by CAUSES


class Source(Protocol):
    """What the mount tells about itself; asked from a thread of the metrics server."""

    def gauges(self) -> Gauges:
        """Return the present state; takes no lock for long and never waits for the store."""
        ...


class Metrics(Collector):
    """All metrics of one mount, in a registry of their own."""

    def __init__(self, source: Source, *, version: str) -> None:
        """Ask *source* at each scrape; *version* is that of dkfs."""
        self._source = source
        self._version = version
        self._lock = threading.Lock()  # guards everything but the requests
        self._requests: dict[str, Histogram] = {}
        self._commits = Histogram(COMMIT_S)
        self._captures = Histogram(CAPTURE_MS)
        self._recoveries: dict[str, Histogram] = {}
        self._recovery_outcomes = {"success": 0, "error": 0}
        self._captured = {"success": 0, "error": 0}
        self._chunks = {"new": 0, "reuse": 0}
        self._chunked = Histogram(CHUNKED_MS)
        self._encodings = Counter(dict.fromkeys(ENCODINGS, 0))
        self._savings = Counter(dict.fromkeys(CAUSES, 0))
        self._plain_bytes = 0
        self._stored_bytes = 0
        self._saved_bytes = 0
        self._internal_errors = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def request(self, operation: str) -> Histogram:
        """Return the histogram of seconds that requests of kind *operation* take; keep it and feed it."""
        return self._requests.setdefault(operation, Histogram(REQUEST_S))

    def observe_request(self, operation: str, seconds: float) -> None:
        """Count one request; only from the thread of the file system."""
        try:
            self._requests[operation].observe(seconds)
        except KeyError:
            self.request(operation).observe(seconds)

    def observe_commit(
        self,
        *,
        seconds: float,
        latencies_s: Iterable[float],
        stored: Stored,
    ) -> None:
        """Count one transaction: its contents' times from close to durable, and what it stored of them."""
        with self._lock:
            self._commits.observe(seconds)
            for latency_s in latencies_s:
                self._captures.observe(latency_s * 1000)
                self._captured["success"] += 1
            for chunked_s in stored.chunked_s:
                self._chunked.observe(chunked_s * 1000)
            self._plain_bytes += stored.plain_bytes
            self._stored_bytes += stored.stored_bytes
            self._saved_bytes += max(0, stored.plain_bytes - stored.stored_bytes)
            self._chunks["new"] += stored.chunks_new
            self._chunks["reuse"] += stored.chunks_reused
            self._encodings.update(stored.encodings)
            self._savings.update(stored.saved_bytes)

    def count_failed_captures(self, count: int) -> None:
        """Count *count* contents that could not be recorded."""
        with self._lock:
            self._captured["error"] += count

    def observe_recovery(self, *, seconds: float, reason: str, succeeded: bool) -> None:
        """Count one replay; *reason* is startup, crash or migration."""
        with self._lock:
            histogram = self._recoveries.setdefault(reason, Histogram(RECOVERY_MS))
            histogram.observe(seconds * 1000)
            self._recovery_outcomes["success" if succeeded else "error"] += 1

    def count_internal_error(self) -> None:
        """Count one error that only a bug of dkfs can cause."""
        with self._lock:
            self._internal_errors += 1

    def gauges(self) -> Gauges:
        """Return the present state of the mount."""
        return self._source.gauges()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the exposition and its content type, in the format that the HTTP header *accept* prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        gauges = self._source.gauges()
        with self._lock:
            families = [
                *self._seed_counters(),
                *self._seed_gauges(gauges),
                *self._own_families(gauges),
            ]
        yield from families

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not ask the source; see Collector."""
        return ()

    def _seed_counters(self) -> Iterator[Metric]:
        yield _histogram(
            "diffkeeper_capture_duration_ms",
            "Time from the end of a write to its durable version, milliseconds",
            "type",
            {"file": self._captures},
        )
        captures = CounterMetricFamily(
            "diffkeeper_capture", "Captures of contents", labels=("type", "outcome")
        )
        for outcome, count in self._captured.items():
            captures.add_metric(("file", outcome), count)
        yield captures
        yield CounterMetricFamily(
            "diffkeeper_storage_saved_bytes",
            "Bytes captured less bytes stored for them, where positive",
            value=self._saved_bytes,
        )
        yield _histogram(
            "diffkeeper_recovery_duration_ms",
            "Duration of a replay, milliseconds",
            "reason",
            self._recoveries,
        )
        yield _counter("diffkeeper_recovery", "Replays", "outcome", self._recovery_outcomes)
        yield _counter("diffkeeper_chunk", "Chunks captured", "outcome", self._chunks)
        chunked = HistogramMetricFamily(
            "diffkeeper_chunk_capture_duration_ms",
            "Time to store the contents of a file in chunks, milliseconds",
        )
        chunked.add_metric((), buckets=self._chunked.buckets(), sum_value=self._chunked.sum)
        yield chunked
        yield _counter("diffkeeper_deltas", "Chunks stored, by how", "compression", self._encodings)

    def _seed_gauges(self, gauges: Gauges) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "diffkeeper_storage_saved_ratio",
            "Saved bytes / captured bytes since the start",
            value=_ratio(self._saved_bytes, self._plain_bytes),
        )
        yield GaugeMetricFamily(
            "diffkeeper_chunk_dedup_ratio",
            "Chunks that were there already / all chunks since the start",
            value=_ratio(self._chunks["reuse"], sum(self._chunks.values())),
        )
        yield from self._seed_state(gauges)

    def _seed_state(self, gauges: Gauges) -> Iterator[Metric]:
        sizes = GaugeMetricFamily(
            "diffkeeper_store_size_bytes", "Size of the store on disk", labels=("type",)
        )
        sizes.add_metric(("deltas",), gauges.segment_bytes)
        sizes.add_metric(("metadata",), gauges.index_bytes)
        sizes.add_metric(("store_file",), gauges.segment_bytes + gauges.index_bytes)
        yield sizes
        if gauges.files is not None:
            yield GaugeMetricFamily(
                "diffkeeper_files_tracked_total", "Files in the history", value=gauges.files
            )
        if gauges.large_files is not None:
            yield GaugeMetricFamily(
                "diffkeeper_large_file_tracked_total",
                "Files in the history that are stored in chunks",
                value=gauges.large_files,
            )
        yield GaugeMetricFamily("diffkeeper_up", "1 while the mount answers", value=gauges.ready)
        info = GaugeMetricFamily(
            "diffkeeper_agent_info",
            "Always 1",
            labels=("os", "arch", "version", "capture_backend"),
        )
        info.add_metric(("linux", _architecture(), self._version, "fuse"), 1)
        yield info

    def _own_families(self, gauges: Gauges) -> Iterator[Metric]:
        rows = (
            ("recording", "1 while versions are being made", float(gauges.recording)),
            (
                "recording_lag_seconds",
                "Age of the oldest uncommitted operation",
                gauges.lag_seconds,
            ),
            ("queue_operations", "Operations not yet committed", gauges.queue_operations),
            ("queue_bytes", "Contents held in memory until committed", gauges.queue_bytes),
            ("version", "Last committed version", gauges.version),
            ("inodes", "Inodes that the kernel knows", gauges.inodes),
            ("open_files", "Open files", gauges.open_files),
        )
        for name, text, value in rows:
            yield GaugeMetricFamily(f"dkfs_{name}", text, value=value)
        yield CounterMetricFamily(
            "dkfs_internal_errors", "Errors that are bugs of dkfs", value=self._internal_errors
        )
        yield CounterMetricFamily(
            "dkfs_captured_bytes",
            "Bytes of contents as applications wrote them",
            value=self._plain_bytes,
        )
        yield CounterMetricFamily(
            "dkfs_stored_bytes",
            "Bytes that the segments grew by for contents",
            value=self._stored_bytes,
        )
        yield _counter(
            "dkfs_saved_bytes",
            "Bytes of chunks that were not stored, by what made that unnecessary",
            "cause",
            self._savings,
        )
        commits = HistogramMetricFamily("dkfs_commit_duration_seconds", "Duration of a commit")
        commits.add_metric((), buckets=self._commits.buckets(), sum_value=self._commits.sum)
        yield commits
        if gauges.upkeep is not None:
            yield from upkeep_families(gauges.upkeep)
        if gauges.scrub is not None:
            yield from scrub_families(gauges.scrub)
        if gauges.io is not None:
            yield from io_families(gauges.io)
        yield _histogram(
            "dkfs_request_duration_seconds",
            "Time in which a request of the kernel was answered",
            "operation",
            dict(self._requests),
        )


def _histogram(name: str, text: str, label: str, histograms: dict[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=(label,))
    for value, histogram in sorted(histograms.items()):
        family.add_metric((value,), buckets=histogram.buckets(), sum_value=histogram.sum)
    return family


def _counter(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=(label,))
    for value, count in counts.items():
        family.add_metric((value,), count)
    return family


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _architecture() -> str:
    # The seed's names are those of Go.
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
