"""A row whose key is damaged is not found under its key: what is read instead must not be what came before it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dkfs.errors import CorruptError
from dkfs.model.ids import ROOT, NodeId, Seq
from dkfs.store import Reader, Store
from dkfs.store.rows import NODE_KEY, SEQ, name_key
from tests.store.making import append, file_state

A, B, C = NodeId(5), NodeId(8), NodeId(12)


@pytest.fixture
def made(path: Path) -> Path:
    """Make three files in 40 versions, two of which say something of each."""
    with Store.open(path, writable=True) as store, store.write() as writer:
        for seq in range(1, 41):
            states = {
                3: {A: file_state(b"a", size=1), B: file_state(b"b", size=1)},
                4: {C: file_state(b"c", size=1)},
                10: {A: file_state(b"a", size=2)},
                20: {B: file_state(b"b", size=2)},
            }.get(seq, {})
            names = {
                3: {(ROOT, b"aa"): A, (ROOT, b"bb"): B},
                4: {(A, b"in-a"): C},
                10: {(ROOT, b"bb"): C},
            }.get(seq, {})
            append(writer, states, names)  # type: ignore[arg-type]  # node ids are ints
    return path


def swap_keys(path: Path, old: bytes, new: bytes) -> None:
    """Put another key of the same length in the place of *old*, wherever it is in the file."""
    data = (path / "index.lmdb").read_bytes()
    assert len(old) == len(new)
    assert old in data
    (path / "index.lmdb").write_bytes(data.replace(old, new))


@contextmanager
def reader(path: Path) -> Iterator[Reader]:
    with Store.open(path, writable=False) as store, store.read() as view:
        yield view


def size(view: Reader, node: NodeId, at: int) -> int | None:
    state = view.node(node, Seq(at))
    return None if state is None else state.attr.size


@pytest.mark.parametrize("there", [12, 39], ids=["soon", "late"])
def test_a_state_that_moved_to_a_later_version_hides_nothing(made: Path, there: int) -> None:
    swap_keys(made, NODE_KEY.pack(A, 10), NODE_KEY.pack(A, there))

    with reader(made) as view:
        for at in (10, 11, there, 40):
            with pytest.raises(CorruptError, match="checksum"):
                size(view, A, at)
        assert size(view, A, 9) == 1
        assert size(view, B, 40) == 2
        with pytest.raises(CorruptError, match="checksum"):
            list(view.node_versions(A))


def test_a_state_that_moved_to_an_earlier_version_hides_nothing(made: Path) -> None:
    swap_keys(made, NODE_KEY.pack(A, 10), NODE_KEY.pack(A, 6))

    with reader(made) as view:
        for at in (6, 10, 40):
            with pytest.raises(CorruptError, match="checksum"):
                size(view, A, at)
        assert size(view, A, 5) == 1


@pytest.mark.parametrize("there", [NodeId(7), NodeId(6)])
def test_a_state_that_moved_to_another_node_hides_nothing(made: Path, there: NodeId) -> None:
    swap_keys(made, NODE_KEY.pack(A, 10), NODE_KEY.pack(there, 10))

    with reader(made) as view:
        with pytest.raises(CorruptError, match="checksum"):
            size(view, A, 40)
        with pytest.raises(CorruptError, match="checksum"):
            list(view.node_versions(A))
        assert size(view, A, 5) == 1
        assert size(view, B, 40) == 2


def test_the_first_state_of_a_node_that_moved_to_the_one_before_it_is_missed(made: Path) -> None:
    swap_keys(made, NODE_KEY.pack(C, 4), NODE_KEY.pack(NodeId(9), 4))

    with reader(made) as view:
        with pytest.raises(CorruptError, match="checksum"):
            size(view, C, 40)
        with pytest.raises(CorruptError, match="checksum"):
            list(view.node_versions(C))
        assert size(view, C, 3) is None
        assert size(view, B, 40) == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (name_key(ROOT, b"aa", 3), name_key(ROOT, b"ab", 3)),
        (name_key(ROOT, b"aa", 3), name_key(NodeId(0), b"aa", 3)),
        (name_key(ROOT, b"bb", 10), name_key(NodeId(3), b"bb", 10)),
    ],
    ids=["another name", "the directory before", "the directory behind"],
)
def test_a_name_that_moved_is_missed(made: Path, old: bytes, new: bytes) -> None:
    name = old[8:10]
    swap_keys(made, old, new)

    with reader(made) as view:
        with pytest.raises(CorruptError, match="checksum"):
            view.child(ROOT, name, Seq(40))
        with pytest.raises(CorruptError, match="checksum"):
            list(view.children(ROOT, Seq(40)))
        with pytest.raises(CorruptError, match="checksum"):
            list(view.child_versions(ROOT, name))
        assert view.child(A, b"in-a", Seq(40)) == C


def test_a_version_that_moved_is_not_taken_for_a_forgotten_one(made: Path) -> None:
    with reader(made) as view:
        value = dict(view.rows("log"))[SEQ.pack(40)][:20]
    swap_keys(made, SEQ.pack(40) + value, SEQ.pack(45) + value)

    with reader(made) as view, pytest.raises(CorruptError, match="checksum"):
        assert view.last == 40


def test_a_value_that_is_damaged_concerns_nobody_else(made: Path) -> None:
    with reader(made) as view:
        values = dict(view.rows("nodes"))
    value = values[NODE_KEY.pack(B, 3)]
    data = (made / "index.lmdb").read_bytes()
    (made / "index.lmdb").write_bytes(data.replace(value, bytes((value[0] ^ 1,)) + value[1:]))

    with reader(made) as view:
        assert size(view, A, 40) == 2
        assert [seq for seq, _ in view.node_versions(A)] == [3, 10]
        assert size(view, B, 40) == 2
        with pytest.raises(CorruptError, match="checksum"):
            size(view, B, 5)
