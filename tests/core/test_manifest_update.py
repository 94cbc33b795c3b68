"""The manifest of the next version: the same tree as from scratch, for as little as the changes."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.manifest import Manifest
from dkfs.core.manifest_update import SHAPE, Content, Edit, Shape, build, update
from dkfs.errors import CorruptError
from dkfs.model.node import Chunk
from tests.core.trees import Nodes, chunk_id, flat_manifest, some_chunks, some_edits

A, B, C = chunk_id(1), chunk_id(2), chunk_id(3)
SHAPES = [
    Shape(minimum=2, mask=1, maximum=4, patience=1 << 30),
    Shape(minimum=3, mask=3, maximum=8, patience=1 << 30),
    Shape(minimum=2, mask=255, maximum=3, patience=1 << 30),
    SHAPE._replace(patience=1 << 30),
]


def chunks_of(nodes: Nodes, content: Content) -> list[Chunk]:
    return [chunk for _, chunk in nodes.manifest(content).pieces()]


@pytest.mark.parametrize("shape", SHAPES)
@given(seed=st.integers(0, 2**40))
def test_an_updated_tree_is_the_one_built_from_scratch(shape: Shape, seed: int) -> None:
    rng = Random(seed)
    nodes = Nodes()
    chunks = some_chunks(
        rng,
        rng.choice((0, 1, 2, 10, 100, 1000)),
        kinds=rng.choice((1, 2, 1 << 40)),
        holes=rng.choice((0.0, 0.1, 0.7)),
    )
    content = build(chunks, nodes.put, shape=shape)
    for _ in range(4):
        edits, chunks = some_edits(rng, chunks, rng.choice((1, 1, 2, 5, 20)))

        content = update(nodes.manifest(content), edits, nodes.put, shape=shape)

        assert content == build(chunks, nodes.put, shape=shape)
        assert chunks_of(nodes, content) == chunks


@given(seed=st.integers(0, 2**40))
def test_a_tree_that_was_forced_to_end_nodes_has_the_right_chunks(seed: int) -> None:
    shape = Shape(minimum=2, mask=255, maximum=4, patience=0)
    rng = Random(seed)
    nodes = Nodes()
    chunks = some_chunks(rng, 300, kinds=2)
    content = build(chunks, nodes.put, shape=shape)
    for _ in range(8):
        edits, chunks = some_edits(rng, chunks, rng.choice((1, 3)))

        content = update(nodes.manifest(content), edits, nodes.put, shape=shape)

        assert chunks_of(nodes, content) == chunks
        assert content.size == sum(chunk.length for chunk in chunks)


def test_nothing_changed_means_nothing_stored() -> None:
    nodes = Nodes()
    content = build(some_chunks(Random(1), 1000), nodes.put)
    nodes.put_count = 0

    assert update(nodes.manifest(content), [], nodes.put) == content
    assert nodes.put_count == nodes.loaded == 0


@pytest.mark.parametrize("place", [0.0, 0.37, 0.5, 0.9999])
def test_one_changed_chunk_of_160000_makes_few_new_nodes(place: float) -> None:
    rng = Random(5)
    nodes = Nodes()
    chunks = [Chunk(65536, chunk_id(rng.randrange(1 << 60))) for _ in range(160_000)]
    content = build(chunks, nodes.put)
    levels = nodes.manifest(content).root().level + 1
    before, written = len(nodes.blobs), nodes.new_bytes
    nodes.put_count = 0
    start = int(place * len(chunks)) * 65536

    after = update(nodes.manifest(content), [(start, start + 65536, [Chunk(65536, A)])], nodes.put)

    assert levels == 4
    assert len(nodes.blobs) - before <= nodes.put_count <= 3 * levels
    assert nodes.loaded <= 6 * levels
    assert nodes.new_bytes - written <= 3 * levels * 128 * 36
    chunks[start // 65536] = Chunk(65536, A)
    assert after == build(chunks, nodes.put)


def test_many_changes_make_new_nodes_in_proportion() -> None:
    rng = Random(6)
    nodes = Nodes()
    chunks = [Chunk(65536, chunk_id(rng.randrange(1 << 60))) for _ in range(160_000)]
    content = build(chunks, nodes.put)
    before = len(nodes.blobs)
    starts = [number * 65536 for number in range(500, 160_000, 1600)]
    edits: list[Edit] = [(start, start + 65536, [Chunk(65536, B)]) for start in starts]

    update(nodes.manifest(content), edits, nodes.put)

    assert len(nodes.blobs) - before <= 4 * (len(edits) + 4)


def test_a_change_in_one_chunk_repeated_costs_no_walk_to_the_end() -> None:
    # No id ends a node here, so the nodes after an inserted chunk would all be new.
    same = next(chunk_id(i) for i in range(100) if chunk_id(i)[-1] & 31)
    nodes = Nodes()
    content = build([Chunk(100, same)] * 160_000, nodes.put)

    nodes.put_count = 0

    after = update(nodes.manifest(content), [(800_000, 800_100, [Chunk(50, A)] * 2)], nodes.put)

    assert nodes.put_count < 50
    assert sum(chunk.length for chunk in chunks_of(nodes, after)) == 16_000_000
    assert nodes.manifest(after).chunk_at(800_050) == (800_050, Chunk(50, A))


def test_a_new_node_is_said_to_replace_the_one_that_was_there() -> None:
    rng = Random(7)
    nodes = Nodes()
    chunks = [Chunk(100, chunk_id(rng.randrange(1 << 60))) for _ in range(5000)]
    content = build(chunks, nodes.put)
    old = nodes.manifest(content)
    known = set(nodes.blobs)

    after = update(old, [(250_000, 250_100, [Chunk(100, A)])], nodes.put)

    assert after.blob is not None
    new = nodes.manifest(after)
    for level in range(old.root().level + 1):
        fresh, replaced = new.node_at(250_000, level), old.node_at(250_000, level)
        assert fresh.blob is not None
        assert fresh.blob not in known
        assert nodes.bases[fresh.blob] == replaced.blob


def test_a_flat_manifest_becomes_a_tree() -> None:
    nodes = Nodes()
    rng = Random(8)
    chunks = [Chunk(65536, chunk_id(rng.randrange(1 << 60))) for _ in range(1000)]
    ids = b"".join(chunk.blob or b"" for chunk in chunks)
    blob = nodes.put(flat_manifest((1, 65536, ids)), None)
    flat = Manifest(nodes.load, blob, is_manifest=True, size=1000 * 65536)

    after = update(flat, [(65536, 131072, [Chunk(65536, A)])], nodes.put)

    assert after == build([chunks[0], Chunk(65536, A), *chunks[2:]], nodes.put)
    assert nodes.manifest(after).root().level == 1


def test_a_file_that_shrinks_to_one_chunk_loses_its_tree() -> None:
    nodes = Nodes()
    chunks = [Chunk(100, chunk_id(i)) for i in range(5000)]
    content = build(chunks, nodes.put)

    one = update(nodes.manifest(content), [(100, 500_000, [])], nodes.put)
    none = update(nodes.manifest(content), [(0, 500_000, [])], nodes.put)
    hole = update(nodes.manifest(content), [(0, 500_000, [Chunk(7, None)])], nodes.put)

    assert one == Content(chunk_id(0), is_manifest=False, size=100)
    assert none == Content(None, is_manifest=False, size=0)
    assert hole == Content(None, is_manifest=False, size=7)


def test_a_file_that_grows_out_of_nothing_gets_a_tree() -> None:
    nodes = Nodes()
    chunks = [Chunk(100, chunk_id(i)) for i in range(5000)]
    empty = Manifest(nodes.load, None, is_manifest=False, size=0)

    assert update(empty, [(0, 0, chunks)], nodes.put) == build(chunks, nodes.put)


def test_chunks_may_come_as_they_are_made() -> None:
    nodes = Nodes()
    single = Manifest(nodes.load, A, is_manifest=False, size=10)

    after = update(single, [(10, 10, (Chunk(5, each) for each in (B, C)))], nodes.put)

    assert chunks_of(nodes, after) == [Chunk(10, A), Chunk(5, B), Chunk(5, C)]


def test_a_data_chunk_that_would_be_cut_is_damage() -> None:
    single = Manifest(Nodes().load, A, is_manifest=False, size=10)

    with pytest.raises(CorruptError, match=r"would be cut at 0\.\.5"):
        update(single, [(5, 10, [Chunk(5, B)])], Nodes().put)
