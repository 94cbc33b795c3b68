"""Streams that are damaged, cut short, or made up: an error, and the store is sound and holds what came before."""

import io
import os
import random
import shutil
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dkfs.core import stream
from dkfs.core.location import LOST, PLAIN, ZSTD
from dkfs.core.stream import Blob, End, Header, Item, Links, Names, Nodes, TagItem, Version
from dkfs.errors import CorruptError, DkfsError, StoreFormatError
from dkfs.history.stream_io import read_stream, write_stream
from dkfs.history.stream_store import receive
from dkfs.model.ids import BlobId, NodeId, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.model.operation import LogRecord, Tag
from dkfs.store import Store, is_absent
from dkfs.store.check import check
from tests.history.model_history import ModelHistory
from tests.history.random_history import fill
from tests.history.streams import assert_equal, assert_prefix, send, send_on, take

pytestmark = pytest.mark.slow


@pytest.fixture
def history(tmp_path: Path) -> Iterator[ModelHistory]:
    with ModelHistory(tmp_path / "source") as made:
        fill(made, 3, 40)
        made.create(b"large", random.Random(1).randbytes(200_000))
        made.setxattr(b"large", {b"user.a": b"1" * 100})
        made.found([b"h/", b"h/a", b"h/b=h/a"])
        made.tag("one", Seq(5))
        yield made


def sound(target: Path) -> None:
    """Raise AssertionError if *target* is damaged; what the stream said was lost is."""
    if not is_absent(target):
        with Store.open(target, writable=False) as store:
            found = [each for each in check(store, read_data=True) if "lost" not in each.message]
        assert found == []


def test_cut_anywhere_it_is_an_error_and_what_came_before_is_there(
    history: ModelHistory, tmp_path: Path
) -> None:
    data = send(history.store)
    rng = random.Random(4)
    cuts = [0, 1, 12, len(data) - 1, *(rng.randrange(len(data)) for _ in range(25))]
    for number, cut in enumerate(cuts):
        target = tmp_path / f"target{number}"
        with pytest.raises(CorruptError, match="stream"):
            take(target, data[:cut])
        if target.exists():
            assert_prefix(history.store, target)
            take(target, send_on(history.store, target))
            assert_equal(history.store, target)
            shutil.rmtree(target)


def test_a_bit_that_is_flipped_anywhere_is_found(history: ModelHistory, tmp_path: Path) -> None:
    data = send(history.store)
    rng = random.Random(5)
    for number in range(40):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        target = tmp_path / f"target{number}"
        with pytest.raises(DkfsError):
            take(target, bytes(changed))
        if target.exists():
            assert_prefix(history.store, target)
            shutil.rmtree(target)


def items_of(data: bytes) -> list[Item]:
    return list(read_stream(io.BytesIO(data).read))


def signed(items: Sequence[Item]) -> bytes:
    out = io.BytesIO()
    write_stream(items, out.write)
    return out.getvalue()


def test_records_lost_swapped_or_sent_twice_are_found_by_the_checksum(
    history: ModelHistory,
) -> None:
    data = send(history.store)
    frames = []
    at = len(stream.START)
    while at < len(data):
        end = at + stream.HEAD.size + stream.HEAD.unpack_from(data, at)[1] + stream.CHECKSUM.size
        frames.append(data[at:end])
        at = end
    rng = random.Random(6)
    for _ in range(60):
        one, other = sorted(rng.sample(range(len(frames)), 2))
        changed = list(frames)
        match rng.randrange(3):
            case 0:
                del changed[one]
            case 1:
                changed[one], changed[other] = changed[other], changed[one]
            case _:
                changed.insert(other, changed[one])
        with pytest.raises(CorruptError):
            items_of(stream.START + b"".join(changed))


NUMBERS = (0, 1, 2, 3, 7, 50, 1 << 40, (1 << 63) - 1)


def _mutated(item: Item, rng: random.Random) -> Item:
    """Return *item* with something else in it, as no sender would send it."""
    number = rng.choice(NUMBERS)
    match item:
        case Header():
            return rng.choice(
                (
                    replace(item, start=Seq(min(number, item.end))),
                    replace(item, end=Seq(max(item.start, number))),
                    replace(item, hash_algo="sha256"),
                    replace(item, hash_algo="md5"),
                )
            )
        case Version(record):
            return Version(_mutated_record(record, number, rng))
        case Blob():
            return rng.choice(
                (
                    replace(item, blob=BlobId(rng.randbytes(32))),
                    replace(item, stored=item.stored[:-1]),
                    replace(item, length=number),
                    replace(item, encoding=rng.choice((PLAIN, ZSTD, 2, 3, 4, 5, 16, 99, LOST))),
                )
            )
        case Links():
            places = ((NodeId(number), rng.choice((b"..", b"a", b"/"))),)
            return Links(NodeId(rng.choice((item.node, number))), places)
        case Nodes(states) if states:
            changed = _mutated_state(states[0], number, rng)
            return Nodes((changed, *states[1:]) if rng.random() < 0.8 else states[1:])
        case Names(children) if children:
            return Names((NodeId(number), *children[1:]) if rng.random() < 0.8 else children[1:])
        case TagItem(tag):
            return TagItem(Tag(rng.choice(("x" * 400, tag.name)), Seq(number), 1, is_hold=True))
        case End():
            field = rng.choice(("next_node", "versions", "end", "forgotten_move"))
            numbers = {name: getattr(item, name) for name in End.__slots__}
            return End(**{**numbers, field: number})
        case _:
            return item


