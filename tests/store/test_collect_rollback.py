"""Collections that a rollback comes into, which gives files contents of earlier versions."""

from pathlib import Path

import pytest

from dkfs.model.ids import NodeId, Seq
from dkfs.model.operation import OpKind
from dkfs.store import Store
from dkfs.store.check import check
from tests.store.collecting import (
    SEGMENT_LIMIT,
    collect,
    contents,
    fill,
    lose,
)
from tests.store.making import append


@pytest.fixture
def small(path: Path) -> Store:
    """Open a new store of small segments for writing."""
    return Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT)


def test_what_a_rollback_brings_back_during_a_collection_stays(small: Store) -> None:
    with small:
        fill(small, range(1, 101), files=2)
        with small.read() as reader:
            old = reader.node(NodeId(2), Seq(10))
        lose(small, 1, 60)

        def roll_back(step: str) -> None:
            if step == "looked":
                with small.write() as writer:
                    assert old is not None
                    append(writer, {2: old}, kind=OpKind.ROLLBACK, time_ns=2 * 10**18)

        report = collect(small, max_unused=0, at=roll_back)

        assert report.dead_blobs == 58
        with small.read() as reader:
            assert old is not None
            assert old.content is not None
            assert reader.blob(old.content) == contents(10)
        assert list(check(small, read_data=True)) == []


@pytest.mark.parametrize("when", ["rolled", "copied", "adopted"])
def test_a_rollback_while_segments_are_given_up_does_not_have_them_copied_for_ever(
    small: Store, when: str
) -> None:
    with small:
        fill(small, range(1, 101), files=2)
        with small.read() as reader:
            old = reader.node(NodeId(2), Seq(90))
        lose(small, 1, 60)
        steps = []

        def roll_back(step: str) -> None:
            steps.append(step)
            assert steps.count("copied") < 20
            if step == when and steps.count(when) == 1:
                with small.write() as writer:
                    assert old is not None
                    append(writer, {2: old}, kind=OpKind.ROLLBACK, time_ns=2 * 10**18)

        report = collect(small, max_unused=0, at=roll_back)

        assert report.dead_blobs == 59
        assert report.freed > 0
        assert list(check(small, read_data=True)) == []
