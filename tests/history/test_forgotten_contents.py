"""States of files whose contents were forgotten: said so, and never taken for something else."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dkfs.core.diff import classify, differing_fields
from dkfs.core.plan import has_same_content
from dkfs.errors import ForgottenError
from dkfs.history.content import contents
from dkfs.history.differ import content_ranges, diff
from dkfs.history.fold import without_content
from dkfs.history.forget import forget_contents
from dkfs.history.materialise import apply
from dkfs.history.outcome import Result
from dkfs.history.replay import reconcile
from dkfs.history.rollback import rollback
from dkfs.history.tree import Tree
from dkfs.model.ids import Seq
from dkfs.model.operation import NOBODY
from dkfs.store import Store
from dkfs.store.check import check
from tests.history.model_history import ModelHistory


class Place:
    """A directory and its store; version 1 has a, b and c, version 2 other contents and no c."""

    def __init__(self, path: Path) -> None:
        self.top = path / "state"
        self.top.mkdir()
        Store.create(path / "store")
        self.store = Store.open(path / "store", writable=True)
        self._fd = os.open(self.top, os.O_RDONLY | os.O_DIRECTORY)
        for name in "abc":
            (self.top / name).write_text(f"{name} one")
        self._record(1)
        (self.top / "a").write_text("a two")
        (self.top / "b").write_text("b two")
        (self.top / "c").unlink()
        self._record(2)

    def close(self) -> None:
        assert list(check(self.store, read_data=True)) == []
        os.close(self._fd)
        self.store.close()

    def _record(self, now: int) -> None:
        reconcile(self.store, self._fd, prefer="dir", clock_ns=lambda: now, identity=b"id")

    def forget(self, *paths: bytes) -> None:
        with self.store.read() as reader:
            rows = [(Tree(reader, Seq(1)).find(path), Seq(1)) for path in paths]
        assert forget_contents(self.store, rows) == len(rows)

    def roll_back(self) -> Result:
        """Go back to version 1, as the daemon does."""
        move = rollback(Seq(1))
        with self.store.read() as reader:
            plan = move.plan(reader)
            result = apply(plan, reader, self._fd)
            plan = plan.without(result.failed)
        with self.store.write() as writer:
            operation = move.operation(3, NOBODY)
            writer.append(Seq(3), operation, plan.entry_nodes, plan.entry_names)
        return result


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def test_a_rollback_leaves_what_was_forgotten_as_it_is_and_says_so(place: Place) -> None:
    place.forget(b"a", b"c")

    result = place.roll_back()

    assert {path.name: path.read_text() for path in place.top.iterdir()} == {
        "a": "a two",
        "b": "b one",
    }
    assert sorted(result.problems) == [
        "a: not changed: the contents of a were forgotten",
        "c: not made: the contents of c were forgotten",
    ]
    assert result.damaged == 0
    with place.store.read() as reader:
        tree = Tree(reader, Seq(3))
        assert not tree.state(tree.find(b"a")).is_forgotten
        assert tree.find(b"c") == 0


def test_what_was_forgotten_is_not_read_as_zeros(place: Place) -> None:
    place.forget(b"a")

    with place.store.read() as reader:
        tree = Tree(reader, Seq(1))
        state = tree.state(tree.find(b"a"))
        assert state.attr.size == 5
        with pytest.raises(ForgottenError, match="the contents of a were forgotten"):
            contents(reader, state)


def test_what_was_forgotten_differs_from_what_was_not(history: ModelHistory) -> None:
    history.create(b"f", bytes(100))
    state = history.state(b"f")
    assert state.content is None  # one hole
    forgotten = replace(state, is_forgotten=True)

    fields = differing_fields(state, forgotten)

    assert list(fields) == ["content"]
    assert classify(state, forgotten, fields) == "M"
    assert not has_same_content(state, forgotten)
    assert not has_same_content(forgotten, forgotten)


def test_which_bytes_of_what_was_forgotten_differ_cannot_be_told(place: Place) -> None:
    place.forget(b"a")

    with place.store.read() as reader:
        old, new = (Tree(reader, Seq(at)).state(Tree(reader, Seq(2)).find(b"a")) for at in (1, 2))
        with pytest.raises(ForgottenError):
            content_ranges(reader, old, new)
        (first, *_) = diff(reader, Seq(1), Seq(2))
    assert (first.path, first.change) == (b"a", "M")


def test_only_what_has_contents_can_lose_them(history: ModelHistory) -> None:
    history.create(b"empty")
    history.symlink(b"link", b"there")

    for path in (b"", b"empty", b"link"):
        assert without_content(history.state(path)) == history.state(path)
