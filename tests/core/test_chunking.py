"""Cutting: by content, the same around a few changes as from scratch, and at a cost that follows the changes."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.chunking import KIB, MIB, PATIENCE, PIECE, Chunking, cut, recut
from dkfs.errors import UsageError
from tests.core.sources import DEFAULT, Bytes, Chunks, Endless, Generated, Range, edit, some_bytes

SMALL = Chunking(minimum=64, average=256, maximum=1024, threshold=300)
GRID = Chunking(enabled=False)


def cut_all(source: Bytes, chunking: Chunking) -> Chunks:
    pieces = list(cut(source, 0, chunking))
    assert [each.offset for each in pieces] == [
        sum(each.length for each in pieces[:i]) for i in range(len(pieces))
    ]
    assert all(source.data[o : o + n] == (d or bytes(n)) for o, n, d in pieces)
    return Chunks((each.length, each.data) for each in pieces)


def recut_all(
    source: Bytes,
    old: Chunks,
    old_data: bytes,
    dirty: list[Range],
    chunking: Chunking,
    *,
    patience: int = PATIENCE,
) -> Chunks:
    """Return the chunks after a recut: fresh ones, and between them the old ones."""
    pieces: list[tuple[int, bytes | None]] = []
    position = 0

    def keep(end: int) -> None:
        nonlocal position
        while position < end:
            start, chunk = old.chunk_at(position)
            stop = min(start + chunk.length, end)
            assert chunk.blob is None or (start, start + chunk.length) == (position, stop)
            pieces.append((stop - position, None if chunk.blob is None else old_data[start:stop]))
            position = stop

    for stretch in recut(source, old, dirty, chunking, patience=patience):
        keep(stretch.start)
        assert position == stretch.start
        for offset, length, data in stretch:
            assert offset == position
            assert data is None or len(data) == length
            pieces.append((length, data))
            position += length
        assert position == stretch.end or (position, stretch.end) == (source.size, old.size)
        position = stretch.end
    keep(old.size)
    assert b"".join(bytes(n) if d is None else d for n, d in pieces) == source.data
    return Chunks(pieces)


@given(seed=st.integers(0, 2**40), knows=st.booleans())
def test_a_recut_gives_what_cutting_from_scratch_gives(seed: int, *, knows: bool) -> None:
    rng = Random(seed)
    data = some_bytes(rng, rng.choice((0, 1, 299, 300, 301, 1000, 20_000, 50_000)))
    chunks = cut_all(Bytes(data), SMALL)
    for _ in range(4):
        new, dirty = edit(rng, data)
        source = Bytes(new, knows_holes=knows)

        fresh = recut_all(source, chunks, data, dirty, SMALL, patience=1 << 40)

        data, chunks = new, cut_all(Bytes(new), SMALL)
        assert fresh.chunks == chunks.chunks


@given(seed=st.integers(0, 2**40), knows=st.booleans())
def test_a_recut_that_may_give_up_gives_the_right_bytes(seed: int, *, knows: bool) -> None:
    rng = Random(seed)
    data = some_bytes(rng, 50_000)
    chunks = cut_all(Bytes(data), SMALL)
    for _ in range(6):
        new, dirty = edit(rng, data)
        # The bytes are compared in there.
        chunks = recut_all(Bytes(new, knows_holes=knows), chunks, data, dirty, SMALL)
        data = new


def test_a_boundary_depends_on_the_byte_behind_it() -> None:
    rng = Random(8)
    data = rng.randbytes(60_000)
    chunks = cut_all(Bytes(data), SMALL)
    for start, _ in chunks.chunks:
        new = data[:start] + bytes([data[start] ^ 0x55]) + data[start + 1 :]

        fresh = recut_all(Bytes(new), chunks, data, [(start, start + 1)], SMALL)

        assert fresh.chunks == cut_all(Bytes(new), SMALL).chunks


@pytest.mark.parametrize("beyond", [-2, -1, 0, 1, 2])
def test_a_file_may_end_near_a_boundary(beyond: int) -> None:
    data = Random(9).randbytes(30_000)
    chunks = cut_all(Bytes(data), SMALL)
    for start, _ in chunks.chunks[2:]:
        short = data[: start + beyond]
        shorter = recut_all(Bytes(short), chunks, data, [], SMALL)

        assert shorter.chunks == cut_all(Bytes(short), SMALL).chunks
        longer = recut_all(Bytes(data), shorter, short, [(len(short), len(data))], SMALL)
        assert longer.chunks == chunks.chunks


def test_a_hole_that_begins_elsewhere_is_no_reason_to_give_up() -> None:
    rng = Random(10)
    data = rng.randbytes(5000) + bytes(300_000) + rng.randbytes(50_000)
    chunks = cut_all(Bytes(data), SMALL)
    new = data[:10_000] + b"new" + data[10_003:]
    source = Bytes(new, knows_holes=True)

    fresh = recut_all(source, chunks, data, [(10_000, 10_003)], SMALL)

    assert fresh.chunks == cut_all(Bytes(new), SMALL).chunks
    assert source.bytes_read < 20_000


@given(st.integers(0, 2**40))
def test_known_holes_are_cut_as_if_their_zeros_had_been_read(seed: int) -> None:
    data = some_bytes(Random(seed), 40_000)
    known = Bytes(data, knows_holes=True)

    assert cut_all(known, SMALL).chunks == cut_all(Bytes(data), SMALL).chunks


@pytest.mark.parametrize("average", [256, 512, 1024, 4096, 65536, MIB, 4 * MIB])
@pytest.mark.parametrize("margin", [64, 192])
def test_zeros_are_cut_at_the_maximum_and_nowhere_else(average: int, margin: int) -> None:
    chunking = Chunking(
        minimum=min(average - margin, MIB), average=average, maximum=4 * average, threshold=0
    )

    lengths = [each.length for each in cut(Bytes(bytes(13 * average)), 0, chunking)]

    assert lengths == [4 * average] * 3 + [average]


def test_the_same_bytes_elsewhere_are_cut_the_same() -> None:
    rng = Random(1)
    data = rng.randbytes(3 * MIB)
    at = rng.randrange(MIB)

    before = cut_all(Bytes(data), DEFAULT).chunks
    after = cut_all(Bytes(data[:at] + b"a hundred" + data[at:]), DEFAULT).chunks

    blobs = {chunk.blob for _, chunk in before}
    assert sum(chunk.blob not in blobs for _, chunk in after) <= 2


def test_chunks_are_as_long_as_they_are_said_to_be() -> None:
    lengths = [each.length for each in cut(Bytes(Random(2).randbytes(10 * MIB)), 0, DEFAULT)]

    assert min(lengths[:-1]) >= 16 * KIB
    assert max(lengths) <= 256 * KIB
    assert 50 * KIB < sum(lengths) / len(lengths) < 100 * KIB


@pytest.mark.parametrize("size", [1, 300, 301])
def test_a_file_up_to_the_threshold_is_one_chunk(size: int) -> None:
    source = Bytes(bytes([1]) + Random(3).randbytes(size - 1))

    assert (len(list(cut(source, 0, SMALL))) == 1) == (size <= 300)


def test_an_empty_file_has_no_chunks() -> None:
    assert list(cut(Bytes(b""), 0, DEFAULT)) == []
    assert list(recut(Bytes(b""), Chunks([]), [], DEFAULT)) == []


def test_what_was_truncated_to_nothing_is_replaced_by_nothing() -> None:
    (stretch,) = recut(Bytes(b""), Chunks([(5000, b"a" * 5000)]), [], SMALL)

    assert (stretch.start, stretch.end, list(stretch)) == (0, 5000, [])


def test_what_did_not_change_is_not_read() -> None:
    source = Bytes(Random(4).randbytes(50_000))
    old = cut_all(source, SMALL)
    source.bytes_read = 0

    assert list(recut(source, old, [], SMALL)) == []
    assert list(recut(source, old, [(60_000, 70_000)], SMALL)) == []  # it was truncated again
    assert source.bytes_read == 0


def test_a_hole_of_an_exbibyte_is_not_read() -> None:
    class Sparse(Bytes):
        def __init__(self) -> None:
            super().__init__(Random(5).randbytes(100_000))
            self.size = 1 << 60

        def hole_end(self, offset: int) -> int:
            return self.size if offset >= len(self.data) else offset

        def read(self, offset: int, length: int) -> bytes:
            return super().read(offset, length).ljust(length, b"\0")

    source = Sparse()
    pieces = list(cut(source, 0, SMALL))

    assert sum(each.length for each in pieces) == 1 << 60
    assert len(pieces) < 2000
    assert source.bytes_read <= 100_000 + 2 * MIB


def test_reading_goes_about_a_mebibyte_ahead() -> None:
    source = Generated(1 << 34)

    pieces = cut(source, 0, DEFAULT)
    next(pieces)
    assert source.bytes_read == MIB
    for each in pieces:
        assert source.bytes_read <= each.offset + each.length + MIB
        if each.offset > 4 * MIB:
            break


def test_a_small_write_reads_as_much_of_a_large_file_as_of_a_small_one() -> None:
    read = []
    for size in (10 * MIB, 10 * 1024 * MIB):
        total = 0
        for place in (0.0, 0.3, 0.5, 0.8, 0.999):
            block = int(place * size) // 4096
            old = Endless(Generated(size), near=max(block * 4096 - 2 * MIB, 0))
            source = Generated(size, written={block})

            stretches = recut(source, old, [(block * 4096, (block + 1) * 4096)], DEFAULT)

            assert [len(list(stretch)) for stretch in stretches] in ([1], [2], [3])
            total += source.bytes_read
        read.append(total)

    assert max(read) <= 3 * min(read)
    assert max(read) <= 5 * 256 * KIB


def test_a_recut_that_finds_no_old_boundary_gives_up_at_one() -> None:
    rng = Random(6)
    data = rng.randbytes(400_000)
    lengths = [1000] * 400  # boundaries that cutting would never find again
    starts = [i * 1000 for i in range(400)]
    old = Chunks((n, data[s : s + n]) for s, n in zip(starts, lengths, strict=True))
    new = data[:100_500] + b"new" + data[100_503:]
    source = Bytes(new)

    (stretch,) = [(s, list(s)) for s in recut(source, old, [(100_500, 100_503)], SMALL)]

    assert stretch[0].start == 100_000
    assert stretch[0].end % 1000 == 0
    assert 100_503 + 4 * 1024 <= stretch[0].end <= 100_503 + 4 * 1024 + 2048
    assert b"".join(each.data or b"" for each in stretch[1]) == new[100_000 : stretch[0].end]
    assert source.bytes_read <= 10_000


@pytest.mark.parametrize("second", range(104_000, 107_001, 500))
def test_a_change_where_a_recut_would_give_up_is_taken_in(second: int) -> None:
    data = Random(7).randbytes(200_000)
    old = Chunks((1000, data[s : s + 1000]) for s in range(0, 200_000, 1000))
    new = data[:second] + bytes([data[second] ^ 1]) + data[second + 1 :]

    # That stretches do not overlap, and that the bytes are right, is checked in there.
    recut_all(Bytes(new), old, data, [(100_500, 100_501), (second, second + 1)], SMALL)


def test_without_chunking_there_are_pieces_on_a_grid() -> None:
    source = Generated(PIECE * 2 + 5000)

    assert [(each.offset, each.length) for each in cut(source, 0, GRID)] == [
        (0, PIECE),
        (PIECE, PIECE),
        (2 * PIECE, 5000),
    ]


def test_without_chunking_only_the_piece_that_was_written_is_cut_again() -> None:
    size = PIECE * 3 + 5000
    old = Chunks((n, b"x") for n in (PIECE, PIECE, PIECE, 5000))
    source = Bytes(bytes([1]) * size)

    stretches = [
        (stretch.start, [each.length for each in stretch], stretch.end)
        for stretch in recut(source, old, [(PIECE + 7, PIECE + 9)], GRID)
    ]

    assert stretches == [(PIECE, [PIECE], 2 * PIECE)]


def test_without_chunking_known_holes_are_not_read() -> None:
    source = Bytes(bytes(3 * PIECE) + b"a" + bytes(10), knows_holes=True)

    assert [(each.offset, each.length, each.data) for each in cut(source, 0, GRID)] == [
        (0, 3 * PIECE, None),
        (3 * PIECE, 11, b"a" + bytes(10)),
    ]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"minimum": 10}, "minimum chunk of 10 bytes"),
        ({"maximum": 17 * MIB}, "maximum chunk"),
        ({"average": 16 * KIB}, "minimum \\+ 64"),
        ({"average": 300 * KIB}, "average <= maximum"),
        ({"threshold": 17 * MIB}, "threshold"),
        ({"threshold": -1}, "threshold"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Chunking(**sizes)  # type: ignore[arg-type]  # enabled is not among them
