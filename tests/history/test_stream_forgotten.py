"""What was forgotten, stored as differences, or lost, on its way to another store."""

import io
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dkfs.core.delta import Like
from dkfs.core.location import DELTAS, LOST, BlobLocation, encode_blob_location
from dkfs.errors import CorruptError, NotFoundError
from dkfs.history.stream_in import Receiver
from dkfs.history.stream_io import read_stream
from dkfs.model.ids import BlobId, Seq
from dkfs.model.operation import NOBODY, Operation, OpKind
from dkfs.store import Reader, Store
from dkfs.store.check import DamageKind, check
from tests.history.forgetting import keep_only, picture, some_versions
from tests.history.model_history import ModelHistory
from tests.history.random_history import fill
from tests.history.streams import assert_equal, refused, send, send_on, take
from tests.store.collecting import collect

MIB = 1 << 20
GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def test_versions_that_were_forgotten_are_gaps_in_the_replica_too(
    history: ModelHistory, target: Path
) -> None:
    fill(history, 4, 80)
    keep_only(history.store, {7, 8, 30, 31, 50, 70, 80})
    fill(history, 5, 100)

    take(target, send(history.store))

    assert_equal(history.store, target)
    with Store.open(target, writable=False) as store, store.read() as reader:
        assert reader.forgotten() == 73


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_a_replica_keeps_what_is_forgotten_and_still_becomes_what_the_source_is(
    history: ModelHistory, target: Path, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    last = 0
    for _ in range(4):
        take(target, send_on(history.store, target))
        last = history.last
        fill(history, rng.randrange(1 << 30), last + rng.randrange(1, 50))
        keep_only(history.store, some_versions(rng, history.last) | {last})
    take(target, send_on(history.store, target))

    with Store.open(target, writable=False) as store:
        assert list(check(store, read_data=True)) == []
        with store.read() as there, history.store.read() as here:
            for seq, _ in here.versions():
                assert trees_of(there, seq) == trees_of(here, seq)


def trees_of(reader: Reader, seq: int) -> object:
    """Return what version *seq* has, less the names that only the source could remember."""
    return {
        path: (node, state, data) for path, (node, state, _, data) in picture(reader, seq).items()
    }


def test_where_the_common_version_was_forgotten_there_is_no_way_on(
    history: ModelHistory, target: Path
) -> None:
    fill(history, 4, 40)
    take(target, send(history.store, 0, 20))
    keep_only(history.store, {10, 30, 40})

    with pytest.raises(NotFoundError, match="version 20, the last that the receiver has, was forg"):
        send_on(history.store, target)
    refused(target, send(history.store, 10), "version 20, the last of store .* was forgotten")
    refused(target, send(history.store), "version 20, the last of store .* was forgotten")


def test_a_replica_may_forget_by_itself(history: ModelHistory, target: Path) -> None:
    fill(history, 4, 40)
    take(target, send(history.store))
    with Store.open(target, writable=True) as store:
        keep_only(store, {5, 10, 40})
    known = 40
    fill(history, 6, 70)

    again = take(target, send(history.store))

    assert (again.versions, again.known) == (history.last - known, known)
    with Store.open(target, writable=False) as store, store.read() as reader:
        assert list(check(store, read_data=True)) == []
        assert (reader.last, reader.forgotten()) == (history.last, 37)
        with history.store.read() as here:
            for seq in (5, 10, 40, 41, 55, 70):
                assert trees_of(reader, seq) == trees_of(here, seq)


def test_what_the_replica_may_have_thrown_away_is_sent_again(
    history: ModelHistory, target: Path
) -> None:
    history.create(b"f", random.Random(1).randbytes(3000))
    before = history.last
    history.unlink(b"f")
    history.mkdir(b"d")
    take(target, send(history.store))
    with Store.open(target, writable=True) as store:
        keep_only(store, {history.last})
        assert collect(store, max_unused=0).dead_blobs == 1
    history.rollback(before)

    take(target, send_on(history.store, target))

    with Store.open(target, writable=False) as store, store.read() as reader:
        assert list(check(store, read_data=True)) == []
        with history.store.read() as here:
            assert trees_of(reader, history.last) == trees_of(here, history.last)


def _saves(history: ModelHistory, count: int) -> None:
    """Write a file again and again, each time as a difference to the time before."""
    rng = random.Random(9)
    data = bytearray(rng.randbytes(50_000))
    history.create(b"f")
    with history.store.write() as writer:
        found = writer.record(history.last)
        assert found is not None
    node = found.operation.node
    base: BlobId | None = None
    for number in range(count):
        data[rng.randrange(40_000) :][:100] = b""
        at = rng.randrange(40_000)
        data[at : at + 100] = rng.randbytes(100)
        with history.store.write() as writer:
            put = writer.put_blob(bytes(data), like=None if base is None else Like((base,), None))
            base = put.blob
            state = writer.node(node, writer.last)
            assert state is not None
            attr = replace(state.attr, size=len(data))
            operation = Operation(OpKind.WRITE, history.time_ns(50 + number), NOBODY, node=node)
            state = replace(state, attr=attr, content=put.blob)
            writer.append(Seq(writer.last + 1), operation, [(node, state)], ())


def stored_as(store: Store) -> list[int]:
    with store.read() as reader:
        found = [reader.location(BlobId(key)) for key, _ in reader.rows("blobs")]
    return sorted(location.encoding for location in found if location is not None)


def test_differences_stay_differences_and_bring_what_they_need(
    history: ModelHistory, target: Path
) -> None:
    _saves(history, 8)
    with history.store.read() as reader:
        last = reader.last
    half = Seq(last - 4)

    assert len(set(stored_as(history.store)) & DELTAS) > 0
    take(target, send(history.store, 0, half))
    increment = send(history.store, half)
    take(target, increment)

    assert len(increment) < 20_000
    assert_equal(history.store, target)
    with Store.open(target, writable=False) as store:
        assert stored_as(store) == stored_as(history.store)


def test_a_difference_to_what_no_version_has_brings_it_along(
    history: ModelHistory, target: Path
) -> None:
    _saves(history, 12)
    with history.store.read() as reader:
        last = int(reader.last)
    keep_only(history.store, {1, 2, last})

    take(target, send(history.store))

    assert_equal(history.store, target)


def test_what_a_repair_gave_up_is_given_up_in_the_replica(
    history: ModelHistory, target: Path
) -> None:
    history.create(b"f", b"1" * 1000)
    blob = history.state(b"f").content
    assert blob is not None
    with history.store.write() as writer:
        lost = BlobLocation(0, 0, 0, 1000, LOST)
        writer.put_row("blobs", blob, encode_blob_location(lost))

    take(target, send(history.store))

    with Store.open(target, writable=False) as store, store.read() as reader:
        location = reader.location(blob)
        assert location is not None
        assert (location.encoding, location.length) == (LOST, 1000)
        with pytest.raises(CorruptError, match="lost"):
            reader.blob(blob)
        assert [each.kind for each in check(store, read_data=True)] == [DamageKind.LOST]


@pytest.mark.parametrize("golden", ["store-v1", "store-v2"])
def test_a_store_of_any_format_is_sent(tmp_path: Path, target: Path, golden: str) -> None:
    place = shutil.copytree(GOLDEN / golden, tmp_path / "golden")
    with Store.open(place, writable=False) as store:
        result = take(target, send(store))
        with Store.open(target, writable=False) as there:
            assert list(check(there, read_data=True)) == []
            with there.read() as reader, store.read() as here:
                assert (reader.last, result.versions) == (here.last, here.last - here.forgotten())
                assert list(reader.tags()) == list(here.tags())
                assert list(reader.log(Seq(1), here.last)) == list(here.log(Seq(1), here.last))
                for seq, _ in here.versions():
                    assert picture(reader, seq) == picture(here, seq)


@pytest.mark.slow
def test_a_large_version_comes_in_many_commits_and_goes_on_where_it_was(
    history: ModelHistory, target: Path
) -> None:
    rng = random.Random(2)
    with history.batch():
        for number in range(50):
            history.create(b"f%d" % number, rng.randbytes(200_000))
    history.found([b"many/", *(b"many/%d" % number for number in range(5000))])
    items = list(read_stream(io.BytesIO(send(history.store)).read))
    Store.create(target)

    with Store.open(target, writable=True) as store:
        for stop in (30, 120, 180, len(items) - 1, len(items)):
            receiver = Receiver(store, batch_bytes=300_000, batch_versions=7)
            if stop < len(items):
                with pytest.raises(CorruptError, match="without an end"):
                    receiver.run(iter(items[:stop]))
            else:
                receiver.run(iter(items))
    assert_equal(history.store, target)
