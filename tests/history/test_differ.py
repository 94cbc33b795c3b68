import pytest

from dkfs.errors import NotFoundError
from dkfs.history.differ import content_ranges, diff
from dkfs.model.ids import Seq
from dkfs.model.node import Kind
from tests.history.model_history import CELL, ModelHistory

Line = tuple[str, bytes] | tuple[str, bytes, bytes]


def lines(
    history: ModelHistory,
    a: int,
    b: int,
    *paths: bytes,
    include_dir_times: bool = False,
) -> list[Line]:
    """Return (change, path), and old_path if there is one."""
    with history.store.read() as reader:
        found = diff(reader, Seq(a), Seq(b), paths, include_dir_times=include_dir_times)
        return [
            (each.change, each.path)
            if each.old_path is None
            else (each.change, each.path, each.old_path)
            for each in found
        ]


def test_nothing_differs_from_a_version_to_itself(history: ModelHistory) -> None:
    history.create(b"f", b"data")

    assert lines(history, 2, 2) == []


def test_made_changed_and_removed_files_both_ways(history: ModelHistory) -> None:
    for name in (b"content", b"mode", b"gone"):
        history.create(name, b"1")
    base = history.last
    history.write(b"content", b"2")
    history.chmod(b"mode", 0o600)
    history.unlink(b"gone")
    history.create(b"made")

    assert lines(history, base, history.last) == [
        ("M", b"content"),
        ("-", b"gone"),
        ("+", b"made"),
        ("U", b"mode"),
    ]
    assert lines(history, history.last, base) == [
        ("M", b"content"),
        ("+", b"gone"),
        ("-", b"made"),
        ("U", b"mode"),
    ]


def test_what_came_and_went_in_between_is_not_told(history: ModelHistory) -> None:
    history.create(b"f", b"1")
    base = history.last
    history.mkdir(b"d")
    history.rename(b"f", b"d/f")
    history.create(b"x")
    history.unlink(b"x")
    history.rename(b"d/f", b"f")
    history.rmdir(b"d")

    assert lines(history, base, history.last) == []


def test_the_fields_are_named(history: ModelHistory) -> None:
    history.create(b"f", b"1")
    base = history.last
    history.write(b"f", b"22")
    history.chmod(b"f", 0o600)
    history.setxattr(b"f", {b"user.x": b"1"})

    with history.store.read() as reader:
        (found,) = diff(reader, base, reader.last)
        assert found.fields == ("content", "size", "mode", "mtime", "xattr")


def test_a_save_by_renaming_over_is_a_change_of_content(history: ModelHistory) -> None:
    history.create(b"f", b"1")
    base = history.last
    history.create(b"f.tmp", b"2")
    history.rename(b"f.tmp", b"f")

    assert lines(history, base, history.last) == [("M", b"f")]


def test_a_save_that_keeps_a_backup_is_a_change_and_a_new_file(history: ModelHistory) -> None:
    history.create(b"f", b"1")
    base = history.last
    history.rename(b"f", b"f~")
    history.create(b"f", b"2")

    assert lines(history, base, history.last) == [("M", b"f"), ("+", b"f~")]


def test_a_renamed_file_keeps_what_else_changed(history: ModelHistory) -> None:
    history.create(b"f", b"1")
    base = history.last
    history.write(b"f", b"2")
    history.rename(b"f", b"g")

    assert lines(history, base, history.last) == [("R", b"g", b"f")]
    with history.store.read() as reader:
        (found,) = diff(reader, base, reader.last)
        assert found.fields == ("content", "mtime")


def test_a_moved_directory_is_one_line_and_its_unchanged_children_none(
    history: ModelHistory,
) -> None:
    for path in (b"d", b"d/s", b"other"):
        history.mkdir(path)
    for path in (b"d/f", b"d/s/g", b"d/s/h"):
        history.create(path, b"1")
    base = history.last
    history.rename(b"d", b"other/e")
    history.write(b"other/e/s/g", b"2")
    history.unlink(b"other/e/f")
    history.create(b"other/e/new")

    assert lines(history, base, history.last) == [
        ("-", b"d/f"),
        ("R", b"other/e", b"d"),
        ("+", b"other/e/new"),
        ("M", b"other/e/s/g", b"d/s/g"),
    ]


