"""What the tests of the metrics share: a mount whose state a test sets."""

from dataclasses import replace

import pytest

from dkfs.metrics.registry import Gauges, Metrics


class SetSource:
    """A Source that says what it was told to."""

    def __init__(self) -> None:
        self.state = Gauges(
            ready=True,
            recording=True,
            lag_seconds=0.25,
            queue_operations=3,
            queue_bytes=4096,
            version=17,
            inodes=5,
            open_files=2,
            index_bytes=1000,
            segment_bytes=2000,
            files=4,
            large_files=1,
        )

    def set(self, *, ready: bool = True, recording: bool = True) -> None:
        self.state = replace(self.state, ready=ready, recording=recording)

    def gauges(self) -> Gauges:
        return self.state


@pytest.fixture
def source() -> SetSource:
    return SetSource()


@pytest.fixture
def metrics(source: SetSource) -> Metrics:
    return Metrics(source, version="1.2.3")
