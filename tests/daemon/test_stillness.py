"""Stillness: who sleeps in it is woken by what happens, and otherwise rarely."""

from collections.abc import Awaitable, Callable

import trio
import trio.testing

from dkfs.daemon.stillness import Stillness

Script = Callable[[Stillness], Awaitable[float]]


def slept(script: Script, *, is_busy: bool = False, quiet_s: float = 100.0) -> float:
    """Return what *script* returns, run after *quiet_s* seconds in which nothing has happened."""

    async def run() -> float:
        stillness = Stillness(lambda: is_busy, trio.current_time)
        stillness.start()
        await trio.sleep(quiet_s)
        return await script(stillness)

    return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


async def one_second(stillness: Stillness) -> float:
    """Return how long a second takes."""
    before_s = trio.current_time()
    await stillness.sleep(1.0)
    return trio.current_time() - before_s


def test_while_nothing_happens_a_second_is_half_a_minute() -> None:
    assert slept(one_second) == 30.0


def test_soon_after_a_change_a_second_is_a_second() -> None:
    assert slept(one_second, quiet_s=2.0) == 1.0


def test_while_something_is_under_way_a_second_is_a_second() -> None:
    assert slept(one_second, is_busy=True) == 1.0


def test_what_happens_ends_the_sleep() -> None:
    async def stirred(stillness: Stillness) -> float:
        async def stir() -> None:
            await trio.sleep(4.0)
            stillness.stir()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stir)
            return await one_second(stillness)

    assert slept(stirred) == 4.0


def test_a_look_that_may_not_be_late_is_not() -> None:
    async def at_most(stillness: Stillness) -> float:
        before_s = trio.current_time()
        await stillness.sleep(2.0, most_s=7.0)
        return trio.current_time() - before_s

    assert slept(at_most) == 7.0
