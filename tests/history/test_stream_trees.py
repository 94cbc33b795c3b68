"""What a receiver lacks of a manifest, found in the time of what changed."""

from random import Random

import pytest

from dkfs.core.manifest import decode_manifest_node
from dkfs.core.manifest_update import Content, Shape, build, update
from dkfs.history.stream_trees import missing
from dkfs.model.ids import ROOT, BlobId
from dkfs.model.node import Attr, Kind, NodeState
from tests.core.trees import Nodes, some_chunks, some_edits

TINY = Shape(minimum=2, mask=1, maximum=4)


def state(content: Content) -> NodeState:
    attr = Attr(Kind.FILE, 0o644, 0, 0, 0, 0, content.size, 0)
    return NodeState(attr, ROOT, b"f", content.blob, content.is_manifest, b"", None)


def everything(nodes: Nodes, content: Content) -> set[BlobId]:
    """Return every blob of *content*."""
    found: set[BlobId] = set()
    stack = [(content.blob, content.is_manifest)]
    while stack:
        blob, is_node = stack.pop()
        if blob is None or blob in found:
            continue
        found.add(blob)
        if is_node:
            node = decode_manifest_node(nodes.blobs[blob])
            stack += [(entry.blob, node.level > 0) for entry in node.entries]
    return found


def compared(nodes: Nodes, new: Content, old: Content | None) -> tuple[list[BlobId], set[BlobId]]:
    seen: set[BlobId] = set()
    base = None if old is None else state(old)
    return list(missing(nodes.load, state(new), base, seen.add)), seen


@pytest.mark.parametrize("seed", range(60))
def test_nothing_is_missing_after_what_is_yielded(seed: int) -> None:
    rng = Random(seed)
    nodes = Nodes()
    shape = rng.choice((TINY, Shape()))
    chunks = some_chunks(rng, rng.choice((0, 1, 3, 40, 400)), kinds=rng.choice((3, 1 << 40)))
    old = build(chunks, nodes.put, shape=shape)
    edits, _ = some_edits(rng, chunks, rng.choice((1, 3))) if chunks else ([], chunks)
    new = update(nodes.manifest(old), edits, nodes.put, shape=shape)

    yielded, seen = compared(nodes, new, old)

    assert len(yielded) == len(set(yielded))
    assert set(yielded) <= everything(nodes, new)
    assert everything(nodes, new) <= set(yielded) | everything(nodes, old)
    assert seen <= everything(nodes, old)
    assert set(compared(nodes, new, None)[0]) == everything(nodes, new)


def test_a_small_change_of_a_large_file_is_a_small_step() -> None:
    rng = Random(1)
    nodes = Nodes()
    chunks = some_chunks(rng, 50_000, holes=0.0)
    old = build(chunks, nodes.put)
    offset = sum(chunk.length for chunk in chunks[:25_000])
    edit = (offset, offset + chunks[25_000].length, some_chunks(rng, 1, holes=0.0))
    new = update(nodes.manifest(old), [edit], nodes.put)
    nodes.loaded = 0

    yielded, _ = compared(nodes, new, old)

    assert len(set(yielded) & everything(nodes, old)) == 0
    assert len(yielded) < 10
    assert nodes.loaded < 20


def test_a_node_that_was_given_up_has_nothing_below_it() -> None:
    nodes = Nodes()
    new = build(some_chunks(Random(2), 2000, holes=0.0), nodes.put)
    assert new.blob is not None
    lost = next(
        entry.blob
        for entry in decode_manifest_node(nodes.blobs[new.blob]).entries
        if entry.blob is not None
    )
    below = everything(nodes, Content(lost, is_manifest=True, size=0)) - {lost}

    def load(blob: BlobId) -> bytes | None:
        return None if blob == lost else nodes.load(blob)

    yielded = set(missing(load, state(new), None, lambda _: None))
    assert lost in yielded
    assert not yielded & below
    assert yielded == everything(nodes, new) - below
    assert list(missing(lambda _: None, state(new), None, lambda _: None)) == [new.blob]
