"""What the tests of the history tree share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.history.model_history import ModelHistory
from tests.overlay.virtual_kernel import Kernel, virtual_of


@pytest.fixture
def history(tmp_path: Path) -> Iterator[ModelHistory]:
    with ModelHistory(tmp_path / "store") as made:
        yield made


@pytest.fixture
def kernel(history: ModelHistory) -> Kernel:
    return Kernel(virtual_of(history))