def test_a_directory_moved_out_of_a_moved_one_is_told_by_itself(history: ModelHistory) -> None:
    for path in (b"d", b"d/s"):
        history.mkdir(path)
    history.create(b"d/s/f")
    base = history.last
    history.rename(b"d", b"e")
    history.rename(b"e/s", b"s")

    assert lines(history, base, history.last) == [("R", b"e", b"d"), ("R", b"s", b"d/s")]


def test_a_new_directory_has_a_line_for_everything_in_it(history: ModelHistory) -> None:
    base = history.last
    history.found(made=[b"d/", b"d/f", b"d/s/", b"d/s/g"])

    assert lines(history, base, history.last) == [
        ("+", b"d"),
        ("+", b"d/f"),
        ("+", b"d/s"),
        ("+", b"d/s/g"),
    ]


def test_a_directory_that_was_moved_away_and_made_anew(history: ModelHistory) -> None:
    history.mkdir(b"d")
    history.create(b"d/f", b"1")
    base = history.last
    history.rename(b"d", b"d.old")
    history.mkdir(b"d")
    history.create(b"d/f", b"2")

    assert lines(history, base, history.last) == [
        ("+", b"d"),
        ("+", b"d/f"),
        ("R", b"d.old", b"d"),
    ]


def test_a_directory_removed_and_made_again_is_compared_path_by_path(history: ModelHistory) -> None:
    history.mkdir(b"d")
    for name in (b"d/same", b"d/changed", b"d/gone"):
        history.create(name, b"1")
    history.utime(b"d/same", 5)
    base = history.last
    for name in (b"d/same", b"d/changed", b"d/gone"):
        history.unlink(name)
    history.rmdir(b"d")
    history.mkdir(b"d")
    history.create(b"d/changed", b"2")
    history.create(b"d/same", b"1")
    history.utime(b"d/same", 5)

    assert lines(history, base, history.last) == [("M", b"d/changed"), ("-", b"d/gone")]


def test_exchanged_directories_are_two_renames_and_exchanged_files_two_changes(
    history: ModelHistory,
) -> None:
    for name in (b"d", b"e"):
        history.mkdir(name)
        history.create(name + b"/f", name)
    history.create(b"x", b"1")
    history.create(b"y", b"2")
    base = history.last
    history.exchange(b"d", b"e")
    history.exchange(b"x", b"y")

    assert lines(history, base, history.last) == [
        ("R", b"d", b"e"),
        ("R", b"e", b"d"),
        ("M", b"x"),
        ("M", b"y"),
    ]


def test_another_type_at_the_same_path(history: ModelHistory) -> None:
    history.create(b"f", b"1")
    history.mkdir(b"d")
    history.create(b"d/g")
    base = history.last
    history.unlink(b"f")
    history.symlink(b"f", b"target")
    history.unlink(b"d/g")
    history.rmdir(b"d")
    history.create(b"d")

    assert lines(history, base, history.last) == [("T", b"d"), ("-", b"d/g"), ("T", b"f")]


def test_a_symlink_with_another_target_and_a_device_with_another_number(
    history: ModelHistory,
) -> None:
    history.symlink(b"l", b"one")
    history.mknod(b"c", Kind.CHAR, 1)
    base = history.last
    for name in (b"l", b"c"):
        history.unlink(name)
    history.symlink(b"l", b"three")
    history.mknod(b"c", Kind.CHAR, 2)

    with history.store.read() as reader:
        found = list(diff(reader, base, reader.last))
        assert [(each.change, each.path, each.fields) for each in found] == [
            ("M", b"c", ("rdev", "mtime")),
            ("M", b"l", ("target", "mtime")),
        ]


def test_each_name_of_a_changed_file_is_a_line(history: ModelHistory) -> None:
    history.mkdir(b"d")
    history.create(b"f", b"1")
    history.link(b"f", b"d/g")
    history.link(b"f", b"h")
    base = history.last
    history.write(b"f", b"2")
    history.unlink(b"h")

    assert lines(history, base, history.last) == [("M", b"d/g"), ("M", b"f"), ("-", b"h")]


def test_each_name_of_a_changed_file_that_was_imported_is_a_line(history: ModelHistory) -> None:
    base = history.found(made=[b"f", b"g=f", b"h=f"])
    history.write(b"g", b"2")

    assert lines(history, base, history.last) == [("M", b"f"), ("M", b"g"), ("M", b"h")]


