import pytest

from dkfs.errors import NotFoundError
from dkfs.history.rollback import Move, redo, rollback, undo
from dkfs.model.ids import Seq
from dkfs.model.operation import NOBODY, OpKind
from dkfs.store import Store
from tests.history.model_history import ModelHistory


def _do(history: ModelHistory, way: Move) -> Seq:
    """Record *way* without what it changes; return its version."""
    with history.store.write() as writer:
        seq = Seq(writer.last + 1)
        writer.append(seq, way.operation(history.time_ns(seq), NOBODY), (), ())
    return seq


def _undo(store: Store) -> Move:
    with store.read() as reader:
        return undo(reader)


def _redo(store: Store) -> Move:
    with store.read() as reader:
        return redo(reader)


def test_undo_goes_to_the_version_before_the_rollback(history: ModelHistory) -> None:
    seq = _do(history, rollback(Seq(1)))

    assert _undo(history.store) == Move(OpKind.UNDO, Seq(seq - 1), undoes=seq)


def test_undo_after_undo_takes_back_the_rollback_before(history: ModelHistory) -> None:
    first = _do(history, rollback(Seq(1)))
    second = _do(history, rollback(Seq(1)))
    assert _do(history, _undo(history.store)) == second + 1

    assert _undo(history.store).undoes == first


def test_redo_takes_back_the_undo_and_can_be_undone(history: ModelHistory) -> None:
    _do(history, rollback(Seq(1)))
    undone = _do(history, _undo(history.store))

    way = _redo(history.store)

    assert way == Move(OpKind.REDO, Seq(undone - 1), undoes=undone)
    assert _undo_after(history, way).undoes == undone + 1


def _undo_after(history: ModelHistory, way: Move) -> Move:
    _do(history, way)
    return _undo(history.store)


def test_a_rollback_ends_what_can_be_redone(history: ModelHistory) -> None:
    _do(history, rollback(Seq(1)))
    _do(history, _undo(history.store))
    _do(history, rollback(Seq(1)))

    with pytest.raises(NotFoundError, match="nothing to redo"):
        _redo(history.store)


def test_undo_of_paths_is_of_the_same_paths(history: ModelHistory) -> None:
    _do(history, rollback(Seq(1), [b"a", b"b/c"]))

    assert _undo(history.store).paths == (b"a", b"b/c")


def test_without_a_rollback_there_is_nothing_to_undo_or_redo(history: ModelHistory) -> None:
    history.create(b"a")

    with pytest.raises(NotFoundError, match="nothing to undo"):
        _undo(history.store)
    with pytest.raises(NotFoundError, match="nothing to redo"):
        _redo(history.store)


def test_undo_of_a_path_keeps_what_was_done_elsewhere_since(history: ModelHistory) -> None:
    history.create(b"a", b"1")
    before = history.last
    history.write(b"a", b"2")
    seq = _do(history, rollback(before, [b"a"]))
    way = _undo(history.store)
    with history.store.read() as reader:
        assert way.plan(reader).paths == ()

    with history.store.write() as writer:
        state = history.state(b"a")
        operation = rollback(Seq(1)).operation(history.time_ns(seq + 1), NOBODY)
        writer.append(Seq(seq + 1), operation, [(state.parent, state)][:0], ())
    with history.store.read() as reader:
        assert way.plan(reader).paths == (b"a",)
