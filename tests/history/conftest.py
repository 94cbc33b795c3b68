"""What the tests of the history share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.history.model_history import ModelHistory


@pytest.fixture
def history(tmp_path: Path) -> Iterator[ModelHistory]:
    """Make a store whose history is modelled; version 1 is the empty root."""
    with ModelHistory(tmp_path / "store") as made:
        yield made
