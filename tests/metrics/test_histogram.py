"""dkfs.metrics.histogram."""

import time

from dkfs.metrics.histogram import Histogram


def test_buckets_are_cumulative_and_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram((1, 2.5))

    for value in (0.5, 1, 1.5, 2.5, 3):
        histogram.observe(value)

    assert histogram.buckets() == [("1.0", 2.0), ("2.5", 4.0), ("+Inf", 5.0)]
    assert histogram.sum == 8.5


def test_an_observation_costs_less_than_a_microsecond() -> None:
    histogram = Histogram([bound / 1000 for bound in range(1, 18)])

    def cost_s() -> float:
        begun = time.thread_time()
        for _ in range(10_000):
            histogram.observe(0.0042)
        return (time.thread_time() - begun) / 10_000

    assert min(cost_s() for _ in range(5)) < 1e-6
