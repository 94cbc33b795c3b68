import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.errors import CorruptError, StoreError
from dkfs.model.ids import NO_NODE, ROOT, BlobId, NodeId, Seq
from dkfs.model.node import NodeState
from dkfs.model.operation import OpKind, Tag
from dkfs.store import Reader, Store
from dkfs.store.check import check
from tests.store.making import TIME_NS, add_file, append, file_state

# ---- every question, against a model that keeps every version whole

K = TypeVar("K")
NODES = st.integers(1, 5)
NAMES = st.sampled_from([b"a", b"ab", b"b", b"\x01", b"a\x01", b"\xff" * 255])


@dataclass
class Model:
    """The plainest store: dictionaries, one copy for each version."""

    times: list[int] = field(default_factory=list)
    kinds: list[OpKind] = field(default_factory=list)
    nodes: list[dict[int, tuple[int, NodeState]]] = field(default_factory=lambda: [{}])
    names: list[dict[tuple[int, bytes], tuple[int, int]]] = field(default_factory=lambda: [{}])


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, dict[int, int], dict[tuple[int, bytes], int]]]:
    """Draw versions: time step, size of each node that changes, what each name that changes leads to."""
    return draw(
        st.lists(
            st.tuples(
                st.integers(0, 3),
                st.dictionaries(NODES, st.integers(0, 99), max_size=3),
                st.dictionaries(
                    st.tuples(st.sampled_from([1, 2, 256]), NAMES), st.integers(0, 5), max_size=4
                ),
            ),
            max_size=12,
        )
    )


def build(
    store: Store, history: list[tuple[int, dict[int, int], dict[tuple[int, bytes], int]]]
) -> Model:
    model = Model()
    time_ns = TIME_NS
    for position, (step, sizes, names) in enumerate(history):
        time_ns += step
        kind = list(OpKind)[position % len(OpKind)]
        states = {node: file_state(b"x", mtime_ns=size) for node, size in sizes.items()}
        with store.write() as writer:
            seq = append(writer, states, names, kind=kind, time_ns=time_ns)
        model.times.append(time_ns)
        model.kinds.append(kind)
        model.nodes.append(model.nodes[-1] | {n: (seq, state) for n, state in states.items()})
        model.names.append(model.names[-1] | {key: (seq, to) for key, to in names.items()})
    return model


def compare_versions(reader: Reader, model: Model) -> None:
    for at, (nodes, names) in enumerate(zip(model.nodes, model.names, strict=True)):
        seq = Seq(at)
        for node in range(7):
            assert reader.node_seq(NodeId(node), seq) == nodes.get(node)
            expected = nodes.get(node)
            assert reader.node(NodeId(node), seq) == (expected[1] if expected else None)
        for parent in (0, 1, 2, 255, 256, 257):
            here = {name: to for (directory, name), (_, to) in names.items() if directory == parent}
            assert list(reader.children(NodeId(parent), seq)) == sorted(
                (name, to) for name, to in here.items() if to
            )
            for name in (b"a", b"ab", b"b", b"\x01", b"a\x01", b"\xff" * 255, b"no", b""):
                assert reader.child(NodeId(parent), name, seq) == here.get(name, NO_NODE)


def compare_histories(reader: Reader, model: Model) -> None:
    def changes(
        tables: Sequence[Mapping[K, tuple[int, object]]], key: K
    ) -> list[tuple[int, object]]:
        found = [table[key] for table in tables if key in table]
        return [entry for i, entry in enumerate(found) if i == 0 or entry[0] != found[i - 1][0]]

    for node in range(7):
        assert list(reader.node_versions(NodeId(node))) == changes(model.nodes, node)
    for parent in (1, 2, 256):
        for name in (b"a", b"ab", b"\xff" * 255):
            expected = changes(model.names, (parent, name))
            assert list(reader.child_versions(NodeId(parent), name)) == expected


def compare_log(reader: Reader, model: Model) -> None:
    last = len(model.times)
    assert reader.last == last
    forward = list(reader.log(Seq(1), Seq(last)))
    assert [(r.seq, r.operation.time_ns) for r in forward] == list(enumerate(model.times, 1))
    assert list(reader.log(Seq(0), Seq(last + 5), reverse=True)) == forward[::-1]
    assert list(reader.log(Seq(2), Seq(4))) == forward[1:4]
    assert list(reader.log(Seq(2), Seq(4), reverse=True)) == forward[1:4][::-1]
    assert [reader.record(Seq(seq)) for seq in range(last + 2)] == [None, *forward, None]
    moves = (OpKind.ROLLBACK, OpKind.UNDO, OpKind.REDO)
    expected = [(seq, kind) for seq, kind in enumerate(model.kinds, 1) if kind in moves]
    assert list(reader.moves()) == expected
    for time_ns in range(TIME_NS - 1, (model.times or [TIME_NS])[-1] + 2):
        assert reader.version_at(time_ns) == sum(time <= time_ns for time in model.times)
    used = [node for table in model.nodes for node in table]
    assert reader.next_node() == max(used, default=0) + 1


