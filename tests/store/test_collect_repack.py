"""Repacking: less on the disk, the same contents, and chains that are no deeper than they may be."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from dkfs.core.delta import Like
from dkfs.core.location import DELTAS
from dkfs.model.ids import ROOT, BlobId
from dkfs.store import EncodingPolicy, Store
from dkfs.store.check import check
from dkfs.store.collect import Collection, Pace, Report
from dkfs.store.collect_repack import Repacking, Throttle
from dkfs.store.collect_survey import Survey
from dkfs.store.reserve import Reserve
from tests.store.collecting import SEGMENT_LIMIT, segment_bytes, silent, unhurried
from tests.store.making import TIME_NS, append, file_state

WORDS = (
    "the",
    "store",
    "keeps",
    "every",
    "version",
    "of",
    "each",
    "file",
    "as",
    "small",
    "as",
    "can",
    "be",
)


def text(version: int) -> bytes:
    """Return a text of 8 KB of which the first tenth changes with every version."""
    chosen = random.Random(version)
    head = " ".join(chosen.choice(WORDS) for _ in range(150))
    common = random.Random(0)
    return f"{head} {' '.join(common.choice(WORDS) for _ in range(1500))}".encode()


def save(store: Store, versions: range, *, with_likes: bool) -> list[BlobId]:
    blobs: list[BlobId] = []
    for version in versions:
        with store.write() as writer:
            like = Like((blobs[-1],), None) if with_likes and blobs else None
            data = text(version)
            blobs.append(writer.put_blob(data, like=like).blob)
            state = file_state(b"f", size=len(data), content=blobs[-1])
            names = {} if writer.last else {(int(ROOT), b"f"): 2}
            append(writer, {2: state}, names, time_ns=TIME_NS + version)
    return blobs


def repack(store: Store, wish: Repacking, *, at: Callable[[str], None] = lambda _: None) -> Report:
    return Collection(
        store,
        Survey(store, limit=store.segment_limit, say=silent),
        reserve=Reserve(store.path, 0),
        pace=Pace(slice_s=0.1, pause=unhurried),
        say=silent,
        at=at,
    ).run(repacking=wish)


def depths(store: Store, blobs: list[BlobId]) -> list[int]:
    with store.read() as reader:
        found = [reader.location(blob) for blob in blobs]
    return [location.depth for location in found if location is not None]


def expect(store: Store, versions: range) -> None:
    with store.read() as reader:
        for version in versions:
            data = text(version)
            assert reader.blob(store.hash(data)) == data
    assert list(check(store, read_data=True)) == []


def open_store(path: Path, *, diff: bool) -> Store:
    policy = EncodingPolicy(diff=diff)
    return Store.open(path, writable=True, segment_limit=SEGMENT_LIMIT, encoding=policy)


def test_what_was_stored_whole_becomes_differences_to_what_the_file_held_before(
    path: Path,
) -> None:
    with open_store(path, diff=False) as store:
        blobs = save(store, range(60), with_likes=False)
        before = segment_bytes(path)

        report = repack(store, Repacking())

        assert segment_bytes(path) < before / 3
        assert report.freed > before / 2
        assert max(depths(store, blobs)) == 10
        expect(store, range(60))


def test_chains_are_as_deep_as_they_may_be(path: Path) -> None:
    with open_store(path, diff=False) as store:
        blobs = save(store, range(30), with_likes=False)

        repack(store, Repacking(depth=3))

        assert max(depths(store, blobs)) == 3
        expect(store, range(30))


def test_a_difference_stays_one_to_the_same_blobs_and_becomes_smaller(path: Path) -> None:
    with open_store(path, diff=True) as store:
        blobs = save(store, range(30), with_likes=True)
        with store.read() as reader:
            old = [reader.location(blob) for blob in blobs]
            bases = [reader.bases(blob, at) for blob, at in zip(blobs, old, strict=True) if at]

        repack(store, Repacking())

        with store.read() as reader:
            for blob, was, base in zip(blobs, old, bases, strict=True):
                now = reader.location(blob)
                assert now is not None
                assert was is not None
                assert now.stored_length <= was.stored_length
                assert now.read_cost <= was.read_cost
                assert now.depth <= was.depth
                assert reader.bases(blob, now) in {base, ()}
        expect(store, range(30))


def test_a_second_repacking_has_nothing_to_do(path: Path) -> None:
    with open_store(path, diff=False) as store:
        save(store, range(40), with_likes=False)
        repack(store, Repacking())
        before = sorted(store.segment_sizes())

        report = repack(store, Repacking())

        assert report.findings.plan.victims == ()
        assert sorted(store.segment_sizes()) == before


def test_contents_that_alternate_make_no_loop(path: Path) -> None:
    with open_store(path, diff=False) as store:
        for i in range(10):
            with store.write() as writer:
                data = text(i % 2)
                state = file_state(b"f", size=len(data), content=writer.put_blob(data).blob)
                names = {} if writer.last else {(int(ROOT), b"f"): 2}
                append(writer, {2: state}, names, time_ns=TIME_NS + i)

        repack(store, Repacking())

        blobs = [store.hash(text(0)), store.hash(text(1))]
        assert sorted(depths(store, blobs)) == [0, 1]
        expect(store, range(2))


def test_what_somebody_came_to_rely_on_meanwhile_does_not_become_deeper(path: Path) -> None:
    with open_store(path, diff=True) as store:
        blobs = save(store, range(4), with_likes=False)
        added = text(3)[:-4] + b"more"

        def rely(step: str) -> None:
            if step == "copied" and not store.path.joinpath("relied").exists():
                store.path.joinpath("relied").touch()
                with store.write() as writer:
                    new = writer.put_blob(added, like=Like((blobs[3],), None)).blob
                    state = file_state(b"f", size=len(added), content=new)
                    append(writer, {2: state}, time_ns=TIME_NS + 10)

        repack(store, Repacking(), at=rely)

        assert depths(store, blobs)[3] == 0
        with store.read() as reader:
            location = reader.location(store.hash(added))
            assert location is not None
            assert location.encoding in DELTAS
            assert reader.blob(store.hash(added)) == added
        expect(store, range(4))


def test_what_would_be_refused_again_and_again_is_moved_as_it_is(path: Path) -> None:
    with open_store(path, diff=False) as store:
        blobs = save(store, range(1), with_likes=False)
        repack(store, Repacking())  # from now on its segment is left alone
        blobs += save(store, range(1, 2), with_likes=False)

        def rely(step: str) -> None:
            if step == "looked":
                with store.write() as writer:
                    writer.put_blob(text(1))

        repack(store, Repacking(), at=rely)

        assert depths(store, blobs) == [0, 0]
        expect(store, range(2))


def test_a_rate_is_kept() -> None:
    now = 0.0
    told = 0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def tell() -> None:
        nonlocal told
        told += 1

    throttle = Throttle(1000, clock=lambda: now, sleep=sleep)
    for _ in range(10):
        throttle.wait(500, tell)

    assert now == pytest.approx(4.5)
    assert told > 20, "who waits can be told to end"
