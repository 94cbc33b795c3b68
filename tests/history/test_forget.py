"""Forgetting versions: what is kept stays what it was, what is forgotten leaves nothing."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dkfs.history import forget as module
from dkfs.history.fold import Folder
from dkfs.history.forget import Pace, forget, forget_contents, forgotten_move
from dkfs.history.log import file_history
from dkfs.history.tree import Tree
from dkfs.model.ids import ROOT, NodeId, Seq
from dkfs.model.node import Attr, Kind, NodeState
from dkfs.model.operation import NOBODY, LogRecord, Operation, OpKind, Tag
from dkfs.store import Store, Writer
from dkfs.store.check import check
from tests.history.forgetting import between, keep_only, picture, rows
from tests.history.model_history import START_NS, ModelHistory
from tests.history.random_history import fill


@pytest.fixture
def history(tmp_path: Path) -> Iterator[ModelHistory]:
    """Make a history whose store is checked when the test is over."""
    with ModelHistory(tmp_path / "store") as made:
        yield made
        assert list(check(made.store, read_data=True)) == []


def test_a_state_goes_to_the_next_version_that_is_kept(history: ModelHistory) -> None:
    history.create(b"a", b"one")  # 2
    history.write(b"a", b"two")  # 3
    history.chmod(b"a", 0o600)  # 4
    history.write(b"a", b"three")  # 5

    result = keep_only(history.store, {2, 4, 5})

    assert (result.forgotten, result.total) == (2, 2)
    with history.store.read() as reader:
        assert [seq for seq, _ in reader.versions()] == [2, 4, 5]
        assert [seq for seq, _ in reader.node_versions(NodeId(2))] == [2, 4, 5]
        assert reader.forgotten() == 2
        record = reader.record(Seq(4))
    assert record is not None
    assert (record.operation.kind, record.nodes) == (OpKind.SETATTR, (2,))


def test_what_came_and_went_between_two_kept_versions_leaves_nothing(history: ModelHistory) -> None:
    before = {name: len(table) for name, table in rows(history.store).items()}
    history.mkdir(b"d")
    history.create(b"d/a", b"one")
    history.link(b"d/a", b"d/b")
    history.rename(b"d/b", b"c")
    history.unlink(b"d/a")
    history.unlink(b"c")
    history.rmdir(b"d")
    history.create(b"last")

    keep_only(history.store, {1, history.last})

    after = {name: len(table) for name, table in rows(history.store).items()}
    assert after == {**before, "nodes": before["nodes"] + 2, "names": 1, "log": 2}
    with history.store.read() as reader:
        assert list(reader.names_ever(ROOT)) == [b"last"]


def test_a_removal_stays_where_there_was_something_to_remove(history: ModelHistory) -> None:
    history.create(b"a")  # 2
    history.unlink(b"a")  # 3
    history.create(b"b")  # 4

    keep_only(history.store, {2, 4})

    with history.store.read() as reader:
        assert Tree(reader, Seq(2)).find(b"a") == 2
        assert Tree(reader, Seq(4)).find(b"a") == 0
        assert [version.change for version in file_history(reader, b"a")] == ["+", "-"]


def test_the_newest_version_is_never_forgotten(history: ModelHistory) -> None:
    history.create(b"a", b"one")

    result = forget(history.store, [(Seq(1), Seq(99))], tags=(), now_ns=0)

    assert result.forgotten == 1
    with history.store.read() as reader:
        assert reader.last == 2
        assert Tree(reader, Seq(2)).find(b"a") == 2


def test_to_forget_what_is_forgotten_does_nothing(history: ModelHistory) -> None:
    fill(history, 3, 30)
    keep_only(history.store, {5, history.last})
    before = rows(history.store)

    assert keep_only(history.store, {5, history.last}).forgotten == 0
    assert rows(history.store) == before


def test_recording_goes_on_with_the_next_number(history: ModelHistory) -> None:
    history.create(b"a")
    keep_only(history.store, {2})

    assert history.create(b"b") == 3


def test_tags_go_with_their_versions_but_only_those_that_may(history: ModelHistory) -> None:
    history.create(b"a")  # 2
    history.tag("mine", Seq(1))  # 3
    history.tag("new", Seq(2))  # 4
    history.create(b"b")  # 5

    result = forget(history.store, between({5}), tags=["mine"], now_ns=0)

    assert (result.forgotten, result.tags) == (3, ("mine",))
    with history.store.read() as reader:
        assert [(tag.name, tag.seq) for tag in reader.tags()] == [("new", 2)]
        assert [seq for seq, _ in reader.versions()] == [2, 5]


def test_a_hold_keeps_its_version_until_it_expires(history: ModelHistory) -> None:
    for name in (b"a", b"b", b"c", b"d"):
        history.create(name)  # 2 to 5
    with history.store.write() as writer:
        writer.put_tag(Tag("release", Seq(2), START_NS, is_hold=True))
        writer.put_tag(Tag("soon", Seq(3), START_NS, is_hold=True, expires_ns=START_NS + 10))

    early = forget(history.store, between({5}), tags=["release", "soon"], now_ns=START_NS + 9)
    late = forget(history.store, between({5}), tags=["release", "soon"], now_ns=START_NS + 10)

    assert (early.forgotten, early.tags) == (2, ())
    assert (late.forgotten, late.tags) == (1, ("soon",))
    with history.store.read() as reader:
        assert [seq for seq, _ in reader.versions()] == [2, 5]


def test_the_newest_move_that_was_forgotten_is_known(history: ModelHistory) -> None:
    history.create(b"a")  # 2
    history.rollback(1)  # 3
    history.rollback(2)  # 4
    history.create(b"b")  # 5
    keep_only(history.store, {1, 2, 4, 5})
    with history.store.read() as reader:
        assert [seq for seq, _ in reader.moves()] == [4]
        assert forgotten_move(reader) == 3


def test_the_last_rights_of_a_removed_file_stay_and_nothing_else(history: ModelHistory) -> None:
    """Who may read what a removed file was is judged by what it was last."""
    history.create(b"a", b"secret")  # 2
    history.chmod(b"a", 0o600)  # 3
    history.write(b"a", b"more")  # 4
    history.unlink(b"a")  # 5

    keep_only(history.store, {2, 5})

    with history.store.read() as reader:
        last = reader.node(NodeId(2), Seq(5))
        assert last is not None
        assert (last.attr.mode, last.content, last.attr.size) == (0o600, None, 0)
    keep_only(history.store, {5})
    with history.store.read() as reader:
        assert reader.node(NodeId(2), Seq(5)) is None


def test_a_removed_file_whose_rights_did_not_change_leaves_nothing_more(
    history: ModelHistory,
) -> None:
    history.create(b"a", b"one")  # 2
    history.write(b"a", b"two")  # 3
    history.unlink(b"a")  # 4

    keep_only(history.store, {2, 4})

    with history.store.read() as reader:
        assert [seq for seq, _ in reader.node_versions(NodeId(2))] == [2]


def test_a_name_that_only_a_forgotten_state_held_is_known_as_long_as_it_lasted(
    history: ModelHistory,
) -> None:
    history.create(b"a", b"one")  # 2
    history.link(b"a", b"b")  # 3
    history.rename(b"a", b"c")  # 4
    history.unlink(b"b")  # 5

    keep_only(history.store, {4, 5})

    with history.store.read() as reader:
        assert [name for _, name in picture(reader, 4)[b"c"][2]] == [b"b", b"c"]
        assert [name for _, name in picture(reader, 5)[b"c"][2]] == [b"c"]


def test_very_many_changes_are_gathered_by_heads(
    history: ModelHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the log record of the kept version, which names them all, is written with every transaction."""
    for i in range(60):
        history.create(b"f%d" % i)
    monkeypatch.setattr(module, "_HEAD_KEYS", 20)
    targets: list[int] = []
    fold = Folder.fold

    def spy(self: Folder, writer: Writer, records: Sequence[LogRecord], into: Seq) -> int:
        targets.append(into)
        return fold(self, writer, records, into)

    monkeypatch.setattr(Folder, "fold", spy)

    keep_only(history.store, {1, history.last})

    assert 5 <= targets.count(history.last) < len(targets) / 2
    with history.store.read() as reader:
        assert len(list(Tree(reader, history.last).walk())) == 61


