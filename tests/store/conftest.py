"""What the tests of the store share: stores, and that every one is sound at the end of its test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.store import Store
from dkfs.store.check import check


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a new, empty store."""
    path = tmp_path / "store"
    Store.create(path)
    return path


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """Open a new store for writing; it is checked when the test is over."""
    with Store.open(path, writable=True) as opened:
        yield opened
        assert list(check(opened, read_data=True)) == []
