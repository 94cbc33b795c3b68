"""The recorder: what it takes into one transaction."""

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dkfs.errors import StoreError
from dkfs.history.change import Link, NameChange, NodeChange
from dkfs.history.commit import Commit
from dkfs.history.frozen import FrozenBytes
from dkfs.history.pace import BATCH
from dkfs.history.recorder import Recorder
from dkfs.history.tree import Tree
from dkfs.model.ids import NO_NODE, ROOT, NodeId
from dkfs.model.operation import NOBODY, Operation, OpKind
from dkfs.store import Store, Writer


class Saver:
    """Appends what is done to files of the directory *place*."""

    def __init__(self, recorder: Recorder, place: Path) -> None:
        self._recorder = recorder
        self._place = place
        self._change(OpKind.FOUND, recorder.new_node(), NO_NODE, b"", place)

    def create(self, name: bytes, data: bytes) -> NodeId:
        path = self._place / os.fsdecode(name)
        path.write_bytes(data)
        node = self._recorder.new_node()
        self._change(OpKind.CREATE, node, ROOT, name, path)
        return node

    def write(self, node: NodeId, name: bytes, data: bytes) -> None:
        path = self._place / os.fsdecode(name)
        path.write_bytes(data)
        self._change(OpKind.WRITE, node, ROOT, name, path)

    def rename(self, node: NodeId, name: bytes, new_name: bytes) -> None:
        path = self._place / os.fsdecode(new_name)
        (self._place / os.fsdecode(name)).rename(path)
        self._recorder.append(
            Operation(
                OpKind.RENAME, self._recorder.now_ns(), NOBODY, node, ROOT, name, ROOT, new_name
            ),
            (NodeChange(node, path.stat(), Link(ROOT, new_name)),),
            (NameChange(ROOT, name, NO_NODE), NameChange(ROOT, new_name, node)),
        )

    def _change(self, kind: OpKind, node: NodeId, parent: NodeId, name: bytes, path: Path) -> None:
        contents = None
        if kind is not OpKind.FOUND:
            fd = os.open(path, os.O_RDONLY)
            size = os.fstat(fd).st_size
            contents = FrozenBytes(fd, ((0, size),) if size else (), size)
            os.close(fd)
        names = (NameChange(parent, name, node),) if kind is OpKind.CREATE else ()
        operation = Operation(kind, self._recorder.now_ns(), NOBODY, node, parent, name)
        link = None if kind is OpKind.WRITE else Link(parent, name)
        change = NodeChange(node, path.stat(), link, contents, {} if link else None)
        self._recorder.append(operation, (change,), names)


@contextmanager
def recording(store: Store, commits: list[Commit]) -> Iterator[Recorder]:
    recorder = Recorder(store, clock_ns=lambda: 1, on_commit=commits.append, on_drop=lambda _: None)
    try:
        yield recorder
    finally:
        assert recorder.close()


def test_a_transaction_takes_a_bounded_number_of_operations_and_none_is_lost(
    tmp_path: Path,
) -> None:
    (tmp_path / "place").mkdir()
    Store.create(tmp_path / "store")
    commits: list[Commit] = []
    with Store.open(tmp_path / "store", writable=True) as store:
        with recording(store, commits) as recorder:
            saver = Saver(recorder, tmp_path / "place")
            for number in range(3 * BATCH):
                saver.create(b"f%d" % number, b"%d" % number)

        assert sum(commit.operations for commit in commits) == 3 * BATCH + 1
        assert max(commit.operations for commit in commits) <= BATCH
        with store.read() as reader:
            assert reader.last == 3 * BATCH + 1
            assert Tree(reader, reader.last).resolve(b"f%d" % (3 * BATCH - 1))


