"""What the differ says of random and of large histories: applied to one version, it gives the other."""

import random

import pytest

from dkfs.core.diff import Difference, differing_fields
from dkfs.history.differ import diff
from dkfs.history.tree import is_under, path_key
from dkfs.model.ids import Seq
from tests.history.model_history import ModelHistory, ModelTree, visible
from tests.history.random_history import fill

SEEDS = [1, 2, 3, 4]


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
        there = path
        for length in range(len(parts), 0, -1):
            top = b"/".join(parts[:length])
            if top in moved:
                there = b"/".join([moved[top], *parts[length:]])
                break
        assert there not in after
        after[there] = state
    for each in differences:
        if each.new is not None:
            after[each.path] = visible(each.new, dir_times=dir_times)
    return after


@pytest.mark.parametrize("include_dir_times", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_differs_leads_from_any_version_to_any_other(
    history: ModelHistory, *, seed: int, include_dir_times: bool
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
