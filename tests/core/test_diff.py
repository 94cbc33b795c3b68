from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.diff import classify, differing_fields, differing_ranges
from dkfs.core.manifest import Manifest, encode_manifest_node
from dkfs.core.manifest_update import SHAPE, Shape, build, update
from dkfs.model.ids import ROOT, BlobId, NodeId
from dkfs.model.node import Attr, Chunk, Kind, NodeState
from tests.core.trees import Nodes, chunk_id, some_chunks, some_edits

A, B = BlobId(b"a" * 32), BlobId(b"b" * 32)

FILE = NodeState(
    attr=Attr(Kind.FILE, 0o644, 1, 2, 3, 4, 5, 0),
    parent=ROOT,
    name=b"f",
    content=A,
    is_manifest=False,
    target=b"",
    xattrs=None,
)


def of_kind(kind: Kind) -> NodeState:
    return replace(FILE, attr=replace(FILE.attr, kind=kind, size=0), content=None)


@pytest.mark.parametrize(
    ("new", "fields", "change"),
    [
        (replace(FILE, content=B), ("content",), "M"),
        (replace(FILE, is_manifest=True), ("content",), "M"),
        (replace(FILE, attr=replace(FILE.attr, size=6)), ("content", "size"), "M"),
        (replace(FILE, attr=replace(FILE.attr, mode=0o600)), ("mode",), "U"),
        (replace(FILE, attr=replace(FILE.attr, uid=9)), ("uid",), "U"),
        (replace(FILE, attr=replace(FILE.attr, gid=9)), ("gid",), "U"),
        (replace(FILE, attr=replace(FILE.attr, mtime_ns=9)), ("mtime",), "U"),
        (replace(FILE, xattrs=A), ("xattr",), "U"),
        (replace(FILE, content=B, xattrs=A), ("content", "xattr"), "M"),
        (FILE, (), None),
        (replace(FILE, attr=replace(FILE.attr, ctime_ns=9)), (), None),
        (replace(FILE, parent=NodeId(7), name=b"g"), (), None),
    ],
)
def test_each_field_that_differs_is_named(
    new: NodeState, fields: tuple[str, ...], change: str | None
) -> None:
    found = differing_fields(FILE, new)

    assert found == fields
    assert classify(FILE, new, found) == change


def test_a_symlink_differs_by_its_target_and_not_by_its_length() -> None:
    old = replace(of_kind(Kind.SYMLINK), target=b"x")
    new = replace(old, target=b"yy", attr=replace(old.attr, size=2))

    assert differing_fields(old, new) == ("target",)
    assert classify(old, new, differing_fields(old, new)) == "M"


def test_a_device_differs_by_its_number() -> None:
    old = of_kind(Kind.CHAR)
    new = replace(old, attr=replace(old.attr, rdev=5))

    assert differing_fields(old, new) == ("rdev",)
    assert classify(old, new, differing_fields(old, new)) == "M"


def test_of_another_type_only_the_metadata_is_compared() -> None:
    new = of_kind(Kind.DIR)

    assert differing_fields(FILE, new) == ()
    assert classify(FILE, new, ()) == "T"
    assert differing_fields(FILE, replace(new, xattrs=A)) == ("xattr",)


def test_the_mtime_of_a_directory_counts_only_on_request() -> None:
    old = of_kind(Kind.DIR)
    new = replace(old, attr=replace(old.attr, mtime_ns=9))
    changed_file = replace(FILE, attr=replace(FILE.attr, mtime_ns=9))

    assert differing_fields(old, new) == ("mtime",)
    assert differing_fields(old, new, dir_times=False) == ()
    assert differing_fields(FILE, changed_file, dir_times=False) == ("mtime",)