@pytest.mark.slow
@given(histories())
def test_every_answer_is_that_of_a_model_that_keeps_every_version(
    history: list[tuple[int, dict[int, int], dict[tuple[int, bytes], int]]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "store"
        Store.create(path)
        with Store.open(path, writable=True) as store:
            model = build(store, history)
            with store.read() as reader:
                compare_versions(reader, model)
                compare_histories(reader, model)
                compare_log(reader, model)
            with store.write() as writer:
                compare_versions(writer, model)
                compare_log(writer, model)
            # The model lets a name lead anywhere.
            wrong = [damage.message for damage in check(store, read_data=True)]
            assert [message for message in wrong if "without a state" not in message] == []


# ---- one by one


def test_an_empty_store_has_no_versions(store: Store) -> None:
    with store.read() as reader:
        assert reader.last == 0
        assert reader.record(Seq(1)) is None
        assert list(reader.log(Seq(1), Seq(9))) == []
        assert list(reader.log(Seq(1), Seq(9), reverse=True)) == []
        assert reader.node(ROOT, Seq(0)) is None
        assert reader.next_node() == ROOT
        assert reader.version_at(TIME_NS) == 0
        assert not reader.clean()


def test_a_reader_does_not_see_what_is_committed_later(store: Store) -> None:
    add_file(store, b"early", b"data")
    with store.read() as reader:
        add_file(store, b"late", b"more")

        assert reader.last == 1
        assert reader.child(ROOT, b"late", Seq(2)) == NO_NODE


def test_node_versions_can_be_limited(store: Store) -> None:
    for size in range(5):
        with store.write() as writer:
            append(writer, {1: file_state(mtime_ns=size)})

    with store.read() as reader:
        found = reader.node_versions(ROOT, Seq(2), Seq(4))

        assert [seq for seq, _ in found] == [2, 3, 4]


def test_a_name_that_cannot_be_has_no_child(store: Store) -> None:
    add_file(store, b"f", b"data")

    with store.read() as reader:
        assert reader.child(ROOT, b"f\0" + b"\0" * 8, Seq(1)) == NO_NODE
        assert reader.child(ROOT, b"x" * 256, Seq(1)) == NO_NODE
        assert reader.child(ROOT, b"x" * 4096, Seq(1)) == NO_NODE
        assert reader.child(ROOT, b"f\0", Seq(1)) == NO_NODE
        assert list(reader.child_versions(ROOT, b"x" * 4096)) == []
        assert list(reader.child_versions(ROOT, b"f\0")) == []


def test_tags_come_in_order_of_their_names(store: Store) -> None:
    with store.write() as writer:
        append(writer)
        for name in ("b", "a", "ü", "aa"):
            writer.put_tag(Tag(name, Seq(1), TIME_NS))

    with store.read() as reader:
        assert [tag.name for tag in reader.tags()] == ["a", "aa", "b", "ü"]
        assert reader.tag("aa") == Tag("aa", Seq(1), TIME_NS)
        assert reader.tag("c") is None


def test_a_blob_that_is_not_there_is_named(store: Store) -> None:
    with store.read() as reader:
        assert not reader.has_blob(BlobId(b"\xab" * 32))
        with pytest.raises(CorruptError, match=r"abab.* is not in the store"):
            reader.blob(BlobId(b"\xab" * 32))


def test_a_reader_that_was_closed_raises_a_store_error(store: Store) -> None:
    add_file(store, b"f", b"data")
    with store.read() as reader:
        children = reader.children(ROOT, Seq(1))

    with pytest.raises(StoreError):
        next(children)
    with pytest.raises(StoreError):
        reader.node(ROOT, Seq(1))


def test_several_threads_read_beside_a_writer(store: Store) -> None:
    contents = [b"%d" % i * 1000 for i in range(20)]
    ids = [add_file(store, b"f%d" % i, data)[2] for i, data in enumerate(contents)]
    wrong: list[object] = []

    def read() -> None:
        for _ in range(20):
            with store.read() as reader:
                if [reader.blob(blob) for blob in ids] != contents:
                    wrong.append("contents")
                if len(list(reader.children(ROOT, Seq(20)))) != 20:
                    wrong.append("children")

    threads = [Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(20):
        add_file(store, b"g%d" % i, b"%d" % i)
    for thread in threads:
        thread.join()

    assert wrong == []


@pytest.fixture
def damaged(path: Path) -> Iterator[Store]:
    """Open a store in which one row of each table has a flipped bit."""
    with Store.open(path, writable=True) as store:
        with store.write() as writer:
            blob, *_ = writer.put_blob(b"data")
            append(writer, {1: file_state(size=4, content=blob)}, {(1, b"f"): 1}, kind=OpKind.UNDO)
            writer.put_tag(Tag("t", Seq(1), TIME_NS))
            writer.set_clean(True)
        with store.write() as writer:
            for table in ("log", "nodes", "names", "blobs", "tags", "moves"):
                key, value = next(writer.rows(table))
                assert writer._txn.put(
                    key, bytes((value[0] ^ 4,)) + value[1:], db=writer._tables[table]
                )
        yield store


def test_a_row_with_a_flipped_bit_is_corrupt(damaged: Store) -> None:
    with damaged.read() as reader:
        for read in (
            lambda: reader.record(Seq(1)),
            lambda: list(reader.log(Seq(1), Seq(1))),
            lambda: reader.node(ROOT, Seq(1)),
            lambda: reader.child(ROOT, b"f", Seq(1)),
            lambda: list(reader.children(ROOT, Seq(1))),
            lambda: reader.blob(damaged.hash(b"data")),
            lambda: reader.tag("t"),
            lambda: list(reader.moves()),
            lambda: reader.version_at(TIME_NS),
        ):
            with pytest.raises(CorruptError, match="checksum"):
                read()


def test_check_names_each_row_with_a_flipped_bit(damaged: Store) -> None:
    messages = [damage.message for damage in check(damaged, read_data=False)]

    for table in ("log", "nodes", "names", "blobs", "tags", "moves"):
        assert any(f"{table} row" in message and "checksum" in message for message in messages)
