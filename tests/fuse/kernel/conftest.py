"""What the tests of the kernel engine share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuse.kernel.kernel_side import KernelSide, kernel_side


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[KernelSide]:
    """The kernel's side of an empty directory, after INIT."""
    with kernel_side(tmp_path) as side:
        side.init()
        yield side
