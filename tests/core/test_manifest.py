"""Manifests: what is read is checked, and read only when it is needed."""

import struct
import tracemalloc
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.manifest import (
    LEVELS,
    Manifest,
    ManifestNode,
    decode_manifest_node,
    encode_manifest_node,
)
from dkfs.core.manifest_update import Content, Shape, build
from dkfs.errors import CorruptError
from dkfs.model.ids import BlobId
from dkfs.model.node import Chunk
from tests.core.trees import Nodes, chunk_id, flat_manifest, some_chunks

A, B = chunk_id(1), chunk_id(2)
TINY = Shape(minimum=2, mask=1, maximum=4)


def node(level: int, *entries: Chunk) -> bytes:
    return encode_manifest_node(level, entries)


@given(st.integers(0, 2**40), st.integers(0, LEVELS - 1))
def test_a_node_comes_back_as_it_was(seed: int, level: int) -> None:
    rng = Random(seed)
    entries = some_chunks(rng, rng.randrange(1, 40), holes=0.0 if level else 0.3)
    entries[0] = Chunk(rng.randrange(1, 1 << 62), entries[0].blob)

    assert decode_manifest_node(encode_manifest_node(level, entries)) == ManifestNode(
        level, tuple(entries)
    )


def test_a_node_is_laid_out_as_the_format_says() -> None:
    assert node(0, Chunk(65536, A), Chunk(3, None)) == b"\2\0\x81\x80\x08" + A + b"\6"


def test_a_manifest_of_format_1_is_one_node() -> None:
    data = flat_manifest((1, 65536, A + B), (0, 131072, b""), (1, 3, A))

    assert decode_manifest_node(data) == ManifestNode(
        0, (Chunk(65536, A), Chunk(65536, B), Chunk(131072, None), Chunk(3, A))
    )


@pytest.mark.parametrize("data", [b"", b"\2", b"\2\0", b"\3\0\2", b"\2\x10\2", b"\xff" * 40])
def test_what_is_no_node_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptError, match="manifest"):
        decode_manifest_node(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\2\0\0", "entry of 0 bytes"),
        (b"\2\0\1" + A, "entry of 0 bytes"),
        (b"\2\0\3" + A[:-1], "ends too early"),
        (b"\2\0\x83", "ends too early"),
        (b"\2\0\4\4", "hole after a hole"),
        (b"\2\1\3" + A + b"\4", "level 1 with a hole"),
        (b"\2\0" + b"\xff" * 9 + b"\1" + A + b"\2", "entry of"),  # 2^63 - 1 and one more
        (b"\2\0" + b"\xff" * 10 + b"\1", "64 bits"),
        (b"\1\0", "2 bytes, need 14"),
        (b"\1" + struct.pack(">BQI", 0, 0, 1), "run of type 0, 1 of 0 bytes"),
        (b"\1" + struct.pack(">BQI", 0, 2**63, 1), "run of type 0"),
        (b"\1" + struct.pack(">BQI", 1, 2**40, 2**31), "run of type 1"),
        (b"\1" + struct.pack(">BQI", 2, 1, 1), "run of type 2"),
        (b"\1" + struct.pack(">BQI", 0, 65536, 2**32 - 1), "hole counted"),
        (b"\1" + struct.pack(">BQI", 1, 1, 2**32 - 1), "need 137438953454"),
    ],
)
def test_a_node_that_cannot_be_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(CorruptError, match=message):
        decode_manifest_node(data)


@given(
    st.binary(max_size=200)
    | st.builds(bytes.__add__, st.sampled_from((b"\1", b"\2\0", b"\2\1")), st.binary(max_size=200))
)
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        found = decode_manifest_node(data)
    except CorruptError:
        return
    assert sum(entry.length for entry in found.entries) < 1 << 63
    assert all(entry.length for entry in found.entries)


@given(st.integers(0, 2**40))
def test_a_node_with_a_flipped_bit_or_cut_short_decodes_or_is_refused(seed: int) -> None:
    rng = Random(seed)
    data = bytearray(encode_manifest_node(rng.randrange(2), some_chunks(rng, 20, holes=0.2)))
    bit = rng.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8

    test_any_bytes_decode_or_are_refused.hypothesis.inner_test(bytes(data))  # type: ignore[attr-defined]
    test_any_bytes_decode_or_are_refused.hypothesis.inner_test(  # type: ignore[attr-defined]
        bytes(data[: rng.randrange(len(data))])
    )


def test_a_node_that_claims_an_exbibyte_takes_no_more_memory_than_its_bytes() -> None:
    data = node(0, Chunk(1 << 60, None), Chunk(1 << 60, A), Chunk(1 << 60, None))
    many = node(0, *[Chunk(2, A if i % 2 else None) for i in range(10_000)])

    tracemalloc.start()
    claimed = decode_manifest_node(data)
    small = tracemalloc.get_traced_memory()[1]
    decode_manifest_node(many)
    large = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert sum(entry.length for entry in claimed.entries) == 3 << 60
    assert small < 10_000
    assert large < 20 * len(many)


