"""What a file resembles: from the ways in which programs save files; what is remembered of them is bounded."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dkfs.history import predecessors
from dkfs.history.change import Pending
from dkfs.history.predecessors import GUESS_LEAST, Predecessors
from dkfs.model.ids import ROOT, BlobId, NodeId, Seq
from dkfs.model.node import Attr, Kind, NodeState
from dkfs.model.operation import NOBODY, Operation, OpKind
from dkfs.store import Store, Writer

LARGE = 100_000


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    Store.create(tmp_path / "store")
    with Store.open(tmp_path / "store", writable=True) as store, store.write() as opened:
        yield opened


def state(name: bytes, size: int, content: int | None = 1) -> NodeState:
    attr = Attr(Kind.FILE, 0o644, 0, 0, 0, 0, size, 0)
    blob = None if content is None else BlobId(bytes((content,)) * 32)
    return NodeState(attr, ROOT, name, blob, is_manifest=False, target=b"", xattrs=None)


def renamed(node: int, old: bytes, new: bytes) -> Pending:
    operation = Operation(OpKind.RENAME, 1, NOBODY, NodeId(node), ROOT, old, ROOT, new)
    return Pending(Seq(1), operation, (), ())


def add(writer: Writer, node: int, found: NodeState, *, removed: bytes = b"") -> NodeState:
    names = [(ROOT, found.name, NodeId(node))]
    if removed:
        names.append((ROOT, removed, NodeId(0)))
    operation = Operation(OpKind.CREATE, 1, NOBODY, NodeId(node), ROOT, found.name)
    writer.append(Seq(writer.last + 1), operation, [(NodeId(node), found)], names)
    return found


def of(
    known: Predecessors,
    writer: Writer,
    node: int,
    before: NodeState,
    size: int,
    *,
    anew: bool = True,
) -> NodeState | None:
    return known.of(writer, NodeId(node), before, size, is_anew=anew)


def test_a_file_resembles_what_it_was_and_what_it_was_before_it_was_truncated(
    writer: Writer,
) -> None:
    known = Predecessors()
    full, empty, half = state(b"f", LARGE), state(b"f", 0, None), state(b"f", LARGE // 2, 2)

    assert of(known, writer, 2, full, 0) is full
    assert of(known, writer, 2, empty, LARGE // 2) is full
    assert of(known, writer, 2, half, LARGE * 3 // 4, anew=False) is full
    assert of(known, writer, 2, half, LARGE, anew=False) is full
    whole = replace(full, content=BlobId(b"3" * 32))
    assert of(known, writer, 2, whole, LARGE, anew=False) is whole
    assert of(known, writer, 3, half, LARGE) is half


def test_a_new_file_resembles_what_it_will_replace(writer: Writer) -> None:
    known = Predecessors()
    old = add(writer, 2, state(b"f", LARGE))
    new = add(writer, 3, state(b"anything", 0, None))
    known.begin([renamed(3, b"anything", b"f")])

    assert of(known, writer, 3, new, 300) == old
    known.begin([])
    other = replace(new, name=b"other")
    assert of(known, writer, 3, other, LARGE) is other


def test_a_new_file_resembles_what_its_name_tells(writer: Writer) -> None:
    known = Predecessors()
    old = add(writer, 2, state(b"f", LARGE))
    new = add(writer, 3, state(b".f.Xq3wTf", 0, None))

    assert of(known, writer, 3, new, LARGE) == old
    assert of(known, writer, 3, new, GUESS_LEAST - 1) is new


def test_a_new_file_resembles_the_file_that_had_its_name(writer: Writer) -> None:
    known = Predecessors()
    old = add(writer, 2, state(b"f", LARGE))
    add(writer, 2, replace(old, name=b"g"), removed=b"f")
    new = add(writer, 3, state(b"f", 0, None))

    assert of(known, writer, 3, new, LARGE) == replace(old, name=b"g")


def test_of_several_that_it_may_be_a_file_resembles_one_of_about_its_size(writer: Writer) -> None:
    known = Predecessors()
    add(writer, 2, state(b"f", LARGE * 100))
    right = add(writer, 3, state(b"f.tmp", LARGE))
    new = add(writer, 4, state(b".f.tmp", 0, None))

    assert of(known, writer, 4, new, LARGE) == right
    assert of(known, writer, 4, new, LARGE * 90) != right


def test_a_random_name_resembles_what_others_of_its_kind_became(writer: Writer) -> None:
    known = Predecessors()
    add(writer, 2, state(b"g", LARGE * 50))
    old = add(writer, 3, state(b"f", LARGE))
    new = add(writer, 4, state(b"tmp12345678", 0, None))
    known.begin([renamed(9, b"tmpabcdefgh", b"f"), renamed(9, b"tmp____0000", b"g")])
    known.begin([])

    assert of(known, writer, 4, new, LARGE) == old


def test_what_is_remembered_is_bounded(writer: Writer) -> None:
    known = Predecessors()
    known.begin(
        renamed(9, b"%d" % number * 2 + b"x" * (number % 200), b"f") for number in range(9999)
    )
    for node in range(2, 2000):
        of(known, writer, node, state(b"f", LARGE), 0)

    assert len(known._became) <= predecessors._RENAMES_MOST
    assert len(known._truncated) <= predecessors._TRUNCATED_MOST
