"""What a policy means for a store, and that it comes out so."""

import random
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.core.durations import Duration, utc
from dkfs.core.patterns import Pattern
from dkfs.core.retention import PathRule, Period, Policy, Rules, Version
from dkfs.history.forget import forget, forget_contents
from dkfs.history.retain import (
    Prospect,
    contents_to_forget,
    decide,
    outlook,
    versions,
)
from dkfs.history.tree import Tree
from dkfs.model.ids import NodeId, Seq
from dkfs.model.operation import Tag
from dkfs.store.check import check
from dkfs.store.rows import NODE_KEY
from tests.history.forgetting import between, keep_only, picture, some_versions
from tests.history.model_history import START_NS, STEP_NS, ModelHistory
from tests.history.random_history import fill

NOW = START_NS + 10_000 * STEP_NS
LAST_2 = Policy({Period.LAST: 2})


@pytest.fixture
def history(tmp_path: Path) -> Iterator[ModelHistory]:
    """Make a history whose store is checked when the test is over."""
    with ModelHistory(tmp_path / "store") as made:
        yield made
        assert list(check(made.store, read_data=True)) == []


def rule(pattern: bytes, policy: Policy) -> PathRule:
    return PathRule(Pattern(pattern), policy)


def to_forget(history: ModelHistory, *rules: PathRule) -> set[tuple[int, int]]:
    with history.store.read() as reader:
        found = contents_to_forget(reader, Rules(Policy(), rules), now_ns=NOW, zone=utc)
        return set(found)


def test_versions_come_newest_first_with_what_names_them(history: ModelHistory) -> None:
    history.create(b"a")  # 2
    with history.store.write() as writer:
        writer.put_tag(Tag("v1", Seq(1), START_NS))
        writer.put_tag(Tag("held", Seq(1), START_NS, is_hold=True))
        writer.put_tag(Tag("old", Seq(2), START_NS, is_hold=True, expires_ns=NOW))

    with history.store.read() as reader:
        assert list(versions(reader, now_ns=NOW)) == [
            Version(Seq(2), START_NS + 2 * STEP_NS, ("old",), ()),
            Version(Seq(1), START_NS + STEP_NS, ("held", "v1"), ("held",)),
        ]


def test_the_outlook_has_what_goes_as_ranges_and_what_stays(history: ModelHistory) -> None:
    for name in (b"a", b"b", b"c", b"d", b"e"):
        history.create(name)  # 2 to 6
    history.tag("mine", Seq(3))  # 7
    history.tag("going", Seq(4))  # 8
    policy = Policy({Period.LAST: 1}, tags=("mine",))

    with history.store.read() as reader:
        found = outlook(reader, decide(reader, policy, now_ns=NOW, zone=utc))

    assert list(found.kept) == [3, 8]
    assert found.ranges == [(1, 2), (4, 7)]
    assert (found.forgotten, found.total, found.tags) == (6, 8, ("going",))


@pytest.mark.parametrize("seed", range(8))
def test_what_a_prospect_says_is_what_forgetting_leaves(history: ModelHistory, seed: int) -> None:
    rng = random.Random(seed)
    fill(history, seed, 80)
    kept = sorted(some_versions(rng, history.last))
    with history.store.read() as reader:
        prospect = Prospect(reader, array("Q", kept))
        rows = [NODE_KEY.unpack(key) for key, _ in reader.rows("nodes")]
        left = [reader.node(n, s) for n, s in rows if not prospect.is_dropped(n, s)]

    keep_only(history.store, kept)

    with history.store.read() as reader:
        after = [reader.node(*NODE_KEY.unpack(key)) for key, _ in reader.rows("nodes")]
    # What stays of a removed file are its last rights; that state has no name.
    assert left == [state for state in after if state is not None and state.name != b"?"]


def test_what_was_recorded_since_the_view_stays(history: ModelHistory) -> None:
    history.create(b"a", b"one")  # 2
    with history.store.read() as reader:
        prospect = Prospect(reader, array("Q", [2]))
        history.write(b"a", b"two")  # 3

        assert not prospect.is_dropped(NodeId(2), Seq(3))
        assert not prospect.is_dropped(NodeId(9), Seq(3))


# ---- rules for paths


def test_contents_of_a_path_are_kept_at_the_versions_of_its_own_policy(
    history: ModelHistory,
) -> None:
    history.mkdir(b"cache")  # 2
    history.create(b"cache/a", b"one")  # 3
    history.create(b"b", b"one")  # 4
    history.write(b"cache/a", b"two")  # 5
    history.write(b"cache/a", b"three")  # 6
    history.write(b"b", b"two")  # 7
    history.write(b"cache/a", b"four")  # 8

    assert to_forget(history, rule(b"cache/**", LAST_2)) == {(3, 3), (3, 5)}
    assert to_forget(history, rule(b"/cache", LAST_2)) == {(3, 3), (3, 5)}
    assert to_forget(history, rule(b"elsewhere", LAST_2)) == set()


