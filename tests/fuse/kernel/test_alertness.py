"""When processors are kept from halting."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.fuse.kernel.alertness import Alertness, is_worth_it


class Told:
    """What the kernel would have been told, in us; nothing: what it is by itself."""

    def __init__(self) -> None:
        self._reads, writes = os.pipe2(os.O_NONBLOCK)
        self.alertness = Alertness(writes)

    def news(self) -> list[int]:
        try:
            said = os.read(self._reads, 4096)
        except BlockingIOError:
            return []
        return [each[0] for each in struct.iter_unpack("=i", said)]

    def close(self) -> None:
        self.alertness.close()
        os.close(self._reads)


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told()
    yield made
    made.close()


def test_processors_are_kept_awake_while_requests_come_fast(told: Told) -> None:
    told.alertness.look(0, 100.0)
    told.alertness.look(64, 100.01)

    assert told.alertness.is_kept
    assert told.news() == [0]


def test_what_comes_after_a_long_rest_is_not_yet_fast(told: Told) -> None:
    told.alertness.look(64, 100.0)

    assert not told.alertness.is_kept
    assert told.news() == []


def test_a_few_requests_at_a_time_keep_nobody_awake(told: Told) -> None:
    for step in range(100):
        told.alertness.look(step * 8, 100.0 + step * 0.01)

    assert told.news() == []


def test_processors_may_halt_when_requests_come_slowly_again(told: Told) -> None:
    told.alertness.look(0, 100.0)
    told.alertness.look(64, 100.01)
    told.alertness.look(65, 100.03)
    told.alertness.look(66, 100.05)

    assert not told.alertness.is_kept
    assert told.news() == [0, 2_000_000_000]


def test_processors_may_halt_when_no_request_comes(told: Told) -> None:
    told.alertness.look(0, 100.0)
    told.alertness.look(64, 100.01)
    told.alertness.calm()
    told.alertness.calm()

    assert not told.alertness.is_kept
    assert told.news() == [0, 2_000_000_000]


def test_where_nobody_can_be_told_nothing_is_decided() -> None:
    alertness = Alertness(-1)
    alertness.look(0, 100.0)
    alertness.look(64, 100.01)

    assert not alertness.is_kept


@pytest.mark.expect_logs("processors are not kept awake")
def test_a_refusal_is_the_last_word(caplog: pytest.LogCaptureFixture) -> None:
    alertness = Alertness(os.open("/dev/full", os.O_WRONLY))
    alertness.look(0, 100.0)
    alertness.look(64, 100.01)
    alertness.look(128, 100.02)

    assert not alertness.is_kept
    assert caplog.messages == [
        "processors are not kept awake any more: [Errno 28] No space left on device"
    ]


def _machine(sys: Path, driver: str, before_ns: str) -> Path:
    idle = sys / "devices/system/cpu/cpuidle"
    idle.mkdir(parents=True)
    (idle / "current_driver").write_text(f"{driver}\n")
    poll = sys / "module/haltpoll/parameters"
    poll.mkdir(parents=True)
    (poll / "guest_halt_poll_ns").write_text(f"{before_ns}\n")
    return sys


@pytest.mark.parametrize(
    ("driver", "before_ns", "processors", "wanted"),
    [
        ("haltpoll", "0", 2, True),
        ("haltpoll", "200000", 2, False),  # the kernel waits before it halts
        ("intel_idle", "0", 2, False),
        ("haltpoll", "0", 64, False),
    ],
)
def test_only_a_small_machine_that_halts_at_once_is_kept_awake(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    driver: str,
    before_ns: str,
    processors: int,
    wanted: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: processors)

    assert is_worth_it(_machine(tmp_path, driver, before_ns)) is wanted


def test_a_machine_that_does_not_say_is_left_alone(tmp_path: Path) -> None:
    assert not is_worth_it(tmp_path)
