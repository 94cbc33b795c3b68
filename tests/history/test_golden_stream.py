"""The streams of format 1 in tests/golden/, all of the store there and its end, are taken by every later release.

They were made by `dkfs send --store tests/golden/store-v2`, the second with `--from 3`; they are never made anew.
"""

import shutil
from pathlib import Path

import pytest

from dkfs.model.ids import Seq
from dkfs.store import Store
from tests.history.streams import assert_equal, assert_prefix, send, take

GOLDEN = Path(__file__).parent.parent / "golden"
SPLIT = Seq(3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Copy the store that was sent, as opening it makes a lock file in it."""
    path = tmp_path / "source"
    shutil.copytree(GOLDEN / "store-v2", path)
    return path


def test_a_stream_of_format_1_is_taken(source: Path, tmp_path: Path) -> None:
    take(tmp_path / "replica", (GOLDEN / "stream-v1.dkfs").read_bytes())

    with Store.open(source, writable=False) as store:
        assert_equal(store, tmp_path / "replica")


def test_a_stream_of_format_1_continues_what_is_there(source: Path, tmp_path: Path) -> None:
    with Store.open(source, writable=False) as store:
        take(tmp_path / "replica", send(store, end=SPLIT))
        assert assert_prefix(store, tmp_path / "replica") == SPLIT
        take(tmp_path / "replica", (GOLDEN / "stream-v1-from-3.dkfs").read_bytes())

        assert_equal(store, tmp_path / "replica")
