from pathlib import Path

import pytest

from dkfs.core import codec
from dkfs.core.journal import decode_journal, decode_journal_head
from dkfs.core.location import SegmentRow, decode_segment
from dkfs.errors import CorruptError, StoreError
from dkfs.model.ids import ROOT, NodeId, Seq
from dkfs.model.operation import OpKind, Tag
from dkfs.store import Store
from dkfs.store import journals as journals_module
from dkfs.store.check import check
from dkfs.store.journals import checkpoint
from dkfs.store.rows import SEGMENT_KEY, SEQ, TAIL_KEY, UNJOURNALED, unseal
from tests.store.differences import noise
from tests.store.making import (
    TIME_NS,
    FailingTransaction,
    add_file,
    append,
    file_state,
    indexed,
    journals,
    replayed,
)


def fill(path: Path) -> None:
    """Do everything that puts or deletes a row."""
    with Store.open(path, writable=True, segment_limit=1000) as store:
        for i in range(5):
            add_file(store, b"f%d" % i, b"%d" % i * 200)
        with store.write() as writer:
            append(writer, {2: file_state()}, {(ROOT, b"f0"): 0}, kind=OpKind.ROLLBACK)
            writer.put_tag(Tag("kept", Seq(1), TIME_NS, is_hold=True))
            writer.put_tag(Tag("gone", Seq(2), TIME_NS))
            writer.put_meta(b"note", b"text")
        with store.write() as writer:
            writer.delete_tag("gone")
            writer.put_row("names", b"key", b"row")
            assert writer.delete_row("log", SEQ.pack(3))
            assert not writer.delete_row("log", SEQ.pack(3))
            assert writer.delete_row("names", b"key")
            writer.set_clean(True)


def test_the_journals_make_the_index(path: Path) -> None:
    fill(path)

    assert replayed(journals(path)) == indexed(path)


def test_every_transaction_that_wrote_has_one_journal_with_its_number(path: Path) -> None:
    fill(path)

    parts = journals(path)
    assert [(part.txn, part.part, part.is_last) for part in parts] == [
        (number, 0, True) for number in range(1, 8)
    ]
    with Store.open(path, writable=False) as store, store.read() as reader:
        assert reader.tail().txn == 7


def test_a_transaction_that_changes_no_row_of_a_journal_writes_none(path: Path) -> None:
    with Store.open(path, writable=True) as store, store.write() as writer:
        writer.set_clean(True)

    assert journals(path) == []