@pytest.mark.parametrize(
    ("old", "new", "ranges"),
    [
        ([], [], []),
        ([Chunk(4, A)], [Chunk(4, A)], []),
        ([Chunk(4, A)], [Chunk(4, B)], [(0, 4)]),
        ([Chunk(4, A), Chunk(4, A)], [Chunk(4, A), Chunk(4, B)], [(4, 8)]),
        ([Chunk(4, A), Chunk(4, A)], [Chunk(4, B), Chunk(4, B)], [(0, 8)]),
        ([Chunk(4, A)], [], [(0, 4)]),
        ([], [Chunk(4, A), Chunk(2, None)], [(0, 6)]),
        ([Chunk(12, None)], [Chunk(4, None), Chunk(4, A), Chunk(4, None)], [(4, 8)]),
        ([Chunk(8, None), Chunk(4, A)], [Chunk(4, None), Chunk(4, B), Chunk(4, A)], [(4, 8)]),
        ([Chunk(4, A), Chunk(2, B)], [Chunk(4, A), Chunk(3, A)], [(4, 7)]),
        ([Chunk(5, None)], [Chunk(9, None)], [(5, 9)]),
        ([Chunk(4, A), Chunk(4, B)], [Chunk(2, B), Chunk(4, A), Chunk(2, B)], [(0, 8)]),
    ],
)
def test_the_ranges_in_which_contents_differ(
    old: list[Chunk], new: list[Chunk], ranges: list[tuple[int, int]]
) -> None:
    assert ranges_between(old, new, SHAPE) == ranges
    assert ranges_between(new, old, SHAPE) == ranges


def ranges_between(old: list[Chunk], new: list[Chunk], shape: Shape) -> list[tuple[int, int]]:
    nodes = Nodes()
    one, other = (nodes.manifest(build(each, nodes.put, shape=shape)) for each in (old, new))
    return list(differing_ranges(one, other))


@pytest.mark.parametrize("shape", [SHAPE, Shape(2, 1, 4), Shape(2, 255, 3)])
@given(seed=st.integers(0, 2**40))
def test_ranges_hold_exactly_the_bytes_of_differing_chunks(shape: Shape, seed: int) -> None:
    rng = Random(seed)
    old = some_chunks(rng, rng.choice((0, 1, 3, 60)), kinds=rng.choice((2, 1 << 40)), holes=0.2)
    _, new = some_edits(rng, old, rng.choice((1, 3)))

    ranges = ranges_between(old, new, shape)

    before, after = cells(old), cells(new)
    expected = {
        offset
        for offset in range(max(len(before), len(after)))
        if before[offset : offset + 1] != after[offset : offset + 1]
    }
    assert {offset for start, end in ranges for offset in range(start, end)} == expected
    assert all(end < start for (_, end), (start, _) in pairwise(ranges))


def cells(chunks: list[Chunk]) -> list[tuple[int, Chunk] | None]:
    """Return for each byte the chunk it is in and where that starts, None in a hole."""
    out: list[tuple[int, Chunk] | None] = []
    for chunk in chunks:
        out += [(len(out), chunk) if chunk.blob else None] * chunk.length
    return out


def test_one_changed_chunk_of_160000_is_found_by_few_nodes() -> None:
    rng = Random(3)
    nodes = Nodes()
    chunks = [Chunk(65536, chunk_id(rng.randrange(1 << 60))) for _ in range(160_000)]
    old = build(chunks, nodes.put)
    new = update(nodes.manifest(old), [(65536 * 777, 65536 * 778, [Chunk(65536, A)])], nodes.put)
    nodes.loaded = 0

    ranges = list(differing_ranges(nodes.manifest(old), nodes.manifest(new)))

    assert ranges == [(65536 * 777, 65536 * 778)]
    assert nodes.loaded <= 2 * 8


def test_a_chunk_is_not_taken_for_a_node_of_the_same_id() -> None:
    nodes = Nodes()
    leaf = nodes.put(encode_manifest_node(0, [Chunk(30, A), Chunk(40, B)]), None)
    flat = encode_manifest_node(0, [Chunk(70, leaf), Chunk(5, A)])
    last = nodes.put(encode_manifest_node(0, [Chunk(2, A), Chunk(3, B)]), None)
    tall = encode_manifest_node(1, [Chunk(70, leaf), Chunk(5, last)])
    old, new = (
        Manifest(nodes.load, nodes.put(root, None), is_manifest=True, size=75)
        for root in (flat, tall)
    )

    assert list(differing_ranges(old, new)) == [(0, 75)]
