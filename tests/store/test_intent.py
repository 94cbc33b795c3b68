"""The intent log: whatever is needed is found again, whatever was torn is not taken for a record."""

import random
import struct
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from dkfs.errors import CorruptError, StoreError, StoreFormatError
from dkfs.model.ids import Seq
from dkfs.store import Store, intent
from dkfs.store.intent import PAGE, IntentFile, IntentRecord, Span, read_intents, set_aside
from dkfs.store.rows import FORMAT_KEY

UUID = b"u" * 16
SECTOR = 512  # bytes that a disk writes whole


@pytest.fixture
def file(tmp_path: Path) -> IntentFile:
    return IntentFile(tmp_path, UUID, limit=64 * PAGE)


def add(file: IntentFile, first: int, last: int, data: bytes) -> bool:
    return file.append(
        Span(Seq(first), Seq(last), first * 10, Seq(first - 1)), (data[:3], data[3:])
    )


def test_records_are_found_again_in_the_order_of_their_versions(
    tmp_path: Path, file: IntentFile
) -> None:
    assert add(file, 5, 7, b"one")
    assert add(file, 8, 8, b"two" * PAGE)

    assert read_intents(tmp_path, UUID) == [
        IntentRecord(Span(Seq(5), Seq(7), 50, Seq(4)), b"one"),
        IntentRecord(Span(Seq(8), Seq(8), 80, Seq(7)), b"two" * PAGE),
    ]
    assert (tmp_path / "intent").stat().st_mode & 0o777 == 0o600


def test_a_log_of_format_1_is_read_of_which_each_record_was_durable_before_the_next(
    tmp_path: Path,
) -> None:
    head = struct.pack(">8sI16s16s", b"dkfs-int", 1, UUID, b"k" * 16)
    body = struct.pack(">QQq", 5, 7, 50) + b"one"
    record = struct.pack(">16sII", b"k" * 16, crc32(body), 3) + body
    pages = (head + crc32(head).to_bytes(4, "big"), record)
    (tmp_path / "intent").write_bytes(b"".join(page.ljust(PAGE, b"\0") for page in pages))

    found = read_intents(tmp_path, UUID)
    assert found == [IntentRecord(Span(Seq(5), Seq(7), 50, Seq(4)), b"one")]


def test_there_are_no_records_without_a_log_or_in_one_that_was_being_made(tmp_path: Path) -> None:
    assert read_intents(tmp_path, UUID) == []
    for size in (0, 20, PAGE):
        (tmp_path / "intent").write_bytes(bytes(size))
        assert read_intents(tmp_path, UUID) == []


def test_a_log_that_was_long_gives_its_room_back_when_nothing_in_it_is_needed(
    tmp_path: Path,
) -> None:
    file = IntentFile(tmp_path, UUID)
    short = (tmp_path / "intent").stat().st_size
    sizes = []
    for number in range(1, 11):
        assert add(file, number, number, bytes(intent.RECORD_LIMIT - PAGE))
        sizes.append((tmp_path / "intent").stat().st_size)

    file.free(Seq(9))
    assert (tmp_path / "intent").stat().st_size == sizes[-1] > 10 * (intent.RECORD_LIMIT - PAGE)
    file.free(Seq(10))
    assert short < (tmp_path / "intent").stat().st_size < sizes[-1] / 2
    assert add(file, 11, 11, b"next")
    assert [r.payload for r in read_intents(tmp_path, UUID) if r.span.last == 11] == [b"next"]


def test_room_that_is_needed_is_not_written_to_until_it_is_free(
    tmp_path: Path, file: IntentFile
) -> None:
    count = 0
    while add(file, count + 1, count + 1, bytes(5 * PAGE)):
        count += 1
    assert count == 10
    assert file.is_tight

    assert not add(file, 11, 11, b"more" * 2 * PAGE)
    file.free(Seq(2))
    assert add(file, 11, 11, b"more" * 2 * PAGE)
    assert [r.span.last for r in read_intents(tmp_path, UUID)] == [*range(3, 12)]
    file.free(Seq(11))
    assert not file.is_tight


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_needed_is_there_after_any_sequence_of_writing_and_freeing(
    tmp_path: Path, file: IntentFile, seed: int
) -> None:
    chance = random.Random(seed)
    kept: list[IntentRecord] = []
    last = committed = 0
    for _ in range(60):
        if chance.random() < 0.4:
            committed = chance.randint(committed, last)
            file.free(Seq(committed))
        span = Span(
            Seq(last + 1), Seq(last + chance.randint(1, 3)), chance.randint(0, 1 << 60), Seq(last)
        )
        data = chance.randbytes(chance.choice((10, PAGE - 56, 3 * PAGE, 9 * PAGE)))
        if file.append(span, [data]):
            kept.append(IntentRecord(span, data))
            last = span.last
        kept = [record for record in kept if record.span.last > committed]

        found = [r for r in read_intents(tmp_path, UUID) if r.span.last > committed]
        assert found == kept


