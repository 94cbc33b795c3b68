"""History sent from one store to another: all of it, what is new, again, and into what it does not belong to."""

import random
import shutil
from pathlib import Path

import pytest

from dkfs.core import stream
from dkfs.errors import CorruptError, NotFoundError, UsageError
from dkfs.history.replica import token_of
from dkfs.history.stream_out import Sender, start_of
from dkfs.model.ids import Seq
from dkfs.model.node import Kind
from dkfs.store import Store
from tests.history.model_history import ModelHistory
from tests.history.random_history import fill
from tests.history.streams import assert_equal, assert_prefix, refused, send, send_on, take

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
        with pytest.raises(UsageError, match="history of its own"):
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
