"""Repairs the index of a store that nobody has open: rebuilt from the segments, or row by row from what is left of them.

Both happen beside the index that is there, which is kept under another name when the new one takes its place.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dkfs.core.journal import TABLE_NUMBERS
from dkfs.core.location import (
    LOST,
    SegmentRow,
    decode_blob_location,
    decode_segment,
    encode_segment,
)
from dkfs.errors import CorruptError, DkfsError, StoreError
from dkfs.model.ids import BlobId
from dkfs.store.damage import Damage, DamageKind, Step
from dkfs.store.findings import Findings, OnProgress, find
from dkfs.store.index import INDEX_NAME, close_index, open_index
from dkfs.store.opening import check_owner
from dkfs.store.rebuild import (
    NONE_LOST,
    REBUILT_NAME,
    Rebuilt,
    Rows,
    discard,
    rebuild,
    replace_index,
)
from dkfs.store.rows import (
    CHECKPOINT_KEY,
    CLEAN_KEY,
    FORGOTTEN_KEY,
    NEXT_NODE_KEY,
    SEGMENT_KEY,
    SEQ,
    TAIL,
    TAIL_KEY,
    UUID_KEY,
    unseal,
)
from dkfs.store.segments import SEGMENTS_NAME
from dkfs.store.store import Store

Key = tuple[str, bytes]  # table and key


def repair_index(
    store: Path,
    damages: Sequence[Damage] | None,
    *,
    scratch: Path | None,
    on_progress: OnProgress,
) -> Iterator[Step]:
    """Repair the index of *store*, which has *damages*; None: it cannot be opened at all.

    The caller holds the store's lock. With *scratch*, a directory for what is made meanwhile, nothing is changed.
    Raises StoreError, CorruptError if it cannot be done.
    """
    _expect_one_store(store)
    if scratch is None:
        discard(store)
    target = (scratch or store) / REBUILT_NAME
    is_usable = damages is not None and not any(d.kind is DamageKind.INDEX for d in damages)
    lost, last = _lost(store) if is_usable else (NONE_LOST, 0)
    try:
        rebuilt = rebuild(store, target, lost=lost, on_progress=on_progress)
    except (StoreError, CorruptError):
        if damages is None or not is_usable:
            raise
        rebuilt = None
    if not is_usable or (rebuilt is not None and not rebuilt.unused and rebuilt.last >= last):
        assert rebuilt is not None, "what failed was raised again"
        yield from _use(store, rebuilt, scratch)
        return
    discard(target.parent)
    yield from _mend(store, target, damages or (), on_progress)
    kept = None if scratch is not None else replace_index(store)
    if kept is not None:
        yield Step("index", f"the one that was there is kept as {kept.name}")


def _expect_one_store(store: Path) -> None:
    """Raise StoreError if index and segments are of two stores: only people know which of them is the right one."""
    path = store / INDEX_NAME
    try:
        index = open_index(path, writable=False)
    except DkfsError:
        return  # then there is no index to keep
    try:
        check_owner(path, index.meta(UUID_KEY) or b"", store / SEGMENTS_NAME, newest=0)
    except CorruptError as exc:
        raise StoreError(
            f"{exc}: put the right one there, or, if the segments are the right ones, remove it and repair again"
        ) from None
    finally:
        close_index(index)


def _use(store: Path, rebuilt: Rebuilt, scratch: Path | None) -> Iterator[Step]:
    kept = None if scratch is not None else replace_index(store)
    how = (
        f"rebuilt from the segments: {rebuilt.versions} versions in {rebuilt.transactions}"
        f" transactions, {rebuilt.blobs} blobs"
    )
    if kept is not None:
        how += f"; the one that was there is kept as {kept.name}"
    yield Step("index", how)
    for problem in rebuilt.problems:
        yield Step("segments", f"passed over: {problem}")
    if rebuilt.unused:
        yield Step(
            "index",
            f"the journal of transaction {rebuilt.last + 1} is lost, so {len(rebuilt.unused)}"
            f" later ones, up to {rebuilt.unused[-1]}, cannot be used",
            is_done=False,
        )


def _lost(store: Path) -> tuple[Mapping[BlobId, int], int]:
    """Return the blobs that were given up, with their lengths, and the newest transaction that the index knows."""
    lost: dict[BlobId, int] = {}
    try:
        with Store.open(store, writable=False) as opened, opened.read() as reader:
            for key, value in reader.rows("blobs"):
                try:
                    at = decode_blob_location(unseal("blobs", key, value))
                except CorruptError:
                    continue
                if at.encoding == LOST:
                    lost[BlobId(key)] = at.length
            return lost, reader.tail().txn
    except DkfsError:
        return lost, 0


def _mend(
    store: Path, target: Path, damages: Sequence[Damage], on_progress: OnProgress
) -> Iterator[Step]:
    """Make a copy of the index at *target*, its damaged rows put again as the journals have them."""
    findings = find(store / SEGMENTS_NAME)
    for _ in findings.records(on_progress):
        pass
    wanted = [d.row for d in damages if d.row is not None and d.kind is DamageKind.ROW]
    records = _newest(findings, set(wanted))
    shutil.copyfile(store / INDEX_NAME, target)
    index = open_index(target, writable=True)
    try:
        rows = Rows(index)
        for table, key in dict.fromkeys(wanted):
            if table in TABLE_NUMBERS and (table, key) in records:
                yield _put(rows, table, key, records[table, key])
            elif table == "segments" and int.from_bytes(key, "big") in findings.segments:
                found = findings.segments[int.from_bytes(key, "big")]
                row = SegmentRow(found.length, found.journal_bytes, found.journal_txn)
                yield _put(rows, table, key, encode_segment(row))
            elif key not in {TAIL_KEY, CHECKPOINT_KEY}:
                rows.delete(table, key)
                # What becomes of a blob without a row is seen to when contents are repaired.
                is_done = table == "blobs" or key == CLEAN_KEY
                yield Step(f"row {key.hex()} of {table}", "removed: no journal has it", is_done)
        _count(rows, findings)
        rows.finish()
    finally:
        close_index(index)


def _put(rows: Rows, table: str, key: bytes, record: bytes | None) -> Step:
    what = f"row {key.hex()} of {table}"
    if record is None:
        rows.delete(table, key)
        return Step(what, "removed: it was deleted")
    rows.put(table, key, record)
    return Step(what, "put again as its journal has it")


def _newest(findings: Findings, wanted: set[Key]) -> dict[Key, bytes | None]:
    """Return what the journals last said of each row that is *wanted*; None: it was deleted."""
    records: dict[Key, bytes | None] = {}
    start = findings.newest_checkpoint()
    order = [(start, True)] if start else []
    order += [(txn, False) for txn in sorted(findings.complete()) if txn > start]
    for txn, is_checkpoint in order:
        for part in findings.parts(txn, is_checkpoint=is_checkpoint):
            for row in part.rows:
                if (row.table, row.key) in wanted:
                    records[row.table, row.key] = row.record
    return records


def _count(rows: Rows, findings: Findings) -> None:
    """Put the counters as the rows say, and let what comes next go to a new segment."""
    last = int.from_bytes(rows.last_key("log"), "big")
    rows.put("meta", FORGOTTEN_KEY, SEQ.pack(last - rows.count("log")))
    following = int.from_bytes(rows.last_key("nodes")[:8], "big") + 1
    try:
        following = max(following, int.from_bytes(rows.get("meta", NEXT_NODE_KEY) or b"", "big"))
    except CorruptError:
        pass  # then the greatest that is used is the best that is known
    rows.put("meta", NEXT_NODE_KEY, SEQ.pack(following))
    newest = max([*findings.transactions, *findings.checkpoints, 0])
    rows.put("meta", TAIL_KEY, TAIL.pack(0, 0, 0, newest, 0))
    checkpoint = findings.newest_checkpoint()
    if checkpoint:
        rows.put("meta", CHECKPOINT_KEY, SEQ.pack(checkpoint))
    for number, found in findings.segments.items():
        key = SEGMENT_KEY.pack(number)
        record = rows.get("segments", key)
        if record is None or decode_segment(record).length < found.length:
            # What was the newest has an old row: where it ended said the row that is now new.
            row = SegmentRow(found.length, found.journal_bytes, found.journal_txn)
            rows.put("segments", key, encode_segment(row))
