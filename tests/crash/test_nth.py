"""The n-th call fails, n = 1, 2, 3 ... until nothing fails: the application hears of it, and what it was promised holds."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.crash.nth_scenes import SCENES
from tests.crash.shim import FAULTS, build, start


class Matrix:
    """A child that makes calls fail; a context manager."""

    def __init__(self, top: Path) -> None:
        self._child = start(build(top), "tests.crash.nth", top)
        self.failed = 0  # calls

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()

    def run(self, *case: str, first: int = 1, step: int = 1) -> list[str]:
        """Return what is wrong with *case*, and at which n."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(f"{' '.join(case)} {first} {step}\n".encode())
        self._child.stdin.flush()
        wrong = []
        for line in iter(self._child.stdout.readline, b"\n"):
            assert line, "the child ended"
            said = json.loads(line)
            if "DKFS_TEST_TELL" in os.environ:
                print(said, flush=True)
            self.failed += said["failures"] > 0
            which = f"{' '.join(case)} n={said['n']} ({said.get('failed')}, {said.get('said')})"
            wrong += [f"{which}: {each}" for each in said["wrong"]]
        return wrong


@pytest.fixture
def matrix(tmp_path: Path) -> Iterator[Matrix]:
    with Matrix(tmp_path) as made:
        yield made
        print(f"{made.failed} calls failed")


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_some_call_fails_and_what_was_promised_holds(matrix: Matrix, scene: str) -> None:
    wrong = []
    for number, fault in enumerate(FAULTS):
        how = "once" if fault == "EINTR" or number % 2 else "sticky"
        for where in ("store", "state"):
            wrong += matrix.run(scene, fault, how, where, first=1 + number, step=len(FAULTS) * 3)

    assert wrong == []
    assert matrix.failed > 0


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("where", ["store", "state"])
@pytest.mark.parametrize("scene", SCENES)
def test_whichever_call_fails_what_was_promised_holds(
    matrix: Matrix, scene: str, where: str
) -> None:
    wrong = []
    for fault in FAULTS:
        for how in ("once", "sticky"):
            if (fault, how) != ("EINTR", "sticky"):  # nobody would ever get anywhere
                wrong += matrix.run(scene, fault, how, where)

    assert wrong == []
