"""What is written past dkfs: it is found at fsync, at close and by the timer, as it really was at one instant."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dkfs.core.chunking import Chunking
from dkfs.core.io_mode import OpenKind
from dkfs.history.rollback import rollback
from dkfs.model.ids import Seq
from dkfs.model.operation import NOBODY, OpKind
from dkfs.overlay.attributes import NewAttributes
from tests.disks import disk
from tests.overlay.past import Past
from tests.overlay.world import ME, World

_LARGE = 3 << 20  # bytes: more than is copied at once
_DISKS = ("xfs", "btrfs", "ext4", "tmpfs")


@pytest.fixture
def past(world: World) -> Past:
    return Past(world)


@pytest.fixture(params=_DISKS)
def on_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Past]:
    with disk(request.param, tmp_path) as top:
        world = World(top)
        try:
            yield Past(world)
        finally:
            world.close()


def _noise(size: int, seed: int = 1) -> bytes:
    return bytes((seed + i * i // 7 + i // 251) & 0xFF for i in range(4096)) * (size // 4096)


def _versions(world: World) -> list[OpKind]:
    assert world.recorder.flush()
    with world.store.read() as reader:
        return [entry.operation.kind for entry in reader.log(Seq(1), reader.last)]


# ---- small files, on any disk


def test_what_was_written_is_recorded_when_the_file_is_closed(past: Past) -> None:
    opened = past.open(b"f")
    opened.write(0, b"hello")
    opened.close()

    assert past.world.read(b"f") == b"hello"


def test_an_open_that_wrote_nothing_makes_no_version(past: Past) -> None:
    past.open(b"f").close()
    before = past.world.recorder.last

    past.open(b"f").close()
    past.tick()
    assert past.world.recorder.last == before


def test_fsync_waits_until_what_was_written_is_recorded(past: Past) -> None:
    opened = past.open(b"f")
    opened.write(3, b"hello")
    opened.fsync()

    with past.world.store.read() as reader:
        assert reader.last == past.world.recorder.last
    assert past.world.read(b"f") == b"\0\0\0hello"
    opened.close()


def test_a_file_that_stays_open_gets_its_versions_from_the_timer(past: Past) -> None:
    opened = past.open(b"f")
    opened.write(0, b"one")
    past.tick()
    assert past.world.read(b"f") == b"one"

    before = past.world.recorder.last
    past.tick()
    assert past.world.recorder.last == before

    opened.write(0, b"two")
    past.tick()
    assert past.world.read(b"f") == b"two"
    opened.close()


def test_a_rename_records_what_was_written_before_it(past: Past) -> None:
    opened = past.open(b"f")
    opened.write(0, b"written")
    past.world.fs.names.rename(past.world.root, b"f", past.world.root, b"g", 0, ME)
    opened.write(0, b"another")

    assert past.world.read(b"g", past.world.recorder.last) == b"written"
    opened.close()
    assert past.world.read(b"g") == b"another"


def test_a_truncation_that_dkfs_is_told_of_and_writes_that_it_is_not_are_both_recorded(
    past: Past,
) -> None:
    opened = past.open(b"f")
    opened.write(0, b"a" * 100)
    past.tick()
    inode = past.world.lookup(b"f")
    past.world.fs.attributes.set(inode, NewAttributes(size=10), opened.number, ME)
    opened.write(20, b"b")
    past.tick()

    assert past.world.read(b"f") == b"a" * 10 + bytes(10) + b"b"
    opened.close()


def test_a_file_that_is_removed_while_it_is_written_troubles_nobody(past: Past) -> None:
    opened = past.open(b"f")
    opened.write(0, b"gone")
    past.world.fs.names.unlink(past.world.root, b"f", ME)
    opened.write(0, b"more")
    past.tick()
    opened.close()
    past.tick()

    assert not past.captures.unseen
    assert _versions(past.world)[-1] is OpKind.UNLINK


def test_of_several_opens_each_is_recorded_and_the_last_ends_the_watch(past: Past) -> None:
    first, second = past.open(b"f"), past.open(b"f", OpenKind.PASSTHROUGH_DIRECT)
    first.write(0, b"unseen--")
    second.seen(4, b"seen")
    first.close()
    assert len(past.captures.unseen) == 1

    second.seen(0, b"S")
    second.close()
    assert not past.captures.unseen
    assert past.world.read(b"f") == b"Snseseen"


# ---- hybrid: writes are seen


def test_a_write_that_is_seen_is_recorded_without_a_look_at_the_rest(past: Past) -> None:
    opened = past.open(b"f", OpenKind.PASSTHROUGH_DIRECT)
    opened.seen(0, _noise(_LARGE))
    opened.fsync()
    commits = len(past.world.commits)

    opened.seen(4096, b"x" * 10)
    opened.fsync()

    assert sum(c.counts.plain_bytes for c in past.world.commits[commits:]) == 10
    opened.close()


def test_a_store_through_a_map_between_two_writes_that_are_seen_is_found(past: Past) -> None:
    opened = past.open(b"f", OpenKind.PASSTHROUGH_DIRECT)
    opened.seen(0, _noise(_LARGE))
    opened.fsync()
    with opened.mapped() as shared:
        shared[2 << 20] = 255
        opened.seen(0, b"seen")
        opened.fsync()

    assert past.world.read(b"f")[:4] == b"seen"
    assert past.world.read(b"f")[2 << 20] == 255
    opened.close()


@pytest.mark.parametrize(
    "change",
    [NewAttributes(size=5000), NewAttributes(atime=10**18), NewAttributes(mode=0o600)],
    ids=["truncation", "time", "mode"],
)
def test_a_store_through_a_map_after_a_change_that_moves_the_times_is_found(
    past: Past, change: NewAttributes
) -> None:
    opened = past.open(b"f", OpenKind.PASSTHROUGH_DIRECT)
    opened.seen(0, b"a" * 6000)
    opened.fsync()
    opened.seen(3000, b"a")
    past.world.fs.attributes.set(past.world.lookup(b"f"), change, opened.number, ME)
    with opened.mapped() as shared:
        shared[100] = 255
        opened.seen(0, b"seen")
        opened.fsync()

    expected = b"seen" + b"a" * 96 + b"\xff" + b"a" * 5899
    assert past.world.read(b"f") == expected[: change.size or 6000]
    opened.close()


@pytest.mark.parametrize(
    "change", [NewAttributes(atime=10**18), NewAttributes(mode=0o600)], ids=["time", "mode"]
)
def test_a_store_through_a_map_before_a_change_of_attributes_is_found_beside_a_write(
    past: Past, change: NewAttributes
) -> None:
    opened = past.open(b"f", OpenKind.PASSTHROUGH_DIRECT)
    opened.seen(0, b"a" * 6000)
    opened.fsync()
    opened.seen(3000, b"a")
    with opened.mapped() as shared:
        shared[100] = 255
        past.world.fs.attributes.set(past.world.lookup(b"f"), change, opened.number, ME)
        opened.fsync()

    assert past.world.read(b"f") == b"a" * 100 + b"\xff" + b"a" * 5899
    opened.close()


def test_a_store_through_a_map_before_a_truncation_is_found(past: Past) -> None:
    opened = past.open(b"f", OpenKind.PASSTHROUGH_DIRECT)
    opened.seen(0, b"a" * 6000)
    opened.fsync()
    opened.seen(3000, b"a")
    with opened.mapped() as shared:
        shared[100] = 255
        new = NewAttributes(size=5000)
        past.world.fs.attributes.set(past.world.lookup(b"f"), new, opened.number, ME)
        opened.fsync()

    assert past.world.read(b"f") == b"a" * 100 + b"\xff" + b"a" * 4899
    opened.close()


def test_a_truncation_of_a_file_whose_writes_are_seen_is_recorded_without_a_look_at_the_rest(
    past: Past,
) -> None:
    opened = past.open(b"f", OpenKind.PASSTHROUGH_DIRECT)
    opened.seen(0, _noise(_LARGE))
    opened.fsync()
    new = NewAttributes(size=_LARGE - 10)
    past.world.fs.attributes.set(past.world.lookup(b"f"), new, opened.number, ME)

    assert past.captures.before(past.world.lookup(b"f")) is None
    opened.fsync()
    assert past.world.read(b"f") == _noise(_LARGE)[:-10]
    opened.close()


def test_a_store_through_a_map_after_a_rollback_is_found_beside_a_write(past: Past) -> None:
    opened = past.open(b"f", OpenKind.PASSTHROUGH_DIRECT)
    opened.seen(0, b"a" * 6000)
    opened.fsync()
    past.captures.rolled_back(past.world.lookup(b"f"))
    with opened.mapped() as shared:
        shared[100] = 255
        opened.seen(0, b"seen")
        opened.fsync()

    assert past.world.read(b"f") == b"seen" + b"a" * 96 + b"\xff" + b"a" * 5899
    opened.close()


# ---- large files, with clones and without


def test_of_a_large_file_only_what_differs_is_recorded(on_disk: Past) -> None:
    opened = on_disk.open(b"f")
    content = bytearray(_noise(_LARGE))
    opened.write(0, bytes(content))
    opened.fsync()
    commits = len(on_disk.world.commits)
    content[1 << 20 : (1 << 20) + 5] = b"hello"
    opened.write(1 << 20, b"hello")
    opened.fsync()

    counted = sum(c.counts.plain_bytes for c in on_disk.world.commits[commits:])
    assert 0 < counted <= 256 * 1024
    assert on_disk.world.read(b"f") == content
    opened.close()
    assert on_disk.world.read(b"f") == content


def test_stores_through_a_map_are_found_each_time(on_disk: Past) -> None:
    opened = on_disk.open(b"f")
    opened.write(0, _noise(_LARGE))
    opened.fsync()
    with opened.mapped() as shared:
        for value in (1, 2, 3):
            shared[1 << 20] = value
            opened.fsync()
            assert on_disk.world.read(b"f")[1 << 20] == value
    opened.close()


def test_holes_growth_and_shrinking_are_found(on_disk: Past) -> None:
    opened = on_disk.open(b"f")
    opened.write(0, _noise(_LARGE))
    opened.fsync()
    for change in _CHANGES:
        change(opened.fd)
        opened.fsync()
        assert on_disk.world.read(b"f") == (on_disk.world.state / "f").read_bytes()
    opened.close()


def _at(offset: int, data: bytes) -> Callable[[int], object]:
    return lambda fd: os.pwrite(fd, data, offset)


_CHANGES: tuple[Callable[[int], object], ...] = (
    lambda fd: os.ftruncate(fd, 5 << 20),
    _at((4 << 20) + 7, b"in the hole"),
    lambda fd: os.ftruncate(fd, (2 << 20) + 3),
    _at((2 << 20) + 1, b"at the end"),
    lambda fd: os.posix_fallocate(fd, 2 << 20, 1 << 20),
    _at((2 << 20) + 70_000, b"where it was allocated"),
    lambda fd: os.ftruncate(fd, 0),
    _at(0, _noise(_LARGE, 9)),
)


def test_a_large_file_that_nobody_writes_any_more_is_recorded_after_its_last_close(
    on_disk: Past,
) -> None:
    opened = on_disk.open(b"f")
    opened.write(0, _noise(_LARGE))
    opened.close()
    on_disk.tick()
    again = on_disk.open(b"f")
    again.write(12345, b"again")
    again.close()
    on_disk.tick()

    assert on_disk.world.read(b"f") == (on_disk.world.state / "f").read_bytes()
    assert not on_disk.captures.unseen
    assert not len(on_disk.world.fs.files.handles)


def test_a_map_that_outlives_its_file_descriptor_is_still_recorded(on_disk: Past) -> None:
    opened = on_disk.open(b"f")
    opened.write(0, _noise(_LARGE))
    with opened.mapped() as shared:
        opened.close()
        on_disk.tick()
        assert len(on_disk.captures.unseen) == 1
        shared[1 << 20] = 77
        shared.flush()  # on tmpfs nothing tells of a store
        os.utime(on_disk.world.state / "f")
        on_disk.tick()
        assert on_disk.world.read(b"f")[1 << 20] == 77

    on_disk.tick()
    assert not on_disk.captures.unseen


def test_a_file_that_was_rolled_back_while_it_is_open_is_compared_with_what_it_is_now(
    on_disk: Past,
) -> None:
    world = on_disk.world
    opened = on_disk.open(b"f")
    first = _noise(_LARGE)
    opened.write(0, first)
    opened.fsync()
    seq = world.recorder.last
    opened.write(1 << 20, b"later")
    opened.fsync()
    world.fs.rollback.roll_back(rollback(Seq(seq), ()), NOBODY, dry_run=False)
    on_disk.tick()
    assert world.read(b"f") == first

    opened.write(2 << 20, b"after")
    opened.fsync()
    assert world.read(b"f") == first[: 2 << 20] + b"after" + first[(2 << 20) + 5 :]
    opened.close()


def test_more_ranges_than_extents_hold_are_recorded_byte_by_byte(tmp_path: Path) -> None:
    """What lies between two changed chunks is not copied, so that it must not be named either."""
    world = World(tmp_path, Chunking(minimum=256, average=1024, maximum=2048, threshold=0))
    opened = Past(world).open(b"f")
    content = bytearray(random.Random(1).randbytes(20 << 20))
    opened.write(0, bytes(content))
    opened.fsync()
    for at in range(0, len(content), 4096):
        content[at] ^= 1
        opened.write(at, bytes(content[at : at + 1]))
    opened.fsync()

    assert world.read(b"f") == content
    opened.close()
    world.close()
