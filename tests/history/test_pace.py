"""When the recorder begins: at once for a file that is saved, later in a burst, and never much later."""

import pytest

from dkfs.history.change import Pending
from dkfs.history.pace import Pace, Queued, most
from dkfs.model.ids import NodeId, Seq
from dkfs.model.operation import NOBODY, Operation, OpKind

NOW = 1000.0  # seconds


def queued(kind: OpKind, node: int = 2, *, at_s: float = NOW) -> Queued:
    return Pending(Seq(1), Operation(kind, 1, NOBODY, NodeId(node)), (), ()), at_s


def begins_after_ms(*queue: Queued, before: int = 0) -> float:
    """Return how long *queue* waits behind its newest operation if *before* others came in the last moment."""
    pace = Pace()
    now_s = queue[-1][1]
    for _ in range(before):
        pace.note(now_s)
    for _, at_s in queue:
        pace.note(at_s)
    while (left_s := pace.wait_s(queue, now_s)) > 1e-9:
        now_s += left_s
    return round(1000 * (now_s - queue[-1][1]), 3)


def test_a_file_that_is_saved_in_place_is_recorded_as_soon_as_close_was_answered() -> None:
    assert begins_after_ms(queued(OpKind.WRITE)) == 0.1


def test_a_new_file_waits_for_the_rename_that_often_follows() -> None:
    assert begins_after_ms(queued(OpKind.CREATE), queued(OpKind.WRITE)) == 1.0
    assert begins_after_ms(queued(OpKind.CREATE, 3), queued(OpKind.WRITE)) == 0.1


def test_a_rename_ends_the_saving_of_a_file() -> None:
    queue = queued(OpKind.CREATE), queued(OpKind.WRITE), queued(OpKind.RENAME)

    assert begins_after_ms(*queue) == 0.1


@pytest.mark.parametrize("kind", [OpKind.CREATE, OpKind.TRUNCATE])
def test_the_beginning_of_a_save_waits_for_the_rest_of_it(kind: OpKind) -> None:
    assert begins_after_ms(queued(kind)) == 4.0
    assert begins_after_ms(queued(kind, 3), queued(OpKind.WRITE)) == 0.1


@pytest.mark.parametrize("kind", [OpKind.SETATTR, OpKind.UNLINK])
def test_what_seldom_comes_alone_waits_a_little(kind: OpKind) -> None:
    assert begins_after_ms(queued(kind)) == 1.0


def test_a_burst_waits_for_a_quiet_moment() -> None:
    assert begins_after_ms(queued(OpKind.WRITE), before=14) == 0.1
    assert begins_after_ms(queued(OpKind.WRITE), before=15) == 30.0


def test_operations_that_came_slowly_are_no_burst() -> None:
    pace = Pace()
    for step in range(100):
        pace.note(NOW + step * 0.0025)
    queue = [queued(OpKind.WRITE, at_s=NOW + 0.25)]
    pace.note(NOW + 0.25)

    assert pace.wait_s(queue, NOW + 0.25) == pytest.approx(0.0001)


def test_what_was_waited_for_is_taken_off() -> None:
    pace = Pace()
    queue = [queued(OpKind.WRITE)]

    assert pace.wait_s(queue, NOW + 0.00004) == pytest.approx(0.00006)
    assert pace.wait_s(queue, NOW + 0.1) < 0


def test_what_came_meanwhile_is_seen_soon() -> None:
    assert Pace().wait_s([queued(OpKind.CREATE)], NOW) == 0.0005


def test_nothing_waits_for_longer_than_five_seconds() -> None:
    pace = Pace()
    queue = [queued(OpKind.CREATE), queued(OpKind.CREATE, at_s=NOW + 4.9995)]

    assert pace.wait_s(queue, NOW + 4.9995) == pytest.approx(0.0005)
    assert pace.wait_s(queue, NOW + 5.0) <= 0


def test_a_transaction_takes_more_when_the_recorder_falls_behind() -> None:
    assert [most(waiting) for waiting in (1, 2000, 8192, 100_000)] == [128, 128, 128, 1562]
