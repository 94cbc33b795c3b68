"""Where the system gives no more threads (pids.max, RLIMIT_NPROC) the mount goes on."""

import logging
import threading
import time

import pytest

from dkfs.fuse.kernel.changes import Changes
from dkfs.fuse.kernel.notify import Notifier
from dkfs.fuse.kernel.standin import StandIns
from dkfs.fuse.kernel.workers import Workers

PATIENCE_S = 60.0


class Shortage:
    """Lets no thread be started while it lasts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lasts = True
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if self.lasts:
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.fixture
def shortage(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Shortage:
    """A shortage, of which warnings are expected."""
    caplog.set_level(logging.CRITICAL, "dkfs")
    return Shortage(monkeypatch)


def test_work_is_done_by_who_asks_for_it_if_there_can_be_no_thread(shortage: Shortage) -> None:
    workers = Workers()
    done: list[threading.Thread] = []
    for _ in range(2):
        workers.do(lambda: done.append(threading.current_thread()))

    assert done == [threading.current_thread()] * 2
    workers.close()


def test_work_is_left_to_the_threads_that_there_are(shortage: Shortage) -> None:
    workers = Workers()
    shortage.lasts = False
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        go_on.wait(PATIENCE_S)

    workers.do(first)
    assert begun.wait(PATIENCE_S)
    shortage.lasts = True
    workers.do(done.set)

    assert not done.is_set()
    go_on.set()
    assert done.wait(PATIENCE_S)
    workers.close()


def test_there_are_more_threads_again_after_a_shortage(shortage: Shortage) -> None:
    workers = Workers()
    workers.do(lambda: None)
    shortage.lasts = False
    both = threading.Barrier(3)

    def meet() -> None:
        both.wait(PATIENCE_S)

    for _ in range(2):
        workers.do(meet)

    both.wait(PATIENCE_S)
    workers.close()


def test_pages_are_left_where_they_are_if_there_can_be_no_thread(shortage: Shortage) -> None:
    said: list[bytes] = []
    notifier = Notifier(said.append)
    notifier.drop_pages(7)
    assert said == []

    shortage.lasts = False
    notifier.drop_pages(7)
    assert len(said) == 1


def test_only_so_many_threads_wait_for_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dkfs.fuse.kernel.notify._PATIENCE_S", 0.01)
    monkeypatch.setattr("dkfs.fuse.kernel.notify._MOST", 2)
    answered = threading.Event()
    said: list[bytes] = []

    def wait(data: bytes) -> None:
        said.append(data)
        answered.wait(PATIENCE_S)

    notifier = Notifier(wait)
    for _ in range(4):
        notifier.drop_pages(7)
    deadline_s = time.monotonic() + PATIENCE_S
    while len(said) < 2:  # a thread that was not waited for may not have begun
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
    answered.set()

    assert len(said) == 2


class Kept:
    """A loop that is in a request, and its dispatcher."""

    def __init__(self) -> None:
        self.turn = 1
        self.at = b""
        self.changes = Changes[bytes](lambda _: frozenset())
        self.keeps_fds: list[bool] = []
        self.was_relieved = 0

    def sibling(self) -> "Kept":
        return self

    def keep_fds(self, *, keep: bool) -> None:
        self.keeps_fds.append(keep)

    def relieved(self) -> None:
        self.was_relieved += 1


def test_a_stand_in_that_cannot_be_started_keeps_no_fds(shortage: Shortage) -> None:
    loop = Kept()
    stand_ins = StandIns(loop, loop, loop)  # type: ignore[arg-type]  # what is asked of them is here
    assert loop.changes.is_kept(loop, 1, b"", is_loop=True)
    stand_ins._stand_in(1)
    loop.changes.done(loop)

    assert loop.was_relieved == 1
    assert stand_ins.are_gone()
    assert loop.keeps_fds == [True, False]
