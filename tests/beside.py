"""Several processes of one test run: who runs beside whom, and what all of them leave behind.

`make test` runs tests in several processes (pytest-xdist).  A test that measures the whole machine, or changes what
concerns all of it, is marked `alone`: no other one runs meanwhile.
"""

import fcntl
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import leftovers

_GATE = "gate"  # held while waiting to be alone, so that nobody begins meanwhile
_TURN = "turn"  # shared by the tests that run; exclusively held by one that is alone
_BASE = "base-"  # a link to where the tests of one process work


def _input(config: pytest.Config) -> dict[str, Any] | None:
    """Return what the process that deals out the tests has told this one; None if this is it."""
    found: dict[str, Any] | None = getattr(config, "workerinput", None)
    return found


class Beside:
    """Registered by conftest.py in each process of the run."""

    def __init__(self, config: pytest.Config) -> None:
        told = _input(config)
        self.is_worker = told is not None
        self.run = f"{told['dkfs_run']}.{told['workerid']}" if told else uuid.uuid4().hex
        self._shared = Path(told["dkfs_shared"]) if told else None
        self._left: list[str] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a process that is being started which run it belongs to."""
        if self._shared is None:
            self._shared = Path(tempfile.mkdtemp(prefix="dkfs-test-run-"))
            # Told to end, it ends its workers and takes away what is left, as after Ctrl-C.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        node.workerinput["dkfs_run"] = self.run
        node.workerinput["dkfs_shared"] = os.fspath(self._shared)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Wait until *item* may run, before its time begins."""
        with self._turn(is_alone=item.get_closest_marker("alone") is not None):
            return (yield)

    def note_base(self, base: Path) -> None:
        """Note where this process works, for the case that it does not live to empty it."""
        if self._shared is not None:
            (self._shared / f"{_BASE}{os.getpid()}").symlink_to(base)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Take away what is left of processes that died; the run has failed if there is anything."""
        if self.is_worker or self._shared is None:
            return
        bases = [link.readlink() for link in self._shared.glob(f"{_BASE}*")]
        self._left = leftovers.remove(self.run, *bases)
        for base in bases:
            if base.exists():
                shutil.rmtree(base)
                self._left.append(f"directory: {base}")
        shutil.rmtree(self._shared)
        if self._left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was left behind."""
        if self._left:
            terminalreporter.section("the tests left behind", sep="=", red=True, bold=True)
            for line in self._left:
                terminalreporter.line(line)

    @contextmanager
    def _turn(self, *, is_alone: bool) -> Iterator[None]:
        if not self.is_worker or self._shared is None:
            yield
            return
        with (self._shared / _GATE).open("wb") as gate, (self._shared / _TURN).open("wb") as turn:
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(turn, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
            fcntl.flock(gate, fcntl.LOCK_UN)
            yield