def test_the_first_rule_that_means_a_path_decides(history: ModelHistory) -> None:
    history.create(b"a.log", b"one")  # 2
    history.write(b"a.log", b"two")  # 3
    history.write(b"a.log", b"three")  # 4
    everything = Policy({Period.LAST: -1})

    assert to_forget(history, rule(b"*.log", everything), rule(b"a*", LAST_2)) == set()
    assert to_forget(history, rule(b"a*", LAST_2), rule(b"*.log", everything)) == {(2, 2)}


def test_what_was_removed_loses_its_contents_too(history: ModelHistory) -> None:
    history.create(b"a", b"one")  # 2
    history.create(b"b")  # 3
    history.unlink(b"a")  # 4
    history.create(b"c")  # 5

    assert to_forget(history, rule(b"a", LAST_2)) == {(2, 2)}
    assert to_forget(history, rule(b"a", Policy({Period.LAST: 3}))) == set()


def test_a_file_with_another_name_that_nobody_means_keeps_its_contents(
    history: ModelHistory,
) -> None:
    history.mkdir(b"cache")  # 2
    history.create(b"cache/a", b"one")  # 3
    history.link(b"cache/a", b"a")  # 4
    history.write(b"a", b"two")  # 5
    history.create(b"b")  # 6
    history.create(b"c")  # 7

    # The state of version 3 was seen as cache/a only, that of version 4 under both names.
    assert to_forget(history, rule(b"cache/**", LAST_2)) == {(3, 3)}


def test_a_file_that_was_moved_from_under_a_rule_keeps_what_it_took_along(
    history: ModelHistory,
) -> None:
    history.mkdir(b"cache")  # 2
    history.create(b"cache/a", b"one")  # 3
    history.rename(b"cache", b"src")  # 4
    history.write(b"src/a", b"two")  # 5
    history.create(b"c")  # 6
    history.create(b"d")  # 7

    assert to_forget(history, rule(b"cache/**", LAST_2)) == set()


def test_holds_keep_contents_too_and_the_newest_version_all(history: ModelHistory) -> None:
    history.create(b"a", b"one")  # 2
    history.write(b"a", b"two")  # 3
    history.write(b"a", b"three")  # 4
    with history.store.write() as writer:
        writer.put_tag(Tag("release", Seq(2), START_NS, is_hold=True))
    policy = Policy(within={Period.LAST: Duration(seconds=1)})

    assert to_forget(history, rule(b"a", policy)) == {(2, 3)}


@pytest.mark.parametrize("seed", range(6))
def test_after_both_kinds_of_forgetting_only_what_was_meant_differs(
    history: ModelHistory, seed: int
) -> None:
    rng = random.Random(seed)
    fill(history, seed, 80)
    kept = some_versions(rng, history.last)
    rules = (rule(b"a", LAST_2), rule(b"c*", Policy({Period.LAST: 1})))
    with history.store.read() as reader:
        before = {seq: picture(reader, seq) for seq in kept}
        tags = [tag.name for tag in reader.tags()]
        prospect = Prospect(reader, array("Q", sorted(kept)))
        prospect.add_rules(rules, now_ns=NOW, zone=utc)
        rows = [NODE_KEY.unpack(key) for key, _ in reader.rows("nodes")]
        expected = {
            state.content
            for node, seq in rows
            if not prospect.is_dropped(NodeId(node), Seq(seq))
            if (state := reader.node(NodeId(node), Seq(seq))) is not None
        }

    forget(history.store, between(kept), tags=tags, now_ns=NOW)
    with history.store.read() as reader:
        found = list(contents_to_forget(reader, Rules(Policy(), rules), now_ns=NOW, zone=utc))
    assert forget_contents(history.store, found) == len(found)

    with history.store.read() as reader:
        after = {seq: picture(reader, seq) for seq in kept}
        left = {
            state.content
            for key, _ in reader.rows("nodes")
            if (state := reader.node(*NODE_KEY.unpack(key))) is not None
        }
    assert left - {None} == expected - {None}
    newest = sorted(kept)[-2:]
    for seq in kept:
        assert after[seq].keys() == before[seq].keys()
        for path, (_, state, _, data) in after[seq].items():
            if not state.is_forgotten:
                assert data == before[seq][path][3]
            else:
                assert seq not in newest[-1:]
                assert any(each.matches(path) for each in rules) or len(after[seq][path][2]) > 1
    with history.store.read() as reader:
        assert list(contents_to_forget(reader, Rules(Policy(), rules), now_ns=NOW, zone=utc)) == []
        assert Tree(reader, reader.last).state(NodeId(1)).attr.kind
