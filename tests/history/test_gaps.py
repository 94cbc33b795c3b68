"""Reading a history of which versions were forgotten."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.errors import CorruptError, NotFoundError
from dkfs.history.differ import diff
from dkfs.history.log import file_history, log
from dkfs.history.plan import plan
from dkfs.history.rollback import redo, undo
from dkfs.history.versions import check_there, parse_range, parse_since, parse_until, parse_version
from dkfs.model.ids import Seq
from dkfs.model.operation import NOBODY, OpKind
from dkfs.store import Reader
from tests.history.forgetting import keep_only
from tests.history.model_history import START_NS, STEP_NS, ModelHistory


@pytest.fixture
def gaps(history: ModelHistory) -> ModelHistory:
    """Make versions 3, 4, 7 and 8 of what were 8."""
    history.create(b"a", b"one")  # 2
    history.write(b"a", b"two")  # 3
    history.create(b"b")  # 4
    history.write(b"a", b"three")  # 5
    history.mkdir(b"d")  # 6
    history.rename(b"b", b"c")  # 7
    history.chmod(b"a", 0o600)  # 8
    keep_only(history.store, {3, 4, 7, 8})
    return history


@pytest.fixture
def reader(gaps: ModelHistory) -> Iterator[Reader]:
    with gaps.store.read() as opened:
        yield opened


NOW = START_NS + 100 * STEP_NS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7),
        ("0", 0),
        ("latest", 8),
        ("latest~1", 7),
        ("latest~2", 4),
        ("latest~3", 3),
        ("7~", 4),
        ("2023-11-14T22:13:28Z", 8),
        ("2023-11-14T22:13:26Z", 4),
        ("2023-11-14T22:13:23Z", 3),
    ],
)
def test_only_versions_that_are_there_count(reader: Reader, text: str, expected: int) -> None:
    assert parse_version(reader, text, now_ns=NOW) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "version 5 was forgotten: 4 and 7 are kept"),
        ("6", "version 6 was forgotten: 4 and 7 are kept"),
        ("1", "version 1 was forgotten: 3 is the oldest that is kept"),
        ("5~1", "version 5 was forgotten: 4 and 7 are kept"),
        ("9", "no version 9: the last is 8"),
        ("latest~4", "latest~4 is before the oldest version that is kept: 3"),
        ("latest~9", "latest~9 is before the first version: latest is 8"),
    ],
)
def test_a_forgotten_version_is_an_error_that_names_its_neighbours(
    reader: Reader, text: str, message: str
) -> None:
    with pytest.raises(NotFoundError, match=f"^{re.escape(message)}$"):
        parse_version(reader, text, now_ns=NOW)


def test_a_time_before_the_oldest_version_that_is_kept_names_it(reader: Reader) -> None:
    with pytest.raises(NotFoundError) as raised:
        parse_version(reader, "2023-11-14T22:13:22Z", now_ns=NOW)

    assert str(raised.value) == (
        "no version at 2023-11-14T22:13:22.000000000Z or before:"
        " the oldest that is kept is 2023-11-14T22:13:23.000000000Z"
    )


def test_the_tree_before_the_first_version_is_there_if_the_first_one_is(
    history: ModelHistory,
) -> None:
    history.create(b"a")
    history.create(b"b")
    keep_only(history.store, {1, 3})

    with history.store.read() as reader:
        assert parse_version(reader, "latest~2", now_ns=NOW) == 0


def test_ranges_and_bounds_lead_to_versions_that_are_there(reader: Reader) -> None:
    assert parse_range(reader, "3..7", now_ns=NOW) == (3, 7)
    assert parse_since(reader, "2023-11-14T22:13:25Z", now_ns=NOW) == 7
    assert parse_since(reader, "2023-11-14T22:13:29Z", now_ns=NOW) == 9
    assert parse_until(reader, "2023-11-14T22:13:26Z", now_ns=NOW) == 4
    with pytest.raises(NotFoundError, match="version 6 was forgotten"):
        parse_range(reader, "3..6", now_ns=NOW)


def test_no_way_leads_from_or_to_a_forgotten_version(reader: Reader) -> None:
    for call in (
        lambda: check_there(reader, Seq(5)),
        lambda: list(diff(reader, Seq(5), Seq(8))),
        lambda: list(diff(reader, Seq(8), Seq(5))),
        lambda: plan(reader, base=Seq(8), target=Seq(5)),
    ):
        with pytest.raises(NotFoundError, match="version 5 was forgotten: 4 and 7 are kept"):
            call()


def test_the_log_has_what_is_kept_and_says_what_came_before(reader: Reader) -> None:
    lines = [(line.seq, line.kind, line.path, line.folded) for line in log(reader)]

    assert lines == [
        (8, OpKind.SETATTR, b"a", 0),
        (7, OpKind.RENAME, b"b", 3),  # a, d, and the name d; the root was changed by both
        (4, OpKind.CREATE, b"b", 0),
        (3, OpKind.WRITE, b"a", 2),  # the root, the name a
    ]


def test_a_change_whose_version_was_forgotten_is_nobodys(reader: Reader) -> None:
    versions = [
        (version.seq, version.change, version.kind, version.origin == NOBODY)
        for version in file_history(reader, b"a")
    ]

    assert versions == [
        (3, "+", OpKind.WRITE, False),
        (7, "M", None, True),
        (8, "U", OpKind.SETATTR, False),
    ]
    (made,) = file_history(reader, b"d")
    assert (made.seq, made.kind, made.time_ns) == (7, None, START_NS + 7 * STEP_NS)
    (given, *_) = file_history(reader, b"c")
    assert (given.seq, given.kind) == (7, OpKind.RENAME)


def test_a_removal_that_is_kept_is_somebodys_whatever_came_before(history: ModelHistory) -> None:
    history.create(b"a")  # 2
    history.create(b"b")  # 3
    history.unlink(b"a")  # 4
    history.create(b"c")  # 5
    history.unlink(b"b")  # 6
    history.create(b"d")  # 7
    keep_only(history.store, {2, 3, 5, 7})

    with history.store.read() as reader:
        _, gone = file_history(reader, b"a")
        assert (gone.seq, gone.change, gone.kind) == (5, "-", None)
        history.unlink(b"c")  # 8
        _, gone = file_history(reader, b"b")
        assert (gone.seq, gone.change, gone.kind) == (7, "-", None)
    keep_only(history.store, {2, 3, 5, 8})
    with history.store.read() as reader:
        _, gone = file_history(reader, b"c")
        assert (gone.seq, gone.change, gone.kind) == (8, "-", OpKind.UNLINK)


def test_a_path_that_never_was_says_how_much_is_kept(reader: Reader) -> None:
    with pytest.raises(
        NotFoundError, match="zzz was never there in versions 3 to 8, of which 4 are kept"
    ):
        file_history(reader, b"zzz")


# ---- undo and redo


def test_a_rollback_whose_version_before_was_forgotten_cannot_be_undone(
    history: ModelHistory,
) -> None:
    history.create(b"a")  # 2
    history.create(b"b")  # 3
    history.rollback(2)  # 4
    keep_only(history.store, {2, 4})

    with (
        history.store.read() as reader,
        pytest.raises(NotFoundError, match="version 3 was forgotten: 2 and 4 are kept"),
    ):
        undo(reader)


def test_nothing_is_undone_that_lies_before_a_rollback_that_was_forgotten(
    history: ModelHistory,
) -> None:
    history.create(b"a")  # 2
    history.rollback(1)  # 3
    history.rollback(2)  # 4
    history.create(b"b")  # 5
    keep_only(history.store, {1, 2, 3, 5})

    with history.store.read() as reader:
        with pytest.raises(NotFoundError, match="nothing to undo: the one at version 4 was forgot"):
            undo(reader)
        with pytest.raises(NotFoundError, match="nothing to redo: the one at version 4 was forgot"):
            redo(reader)


def test_what_came_after_a_forgotten_rollback_is_undone_and_redone(history: ModelHistory) -> None:
    history.create(b"a")  # 2
    history.rollback(1)  # 3
    history.create(b"b")  # 4
    history.rollback(2)  # 5
    history.move(OpKind.UNDO, target=4, undoes=5)  # 6
    keep_only(history.store, {2, 4, 5, 6})

    with history.store.read() as reader:
        with pytest.raises(NotFoundError, match="nothing to undo"):
            undo(reader)
        move = redo(reader)
    assert (move.target, move.undoes) == (5, 6)


def test_an_undo_without_a_rollback_is_damage_only_if_none_was_forgotten(
    history: ModelHistory,
) -> None:
    history.create(b"a")  # 2
    history.rollback(1)  # 3
    history.move(OpKind.UNDO, target=2, undoes=3)  # 4
    history.create(b"b")  # 5
    keep_only(history.store, {2, 4, 5})

    with history.store.read() as reader:
        with pytest.raises(NotFoundError, match="version 3 was forgotten"):
            redo(reader)
    with ModelHistory(history.store.path.parent / "other") as other:
        other.move(OpKind.UNDO, target=1, undoes=1)
        with other.store.read() as reader, pytest.raises(CorruptError, match="is an undo, but"):
            undo(reader)


def test_a_forgotten_version_is_not_where_a_time_leads_whatever_was_there(
    gaps: ModelHistory, tmp_path: Path
) -> None:
    with gaps.store.read() as reader:
        for seconds in range(3, 12):
            found = reader.version_at(START_NS + seconds * STEP_NS)
            assert found == max(seq for seq in (3, 4, 7, 8) if seq <= seconds)
