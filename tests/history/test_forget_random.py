"""Forgetting versions of random histories: all that can be seen of what is kept stays what it was."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.core.plan import Plan
from dkfs.history import forget as module
from dkfs.history.differ import diff
from dkfs.history.forget import Pace, Progress
from dkfs.history.log import LogLine, file_history, log
from dkfs.history.plan import plan
from dkfs.model.ids import ROOT, Seq
from dkfs.model.node import NodeState
from dkfs.store import Store
from dkfs.store.check import check
from dkfs.store.rebuild import REBUILT_NAME, rebuild, replace_index
from dkfs.store.rows import NODE_KEY
from tests.history.forgetting import keep_only, picture, rows, some_versions
from tests.history.model_history import ModelHistory, visible
from tests.history.random_history import fill

SEEDS = range(12)


class CrashError(Exception):
    """What ends a run in the middle."""


@pytest.fixture
def history(tmp_path: Path) -> Iterator[ModelHistory]:
    """Make a history whose store is checked when the test is over."""
    with ModelHistory(tmp_path / "store") as made:
        yield made
        assert list(check(made.store, read_data=True)) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_every_kept_version_stays_what_it_was(history: ModelHistory, seed: int) -> None:
    rng = random.Random(seed)
    fill(history, seed, rng.choice((10, 40, 120)))
    kept = some_versions(rng, history.last)
    with history.store.read() as reader:
        before = {seq: picture(reader, seq) for seq in kept}

    result = keep_only(history.store, kept)

    assert result.forgotten == result.total == history.last - len(kept)
    with history.store.read() as reader:
        assert [seq for seq, _ in reader.versions()] == sorted(kept)
        assert {seq: picture(reader, seq) for seq in kept} == before
        reached = {node for each in before.values() for node, *_ in each.values()}
        assert {NODE_KEY.unpack(key)[0] for key, _ in reader.rows("nodes")} <= reached | {ROOT}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_and_the_size_of_the_steps_make_no_difference(
    history: ModelHistory, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    fill(history, seed, 80)
    kept = some_versions(rng, history.last)
    each = [seq for seq in range(1, history.last) if seq not in kept]
    rng.shuffle(each)
    with ModelHistory(tmp_path / "other") as other:
        fill(other, seed, 80)
        keep_only(other.store, kept, pace=Pace(1.0))
        at_once = rows(other.store)
        monkeypatch.setattr(module, "_HEAD_KEYS", rng.choice((1, 5, 30)))
        if seed % 2:
            keep_only(history.store, kept)
        else:
            for seq in each:
                keep_only(history.store, {*range(1, history.last + 1)} - {seq})

        assert rows(history.store) == at_once


@pytest.mark.parametrize("seed", SEEDS)
def test_differences_and_lines_of_the_log_between_kept_versions_stay(
    history: ModelHistory, seed: int
) -> None:
    rng = random.Random(seed)
    fill(history, seed, 80)
    kept = sorted(some_versions(rng, history.last))
    pairs = [(rng.choice(kept), rng.choice(kept)) for _ in range(10)]

    def differences() -> list[object]:
        with history.store.read() as reader:
            return [list(diff(reader, Seq(a), Seq(b))) for a, b in pairs]

    def lines() -> list[object]:
        with history.store.read() as reader:
            return [_line(line) for line in log(reader) if line.seq in kept]

    def plans() -> list[object]:
        with history.store.read() as reader:
            return [_plan(plan(reader, base=history.last, target=Seq(a))) for a, _ in pairs]

    before = differences(), plans(), lines()
    keep_only(history.store, kept)

    assert (differences(), plans(), lines()) == before


def _plan(way: Plan) -> object:
    steps = {step.node: (step.old, step.new) for step in way.steps}
    return set(way.names), steps, way.differences


def _line(line: LogLine) -> object:
    return line.seq, line.time_ns, line.kind, line.path, line.new_path, line.tag, line.target


@pytest.mark.parametrize("seed", SEEDS)
def test_the_history_of_every_path_is_what_the_kept_versions_show(
    history: ModelHistory, seed: int
) -> None:
    rng = random.Random(seed)
    fill(history, seed, 60)
    kept = sorted(some_versions(rng, history.last))
    keep_only(history.store, kept)

    ever = {path for seq in kept for path in history.trees[seq].paths()}
    with history.store.read() as reader:
        for path in ever:
            found = [(each.seq, each.state) for each in file_history(reader, path)]
            assert found == _distinct(history, kept, path), path


def _distinct(
    history: ModelHistory, kept: list[int], path: bytes
) -> list[tuple[int, NodeState | None]]:
    """Return the distinct states at *path*, by looking at every kept version."""
    found: list[tuple[int, NodeState | None]] = []
    before: NodeState | None = None
    for seq in kept:
        node = history.trees[seq].paths().get(path)
        state = None if node is None else history.trees[seq].states[node]
        if state is None or before is None:
            is_other = state is not before
        else:
            is_other = visible(state, dir_times=False) != visible(before, dir_times=False)
        if is_other:
            found.append((seq, state))
            before = state
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_crash_at_any_step_leaves_a_sound_store_and_the_rest_is_done_later(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    with ModelHistory(tmp_path / "other") as other:
        fill(other, seed, 60)
        kept = some_versions(rng, other.last)
        keep_only(other.store, kept)
        wanted = rows(other.store)
    with ModelHistory(tmp_path / "store") as history:
        fill(history, seed, 60)
        with history.store.read() as reader:
            before = {seq: picture(reader, seq) for seq in kept}
    left = 1
    while left:
        with Store.open(tmp_path / "store", writable=True) as store:

            def crash(progress: Progress) -> None:
                nonlocal left
                left = progress.total - progress.forgotten
                raise CrashError

            try:
                left = keep_only(store, kept, pace=Pace(0.0, crash)).total
            except CrashError:
                pass
            assert list(check(store, read_data=False)) == []
            with store.read() as reader:
                assert {seq: picture(reader, seq) for seq in kept} == before
    with Store.open(tmp_path / "store", writable=True) as store:
        assert rows(store) == wanted


@pytest.mark.parametrize("seed", range(3))
def test_what_was_forgotten_stays_so_when_the_index_is_lost(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "store"
    with ModelHistory(path) as history:
        fill(history, seed, 60)
        keep_only(history.store, some_versions(rng, history.last))
        before = rows(history.store)
    (path / "index.lmdb").unlink()

    rebuild(path, path / REBUILT_NAME, on_progress=lambda *_: None)
    replace_index(path)

    with Store.open(path, writable=True) as store:
        assert list(check(store, read_data=True)) == []
        assert rows(store) == before