def _mutated_record(record: LogRecord, number: int, rng: random.Random) -> LogRecord:
    operation = replace(record.operation, time_ns=rng.choice((0, -1, 1 << 62)))
    names = (*record.names, (NodeId(1), rng.choice((b"..", b"a/b", b"x\0", b"", b"y" * 300))))
    return rng.choice(
        (
            replace(record, seq=Seq(number)),
            replace(record, operation=operation),
            replace(record, nodes=(*record.nodes, NodeId(number))),
            replace(record, nodes=record.nodes[1:]),
            replace(record, names=names),
            replace(record, names=record.names[1:]),
            replace(record, folded_nodes=record.nodes),
        )
    )


def _mutated_state(state: NodeState, number: int, rng: random.Random) -> NodeState:
    attr = replace(state.attr, size=number, kind=rng.choice(list(Kind)))
    return rng.choice(
        (
            replace(state, attr=attr),
            replace(state, name=b"a/../b"),
            replace(state, content=BlobId(bytes(32)), is_manifest=rng.random() < 0.5),
            replace(state, is_manifest=state.content is not None),
            replace(state, xattrs=state.content or BlobId(bytes(32))),
            replace(state, target=b"t"),
        )
    )


@pytest.mark.parametrize("seed", range(6))
def test_a_stream_that_is_made_up_is_refused_or_makes_a_sound_store(
    history: ModelHistory, tmp_path: Path, seed: int
) -> None:
    items = items_of(send(history.store))
    rng = random.Random(seed)
    refused = 0
    for number in range(60):
        changed = list(items)
        for _ in range(rng.choice((1, 1, 3))):
            at = rng.randrange(len(changed))
            match rng.randrange(6):
                case 0:
                    del changed[at]
                case 1:
                    changed.insert(at, rng.choice(items))
                case _:
                    changed[at] = _mutated(changed[at], rng)
        target = tmp_path / f"target{number}"
        try:
            receive(target, iter(changed))
        except DkfsError:
            refused += 1
        sound(target)
        shutil.rmtree(target, ignore_errors=True)
    assert refused > 20


def test_a_version_that_lacks_a_blob_is_refused(history: ModelHistory, tmp_path: Path) -> None:
    items = items_of(send(history.store))
    for at in [at for at, item in enumerate(items) if isinstance(item, Blob)]:
        with pytest.raises(CorruptError, match="the stream lacks blob"):
            receive(tmp_path / "target", iter(items[:at] + items[at + 1 :]))
        sound(tmp_path / "target")
        shutil.rmtree(tmp_path / "target")


def test_a_newer_format_is_refused(history: ModelHistory) -> None:
    data = send(history.store)

    with pytest.raises(StoreFormatError, match="stream of format 2, this dkfs reads 1"):
        items_of(data[:11] + b"\2" + data[12:])


@given(st.integers(0, 9), st.binary(max_size=300))
def test_any_bytes_are_an_item_or_damage(kind: int, data: bytes) -> None:
    try:
        item = stream.decode(kind, data)
    except CorruptError:
        return
    assert stream.decode(kind, stream.encode(item)) == item


@given(st.binary(max_size=400))
def test_any_bytes_are_no_stream(data: bytes) -> None:
    for start in (b"", stream.START):
        with pytest.raises(DkfsError):
            items_of(start + data)


def test_a_length_that_lies_takes_no_memory() -> None:
    lie = stream.START + stream.HEAD.pack(3, (1 << 30)) + b"x" * 100
    tracemalloc.start()
    with pytest.raises(CorruptError):
        items_of(lie)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 4 << 20
    with pytest.raises(CorruptError, match="the limit is"):
        items_of(stream.START + stream.HEAD.pack(3, (1 << 32) - 1))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.data())
def test_bytes_changed_behind_the_checksums_are_never_believed(
    history: ModelHistory, tmp_path: Path, data: st.DataObject
) -> None:
    items = items_of(send(history.store))
    at = data.draw(st.integers(0, len(items) - 1))
    kind = stream.kind_of(items[at])
    raw = bytearray(stream.encode(items[at]))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    target = tmp_path / f"target-{os.urandom(4).hex()}"
    try:
        items[at] = stream.decode(kind, bytes(raw))
        receive(target, iter(items))
    except DkfsError:
        pass  # what any but the bytes that were there should give
    sound(target)
    shutil.rmtree(target, ignore_errors=True)
