"""Whatever a collection does, the segments alone still tell all: journals, and checkpoints in their place."""

from pathlib import Path

import pytest

from dkfs.store import Store
from dkfs.store.check import check
from dkfs.store.collect_survey import Survey
from tests.store.collecting import SEGMENT_LIMIT, collect, fill, lose


@pytest.fixture
def small(path: Path) -> Store:
    """Open a new store of small segments for writing."""
    return Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT)


def test_journals_are_kept_or_replaced_so_that_the_segments_still_tell_all(small: Store) -> None:
    with small:
        fill(small, range(1, 201), size=10)
        lose(small, 1, 150)

        report = collect(small, max_unused=0)

        assert report.findings.plan.is_checkpoint
        with small.read() as reader:
            assert reader.checkpoint() > 0
        assert list(check(small, read_data=True)) == []


@pytest.mark.parametrize("cost", [1, 10**9])
def test_the_newest_checkpoint_outlives_the_segment_that_it_was_written_to(
    small: Store, monkeypatch: pytest.MonkeyPatch, cost: int
) -> None:
    monkeypatch.setattr(Survey, "_checkpoint_size", lambda *_: cost)
    with small:
        fill(small, range(1, 21))
        lose(small, 1, 15)
        with small.write() as writer:
            writer.put_checkpoint()

        report = collect(small, max_unused=0)

        assert report.findings.plan.is_checkpoint == (cost == 1)
        assert list(check(small, read_data=True)) == []


def test_journals_that_were_copied_are_still_journals(
    small: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Survey, "_checkpoint_size", lambda *_: 10**9)
    with small:
        for first in (1, 101, 201):
            fill(small, range(first, first + 100), size=8000)
            lose(small, first, first + 60)
            report = collect(small, max_unused=0)

            assert report.freed > 0
            assert not report.findings.plan.is_checkpoint
            assert list(check(small, read_data=True)) == []
