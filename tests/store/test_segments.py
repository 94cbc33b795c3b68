import os
import re
from pathlib import Path

import pytest

from dkfs.core.location import PLAIN
from dkfs.errors import CorruptError, StoreError
from dkfs.model.ids import BlobId
from dkfs.store import Store
from dkfs.store import segment_reader as reader_module
from dkfs.store import segments as segments_module
from dkfs.store.check import check
from dkfs.store.rows import SEGMENT_KEY
from dkfs.store.segment_reader import SegmentReader
from dkfs.store.segments import FOOTER, HEADER_SIZE, RECORD, SegmentWriter, Tail
from tests.store.making import add_file

UUID = b"u" * 16
LIMIT = 1000
EMPTY = Tail(0, 0, 0)


def blob(number: int) -> BlobId:
    return BlobId(number.to_bytes(32, "big"))


def sizes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(directory.iterdir())}


def test_what_was_appended_can_be_read(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, UUID, EMPTY, limit=LIMIT)
    locations = [
        writer.append(blob(i), b"%d" % i * 100, encoding=PLAIN, length=100) for i in range(10)
    ]
    writer.sync()
    reader = SegmentReader(tmp_path)

    assert [reader.read(at, blob(i)) for i, at in enumerate(locations)] == [
        b"%d" % i * 100 for i in range(10)
    ]
    writer.close()


def test_a_full_segment_is_sealed_and_the_next_begun(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, UUID, EMPTY, limit=LIMIT)
    for i in range(20):
        writer.append(blob(i), b"x" * 100, encoding=PLAIN, length=100)
    writer.sync()
    writer.close()

    full = HEADER_SIZE + 7 * (RECORD.size + 100) + FOOTER.size
    rest = HEADER_SIZE + 6 * (RECORD.size + 100)
    assert sizes(tmp_path) == {"00000001.seg": full, "00000002.seg": full, "00000003.seg": rest}
    footer = (tmp_path / "00000001.seg").read_bytes()[-FOOTER.size :]
    mark, _, magic, records, length = FOOTER.unpack(footer)
    assert (mark, magic) == (0xFFFFFFFF, b"dkfs-end")
    assert (records, length) == (7, full - FOOTER.size)
    assert writer.tail == Tail(3, rest, 6, 1)


def test_what_was_not_kept_is_forgotten_with_its_segments(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, UUID, EMPTY, limit=LIMIT)
    writer.append(blob(0), b"x" * 100, encoding=PLAIN, length=100)
    writer.sync()
    writer.keep()
    before = sizes(tmp_path)
    for i in range(1, 30):
        writer.append(blob(i), b"x" * 100, encoding=PLAIN, length=100)
    writer.sync()
    assert len(sizes(tmp_path)) > 1

    writer.forget()

    assert sizes(tmp_path) == before
    assert writer.tail == Tail(1, before["00000001.seg"], 1, 1)
    writer.close()


def test_bytes_behind_the_tail_are_cut_off(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, UUID, EMPTY, limit=LIMIT)
    writer.append(blob(0), b"x" * 100, encoding=PLAIN, length=100)
    writer.sync()
    writer.close()
    good = sizes(tmp_path)
    with (tmp_path / "00000001.seg").open("ab") as file:
        file.write(b"torn")
    (tmp_path / "00000002.seg").write_bytes(b"dkfs-seg")

    SegmentWriter(tmp_path, UUID, writer.tail, limit=LIMIT).close()

    assert sizes(tmp_path) == good


@pytest.mark.expect_logs("blobs are lost")
@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_segment_that_is_too_short_is_left_and_a_new_one_begun(path: Path, damage: str) -> None:
    with Store.open(path, writable=True) as store:
        _, _, lost = add_file(store, b"a", b"a" * 10)
    segment = path / "segments" / "00000001.seg"
    if damage == "missing":
        segment.unlink()
    else:
        os.truncate(segment, 50)

    with Store.open(path, writable=True) as store:
        _, _, kept = add_file(store, b"b", b"b" * 10)

        with store.read() as reader:
            assert reader.blob(kept) == b"b" * 10
            with pytest.raises(CorruptError, match=re.escape(lost.hex())):
                reader.blob(lost)
        found = {each.blob for each in check(store, read_data=False)}
        assert lost in found
        assert kept not in found
    assert (path / "segments" / "00000002.seg").exists()


