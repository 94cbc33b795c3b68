"""Whatever a power cut leaves of a store, it opens by itself, and holds every version that was promised, whole.

The workloads run once; what they write is logged, and every state that a cut could have left is built from that and
opened: every combination of what was not synced where that is little, random ones, torn ones and all prefixes where it
is much.  DKFS_TEST_SEED repeats one workload; DKFS_TEST_KEEP names a directory for the states that fail.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.power import Machine, seeds
from tests.crash.shim import build

_MEMORY = Path("/dev/shm")  # syncs take nine tenths of the time elsewhere
_AT_A_TIME = 10


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    memory = _MEMORY if _MEMORY.is_dir() else None
    with (
        tempfile.TemporaryDirectory(dir=memory) as states,
        Machine(tmp_path, build(tmp_path), Path(states)) as made,
    ):
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
@pytest.mark.parametrize("first", range(0, 100, _AT_A_TIME))
@pytest.mark.parametrize("kind", ["store", "record"])
def test_every_power_cut_state_of_many_workloads_holds_all_that_was_promised(
    machine: Machine, kind: str, first: int
) -> None:
    for seed in seeds(f"{kind}-long", _AT_A_TIME, first=first):
        machine.run(seed, nested=3, exhaustive=10)

    assert machine.totals.wrong == []
