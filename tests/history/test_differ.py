import random
from dataclasses import replace

import pytest

from dkfs.core.content import CHUNK_SIZE
from dkfs.core.diff import Difference, differing_fields
from dkfs.errors import NotFoundError
from dkfs.history.differ import content_ranges, diff
from dkfs.history.tree import is_under, path_key
from dkfs.model.ids import Seq
from dkfs.model.node import Kind, NodeState
from tests.history.model_history import ModelHistory, ModelTree
from tests.history.random_history import fill

SEEDS = [1, 2, 3, 4]

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


def visible(state: NodeState, *, dir_times: bool) -> tuple[object, ...]:
    """Return what a difference is made of."""
    no_mtime = not dir_times and state.attr.kind is Kind.DIR
    attr = replace(state.attr, ctime_ns=0, mtime_ns=0 if no_mtime else state.attr.mtime_ns)
    return attr, state.content, state.is_manifest, state.target, state.xattrs


def seen(tree: ModelTree, *, dir_times: bool) -> dict[bytes, tuple[object, ...]]:
    return {p: visible(tree.states[n], dir_times=dir_times) for p, n in tree.paths().items()}


def apply(
    before: dict[bytes, tuple[object, ...]], differences: list[Difference], *, dir_times: bool
) -> dict[bytes, tuple[object, ...]]:
    """Return what *before* becomes by *differences*."""
    gone = {each.path for each in differences if each.change == "-"}
    moved = {each.old_path: each.path for each in differences if each.change == "R"}
    after = {}
    for path, state in before.items():
        if path in gone:
            continue
        parts = path.split(b"/")
        for length in range(len(parts), 0, -1):
            top = b"/".join(parts[:length])
            if top in moved:
                path = b"/".join([moved[top], *parts[length:]])
                break
        assert path not in after
        after[path] = state
    for each in differences:
        if each.new is not None:
            after[each.path] = visible(each.new, dir_times=dir_times)
    return after


@pytest.mark.parametrize("include_dir_times", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_differs_leads_from_any_version_to_any_other(
    history: ModelHistory, seed: int, include_dir_times: bool
) -> None:
    fill(history, seed, 250)
    rng = random.Random(seed)
    pairs = [(rng.randrange(history.last + 1), rng.randrange(history.last + 1)) for _ in range(150)]
    pairs += [(a, min(a + rng.randrange(6), history.last)) for a in range(0, history.last, 2)]

    with history.store.read() as reader:
        for a, b in pairs:
            found = list(diff(reader, Seq(a), Seq(b), include_dir_times=include_dir_times))
            before = seen(history.trees[a], dir_times=include_dir_times)
            after = seen(history.trees[b], dir_times=include_dir_times)
            assert apply(before, found, dir_times=include_dir_times) == after, (a, b)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_line_says_what_was_on_both_sides_and_says_it_once(
    history: ModelHistory, seed: int
) -> None:
    fill(history, seed, 250)
    rng = random.Random(seed)

    with history.store.read() as reader:
        for _ in range(150):
            a, b = rng.randrange(history.last + 1), rng.randrange(history.last + 1)
            old, new = history.trees[a], history.trees[b]
            old_paths, new_paths = old.paths(), new.paths()
            found = list(diff(reader, Seq(a), Seq(b)))
            assert [path_key(each.path) for each in found] == sorted(
                path_key(each.path) for each in found
            )
            assert len({(each.path, each.new is None) for each in found}) == len(found)
            for each in found:
                if each.old is not None:
                    old_path = each.path if each.old_path is None else each.old_path
                    assert old_paths[old_path] == each.old_node
                    assert old.states[each.old_node] == each.old
                if each.new is not None:
                    assert new_paths[each.path] == each.new_node
                    assert new.states[each.new_node] == each.new
                if each.old is not None and each.new is not None:
                    fields = differing_fields(each.old, each.new, dir_times=False)
                    assert each.fields == fields
                    assert fields or each.change in "RT"
                assert (each.change == "+") == (each.old is None)
                assert (each.change == "-") == (each.new is None)


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


@pytest.mark.parametrize("seed", SEEDS)
def test_paths_choose_among_the_lines_and_change_none(history: ModelHistory, seed: int) -> None:
    fill(history, seed, 150)
    rng = random.Random(seed)

    with history.store.read() as reader:
        for _ in range(60):
            a, b = Seq(rng.randrange(1, history.last)), history.last
            top = rng.choice(list(history.trees[a].paths()))
            chosen = list(diff(reader, a, b, [top]))
            for each in diff(reader, a, b):
                wanted = is_under(each.path, top) or (
                    each.old_path is not None and is_under(each.old_path, top)
                )
                assert not wanted or each in chosen
                if each in chosen and not wanted:
                    assert each.change == "R"


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
    a = b"a" * CHUNK_SIZE
    b = b"b" * CHUNK_SIZE
    history.create(b"f", a + a + bytes(CHUNK_SIZE) + b + b"tail")
    history.write(b"f", a + b + bytes(CHUNK_SIZE) + b + b"tail and more")
    old, new = history.state(b"f", 2), history.state(b"f", 3)

    with history.store.read() as reader:
        tail = 4 * CHUNK_SIZE
        assert content_ranges(reader, old, new) == [
            (CHUNK_SIZE, 2 * CHUNK_SIZE),
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


@pytest.mark.slow
def test_the_cost_is_that_of_the_changes_and_not_of_the_tree(history: ModelHistory) -> None:
    made = [b"d%03d/" % i for i in range(100)]
    made += [b"d%03d/f%03d" % (i, j) for i in range(100) for j in range(100)]
    base = history.found(made)
    with history.batch():
        for i in range(20):
            history.chmod(b"d%03d/f007" % i, 0o600)

    with history.store.read() as reader:
        calls = 0
        floor = reader._floor

        def counting(table: str, key: bytes) -> tuple[bytes, bytes] | None:
            nonlocal calls
            calls += 1
            return floor(table, key)

        reader._floor = counting  # type: ignore[method-assign]
        assert len(list(diff(reader, base, reader.last))) == 20
        assert calls < 20 * 20
