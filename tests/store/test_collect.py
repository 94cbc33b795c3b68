"""What a collection removes, what it leaves, and what it says of both."""

import random
from pathlib import Path

import pytest

from dkfs.core.delta import Like
from dkfs.core.location import LOST, BlobLocation, encode_blob_location
from dkfs.core.manifest import encode_manifest_node
from dkfs.errors import CorruptError, StoreBusyError
from dkfs.model.ids import ROOT, BlobId
from dkfs.model.node import Chunk
from dkfs.store import Store
from dkfs.store.check import check
from dkfs.store.collect_sweep import Kept, Swap
from dkfs.store.rows import seal
from tests.store.collecting import (
    SEGMENT_LIMIT,
    collect,
    contents,
    expect,
    fill,
    look,
    lose,
    segment_bytes,
)
from tests.store.making import append, file_state


@pytest.fixture
def small(path: Path) -> Store:
    """Open a new store of small segments for writing."""
    return Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT)


def test_nothing_is_removed_from_a_store_without_dead_blobs(small: Store) -> None:
    with small:
        fill(small, range(1, 101))

        report = collect(small, max_unused=0)

        assert report.dead_blobs == 0
        expect(small, range(1, 101))


def test_what_forgotten_versions_held_comes_back_to_the_disk(small: Store) -> None:
    with small:
        fill(small, range(1, 201))
        lose(small, 1, 100)
        before = segment_bytes(small.path)
        said = look(small).plan.freed

        report = collect(small)

        back = before - segment_bytes(small.path)
        assert report.dead_blobs == 97
        assert back > 190_000
        assert abs(back - said) < said * 0.1
        assert abs(back - report.freed) < said * 0.01
        expect(small, range(101, 201))
        assert list(check(small, read_data=True)) == []


@pytest.mark.parametrize("seed", range(6))
def test_what_comes_back_is_what_was_said(small: Store, seed: int) -> None:
    chosen = random.Random(seed)
    with small:
        fill(small, range(1, 301), files=chosen.randrange(1, 20), size=chosen.randrange(20, 4000))
        for _ in range(chosen.randrange(1, 5)):
            first = chosen.randrange(1, 250)
            lose(small, first, first + chosen.randrange(60))
        max_unused = chosen.choice([0, 0.1, 0.5])
        before = segment_bytes(small.path)
        said = look(small, max_unused=max_unused).plan.freed

        collect(small, max_unused=max_unused)

        back = before - segment_bytes(small.path)
        assert abs(back - said) <= max(said * 0.1, 1000)
        assert list(check(small, read_data=True)) == []


def test_a_second_collection_finds_nothing_to_do(small: Store) -> None:
    with small:
        fill(small, range(1, 201))
        lose(small, 20, 120)
        collect(small, max_unused=0)

        report = collect(small, max_unused=0)

        assert report.dead_blobs == 0
        assert report.freed == 0


def test_segments_with_little_that_is_dead_are_left_as_they_are(small: Store) -> None:
    with small:
        fill(small, range(1, 201))
        lose(small, 1, 5)
        before = segment_bytes(small.path)

        report = collect(small)

        assert report.dead_blobs == 2
        assert report.freed == 0
        assert segment_bytes(small.path) >= before


def test_a_store_that_was_collected_can_be_written_and_opened_again(small: Store) -> None:
    with small:
        fill(small, range(1, 101))
        lose(small, 1, 60)
        collect(small, max_unused=0)
        fill(small, range(101, 151))
        path = small.path
    with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as again:
        fill(again, range(151, 201))
        lose(again, 101, 160)
        collect(again, max_unused=0)

        expect(again, [*range(61, 101), *range(161, 201)])
        assert list(check(again, read_data=True)) == []


