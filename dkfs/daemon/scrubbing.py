"""Scrubs of a mounted store: now and then everything is read and verified, slowly, by a process of its own.

By a process, because it may meet anything: what a damaged index does to who reads it must not happen to the mount.
It is `dkfs scrub --here`, which prints what it does as JSON, goes on where the last one stopped, and ends when nobody
reads what it prints any more.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

import dkfs
from dkfs.config.settings import SCRUB_RATE
from dkfs.daemon.control import Message, scrub_members
from dkfs.errors import UsageError
from dkfs.metrics.scrub import Scrub
from dkfs.store import verified
from dkfs.store.verified import SCRUB

RATE: Final = (
    20 << 20
)  # bytes a second: 1 GiB in less than a minute, and a tenth of what a slow disk can do
_LOOK_S: Final = 60.0  # between two looks whether one is due
_RETRY_S: Final = 3600.0  # after one that failed
_REST_S: Final = 86_400.0  # after one that somebody stopped
_TOLD: Final = 20  # damages that are logged one by one

log = logging.getLogger(__name__)


class Scrubbing:
    """The scrubs of one mount."""

    def __init__(self, store: Path, interval_s: float | None) -> None:
        """Scrub *store* every *interval_s* seconds; None: only when told to."""
        self._store = store
        self._interval_s = interval_s
        self._found = 0
        self._found_now = 0
        self._done = self._total = 0
        self._what = ""
        self._rate = 0  # of the one that is under way or wanted; 0: none is
        self._not_before_s = 0.0  # monotonic; of what nobody asks for
        self._wanted = trio.Event()
        self._scope: trio.CancelScope | None = None
        self._verified = verified.load(store, SCRUB)
        if not self._verified.since_ns:
            self._verified = self._verified.see(time.time_ns())
            verified.save(store, SCRUB, self._verified)

    async def watch(self) -> None:
        """Scrub when it is time, or when told to; for the length of the mount."""
        while True:
            if not self._rate and self._is_due():
                self._rate = SCRUB_RATE
            if not self._rate:
                with trio.move_on_after(_LOOK_S):
                    await self._wanted.wait()
                self._wanted = trio.Event()
                continue
            with trio.CancelScope() as self._scope:
                await self._scrub(self._rate)
            self._scope = None
            self._rate = 0
            self._verified = verified.load(self._store, SCRUB)

    async def command(self, request: Message) -> Message:
        """Start or stop one, as "action" says; answer how things are."""
        action = request.get("action")
        if action == "start":
            rate = request.get("rate", SCRUB_RATE)
            if not isinstance(rate, int) or rate <= 0:
                raise UsageError('control request: "rate" is not a number of bytes a second')
            was_running = self._rate > 0
            self._rate = rate if not was_running else self._rate
            self._wanted.set()
            return {"started": not was_running, **self.members()}
        if action == "stop":
            was_running = self._rate > 0
            self._not_before_s = time.monotonic() + _REST_S
            if self._scope is not None:
                self._scope.cancel()
            self._rate = 0 if self._scope is None else self._rate
            return {"stopped": was_running, **self.members()}
        if action == "status":
            return self.members()
        raise UsageError(f'control request: "action" is {action!r}, expected start, stop or status')

    def members(self) -> Message:
        """Return what there is to know, for a control answer."""
        return {
            "scrub_running": self._rate > 0,
            "scrub_doing": self._what,
            "scrub_done_bytes": self._done,
            "scrub_total_bytes": self._total,
            "scrub_found": self._found_now,
            **scrub_members(self._verified),
        }

    def state(self) -> Scrub:
        """Return what there is to know, for metrics; for any thread."""
        now_ns = time.time_ns()
        last_ns = self._verified.finished_ns or self._verified.since_ns
        return Scrub(
            age_seconds=max(0.0, (now_ns - last_ns) / 1e9),
            running=self._rate > 0,
            damage=self._verified.finished_damage,
            damage_found=self._found,
        )

    def _is_due(self) -> bool:
        if self._interval_s is None or time.monotonic() < self._not_before_s:
            return False
        if self._verified.begun_ns:
            return True  # it was interrupted, by the end of a mount for example
        last_ns = self._verified.finished_ns or self._verified.since_ns
        return time.time_ns() - last_ns >= self._interval_s * 1e9

    async def _scrub(self, rate: int) -> None:
        words = (
            "scrub",
            "--here",
            "--json",
            "--rate",
            str(rate),
            "--store",
            os.fspath(self._store),
        )
        self._found_now = self._done = self._total = 0
        log.info("scrub begins")
        try:
            process = await trio.lowlevel.open_process(
                (sys.executable, "-P", "-m", "dkfs", *words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=_environment(),
            )
        except OSError as exc:
            log.warning("scrub cannot begin: %s", exc.strerror)
            self._not_before_s = time.monotonic() + _RETRY_S
            return
        stream = process.stdout
        assert stream is not None, "it was asked for"
        try:
            await self._listen(stream)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            with trio.CancelScope(shield=True):
                status = await process.wait()
                await stream.aclose()
        if status not in {0, 5}:
            log.warning("scrub ended early, with status %d", status)
            self._not_before_s = time.monotonic() + _RETRY_S

    async def _listen(self, stream: trio.abc.ReceiveStream) -> None:
        rest = b""
        async for data in stream:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                with suppress(ValueError):
                    self._hear(json.loads(line))

    def _hear(self, message: Mapping[str, object]) -> None:
        kind = message.get("message_type")
        if kind == "progress":
            self._what = str(message.get("what", ""))
            if self._what == "data":
                done, total = message.get("done"), message.get("total")
                self._done = done if isinstance(done, int) else 0
                self._total = total if isinstance(total, int) else 0
        elif kind == "damage":
            self._found += 1
            self._found_now += 1
            if self._found_now <= _TOLD:
                log.warning("scrub: %s", message.get("message"))
        elif kind == "summary":
            if self._found_now:
                log.warning(
                    "scrub: %d damages; `dkfs check --read-data` names what they reach",
                    self._found_now,
                )
            else:
                log.info("scrub is done: no damage")


def _environment() -> dict[str, str]:
    """Return the environment in which the process finds the dkfs that this one is."""
    place = os.path.dirname(os.path.dirname(os.path.abspath(dkfs.__file__)))
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{place}:{known}" if known else place}
