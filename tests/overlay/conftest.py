"""What the tests of the overlay share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.history.model_history import ModelHistory
from tests.overlay.virtual_kernel import Kernel, virtual_of
from tests.overlay.world import World


@pytest.fixture
def history(tmp_path: Path) -> Iterator[ModelHistory]:
    with ModelHistory(tmp_path / "store") as made:
        yield made


@pytest.fixture
def kernel(history: ModelHistory) -> Kernel:
    return Kernel(virtual_of(history))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()