def test_attributes_and_manifests_and_what_they_lead_to_are_alive(store: Store) -> None:
    with store.write() as writer:
        leaves = [writer.put_blob(contents(i)).blob for i in range(6)]
        nodes = [
            writer.put_blob(encode_manifest_node(0, [Chunk(2000, leaf) for leaf in pair])).blob
            for pair in (leaves[:3], leaves[3:])
        ]
        root = writer.put_blob(encode_manifest_node(1, [Chunk(6000, node) for node in nodes])).blob
        xattrs = writer.put_blob(b"\1\4user\1x").blob
        dead = writer.put_blob(b"nobody's").blob
        state = file_state(b"f", size=12000, content=root, is_manifest=True, xattrs=xattrs)
        append(writer, {2: state}, {(ROOT, b"f"): 2})

    collect(store, max_unused=0)

    with store.read() as reader:
        assert not reader.has_blob(dead)
        for blob in (*leaves, *nodes, root, xattrs):
            reader.blob(blob)


def test_a_manifest_that_is_also_the_contents_of_a_file_is_followed_all_the_same(
    store: Store,
) -> None:
    with store.write() as writer:
        leaf = writer.put_blob(contents(1)).blob
        data = encode_manifest_node(0, [Chunk(2000, leaf), Chunk(2000, leaf)])
        root = writer.put_blob(data).blob
        plain = file_state(b"a", size=len(data), content=root)
        tree = file_state(b"b", size=4000, content=root, is_manifest=True)
        append(writer, {2: plain, 3: tree}, {(ROOT, b"a"): 2, (ROOT, b"b"): 3})

    collect(store, max_unused=0)

    with store.read() as reader:
        assert reader.blob(leaf) == contents(1)


def test_the_bases_of_a_delta_are_alive(store: Store) -> None:
    base, other = contents(1, 100_000), contents(1, 100_000)[:-5] + b"other"
    with store.write() as writer:
        first = writer.put_blob(base).blob
        second = writer.put_blob(other, like=Like((first,), None))
        state = file_state(b"f", size=len(other), content=second.blob)
        append(writer, {2: state}, {(ROOT, b"f"): 2})
    assert second.added < 1000, "it is stored as a delta"

    report = collect(store, max_unused=0)

    assert report.dead_blobs == 0
    with store.read() as reader:
        assert reader.blob(second.blob) == other


def test_what_is_put_again_during_a_collection_stays_with_its_bases(small: Store) -> None:
    base, other = contents(1, 50_000), contents(1, 50_000)[:-5] + b"other"
    with small:
        with small.write() as writer:
            first = writer.put_blob(base).blob
            second = writer.put_blob(other, like=Like((first,), None)).blob
            append(writer, {2: file_state(b"f")}, {(ROOT, b"f"): 2})
        fill(small, range(2, 50))

        def put_again(step: str) -> None:
            if step == "looked":
                with small.write() as writer:
                    assert writer.put_blob(other).added == 0
                    state = file_state(b"f", size=len(other), content=second)
                    append(writer, {2: state}, time_ns=2 * 10**18)

        report = collect(small, max_unused=0, at=put_again)

        assert report.dead_blobs == 0
        with small.read() as reader:
            assert reader.blob(second) == other
        assert list(check(small, read_data=True)) == []


def test_what_is_stored_anew_during_a_collection_is_moved_too(small: Store) -> None:
    with small:
        fill(small, range(1, 101))
        lose(small, 1, 90)
        versions = iter(range(101, 1000))
        steps = []

        def record(step: str) -> None:
            steps.append(step)
            fill(small, [next(versions)])

        collect(small, max_unused=0, at=record)

        assert {"looked", "rolled", "copied", "adopted", "rows moved", "ended"} <= set(steps)
        expect(small, range(91, next(versions)))
        assert list(check(small, read_data=True)) == []


def test_one_collection_at_a_time(small: Store) -> None:
    with small:
        fill(small, range(1, 10))
        with small.collecting(), pytest.raises(StoreBusyError, match="being collected already"):
            collect(small)
        collect(small)


def test_damage_that_hides_what_is_alive_stops_a_collection(small: Store) -> None:
    with small:
        with small.write() as writer:
            leaf = writer.put_blob(contents(1)).blob
            root = writer.put_blob(encode_manifest_node(0, [Chunk(2000, leaf)] * 2)).blob
            state = file_state(b"f", size=4000, content=root, is_manifest=True)
            append(writer, {2: state}, {(ROOT, b"f"): 2})
            location = writer.location(root)
        assert location is not None
        segment = next((small.path / "segments").iterdir())
        data = bytearray(segment.read_bytes())
        data[location.offset + 60] ^= 1
        segment.write_bytes(data)

        with pytest.raises(CorruptError, match="check --repair"):
            collect(small)


