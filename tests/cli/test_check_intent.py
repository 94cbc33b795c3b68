"""dkfs check: the intent log."""

import json
from pathlib import Path

import pytest

from dkfs.store.intent import INTENT_NAME, PAGE
from tests.cli.conftest import Dkfs
from tests.history.intents import World


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """Make a store as a kill leaves it: three promised versions are in three records of the intent log only."""
    world = World(tmp_path)
    with world.store.write():
        for number in range(3):
            assert world.recorder.secure(world.write(number * 50, b"%d" % number * 40), world.node)
        left = world.killed()
    world.close()
    return left


def spoil(store: Path, at: int, data: bytes | None = None) -> None:
    """Change what the intent log has at *at*."""
    log = bytearray((store / INTENT_NAME).read_bytes())
    data = bytes((log[at] ^ 1,)) if data is None else data
    log[at : at + len(data)] = data
    (store / INTENT_NAME).write_bytes(log)


def test_versions_that_are_there_only_are_counted_and_left_there(dkfs: Dkfs, killed: Path) -> None:
    before = (killed / INTENT_NAME).read_bytes()

    said = dkfs("check", "--read-data", "--store", killed)
    summary = json.loads(dkfs("check", "--json", "--store", killed).out.splitlines()[-1])

    assert said.status == 0
    assert ", 3 more versions in the intent log, " in said.out
    assert (summary["promised_versions"], summary["damages"]) == (3, 0)
    assert (killed / INTENT_NAME).read_bytes() == before


def test_a_last_record_that_was_torn_is_no_damage(dkfs: Dkfs, killed: Path) -> None:
    spoil(killed, 3 * PAGE + 100)

    said = dkfs("check", "--store", killed)

    assert said.status == 0
    assert "2 more versions in the intent log" in said.out


@pytest.mark.parametrize(
    ("at", "why"),
    [(0, "does not start with its header"), (2 * PAGE + 100, "cannot follow version")],
)
def test_what_was_promised_and_cannot_be_taken_in_is_damage(
    dkfs: Dkfs, killed: Path, at: int, why: str
) -> None:
    spoil(killed, at)

    said = dkfs("check", "--store", killed)
    told = [
        json.loads(line) for line in dkfs("check", "--json", "--store", killed).out.splitlines()
    ]

    assert said.status == 5
    assert said.out.startswith("damaged: intent log: ")
    assert why in said.out
    assert [line["kind"] for line in told if line["message_type"] == "damage"] == ["intent"]


@pytest.mark.expect_logs("is kept as|cannot follow version|is not recorded")
def test_a_repair_takes_in_what_can_be_and_keeps_the_log(dkfs: Dkfs, killed: Path) -> None:
    spoil(killed, 2 * PAGE + 100)
    versions = json.loads(dkfs("check", "--json", "--store", killed).out.splitlines()[-1])[
        "versions"
    ]

    repaired = dkfs("check", "--repair", "--store", killed)
    later = dkfs("check", "--store", killed)
    (killed / "intent.damaged-1").unlink()
    summary = json.loads(dkfs("check", "--json", "--store", killed).out.splitlines()[-1])

    assert (repaired.status, later.status) == (5, 5)
    assert "not repaired: intent log: " in repaired.out
    assert "all of it is kept as intent.damaged-1" in repaired.out
    assert "intent.damaged-1 is an intent log that could not be taken in" in later.out
    assert (summary["damages"], summary["versions"]) == (0, versions + 1)