def test_segments_that_the_index_does_not_know_are_removed(path: Path, tmp_path: Path) -> None:
    with Store.open(path, writable=True, segment_limit=100) as store:
        for i in range(3):
            add_file(store, b"f%d" % i, b"%d" % i * 100)
    segments = path / "segments"
    with Store.open(path, writable=True) as store, store.write() as writer:
        assert writer.delete_row("segments", SEGMENT_KEY.pack(1))
    good = (segments / "00000002.seg").read_bytes()
    (segments / "00000009.seg").write_bytes(good)
    (segments / "00000010.seg").write_bytes(b"torn")

    Store.open(path, writable=False).close()
    assert len(sizes(segments)) == 5
    Store.open(path, writable=True).close()

    assert sorted(sizes(segments)) == ["00000002.seg", "00000003.seg"]


@pytest.mark.expect_logs("of another store and left alone")
def test_a_segment_of_another_store_is_not_removed(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Store.create(other)
    for each in (path, other):
        with Store.open(each, writable=True) as store:
            add_file(store, b"f", b"same")
    foreign = path / "segments" / "00000007.seg"
    foreign.write_bytes((other / "segments" / "00000001.seg").read_bytes())

    Store.open(path, writable=True).close()

    assert foreign.exists()


def test_no_segment_before_the_tail_is_removed_when_the_table_lacks_the_tail(path: Path) -> None:
    with Store.open(path, writable=True, segment_limit=100) as store:
        for i in range(3):
            add_file(store, b"f%d" % i, b"%d" % i * 100)
        with store.write() as writer:
            for number in (1, 2, 3):
                writer.delete_row("segments", SEGMENT_KEY.pack(number))
    before = sizes(path / "segments")
    (path / "segments" / "00000004.seg").write_bytes(b"rest")

    Store.open(path, writable=True).close()

    assert sizes(path / "segments") == before


def test_a_number_that_another_segment_got_is_read_from_that(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        _, _, blob_id = add_file(store, b"f", b"data" * 10)
        with store.read() as reader:
            location = reader.location(blob_id)
        assert location is not None
    segment = path / "segments" / "00000001.seg"
    good = segment.read_bytes()
    segments = SegmentReader(path / "segments")
    segment.unlink()
    segment.write_bytes(bytes(len(good)))
    with pytest.raises(CorruptError):
        segments.read(location, blob_id)
    segments._file(1)  # stays open
    segment.unlink()
    segment.write_bytes(good)

    assert segments.read(location, blob_id) == b"data" * 10


def test_other_files_are_left_alone(path: Path) -> None:
    other = path / "segments" / "notes.txt"
    other.write_bytes(b"mine")

    with Store.open(path, writable=True) as store:
        add_file(store, b"f", b"data")

    assert other.read_bytes() == b"mine"


# ---- damage


@pytest.mark.parametrize("data", [b"short", b"compressible " * 20])
def test_a_blob_with_any_byte_changed_is_right_or_refused(path: Path, data: bytes) -> None:
    with Store.open(path, writable=True) as store:
        _, _, blob_id = add_file(store, b"f", data)
    segment = path / "segments" / "00000001.seg"
    good = segment.read_bytes()
    with Store.open(path, writable=False) as store, store.read() as reader:
        location = reader.location(blob_id)
        assert location is not None
    end = location.offset + RECORD.size + location.stored_length
    refused = 0
    for offset in range(HEADER_SIZE, end):
        segment.write_bytes(good[:offset] + bytes((good[offset] ^ 0x10,)) + good[offset + 1 :])

        with Store.open(path, writable=False) as store:
            with store.read() as reader:
                try:
                    assert reader.blob(blob_id) == data
                except CorruptError as exc:
                    refused += f"blob {blob_id.hex()} in segment 1 at 36" in str(exc)
            assert [damage.blob for damage in check(store, read_data=True)] == [blob_id]
    # What does not matter: the record's checksum, and bits of the frame's header that zstd does not look at.
    assert refused > end - HEADER_SIZE - 4 - 5


def test_damage_stays_with_its_blob(path: Path) -> None:
    with Store.open(path, writable=True) as store:
        ids = [add_file(store, b"f%d" % i, b"%d" % i * 50)[2] for i in range(5)]
    segment = path / "segments" / "00000001.seg"
    data = bytearray(segment.read_bytes())
    data[data.index(b"2" * 50)] ^= 1
    segment.write_bytes(data)

    with Store.open(path, writable=False) as store:
        with store.read() as reader:
            for i in (0, 1, 3, 4):
                assert reader.blob(ids[i]) == b"%d" % i * 50
            with pytest.raises(CorruptError):
                reader.blob(ids[2])
        assert [damage.blob for damage in check(store, read_data=True)] == [ids[2]]
        assert list(check(store, read_data=False)) == []


def test_the_segments_of_another_store_are_refused(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Store.create(other)
    for each in (path, other):
        with Store.open(each, writable=True) as store:
            add_file(store, b"f", b"same")
    (other / "segments" / "00000001.seg").replace(path / "segments" / "00000001.seg")

    with pytest.raises(CorruptError, match="is of another store than the segments beside it"):
        Store.open(path, writable=False)


# ---- the disk


def test_a_full_disk_aborts_and_the_store_stays_usable(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_file(store, b"before", b"before")

    def fail(fd: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with pytest.raises(StoreError, match=r"segment 1 .* cannot be written: No space left"):
            add_file(store, b"lost", b"lost")

    assert add_file(store, b"after", b"after")[0] == 2


def test_after_a_failed_fdatasync_the_segment_is_given_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, before = add_file(store, b"before", b"before")

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(StoreError, match="cannot be synced: Input/output error"):
            add_file(store, b"lost", b"lost")

    seq, _, after = add_file(store, b"after", b"after")
    assert seq == 2
    with store.read() as reader:
        assert reader.blob(before) == b"before"
        location = reader.location(after)
        assert location is not None
        assert location.segment == 2


def test_a_new_segment_is_durable_with_its_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(segments_module, "sync_directory", synced.append)

    add_file(store, b"first", b"makes the segment")
    add_file(store, b"second", b"goes on with it")

    assert synced == [store.path / "segments"]


def test_a_short_write_is_continued(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite

    def write_seven(fd: int, data: bytes, offset: int) -> int:
        return real(fd, bytes(data)[:7], offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write_seven)
        _, _, blob_id = add_file(store, b"f", b"data" * 10)

    with store.read() as reader:
        assert reader.blob(blob_id) == b"data" * 10


def test_the_number_of_open_files_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_CACHED_FDS", 4)
    with Store.open(path, writable=True, segment_limit=100) as store:
        ids = [add_file(store, b"f%d" % i, b"%d" % i * 100)[2] for i in range(12)]
        before = len(os.listdir("/proc/self/fd"))

        with store.read() as reader:
            for i, blob_id in enumerate(ids):
                assert reader.blob(blob_id) == b"%d" % i * 100

        assert len(os.listdir("/proc/self/fd")) <= before + 4
        assert list(check(store, read_data=True)) == []


def test_a_blob_of_an_aborted_segment_is_not_read_from_its_file(path: Path) -> None:
    with Store.open(path, writable=True, segment_limit=100) as store:
        writer = store.write()
        for i in range(3):
            writer.blob(writer.put_blob(b"lost %d" % i * 20)[0])
        writer.close()
        ids = [add_file(store, b"f%d" % i, b"kept %d" % i * 20)[2] for i in range(3)]

        with store.read() as reader:
            assert [reader.blob(b) for b in ids] == [b"kept %d" % i * 20 for i in range(3)]