def test_a_rename_behind_the_transaction_tells_what_the_contents_resemble(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    Store.create(tmp_path / "store")
    commits: list[Commit] = []
    before = random.Random(1).randbytes(60_000)
    with (
        Store.open(tmp_path / "store", writable=True) as store,
        recording(store, commits) as recorder,
    ):
        saver = Saver(recorder, tmp_path / "place")
        saver.create(b"report", before)
        other = saver.create(b"other", b"x")
        recorder.flush()
        size = store.size().segment_bytes

        with store.write():  # so that the recorder has to wait
            node = saver.create(b"unlike any name", b"")
            saver.write(node, b"unlike any name", before[:30_000] + b"!" + before[30_000:])
            for _ in range(BATCH):
                saver.write(other, b"other", b"x")
            saver.rename(node, b"unlike any name", b"report")
        recorder.flush()

        assert store.size().segment_bytes - size < 20_000


class Failing:
    """A recorder that fails by an internal error at the first transaction, when it is told to."""

    def __init__(self, top: Path, *, queue_operations: int = 100) -> None:
        Store.create(top / "store")
        self.store = Store.open(top / "store", writable=True)
        self.dropped: list[int] = []
        self.go_on = threading.Event()
        self.failed = threading.Event()
        self._times = 0
        self.recorder = Recorder(
            self.store,
            clock_ns=lambda: 1,
            on_commit=lambda _: None,
            on_drop=self._drop,
            queue_operations=queue_operations,
        )
        self.recorder.ask_first(self._admit)

    def _admit(self, _: int) -> int:
        self._times += 1
        if self._times == 1:
            self.go_on.wait(60.0)
            raise ValueError
        return 1 << 30

    def _drop(self, contents: int) -> None:
        self.dropped.append(contents)
        self.failed.set()


@pytest.mark.expect_logs("internal error|could not be recorded")
def test_an_operation_that_comes_while_the_recorder_gives_up_is_not_recorded_behind_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(tmp_path)
    saver = Saver(failing.recorder, tmp_path)

    def give_up(_: float) -> None:  # append() is past its test
        failing.go_on.set()
        assert failing.failed.wait(60.0)

    monkeypatch.setattr(failing.recorder._pace, "note", give_up)
    saver.create(b"file", b"data")

    assert not failing.recorder.close()
    assert failing.dropped == [0, 0]
    with failing.store.read() as reader:
        assert reader.last == 0
    failing.store.close()


@pytest.mark.expect_logs("internal error|could not be recorded")
def test_nobody_waits_for_a_recorder_that_has_given_up(tmp_path: Path) -> None:
    failing = Failing(tmp_path, queue_operations=2)
    saver = Saver(failing.recorder, tmp_path)
    for i in range(3):
        saver.create(b"file%d" % i, b"data")
    failing.go_on.set()
    assert failing.failed.wait(60.0)

    assert not failing.recorder.is_full
    assert not failing.recorder.close()
    failing.store.close()


@pytest.mark.expect_logs("the store failed, versions are not recorded")
def test_a_commit_that_seemed_to_fail_and_had_landed_is_not_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "place").mkdir()
    Store.create(tmp_path / "store")
    real = Writer.__exit__
    ended: list[type[BaseException] | None] = []

    def land_and_fail(writer: Writer, exc_type: type[BaseException] | None, *rest: object) -> None:
        real(writer, exc_type, *rest)
        ended.append(exc_type)
        if len(ended) == 1:
            raise StoreError("index: mdb_txn_commit: Input/output error")

    with (
        Store.open(tmp_path / "store", writable=True) as store,
        recording(store, []) as recorder,
    ):
        monkeypatch.setattr(Writer, "__exit__", land_and_fail)
        saver = Saver(recorder, tmp_path / "place")
        saver.create(b"one", b"1")
        recorder.hurry()
        assert not recorder.flush()
        saver.create(b"two", b"2")
        while not recorder.flush():
            assert len(ended) < 6  # it is tried again each second

        with store.read() as reader:
            assert reader.last == recorder.last == 3
            assert Tree(reader, reader.last).resolve(b"two")


@pytest.mark.expect_logs("internal error|could not be recorded|recording goes on")
def test_what_goes_wrong_while_the_recorder_waits_for_work_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "place").mkdir()
    Store.create(tmp_path / "store")
    dropped: list[int] = []
    with Store.open(tmp_path / "store", writable=True) as store:
        recorder = Recorder(
            store, clock_ns=lambda: 1, on_commit=lambda _: None, on_drop=dropped.append
        )
        with monkeypatch.context() as patch:
            patch.setattr(recorder, "_is_hurried", lambda: 1 // 0)
            Saver(recorder, tmp_path / "place")
            while recorder.is_recording:
                assert recorder._thread.is_alive()
        recorder.resume(recorder.committed)
        Saver(recorder, tmp_path / "place")

        assert recorder.close()
        assert dropped == [0]