def test_damaged_contents_are_moved_as_they_are(small: Store) -> None:
    with small:
        fill(small, range(1, 41))
        with small.read() as reader:
            location = reader.location(small.hash(contents(30)))
        assert location is not None
        segment = small.path / "segments" / f"{location.segment:08d}.seg"
        data = bytearray(segment.read_bytes())
        data[location.offset + 60] ^= 1
        segment.write_bytes(data)
        lose(small, 1, 20)

        collect(small, max_unused=0)

        expect(small, [*range(21, 30), *range(31, 41)])
        with small.read() as reader, pytest.raises(CorruptError):
            reader.blob(small.hash(contents(30)))


@pytest.mark.expect_logs("are not given up")
def test_a_segment_that_is_too_short_stays(small: Store) -> None:
    with small:
        fill(small, range(1, 101))
        lose(small, 1, 20)
        segment = small.path / "segments" / "00000001.seg"
        with segment.open("rb+") as file:
            file.truncate(70_000)

        report = collect(small, max_unused=0)

        assert 1 in report.skipped
        assert segment.exists()
        expect(small, [*range(21, 31), *range(80, 101)])


def test_many_small_segments_become_few(path: Path) -> None:
    for version in range(1, 41):
        with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as store:
            fill(store, [version], size=100)
            with store.sweep() as sweep:
                sweep.roll()
    with Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT) as store:
        collect(store)

        assert len(store.segment_sizes()) <= 3
        expect(store, range(1, 41), size=100)


@pytest.mark.expect_logs("stored again")
def test_who_stores_something_again_meanwhile_wins(small: Store) -> None:
    with small:
        fill(small, range(1, 41))
        lose(small, 1, 20)
        with small.read() as reader:
            location = reader.location(small.hash(contents(30)))
        assert location is not None
        segment = small.path / "segments" / f"{location.segment:08d}.seg"
        data = bytearray(segment.read_bytes())
        data[location.offset + 60] ^= 1
        segment.write_bytes(data)

    def store_again(step: str) -> None:
        if step == "copied":
            with again.write() as writer:
                writer.put_blob(contents(30))

    with Store.open(small.path, writable=True, segment_limit=SEGMENT_LIMIT) as again:
        collect(again, max_unused=0, at=store_again)

        expect(again, range(21, 41))


def test_others_are_let_in_at_each_row_that_is_removed(small: Store) -> None:
    with small:
        fill(small, range(1, 21))
        lose(small, 1, 10)
        rows: list[str] = []

        report = collect(small, max_unused=1, breathe=lambda: rows.append("a row"))

        assert len(rows) == report.dead_blobs == 7
        expect(small, range(11, 21))


def give_up(store: Store, blob: BlobId) -> None:
    """Do to *blob* what a repair does that does not find it anywhere."""
    with store.read() as reader:
        location = reader.location(blob)
        value = next(value for key, value in reader.rows("blobs", blob) if key == blob)
    assert location is not None
    lost = BlobLocation(0, 0, 0, location.length, LOST)
    with store.sweep() as sweep:
        sweep.swap(
            [Swap(blob, value, seal(blob, encode_blob_location(lost)))], Kept(), lambda: None
        )


def test_what_a_repair_gave_up_stops_no_collection_and_stays_known(small: Store) -> None:
    with small:
        with small.write() as writer:
            leaf = writer.put_blob(contents(1)).blob
            root = writer.put_blob(encode_manifest_node(0, [Chunk(2000, leaf)] * 2)).blob
            dead = writer.put_blob(contents(2)).blob
            state = file_state(b"f", size=4000, content=root, is_manifest=True)
            append(writer, {2: state}, {(ROOT, b"f"): 2})
        give_up(small, root)
        give_up(small, dead)

        report = collect(small, max_unused=0)

        assert report.dead_blobs == 2, "the leaf, to which nothing leads any more, and the dead one"
        with small.read() as reader:
            assert reader.has_blob(root)
            assert not reader.has_blob(dead)