def test_a_write_of_which_only_some_sectors_came_is_no_record_and_damages_no_other(
    tmp_path: Path, file: IntentFile
) -> None:
    chance = random.Random(1)
    path = tmp_path / "intent"
    for number in range(1, 5):
        add(file, number, number, chance.randbytes(3000 * number))
    file.free(Seq(2))
    before = path.read_bytes()
    while True:  # until one goes where the first two were
        number += 1
        assert add(file, number, number, chance.randbytes(11_000))
        after = path.read_bytes()
        if after[PAGE : 2 * PAGE] != before[PAGE : 2 * PAGE]:
            break
        before = after
        file.free(Seq(number - 2))
    changed = [
        at
        for at in range(0, len(after), SECTOR)
        if after[at : at + SECTOR] != before[at : at + SECTOR]
    ]
    assert len(changed) > 10

    for _ in range(60):
        torn = bytearray(before.ljust(len(after), b"\0"))
        for at in chance.sample(changed, chance.randint(0, len(changed) - 1)):
            torn[at : at + SECTOR] = after[at : at + SECTOR]
        path.write_bytes(torn)
        last = [record.span.last for record in read_intents(tmp_path, UUID)]
        assert last[-1] == number - 1
        assert number - 2 in last


def test_what_an_application_writes_is_taken_for_no_record(
    tmp_path: Path, file: IntentFile
) -> None:
    add(file, 1, 1, b"x" * PAGE)
    old = (tmp_path / "intent").read_bytes()
    (tmp_path / "other").mkdir()
    other = IntentFile(tmp_path / "other", UUID)

    # Two bytes less than a page hold the head of a record: its payload begins there.
    other.append(Span(Seq(9), Seq(9), 0, Seq(8)), [bytes(PAGE - 56), old])

    assert [record.span.first for record in read_intents(tmp_path / "other", UUID)] == [9]


def flip(at: int) -> Callable[[bytearray], None]:
    def work(data: bytearray) -> None:
        data[at] ^= 1

    return work


@pytest.mark.parametrize("at", [0, 10, 30, 45])
def test_a_log_whose_header_is_damaged_is_refused(
    tmp_path: Path, file: IntentFile, at: int
) -> None:
    add(file, 1, 1, b"x")
    data = bytearray((tmp_path / "intent").read_bytes())
    data[at] ^= 1
    (tmp_path / "intent").write_bytes(data)

    with pytest.raises(CorruptError, match="does not start with its header"):
        read_intents(tmp_path, UUID)


def test_a_log_of_another_store_or_of_a_later_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(IntentFile(tmp_path, UUID), 1, 1, b"x")
    with pytest.raises(CorruptError, match="is of another store"):
        read_intents(tmp_path, b"v" * 16)
    monkeypatch.setattr(intent, "_FORMAT", 3)
    add(IntentFile(tmp_path, UUID), 1, 1, b"x")
    monkeypatch.undo()
    with pytest.raises(StoreFormatError, match="has format 3, this dkfs reads 2"):
        read_intents(tmp_path, UUID)


def test_a_log_that_is_set_aside_takes_the_place_of_no_other(tmp_path: Path) -> None:
    for number in (1, 2):
        IntentFile(tmp_path, UUID).close()
        assert set_aside(tmp_path) == tmp_path / f"intent.damaged-{number}"


def test_a_store_with_versions_in_its_intent_log_only_is_not_opened_for_writing_without_them(
    path: Path,
) -> None:
    with Store.open(path, writable=True) as store:
        file = IntentFile(path, store.uuid.bytes)
        add(file, 1, 1, b"x")
        file.close()

    with pytest.raises(StoreError, match="has versions after 0 in its intent log only"):
        Store.open(path, writable=True)
    with Store.open(path, writable=True, recover=lambda *_: True):
        assert not (path / "intent").exists()


def test_the_format_of_a_store_says_whether_there_may_be_an_intent_log(path: Path) -> None:
    def found(store: Store) -> bytes | None:
        with store._index.begin(write=False) as txn:
            return txn.get(FORMAT_KEY, db=store._index.tables["meta"])

    with Store.open(path, writable=True) as store:
        assert found(store) == b"\0\0\0\2"
        with store.write() as writer:
            writer.set_intent(allowed=True)
        assert found(store) == b"\x80\0\0\2"
    with Store.open(path, writable=False) as store:
        assert found(store) == b"\x80\0\0\2"
    with Store.open(path, writable=True) as store:
        assert found(store) == b"\0\0\0\2"