@pytest.mark.parametrize("count", [0, 1, 2, 10, 200])
def test_pieces_are_the_chunks_with_their_offsets(count: int) -> None:
    rng = Random(count)
    nodes = Nodes()
    chunks = some_chunks(rng, count)
    manifest = nodes.manifest(build(chunks, nodes.put, shape=TINY))
    offsets = [sum(chunk.length for chunk in chunks[:i]) for i in range(len(chunks))]
    expected = list(zip(offsets, chunks, strict=True))

    assert list(manifest.pieces()) == expected
    for _ in range(50):
        start, end = rng.randrange(manifest.size + 9), rng.randrange(manifest.size + 9)
        inside = [(o, c) for o, c in expected if o < end and o + c.length > start]
        assert list(manifest.pieces(start, end)) == (inside if start < end else [])
    for offset in range(manifest.size):
        assert manifest.chunk_at(offset) == next(
            (o, c) for o, c in expected if o <= offset < o + c.length
        )


def test_an_empty_file_has_no_pieces() -> None:
    assert list(Manifest(Nodes().load, None, is_manifest=False, size=0).pieces()) == []


def test_a_file_without_a_manifest_is_one_chunk_or_one_hole() -> None:
    nodes = Nodes()

    assert list(Manifest(nodes.load, A, is_manifest=False, size=9).pieces()) == [(0, Chunk(9, A))]
    assert Manifest(nodes.load, None, is_manifest=False, size=1 << 60).chunk_at(1 << 59) == (
        0,
        Chunk(1 << 60, None),
    )
    assert nodes.loaded == 0


def test_reading_a_place_loads_only_the_nodes_above_it() -> None:
    nodes = Nodes()
    content = build(some_chunks(Random(1), 20_000), nodes.put)
    manifest = nodes.manifest(content)
    levels = manifest.root().level + 1

    manifest.chunk_at(content.size // 2)
    assert nodes.loaded == levels == 3
    list(manifest.pieces(content.size // 2, content.size // 2 + 100))
    assert nodes.loaded <= levels + 1


def test_a_walk_loads_each_node_once_and_keeps_few() -> None:
    nodes = Nodes()
    manifest = nodes.manifest(build(some_chunks(Random(2), 20_000), nodes.put))

    assert sum(chunk.length for _, chunk in manifest.pieces()) == manifest.size
    assert nodes.loaded == len(nodes.blobs)
    assert len(manifest._nodes) == 64


def tree(nodes: Nodes, root: bytes, size: int) -> Manifest:
    blob = nodes.put(root, None)
    return Manifest(nodes.load, blob, is_manifest=True, size=size)


def test_a_manifest_that_does_not_cover_the_file_is_damage() -> None:
    with pytest.raises(CorruptError, match=r"covers 99 bytes, need 100"):
        tree(Nodes(), node(0, Chunk(4, A), Chunk(95, None)), 100).chunk_at(0)


def test_an_empty_manifest_of_format_1_is_damage_where_there_are_bytes() -> None:
    with pytest.raises(CorruptError, match=r"covers 0 bytes, need 100"):
        tree(Nodes(), flat_manifest(), 100).chunk_at(0)


def test_a_node_that_covers_another_size_than_the_one_above_says_is_damage_only_there() -> None:
    nodes = Nodes()
    good = nodes.put(node(0, Chunk(50, A)), None)
    bad = nodes.put(node(0, Chunk(51, A)), None)
    manifest = tree(nodes, node(1, Chunk(50, good), Chunk(50, bad)), 100)

    assert manifest.chunk_at(49) == (0, Chunk(50, A))
    with pytest.raises(CorruptError, match=r"covers 51 bytes, need 50"):
        manifest.chunk_at(50)
    with pytest.raises(CorruptError, match=r"covers 51 bytes, need 50"):
        list(manifest.pieces(60))


@pytest.mark.parametrize("level", [0, 2, 3, LEVELS - 1])
def test_a_node_of_another_level_than_one_below_is_damage(level: int) -> None:
    nodes = Nodes()
    child = nodes.put(node(level, Chunk(50, A), Chunk(50, B)), None)

    with pytest.raises(CorruptError, match=f"of level {level} .* need 100, level 1"):
        tree(nodes, node(2, Chunk(100, child)), 100).chunk_at(0)


def test_nodes_that_lead_in_a_circle_are_damage() -> None:
    nodes = Nodes()
    root = BlobId(bytes(32))
    nodes.blobs[root] = node(5, Chunk(100, root))

    with pytest.raises(CorruptError, match="level 4"):
        Manifest(nodes.load, root, is_manifest=True, size=100).chunk_at(0)


def test_a_missing_node_is_damage_only_where_it_is_read() -> None:
    nodes = Nodes()
    content = build(some_chunks(Random(3), 1000, holes=0.0), nodes.put)
    whole = nodes.manifest(content).root()
    lost = whole.entries[-1].blob
    assert lost is not None
    del nodes.blobs[lost]

    manifest = nodes.manifest(content)
    assert manifest.chunk_at(0)[0] == 0
    with pytest.raises(CorruptError, match="not in the store"):
        manifest.chunk_at(content.size - 1)


def test_one_chunk_and_one_hole_need_no_manifest() -> None:
    nodes = Nodes()

    assert build([], nodes.put) == Content(None, is_manifest=False, size=0)
    assert build([Chunk(5, A)], nodes.put) == Content(A, is_manifest=False, size=5)
    assert build([Chunk(5, None), Chunk(4, None)], nodes.put) == Content(
        None, is_manifest=False, size=9
    )
    assert not nodes.blobs


def test_holes_that_touch_are_one_entry() -> None:
    nodes = Nodes()
    content = build([Chunk(5, None), Chunk(4, None), Chunk(1, A), Chunk(1, None)], nodes.put)

    assert list(nodes.manifest(content).pieces()) == [
        (0, Chunk(9, None)),
        (9, Chunk(1, A)),
        (10, Chunk(1, None)),
    ]