def test_blobs_alone_have_a_journal_too(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        add_file(store, b"f", b"data")
        with store.write() as writer:
            writer.put_blob(b"more")

    assert [(part.txn, len(part.rows)) for part in journals(path)][1:] == [(2, 0)]


def test_the_first_journal_tells_which_store_it_is(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        add_file(store, b"f", b"data")
        uuid = store.uuid.bytes

    rows = replayed(journals(path))
    assert rows["meta", b"uuid"] == uuid
    assert rows["meta", b"hash"] == b"blake3"


def test_the_journal_of_an_aborted_transaction_goes_with_it(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        add_file(store, b"f", b"data")
        writer = store.write()
        append(writer, {7: file_state()})
        writer.close()
        add_file(store, b"g", b"data")

    assert replayed(journals(path)) == indexed(path)
    assert [part.txn for part in journals(path)] == [1, 2]


def test_a_long_journal_is_cut_into_parts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals_module, "PART_LIMIT", 1000)
    with Store.open(path, writable=True) as store, store.write() as writer:
        for i in range(30):
            append(writer, {i + 2: file_state(b"f%d" % i)}, {(ROOT, b"f%d" % i): i + 2})

    parts = journals(path)
    assert [part.part for part in parts] == list(range(len(parts)))
    assert len(parts) > 4
    assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert {part.txn for part in parts} == {1}
    assert replayed(parts) == indexed(path)


@pytest.mark.parametrize("has_landed", [False, True])
def test_after_a_failed_commit_the_journals_still_make_the_index(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, has_landed: bool
) -> None:
    with Store.open(path, writable=True, segment_limit=2000) as store:
        add_file(store, b"before", b"before")
        for attempt in range(6):
            writer = store.write()
            writer.put_blob(noise(attempt, 400))
            append(writer, {7 + attempt: file_state()}, time_ns=TIME_NS)
            writer.put_tag(Tag(f"t{attempt}", Seq(1), TIME_NS))
            if attempt % 2:
                failing = FailingTransaction(writer._txn, has_landed=has_landed)
                monkeypatch.setattr(writer, "_txn", failing)
                with pytest.raises(StoreError, match="mdb_txn_commit"):
                    writer.__exit__(None)
            else:
                writer.__exit__(None)
        add_file(store, b"after", b"after")
        with store.read() as reader:
            txn, last = reader.tail().txn, reader.last
            lengths = {number: row.length for number, row in reader.segments()}
        assert lengths == store.segment_sizes()
        assert list(check(store, read_data=True)) == []

    assert (txn, last) == ((8, 8) if has_landed else (5, 5))
    parts = journals(path)
    assert [part.txn for part in parts] == list(range(1, txn + 1))
    assert replayed(parts) == indexed(path)


# ---- checkpoints


def test_a_checkpoint_holds_every_row(path: Path) -> None:
    fill(path)
    with Store.open(path, writable=True) as store, store.write() as writer:
        append(writer, {9: file_state()})
        writer.put_checkpoint()

    newest = journals(path)[-1]
    assert newest.is_checkpoint
    assert newest.txn == 8
    assert replayed([newest]) == indexed(path)
    with Store.open(path, writable=False) as store, store.read() as reader:
        assert reader.checkpoint() == 8


def test_a_checkpoint_is_cut_into_parts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path)
    monkeypatch.setattr(journals_module, "PART_LIMIT", 300)
    with Store.open(path, writable=True) as store, store.write() as writer:
        writer.put_checkpoint()

    parts = [part for part in journals(path) if part.is_checkpoint]
    assert [part.part for part in parts] == list(range(len(parts)))
    assert len(parts) > 2
    assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert replayed(parts) == indexed(path)


def test_a_checkpoint_can_be_made_of_a_view(path: Path) -> None:
    fill(path)
    before = indexed(path)
    with Store.open(path, writable=True) as store, store.read() as reader:
        txn = reader.tail().txn
        add_file(store, b"later", b"data")
        plain = list(checkpoint(reader, txn))

    assert [decode_journal_head(part).txn for part in plain] == [7]
    assert replayed([decode_journal(part) for part in plain]) == before


# ---- segments and counters


def test_the_index_knows_every_segment_and_its_journals(path: Path) -> None:
    fill(path)

    with Store.open(path, writable=False) as store, store.read() as reader:
        rows = dict(reader.segments())
        assert {number: row.length for number, row in rows.items()} == store.segment_sizes()
        assert max(row.journal_txn for row in rows.values()) == 7
        assert all(row.journal_bytes > 0 for row in rows.values())
        assert reader.segment_numbers() == set(rows)
        assert reader.segment(99) is None


def test_the_row_of_the_newest_segment_is_written_when_it_begins_and_when_it_is_left(
    path: Path,
) -> None:
    def row(number: int) -> SegmentRow:
        with Store.open(path, writable=False) as store, store.read() as reader:
            (value,) = (v for k, v in reader.rows("segments") if k == SEGMENT_KEY.pack(number))
            return decode_segment(unseal("segments", SEGMENT_KEY.pack(number), value))

    with Store.open(path, writable=True, segment_limit=1500) as store:
        add_file(store, b"f0", b"0" * 300)
        begun = row(1)
        add_file(store, b"f1", b"1" * 300)
        assert row(1) == begun
        with store.read() as reader:
            now = reader.segment(1)
            assert now is not None
            assert now.length == store.segment_sizes()[1] > begun.length
            assert (now.journal_txn, begun.journal_txn) == (2, 1)
            assert now.journal_bytes > begun.journal_bytes > 0
        for i in range(9):
            add_file(store, b"g%d" % i, b"%d" % i * 300)
        newest = max(store.segment_sizes())
        assert newest > 1
        left = row(1)
        assert left.length == store.segment_sizes()[1]
        assert left.journal_txn > 2


def test_what_is_known_of_segments_can_be_read_without_the_tail(path: Path) -> None:
    fill(path)
    with Store.open(path, writable=True) as store, store.write() as writer:
        writer._txn.put(TAIL_KEY, b"nonsense", db=writer._tables["meta"])

    with Store.open(path, writable=False) as store, store.read() as reader:
        assert set(dict(reader.segments())) == reader.segment_numbers()
        with pytest.raises(CorruptError):
            reader.tail()


def test_forgotten_versions_are_counted(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        with store.write() as writer:
            for _ in range(6):
                append(writer)
            record = codec.encode_log(writer.record(Seq(2)).operation, [], [])  # type: ignore[union-attr]
            writer.delete_row("log", SEQ.pack(2))
            writer.delete_row("log", SEQ.pack(3))
            assert writer.forgotten() == 2
        with store.write() as writer:
            writer.put_row("log", SEQ.pack(2), record)
            assert writer.forgotten() == 1
            writer.put_row("log", SEQ.pack(10), record)
            assert writer.last == 10
        with store.read() as reader:
            assert reader.forgotten() == 4
            assert [each.seq for each in reader.log(Seq(1), Seq(10))] == [1, 2, 4, 5, 6, 10]


def test_the_newest_version_is_never_forgotten(path: Path) -> None:
    with Store.open(path, writable=True) as store, store.write() as writer:
        append(writer)
        append(writer)

        with pytest.raises(StoreError, match="version 2 is the newest"):
            writer.delete_row("log", SEQ.pack(2))


def test_rows_that_are_put_move_the_next_node(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        with store.write() as writer:
            key = SEQ.pack(41) + SEQ.pack(1)
            writer.put_row("nodes", key, codec.encode_node(file_state()))
        with store.read() as reader:
            assert reader.next_node() == NodeId(42)


@pytest.mark.parametrize("key", sorted(UNJOURNALED))
def test_rows_that_only_the_store_puts_are_refused(path: Path, key: bytes) -> None:
    with Store.open(path, writable=True) as store, store.write() as writer:
        with pytest.raises(StoreError, match="not put like this"):
            writer.put_row("meta", key, b"")
