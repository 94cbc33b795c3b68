"""Commands wait until nobody else changes anything."""

import trio

from dkfs.fuse.engine import alone


class Busy:
    """An engine in which somebody changes something for a while."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.done: list[str] = []

    def hold(self) -> bool:
        self.times -= 1
        self.done.append("asked")
        return self.times < 0

    def let_go(self) -> None:
        self.done.append("let go")


def test_nothing_is_done_before_others_have_ended_and_others_wait_until_it_is() -> None:
    engine = Busy(3)

    async def main() -> None:
        async with alone(engine):  # type: ignore[arg-type]  # what is asked of it is here
            engine.done.append("done")

    trio.run(main)

    assert engine.done == ["asked"] * 4 + ["done", "let go"]
