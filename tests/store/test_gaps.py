"""Versions that were forgotten leave gaps in the log: what is found beside them."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dkfs.errors import StoreError
from dkfs.model.ids import Seq
from dkfs.store import Store
from dkfs.store.check import check
from dkfs.store.rows import SEQ
from tests.store.making import TIME_NS, append


@settings(max_examples=40)
@given(
    steps=st.lists(st.integers(0, 3), min_size=1, max_size=25),
    gone=st.sets(st.integers(1, 24)),
)
def test_what_is_found_is_what_a_list_of_the_versions_says(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], gone: set[int]
) -> None:
    path = tmp_path_factory.mktemp("stores") / "store"
    Store.create(path)
    times: dict[int, int] = {}
    with Store.open(path, writable=True) as store:
        with store.write() as writer:
            time_ns = TIME_NS
            for step in steps:
                time_ns += step
                times[append(writer, time_ns=time_ns)] = time_ns
        last = len(times)
        with store.write() as writer:
            for seq in sorted(gone):
                if seq < last:
                    assert writer.delete_row("log", SEQ.pack(seq))
                    del times[seq]
            found = [(writer.version(at), writer.next_version(at)) for at in range(last + 3)]
        with store.read() as reader:
            assert reader.last == last
            assert reader.forgotten() == last - len(times)
            for at in range(last + 3):
                before = max((seq for seq in times if seq <= at), default=0)
                after = min((seq for seq in times if seq > at), default=None)
                assert (reader.version(at), reader.next_version(at)) == (before, after)
                assert found[at] == (before, after)
            for time_ns in range(TIME_NS - 1, max(times.values()) + 2):
                expected = max((seq for seq, each in times.items() if each <= time_ns), default=0)
                assert reader.version_at(time_ns) == expected
            assert list(reader.versions()) == sorted(times.items())
        assert list(check(store, read_data=True)) == []


def test_numbers_below_all_and_above_all_are_answered(store: Store) -> None:
    with store.read() as reader:
        assert (reader.version(5), reader.next_version(5)) == (0, None)
    with store.write() as writer:
        append(writer)
        append(writer)
    with store.read() as reader:
        assert (reader.version(-3), reader.next_version(-3)) == (0, 1)
        assert (reader.version(1 << 70), reader.next_version(1 << 70)) == (2, None)


def test_a_version_follows_the_newest_whatever_was_forgotten(store: Store) -> None:
    with store.write() as writer:
        for _ in range(4):
            append(writer)
        for seq in (1, 2, 3):
            writer.delete_row("log", SEQ.pack(seq))
        assert append(writer) == 5

    with store.read() as reader:
        assert [record.seq for record in reader.log(Seq(1), Seq(9))] == [4, 5]


def test_what_was_forgotten_is_forgotten_after_opening_again(path: Path) -> None:
    with Store.open(path, writable=True) as store, store.write() as writer:
        for _ in range(3):
            append(writer)
        writer.delete_row("log", SEQ.pack(2))

    with Store.open(path, writable=True) as store:
        with store.write() as writer:
            assert writer.forgotten() == 1
            with pytest.raises(StoreError, match="version 2 cannot follow version 3"):
                writer.append(Seq(2), writer.record(Seq(3)).operation, [], [])  # type: ignore[union-attr]
            writer.delete_row("log", SEQ.pack(1))
        with store.read() as reader:
            assert reader.forgotten() == 2
