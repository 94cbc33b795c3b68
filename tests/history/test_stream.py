"""History sent from one store to another: all of it, what is new, again, and into what it does not belong to."""

import io
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dkfs.core import stream
from dkfs.core.delta import Like
from dkfs.core.location import DELTAS, LOST, BlobLocation, encode_blob_location
from dkfs.errors import CorruptError, NotFoundError, StoreError, UsageError
from dkfs.history.replica import token_of
from dkfs.history.stream_in import Receiver
from dkfs.history.stream_io import read_stream
from dkfs.history.stream_out import Sender, start_of
from dkfs.model.ids import BlobId, Seq
from dkfs.model.node import Kind
from dkfs.model.operation import NOBODY, Operation, OpKind
from dkfs.store import Reader, Store
from dkfs.store.check import DamageKind, check
from tests.history.forgetting import keep_only, picture, some_versions
from tests.history.model_history import ModelHistory
from tests.history.random_history import fill
from tests.history.streams import assert_equal, assert_prefix, send, send_on, take
from tests.store.collecting import collect

MIB = 1 << 20
GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def test_a_whole_history_arrives(history: ModelHistory, target: Path) -> None:
    fill(history, 1, 120)

    result = take(target, send(history.store))

    assert result.is_complete
    assert (result.versions, result.last) == (history.last, history.last)
    assert_equal(history.store, target)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_what_is_new_arrives_bit_by_bit(history: ModelHistory, target: Path, seed: int) -> None:
    rng = random.Random(seed)
    take(target, send(history.store))
    for _ in range(6):
        fill(history, rng.randrange(1 << 30), history.last + rng.randrange(1, 60))
        data = send_on(history.store, target)
        take(target, data)
        assert_equal(history.store, target)
        assert take(target, data).versions == 0
    assert_equal(history.store, target)


def test_what_is_new_costs_what_is_new(history: ModelHistory, target: Path) -> None:
    data = random.Random(1).randbytes(20 * MIB)
    history.create(b"large", data)
    take(target, send(history.store))
    history.write(b"large", data[: 5 * MIB] + b"x" * 100 + data[5 * MIB + 100 :])

    increment = send_on(history.store, target)
    take(target, increment)

    assert len(increment) < MIB
    assert_equal(history.store, target)


def test_a_save_by_rename_costs_what_changed(history: ModelHistory, target: Path) -> None:
    data = random.Random(1).randbytes(4 * MIB)
    history.create(b"f", data)
    take(target, send(history.store))
    history.create(b"f.tmp", data[:-10] + b"0123456789")
    history.rename(b"f.tmp", b"f")

    assert len(send_on(history.store, target)) < MIB
    take(target, send_on(history.store, target))
    assert_equal(history.store, target)


def test_sending_again_is_harmless(history: ModelHistory, target: Path) -> None:
    fill(history, 2, 60)
    data = send(history.store)
    take(target, data)
    again = take(target, data)
    fill(history, 3, 90)

    assert (again.versions, again.known) == (0, 60)
    take(target, send(history.store))
    assert take(target, data).versions == 0
    assert_equal(history.store, target)


def test_a_part_up_to_a_version_is_sent(history: ModelHistory, target: Path) -> None:
    fill(history, 2, 60)
    take(target, send(history.store, 0, 30))

    assert assert_prefix(history.store, target) == 30
    take(target, send(history.store, 20, 50))
    assert assert_prefix(history.store, target) == 50
    take(target, send(history.store, 50))
    assert_equal(history.store, target)


def test_tags_follow_and_a_tag_that_was_removed_goes(history: ModelHistory, target: Path) -> None:
    fill(history, 2, 20)
    history.tag("one", Seq(5))
    history.tag("two", Seq(6))
    take(target, send(history.store))
    with Store.open(target, writable=False) as store, store.read() as reader:
        assert [tag.name for tag in reader.tags()] == ["one", "two"]
    history.tag("one", Seq(7))
    take(target, send_on(history.store, target))

    assert_equal(history.store, target)


def test_a_replica_of_a_replica_is_one_of_the_first(
    history: ModelHistory, target: Path, tmp_path: Path
) -> None:
    fill(history, 2, 40)
    take(target, send(history.store))
    with Store.open(target, writable=False) as replica:
        take(tmp_path / "third", send(replica))
    fill(history, 3, 80)
    take(tmp_path / "third", send_on(history.store, tmp_path / "third"))

    assert_equal(history.store, tmp_path / "third")


def test_a_token_says_how_far_it_is(history: ModelHistory, target: Path) -> None:
    fill(history, 2, 40)
    take(target, send(history.store, 0, 25))
    with Store.open(target, writable=False) as store, store.read() as reader:
        token = token_of(store, reader)
    text = stream.token_text(token)

    assert stream.parse_token(text) == token
    assert token.seq == 25
    with history.store.read() as reader:
        assert start_of(history.store, reader, token) == 25


# ---- what is refused


