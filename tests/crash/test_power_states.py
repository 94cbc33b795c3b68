"""Whatever a power cut leaves of a store, it opens by itself, and holds every version that was promised, whole.

The workloads run once; what they write is logged, and every state that a cut could have left is built from that and
opened: every combination of what was not synced where that is little, random ones, torn ones and all prefixes where it
is much.  DKFS_TEST_SEED repeats one workload; DKFS_TEST_KEEP names a directory for the states that fail.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.power import Machine, seeds
from tests.crash.shim import build


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path, build(tmp_path)) as made:
        yield made
        print(made.totals.summary())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["store", "record"])
def test_what_a_power_cut_leaves_holds_all_that_was_promised(machine: Machine, kind: str) -> None:
    for seed in seeds(kind, 3):
        machine.run(seed, most=80, nested=1)

    assert machine.totals.wrong == []
    assert machine.totals.states > 200
    assert machine.totals.in_flight > 0


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", ["store", "record"])
def test_every_power_cut_state_of_a_hundred_workloads_holds_all_that_was_promised(
    machine: Machine, kind: str
) -> None:
    for seed in seeds(f"{kind}-long", 100):
        machine.run(seed, nested=3)

    assert machine.totals.wrong == []
