"""What a version costs is what was written: bytes read, blobs made, bytes stored; counted, not timed."""

import os
import random
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest

from dkfs.core.chunking import MIB
from dkfs.core.manifest_update import build
from dkfs.history import reading
from dkfs.history.commit import Commit
from dkfs.history.puts import Counts, Puts
from dkfs.history.tree import Tree
from dkfs.model.ids import Seq
from dkfs.model.node import Chunk
from dkfs.model.operation import NOBODY, Operation, OpKind
from dkfs.overlay.attributes import NewAttributes
from tests.overlay.world import ME, World

PATIENCE_S = 60
CHUNK = 65_536
PAGE = 4096


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the length of each read of the backing directory by a capture or the recorder."""
    lengths: list[int] = []
    pread = os.pread

    def noting(fd: int, length: int, offset: int) -> bytes:
        lengths.append(length)
        return pread(fd, length, offset)

    class Os:
        def __getattr__(self, name: str) -> object:
            return noting if name == "pread" else getattr(os, name)

    monkeypatch.setattr(reading, "os", Os())
    return lengths


def last_commit(world: World) -> Commit:
    assert world.recorder.flush()
    return world.commits[-1]


def grown(world: World, work: Callable[[], None]) -> int:
    """Return by how many bytes the segments grow when *work* is done and recorded."""
    assert world.recorder.flush()
    before = world.store.size().segment_bytes
    work()
    world.fs.captures.capture_all()
    assert world.recorder.flush()
    return world.store.size().segment_bytes - before


def pretend(world: World, name: bytes, data: bytes, count: int) -> None:
    """Let the history say that the file *name* is *data*, *count* times; the backing file is one hole."""
    world.fs.files.release(world.create(name))
    assert world.recorder.flush()
    with world.store.write() as writer:
        node = Tree(writer, writer.last).resolve(name)
        state = writer.node(node, writer.last)
        assert state is not None
        chunk = Chunk(len(data), writer.put_blob(data).blob)
        content = build((chunk for _ in range(count)), Puts(writer, Counts()).put_node)
        new = replace(
            state,
            attr=replace(state.attr, size=content.size),
            content=content.blob,
            is_manifest=content.is_manifest,
        )
        seq = Seq(writer.last + 1)
        writer.append(seq, Operation(OpKind.WRITE, next(world.clock), NOBODY), [(node, new)], [])
    os.truncate(world.state / os.fsdecode(name), content.size)
    world.reopen()


def test_a_small_write_costs_the_same_in_a_file_of_any_size(world: World, reads: list[int]) -> None:
    page = random.Random(1).randbytes(PAGE)
    data = random.Random(2).randbytes(CHUNK)
    costs = []
    for name, size in ((b"small", 10 * MIB), (b"large", 1024 * MIB)):
        pretend(world, name, data, size // CHUNK)
        number = world.open(name)
        at = size // 2 + 5000
        world.fs.files.write(number, at, page)
        reads.clear()
        world.fs.files.fsync(number)
        counts = last_commit(world).counts
        world.fs.files.release(number)

        assert (
            sum(reads) == PAGE
        )  # what is clean comes from the store: the backing file has a hole there
        assert world.part(name, at - 5000, PAGE + 10_000) == data[:5000] + page + data[9096:14_096]
        costs.append((counts.chunks_new, counts.stored_bytes))

    assert costs[0][0] <= 3
    assert costs[1][0] <= costs[0][0] * 3
    assert costs[1][1] <= costs[0][1] * 3
    assert costs[1][1] < 6 * 1024


def test_a_page_rewritten_at_random_stores_little_more_than_the_page(world: World) -> None:
    rng = random.Random(4)
    number = world.create(b"file", rng.randbytes(4 * MIB))
    pages = [rng.randrange(1023) * PAGE + 17 for _ in range(30)]

    def rewrite() -> None:
        for at in pages:
            world.fs.files.write(number, at, rng.randbytes(PAGE))
            world.fs.files.fsync(number)
            assert world.recorder.flush()

    world.fs.captures.capture_all()

    assert grown(world, rewrite) <= 6 * 1024 * len(pages)


def test_equal_bytes_written_again_make_no_blobs(world: World) -> None:
    data = random.Random(5).randbytes(MIB)
    number = world.create(b"file", data)
    world.fs.captures.capture_all()
    first = last_commit(world).counts
    world.fs.files.write(number, 300_001, data[300_001:500_000])
    world.fs.captures.capture_all()
    in_place = last_commit(world).counts
    world.fs.files.write(number, 0, data)
    world.fs.captures.capture_all()
    anew = last_commit(world).counts

    assert first.chunks_new > 5
    for counts in (in_place, anew):
        assert (counts.chunks_new, counts.stored_bytes) == (0, 0)
        assert counts.chunks_reused > 0
        assert counts.saved_by_dedup >= counts.plain_bytes


def test_what_is_saved_is_counted_by_cause(world: World) -> None:
    rng = random.Random(6)
    number = world.create(b"file", rng.randbytes(MIB))
    world.fs.captures.capture_all()
    counts = last_commit(world).counts
    assert (counts.plain_bytes, counts.saved_by_delta) == (MIB, 0)
    assert MIB <= counts.stored_bytes <= MIB + 4096

    world.fs.files.write(number, 100_000, rng.randbytes(1000))
    world.fs.captures.capture_all()
    counts = last_commit(world).counts
    assert counts.plain_bytes == 1000
    assert 1000 < counts.stored_bytes < 2000
    assert counts.saved_by_delta > 10_000

    world.fs.files.release(world.create(b"text", b"all the same " * 100_000))
    counts = last_commit(world).counts
    assert counts.saved_by_compression > 200_000
    assert len(counts.chunked_s) == 1


def changed(data: bytes) -> bytes:
    """Return *data* with 100 bytes before it, and some replaced."""
    rng = random.Random(len(data))
    return rng.randbytes(100) + data[:400_000] + rng.randbytes(5000) + data[405_000:]


def in_place_anew(world: World, data: bytes) -> None:
    number = world.fs.files.open(world.lookup(b"file"), os.O_WRONLY | os.O_TRUNC, ME)
    for at in range(0, len(data), 131_072):
        world.fs.files.write(number, at, data[at : at + 131_072])
    world.fs.files.release(number)


def halfway_seen_by_the_timer(world: World, data: bytes) -> None:
    number = world.fs.files.open(world.lookup(b"file"), os.O_WRONLY | os.O_TRUNC, ME)
    for at in range(0, len(data), 131_072):
        world.fs.files.write(number, at, data[at : at + 131_072])
        if at == 393_216:
            world.fs.captures.capture_all()
            assert world.recorder.flush()
    world.fs.files.release(number)


def emptied_first(world: World, data: bytes) -> None:
    world.fs.attributes.set(world.lookup(b"file"), NewAttributes(size=0), None, ME)
    assert world.recorder.flush()
    in_place_anew(world, data)


def renamed_over(world: World, data: bytes) -> None:
    """What the name does not tell, the rename does, if the recorder has not begun: test_pace.py says how long it waits."""
    is_renamed = threading.Event()

    def wait(size: int) -> int:
        assert is_renamed.wait(PATIENCE_S)
        return 1 << 40

    world.recorder.ask_first(wait)
    world.fs.files.release(world.create(b"unlike any name", data))
    world.fs.names.rename(world.root, b"unlike any name", world.root, b"file", 0, ME)
    is_renamed.set()


def renamed_over_after_it_was_recorded(world: World, data: bytes) -> None:
    """What the first save of a program that is slow, with names that tell nothing, costs, tells where the next goes."""
    for each in (data[:-10], data):
        name = b"unlike any name" if each is data else b"unlike some one"
        world.fs.files.release(world.create(name, each))
        assert world.recorder.flush()
        world.fs.names.rename(world.root, name, world.root, b"file", 0, ME)
        assert world.recorder.flush()


def synced_and_renamed_over(world: World, data: bytes) -> None:
    number = world.create(b".file.Xq3wTf", data)
    world.fs.files.fsync(number)
    assert world.recorder.flush()
    world.fs.files.release(number)
    world.fs.names.rename(world.root, b".file.Xq3wTf", world.root, b"file", 0, ME)


def renamed_over_as_before(world: World, data: bytes) -> None:
    old = (world.state / "file").read_bytes()
    world.fs.files.release(world.create(b"tmpabc01234", old[:-10]))
    world.fs.names.rename(world.root, b"tmpabc01234", world.root, b"file", 0, ME)
    number = world.create(b"tmp5s6d7f8g", data)
    world.fs.files.fsync(number)
    assert world.recorder.flush()
    world.fs.files.release(number)
    world.fs.names.rename(world.root, b"tmp5s6d7f8g", world.root, b"file", 0, ME)


def moved_away_first(world: World, data: bytes) -> None:
    world.fs.names.rename(world.root, b"file", world.root, b"a backup", 0, ME)
    assert world.recorder.flush()
    world.fs.files.release(world.create(b"file", data))


def removed_first(world: World, data: bytes) -> None:
    world.fs.names.unlink(world.root, b"file", ME)
    assert world.recorder.flush()
    world.fs.files.release(world.create(b"file", data))


WAYS = (
    in_place_anew,
    halfway_seen_by_the_timer,
    emptied_first,
    renamed_over,
    synced_and_renamed_over,
    renamed_over_as_before,
    moved_away_first,
    removed_first,
)


@pytest.mark.parametrize("save", WAYS, ids=lambda way: way.__name__)
def test_a_file_saved_anew_stores_only_what_is_new(
    world: World, save: Callable[[World, bytes], None]
) -> None:
    data = random.Random(7).randbytes(MIB)
    world.fs.files.release(world.create(b"file", data))
    new = changed(data)

    assert grown(world, lambda: save(world, new)) < 12_000
    assert world.read(b"file") == new


def test_a_file_renamed_over_after_it_was_recorded_stores_the_parts_that_changed_once(
    world: World,
) -> None:
    data = random.Random(7).randbytes(MIB)
    world.fs.files.release(world.create(b"file", data))
    new = changed(data)

    assert grown(world, lambda: renamed_over_after_it_was_recorded(world, new)) < MIB // 4
    assert world.read(b"file") == new


@pytest.mark.parametrize("size", [3000, 60_000])
def test_a_small_file_is_a_delta_to_what_it_was(world: World, size: int) -> None:
    data = random.Random(8).randbytes(size)
    world.fs.files.release(world.create(b"file", data))
    new = data[:1000] + b"something new" + data[1000:]

    assert grown(world, lambda: in_place_anew(world, new)) < 500
    assert world.read(b"file") == new


def test_a_file_that_grows_stores_only_what_was_appended(world: World) -> None:
    rng = random.Random(9)
    number = world.create(b"file", rng.randbytes(MIB))
    world.fs.captures.capture_all()

    def append() -> None:
        for turn in range(20):
            world.fs.files.write(number, MIB + turn * 1000, rng.randbytes(1000))
            world.fs.files.fsync(number)
            assert world.recorder.flush()

    assert grown(world, append) < 20 * 3500  # every eleventh time the last chunk is stored whole


@pytest.mark.slow
def test_a_large_new_file_streams_through_the_recorder(world: World) -> None:
    rng = random.Random(10)
    number = world.create(b"file")
    for at in range(96):
        world.fs.files.write(number, at * MIB, rng.randbytes(MIB))
    tracemalloc.start()
    try:
        world.fs.captures.capture_all()
        assert world.recorder.flush()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    world.fs.files.release(number)

    assert peak < 40 * MIB


def test_what_is_found_changed_at_a_mount_is_stored_as_a_delta(world: World) -> None:
    data = random.Random(11).randbytes(MIB)
    world.fs.files.release(world.create(b"file", data))
    new = changed(data)

    def change() -> None:
        world.fs.close()
        (world.state / "file").write_bytes(new)
        os.truncate(world.state / "file", 50 * MIB)
        world.reconcile()
        world.start()

    assert grown(world, change) < 12_000
    assert world.part(b"file", 0, len(new) + 100) == new + bytes(100)
    assert world.read(b"file") == new + bytes(50 * MIB - len(new))