def test_a_file_that_comes_back_by_a_rollback_has_all_its_names(history: ModelHistory) -> None:
    history.create(b"a", b"one")  # 2
    history.link(b"a", b"b")  # 3
    history.link(b"a", b"c")  # 4
    history.unlink(b"b")  # 5
    history.rollback(4)  # 6

    keep_only(history.store, {5, 6})

    with history.store.read() as reader:
        assert [name for _, name in picture(reader, 6)[b"a"][2]] == [b"a", b"b", b"c"]
        assert [name for _, name in picture(reader, 5)[b"a"][2]] == [b"a", b"c"]


# ---- contents only


def test_contents_of_a_state_can_be_forgotten_but_not_those_of_the_newest_version(
    history: ModelHistory,
) -> None:
    history.create(b"a", b"one")  # 2
    history.write(b"a", b"two")  # 3
    history.create(b"b")  # 4
    node = NodeId(2)
    asked = [(node, Seq(2)), (node, Seq(3)), (node, Seq(9)), (NodeId(7), Seq(2)), (ROOT, Seq(1))]

    done = forget_contents(history.store, asked, pace=Pace(0.0))

    assert done == 1
    with history.store.read() as reader:
        first, second = (state for _, state in reader.node_versions(node))
    assert (first.is_forgotten, first.content, first.attr.size) == (True, None, 3)
    assert (second.is_forgotten, second.attr.size) == (False, 3)
    assert forget_contents(history.store, asked) == 0


# ---- speed


@pytest.mark.slow
@pytest.mark.alone
def test_five_thousand_versions_a_second_are_forgotten(tmp_path: Path) -> None:
    count = 20_000
    Store.create(tmp_path / "store")
    with Store.open(tmp_path / "store", writable=True) as store:
        attr = Attr(Kind.DIR, 0o755, 0, 0, START_NS, START_NS, 0, 0)
        root = NodeState(attr, ROOT, b"", None, is_manifest=False, target=b"", xattrs=None)
        with store.write() as writer:
            writer.append(Seq(1), Operation(OpKind.FOUND, START_NS, NOBODY), [(ROOT, root)], [])
            for seq in range(2, count + 1):
                node = NodeId(2 + seq % 500)
                name = b"f%d" % node
                state = replace(root, attr=replace(root.attr, kind=Kind.FILE), name=name)
                operation = Operation(OpKind.WRITE, START_NS + seq, NOBODY, node=node)
                names = [(ROOT, name, node)] if seq < 502 else []
                writer.append(Seq(seq), operation, [(node, state)], names)
        ends = [time.process_time()]

        result = forget(
            store,
            between(range(2, count + 1, 2)),
            tags=(),
            now_ns=0,
            pace=Pace(0.25, lambda _: ends.append(time.process_time())),
        )

        assert result.forgotten == count // 2
        assert len(ends) < 100
        assert (
            result.forgotten / (ends[-1] - ends[0]) > 2_500
        )  # of the processor; 14,000 on a quiet machine