def refused(target: Path, data: bytes, match: str) -> None:
    before = tree(target)
    with pytest.raises(UsageError, match=match):
        take(target, data)
    assert tree(target) == before


def tree(top: Path) -> dict[str, bytes]:
    names = (
        path
        for path in sorted(top.rglob("*"))
        if path.is_file() and "lock" not in path.name.lower()
    )
    return {str(path): path.read_bytes() for path in names}


def test_the_stream_of_another_history_is_refused(
    history: ModelHistory, target: Path, tmp_path: Path
) -> None:
    with ModelHistory(tmp_path / "other") as other:
        fill(other, 1, 20)
        take(target, send(other.store))
        fill(history, 1, 30)
        refused(target, send(history.store), "replica of another history")


def test_a_store_with_a_history_of_its_own_is_refused(
    history: ModelHistory, target: Path, tmp_path: Path
) -> None:
    with ModelHistory(target) as other:
        fill(other, 1, 20)
    refused(target, send(history.store), "history of its own")
    with Store.open(target, writable=False) as store, store.read() as reader:
        with pytest.raises(StoreError, match="history of its own"):
            token_of(store, reader)


def test_a_store_does_not_receive_itself(history: ModelHistory, target: Path) -> None:
    data = send(history.store)
    shutil.copytree(history.store.path, target)

    refused(target, data, "itself, or from a copy")


def test_a_replica_that_was_written_to_is_refused(history: ModelHistory, target: Path) -> None:
    fill(history, 1, 20)
    take(target, send(history.store))
    with Store.open(target, writable=True) as store, store.write() as writer:
        record = writer.record(writer.last)
        assert record is not None
        writer.append(Seq(writer.last + 1), record.operation, (), ())
    last = history.last
    fill(history, 2, 40)

    refused(target, send(history.store, last), f"version {last + 1}, which did not come from its")


def test_another_line_of_the_same_history_is_refused(
    history: ModelHistory, target: Path, tmp_path: Path
) -> None:
    fill(history, 1, 20)
    shutil.copytree(history.store.path, tmp_path / "backup")
    history.create(b"mine")
    take(target, send(history.store))
    with Store.open(tmp_path / "backup", writable=True) as backup:
        with backup.write() as writer:
            record = writer.record(writer.last)
            assert record is not None
            for _ in range(3):
                writer.append(Seq(writer.last + 1), record.operation, (), ())
        for start in (0, 20, 21, 22):
            refused(target, send(backup, start), "gone different ways|begins after version 22")
        with Store.open(target, writable=False) as store, store.read() as reader:
            token = token_of(store, reader)
        with backup.read() as reader, pytest.raises(UsageError, match="gone different ways"):
            start_of(backup, reader, token)


def test_a_gap_is_refused(history: ModelHistory, target: Path) -> None:
    fill(history, 1, 40)
    take(target, send(history.store, 0, 20))

    refused(target, send(history.store, 30), "begins after version 30, store .* ends with 20")
    with pytest.raises(UsageError, match="no store at"):
        take(target.parent / "new", send(history.store, 30))
    assert not (target.parent / "new").exists()


def test_another_hash_is_refused(history: ModelHistory, target: Path) -> None:
    Store.create(target, hash_algo="sha256")

    refused(target, send(history.store), "by blake3, store .* by sha256: expected the same")


def test_versions_that_are_not_there_are_refused(history: ModelHistory) -> None:
    fill(history, 1, 10)
    with history.store.read() as reader:
        for start, end in ((0, 99), (99, 10)):
            with pytest.raises(NotFoundError):
                Sender(history.store, reader, Seq(start), Seq(end))
        with pytest.raises(UsageError, match="expected the older one first"):
            Sender(history.store, reader, Seq(5), Seq(4))


@pytest.mark.parametrize(
    "text", ["", "dkfs1", "dkfs1:00:1:00", "dkfs2:" + "00" * 16 + ":1:" + "00" * 32, "a:b:c:d"]
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no token"):
        stream.parse_token(text)


def test_damage_in_the_source_is_named(history: ModelHistory) -> None:
    data = random.Random(5).randbytes(1000)
    history.mkdir(b"d")
    history.create(b"d/f", data)
    (segment,) = (history.store.path / "segments").iterdir()
    raw = bytearray(segment.read_bytes())
    raw[raw.index(data) + 5] ^= 1
    segment.write_bytes(raw)

    with pytest.raises(CorruptError, match="d/f at version 3: blob "):
        send(history.store)


def test_special_files_and_links_arrive(history: ModelHistory, target: Path) -> None:
    history.mknod(b"null", Kind.CHAR, rdev=0x103)
    history.symlink(b"l", b"somewhere")
    history.create(b"f", b"1")
    history.setxattr(b"f", {b"user.a": b"1"})
    history.found([b"d/", b"d/a", b"d/b=d/a", b"d/c=d/a"])
    history.link(b"f", b"g")

    take(target, send(history.store))

    assert_equal(history.store, target)


# ---- what was forgotten, stored as differences, or lost


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
