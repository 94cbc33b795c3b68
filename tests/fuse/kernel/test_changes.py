"""Whose turn it is: random schedules of several who change things, each of whom may be kept at any step."""

import random
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest

from dkfs.fuse.kernel.changes import Changes
from dkfs.fuse.kernel.kinds import NOTHING, Claim


class Task(NamedTuple):
    number: int
    claim: Claim


@dataclass(eq=False)
class Thread:
    """One who serves, step by step."""

    is_loop: bool = False
    turn: int = 0
    at: Task | None = None


def _clash(one: Claim, other: Claim) -> bool:
    if NOTHING in (one, other):
        return False
    return one is None or other is None or bool(one & other)


@dataclass
class Model:
    """Everybody, and what was done; asserts that what two do at once is on different devices."""

    rng: random.Random
    changes: Changes[Task] = field(default_factory=lambda: Changes[Task](lambda task: task.claim))
    loop: Thread = field(default_factory=lambda: Thread(is_loop=True))
    stand_ins: list[Thread] = field(default_factory=lambda: [Thread() for _ in range(3)])
    submitted: int = 0
    begun: list[Task] = field(default_factory=list)

    def task(self) -> Task:
        claims: tuple[Claim, ...] = (
            *(frozenset((each,)) for each in (1, 1, 1, 2, 3)),
            *(frozenset((1, 2)), NOTHING, None),
        )
        self.submitted += 1
        return Task(self.submitted, self.rng.choice(claims))

    def begin(self, who: Thread, task: Task) -> None:
        others = [each for each in (self.loop, *self.stand_ins) if each.turn & 1]
        for other in others:
            assert other.at is not None
            assert not _clash(task.claim, other.at.claim), (task, other.at)
        for before in self.begun:
            # What concerns two devices, or all, may be overtaken while one is claimed: it is not answered yet.
            assert before.number < task.number or before.claim != task.claim
        self.begun.append(task)
        who.at = task
        who.turn += 1

    def end(self, who: Thread) -> None:
        who.turn += 1
        if self.changes.is_shared:
            self.changes.done(who)

    def step(self, who: Thread) -> None:
        """Have *who* do its next step."""
        if who.turn & 1:
            self.end(who)
        elif not self.changes.is_shared:
            if who.is_loop:
                self.begin(who, self.task())
        else:
            if self.rng.random() < 0.5:
                self.changes.submit(self.task())
            task = self.changes.next(who)
            if task is not None:
                self.begin(who, task)

    def watch(self) -> None:
        """Find somebody kept."""
        who = self.rng.choice((self.loop, *self.stand_ins))
        if who.turn & 1 and who.at is not None:
            turn = who.turn - 2 * (self.rng.random() < 0.2)  # it has gone on meanwhile
            self.changes.is_kept(who, turn, who.at, is_loop=who.is_loop)
        if self.rng.random() < 0.1 and not self.loop.turn & 1:
            self.changes.end()

    def finish(self) -> None:
        """Have everybody come to an end."""
        for who in (self.loop, *self.stand_ins):
            if who.turn & 1:
                self.end(who)
        while (task := self.changes.next(self.loop)) is not None:
            self.begin(self.loop, task)
            self.end(self.loop)


@pytest.mark.parametrize("seed", range(300))
def test_what_two_do_at_once_is_on_different_devices(seed: int) -> None:
    rng = random.Random(seed)
    model = Model(rng)
    for _ in range(120):
        if rng.random() < 0.3:
            model.watch()
        else:
            model.step(rng.choice((model.loop, *model.stand_ins)))
    model.finish()

    assert sorted(each.number for each in model.begun) == list(range(1, model.submitted + 1))
    assert model.changes.end()
    assert not model.changes.is_shared


def _is_the_loops(changes: Changes[Task]) -> bool:
    return not changes.is_shared


def test_who_saw_the_flag_for_nothing_leaves_nothing_behind() -> None:
    changes = Changes[Task](lambda task: task.claim)
    loop = Thread(is_loop=True)
    changes.submit(Task(1, frozenset((1,))))

    assert changes.next(loop) == Task(1, frozenset((1,)))  # and done() is not called
    assert changes.hold(loop, None)  # nor here
    loop.turn = 1
    assert changes.is_kept(loop, 1, Task(2, NOTHING), is_loop=True)
    changes.submit(Task(3, frozenset((2,))))
    assert changes.next(Thread()) == Task(3, frozenset((2,)))


def test_it_is_nobody_elses_turn_while_the_loop_is_not_kept() -> None:
    changes = Changes[Task](lambda task: task.claim)
    loop = Thread(is_loop=True)
    task = Task(1, frozenset((1,)))

    assert not changes.is_kept(loop, 1, task, is_loop=True)  # it has gone on: it is at 0
    assert _is_the_loops(changes)
    loop.turn = 1
    assert changes.is_kept(loop, 1, task, is_loop=True)
    assert not _is_the_loops(changes)
    assert not changes.end()


def test_what_concerns_everything_waits_until_nobody_is_kept() -> None:
    changes = Changes[Task](lambda task: task.claim)
    loop, other = Thread(is_loop=True, turn=1), Thread()
    assert changes.is_kept(loop, 1, Task(1, frozenset((1,))), is_loop=True)

    assert not changes.hold(other, None)
    assert changes.hold(other, frozenset((2,)))
    assert not changes.hold(other, frozenset((3,)))  # one at a time
    changes.done(other)
    changes.submit(Task(2, None))
    changes.submit(Task(3, frozenset((2,))))
    assert changes.next(other) == Task(3, frozenset((2,)))
    changes.done(other)
    assert changes.next(other) is None
    changes.done(loop)
    assert changes.next(other) == Task(2, None)
