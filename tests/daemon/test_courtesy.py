"""Courtesy: who works lets requests go first, not for longer than it takes, and gets done."""

from collections.abc import Callable

from dkfs.daemon.courtesy import Courtesy

WORK_S = 0.0001
MOST_S = 0.002


class Scene:
    """A clock that only moves when somebody works or sleeps, and the requests that come by it."""

    def __init__(self, turn_at: Callable[[float], int]) -> None:
        self.now_s = 100.0
        self.slept_s = 0.0
        self.courtesy = Courtesy(
            lambda: turn_at(self.now_s), clock_s=lambda: self.now_s, sleep=self._sleep
        )

    def _sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept_s += seconds

    def work(self, seconds: float) -> float:
        """Work for so long, 10 us at a time; return how long it was waited for others."""
        before_s = self.slept_s
        for _ in range(round(seconds / 0.00001)):
            self.now_s += 0.00001
            self.courtesy.breathe()
        return self.slept_s - before_s


def steady(rate: float) -> Callable[[float], int]:
    """Return the turns of a mount that gets so many requests a second, each of which is over at once."""
    return lambda now_s: 2 * int(now_s * rate)


def test_without_requests_nothing_is_waited_for() -> None:
    scene = Scene(lambda _: 8)

    assert scene.work(1.0) == 0


def test_a_request_that_is_there_is_waited_for_until_it_is_over() -> None:
    scene = Scene(lambda now_s: 1 if now_s < 100.0008 else 2)

    scene.work(WORK_S * 2)

    assert scene.now_s >= 100.0008


def test_between_requests_that_follow_each_other_work_stops_ten_times_in_a_millisecond() -> None:
    scene = Scene(steady(900))

    scene.work(0.1)

    assert 0.05 <= scene.slept_s <= 0.3


def test_a_request_that_does_not_end_is_not_waited_for_to_its_end() -> None:
    scene = Scene(lambda _: 7)

    assert scene.work(WORK_S) <= MOST_S * 1.1


def test_however_many_requests_come_the_work_is_done_in_22_times_as_long() -> None:
    scene = Scene(steady(50_000))

    assert scene.work(0.1) <= 0.1 / WORK_S * MOST_S * 1.1


def test_long_after_the_last_request_nothing_is_waited_for() -> None:
    scene = Scene(lambda now_s: 4 if now_s < 100.01 else 6)
    scene.work(0.2)

    assert scene.work(0.2) == 0


def test_when_more_wait_for_the_end_of_the_work_nothing_is_waited_for() -> None:
    scene = Scene(steady(900))
    scene.courtesy.is_hurried = lambda: True

    assert scene.work(0.1) == 0


def test_what_was_waited_is_told_once() -> None:
    scene = Scene(steady(900))
    slept_s = scene.work(0.01)

    told_s = scene.courtesy.waited_s()

    assert abs(told_s - slept_s) < 1e-9
    assert scene.courtesy.waited_s() == 0