def test_another_name_is_a_new_line_and_moving_it_a_rename(history: ModelHistory) -> None:
    history.create(b"f", b"1")
    base = history.last
    linked = history.link(b"f", b"g")
    history.rename(b"g", b"h")

    assert lines(history, base, linked) == [("+", b"g")]
    assert lines(history, linked, history.last) == [("R", b"h", b"g")]


def test_names_of_one_file_are_renamed_in_the_order_of_their_paths(history: ModelHistory) -> None:
    history.create(b"1")
    for name in (b"3", b"2"):
        history.link(b"1", name)
    base = history.last
    for old, new in ((b"2", b"b"), (b"3", b"a"), (b"1", b"c")):
        history.rename(old, new)

    assert lines(history, base, history.last) == [
        ("R", b"a", b"1"),
        ("R", b"b", b"2"),
        ("R", b"c", b"3"),
    ]


def test_only_the_mtime_of_a_directory_is_told_on_request(history: ModelHistory) -> None:
    history.mkdir(b"d")
    base = history.last
    history.create(b"d/f")

    assert lines(history, base, history.last) == [("+", b"d/f")]
    assert lines(history, base, history.last, include_dir_times=True) == [
        ("U", b"d"),
        ("+", b"d/f"),
    ]


def test_the_mode_of_a_directory_and_of_the_root_are_told(history: ModelHistory) -> None:
    history.mkdir(b"d")
    base = history.last
    history.chmod(b"d", 0o700)
    history.chmod(b"", 0o700)

    assert lines(history, base, history.last) == [("U", b""), ("U", b"d")]


def test_everything_is_new_since_version_0(history: ModelHistory) -> None:
    history.create(b"f")

    assert lines(history, 0, 2) == [("+", b""), ("+", b"f")]
    assert lines(history, 2, 0) == [("-", b""), ("-", b"f")]


def test_a_rollback_differs_by_what_it_took_back(history: ModelHistory) -> None:
    history.mkdir(b"d")
    history.create(b"d/f", b"1")
    base = history.last
    history.write(b"d/f", b"2")
    history.rename(b"d", b"e")
    before = history.last
    history.rollback(base)

    assert lines(history, before, history.last) == [("R", b"d", b"e"), ("M", b"d/f", b"e/f")]
    assert lines(history, base, history.last) == []


def test_a_path_chosen_below_a_moved_directory_shows_the_move(history: ModelHistory) -> None:
    history.mkdir(b"d")
    history.create(b"d/f")
    history.create(b"x")
    base = history.last
    history.rename(b"d", b"e")
    history.write(b"x", b"1")

    assert lines(history, base, history.last, b"d/f") == [("R", b"e", b"d")]
    assert lines(history, base, history.last, b"/e/") == [("R", b"e", b"d")]
    assert lines(history, base, history.last, b"x", b"e") == [("R", b"e", b"d"), ("M", b"x")]


def test_a_path_in_neither_version_is_not_found(history: ModelHistory) -> None:
    history.create(b"f")
    history.create(b"came")
    history.unlink(b"came")

    with pytest.raises(NotFoundError, match="came does not exist at version 2 nor at version 4"):
        lines(history, 2, 4, b"came")


def test_a_version_beyond_the_last_is_not_found(history: ModelHistory) -> None:
    with pytest.raises(NotFoundError, match="no version 9: the last is 1"):
        lines(history, 1, 9)


def test_ranges_are_those_of_the_chunks_that_differ(history: ModelHistory) -> None:
    a = b"a" * CELL
    b = b"b" * CELL
    history.create(b"f", a + a + bytes(CELL) + b + b"tail")
    history.write(b"f", a + b + bytes(CELL) + b + b"tail and more")
    old, new = history.state(b"f", 2), history.state(b"f", 3)

    with history.store.read() as reader:
        tail = 4 * CELL
        assert content_ranges(reader, old, new) == [
            (CELL, 2 * CELL),
            (tail, tail + 13),
        ]
        assert content_ranges(reader, new, old) == content_ranges(reader, old, new)
        assert content_ranges(reader, new, new) == []


def test_ranges_of_something_against_nothing_are_all_of_it(history: ModelHistory) -> None:
    history.create(b"f", b"data")
    state = history.state(b"f")

    with history.store.read() as reader:
        assert content_ranges(reader, None, state) == [(0, 4)]
        assert content_ranges(reader, state, history.state(b"")) == [(0, 4)]
        assert content_ranges(reader, None, None) == []
