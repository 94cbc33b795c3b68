"""What runs beside the requests of a mount: the clock that captures, signals, metrics, control."""

import logging
import time
from collections.abc import Callable

import trio

from dkfs.config.settings import MountSettings
from dkfs.core.location import BSDIFF, EXTENTS, PATCH, PLAIN, XDELTA, ZSTD
from dkfs.daemon.budget import Budget
from dkfs.daemon.commands import Commands
from dkfs.daemon.ending import Ending
from dkfs.daemon.listener import Listener
from dkfs.daemon.memory import give_back, resident
from dkfs.daemon.stillness import Stillness
from dkfs.errors import DkfsError
from dkfs.fuse.engine import Engine, alone
from dkfs.history.commit import Commit
from dkfs.metrics.io import Io
from dkfs.metrics.registry import Gauges, Metrics, Stored
from dkfs.metrics.server import Server
from dkfs.model.ids import Seq
from dkfs.overlay.mounted import FileSystem
from dkfs.store import Store, StoreSize
from dkfs.store.index import INDEX_NAME

_RECOUNT_S = 10.0
_RESUME_S = 1.0  # between looks at whether a store that failed for long works again
_GIVE_BACK_S = 10.0
_GIVE_BACK_MORE = 16 << 20  # bytes that the daemon has taken since
_FEWER = 8  # times as long as otherwise what stays open waits for a version, near the budget
_ENCODINGS = {  # as metrics call them
    PLAIN: "none",
    ZSTD: "zstd",
    EXTENTS: "extents",
    PATCH: "patch",
    BSDIFF: "bsdiff",
    XDELTA: "xdelta",
}

log = logging.getLogger(__name__)


def _io(fs: FileSystem) -> Io:
    state = fs.modes.state
    return Io(
        mode=state.mode, asked=state.asked, opens=state.opens, watched=len(fs.captures.unseen)
    )


class Service:
    """Everything of one mount that is not a request of the kernel."""

    def __init__(
        self, settings: MountSettings, store: Store, engine: Engine, *, version: str
    ) -> None:
        self._settings = settings
        self._store = store
        self._engine = engine
        self.metrics = Metrics(self, version=version)
        self._fs: FileSystem | None = None
        self._ready = False
        self.ending = Ending(settings.mountpoint, cut=engine.end)
        self._commands: Commands | None = None
        self._budget: Budget | None = None
        self._stillness = Stillness(self._is_busy, time.monotonic)

    def start(self, fs: FileSystem) -> None:
        """Serve *fs* from now on."""
        self._fs = fs
        self._commands = Commands(self._settings, fs, self._engine, stop=self.ending.stop)
        maintenance = self._commands.maintenance
        self._budget = Budget(
            self._settings, self._store, maintenance, fs.recorder, self._stillness
        )
        fs.captures.stirs = self._stillness.stir
        self._commands.budget_members = self._budget.members

    # Called by others

    def committed(self, commit: Commit) -> None:
        """Hear of a transaction; in the recorder's thread."""
        self._stillness.stir()
        counts = commit.counts
        self.metrics.observe_commit(
            seconds=commit.seconds,
            latencies_s=commit.latencies_s,
            stored=Stored(
                plain_bytes=counts.plain_bytes,
                stored_bytes=counts.stored_bytes,
                chunks_new=counts.chunks_new,
                chunks_reused=counts.chunks_reused,
                chunked_s=counts.chunked_s,
                encodings={_ENCODINGS[code]: n for code, n in counts.encodings.items()},
                saved_bytes={
                    "dedup": counts.saved_by_dedup,
                    "delta": counts.saved_by_delta,
                    "compression": counts.saved_by_compression,
                },
            ),
        )
        if self._budget is not None:
            self._budget.stored(counts.stored_bytes, commit.operations)
        if commit.lost:
            self.metrics.count_failed_captures(commit.lost)

    def dropped(self, contents: int) -> None:
        """Hear that so many contents will not be recorded; in the recorder's thread."""
        self.metrics.count_failed_captures(contents)

    def gauges(self) -> Gauges:
        """See metrics.Source."""
        fs = self._fs
        assert fs is not None
        recorder = fs.recorder
        try:
            size = self._store.size()
        except DkfsError:  # it is gone: what is left to tell is that nothing is recorded
            size = StoreSize(0, 0)
        return Gauges(
            ready=self._ready,
            recording=recorder.is_recording and size.index_bytes > 0,
            lag_seconds=recorder.lag_s(),
            queue_operations=recorder.queued,
            queue_bytes=recorder.held_bytes,
            version=recorder.committed,
            inodes=len(fs.table),
            open_files=len(fs.files.handles),
            files=fs.count.value,
            large_files=fs.count.large,
            index_bytes=size.index_bytes,
            segment_bytes=size.segment_bytes,
            upkeep=self._budget.upkeep() if self._budget else None,
            scrub=self._commands.scrubbing.state() if self._commands else None,
            io=_io(fs),
        )

    def finished(self, complete: bool) -> None:  # noqa: FBT001 - told once, by one caller
        """Hear that nothing more will be recorded; *complete* if everything was."""
        if not complete:
            log.error("not everything was recorded; the next mount records what differs")

    def _is_busy(self) -> bool:
        """Return whether something is to be looked at by the clock."""
        assert self._fs is not None
        captures, recorder = self._fs.captures, self._fs.recorder
        return bool(
            len(captures) or captures.has_missed or len(captures.unseen) or recorder.queued
        ) or (not recorder.is_recording)

    # The trio program

    async def run(self, on_mounted: Callable[[], None], lifeline: int | None) -> None:
        """Serve until the mount is gone."""
        assert self._commands is not None
        assert self._budget is not None
        self._stillness.start()
        async with trio.open_nursery() as nursery:
            with Listener(self._store.path) as listener:
                nursery.start_soon(self._tick)
                nursery.start_soon(self.ending.by_signal)
                nursery.start_soon(listener.serve, self._commands)
                if self._settings.metrics_addr:
                    # Before the starter is told, so that it still hears what is said of the address.
                    await nursery.start(Server(self.metrics).serve, self._settings.metrics_addr)
                if lifeline is not None:
                    nursery.start_soon(self.ending.by_lifeline, lifeline)
                nursery.start_soon(self._announce, on_mounted)
                nursery.start_soon(self._count)
                nursery.start_soon(self._give_back)
                nursery.start_soon(self._resume)
                nursery.start_soon(self._budget.watch)
                nursery.start_soon(self._commands.scrubbing.watch)
                await self._engine.serve()
                self._ready = False
                await self._commands.drained()
                self._budget.let_through()
                nursery.cancel_scope.cancel()

    async def _announce(self, on_mounted: Callable[[], None]) -> None:
        self._ready = True
        on_mounted()

    async def _count(self) -> None:
        """Count the files, now and after every rollback."""
        assert self._fs is not None
        count, recorder = self._fs.count, self._fs.recorder

        def work(seq: Seq) -> None:
            recorder.wait(seq)
            count.count(seq)
            give_back(self._store.path / INDEX_NAME)  # all of it was looked at

        while True:
            if count.value is None:
                count.again()
                try:
                    await trio.to_thread.run_sync(work, recorder.last)
                except DkfsError as exc:  # a number for the metrics is worth no mount
                    log.warning("the files cannot be counted: %s", exc)
            await self._stillness.sleep(_RECOUNT_S)

    async def _resume(self) -> None:
        """Go on recording when a store that failed for long works again."""
        assert self._fs is not None
        resuming = self._fs.resuming
        while True:
            await self._stillness.sleep(_RESUME_S)
            if resuming.is_due and await trio.to_thread.run_sync(resuming.works):
                async with alone(self._engine):
                    again_s = resuming.resume()
                self._fs.count.again()
                await trio.sleep(again_s or 0)

    async def _give_back(self) -> None:
        """Give back memory that nothing needs: after the scan, and when it is still after more was taken."""
        left = 0
        while True:
            if resident() > left + _GIVE_BACK_MORE and (not left or self._stillness.is_there):
                await trio.to_thread.run_sync(give_back, self._store.path / INDEX_NAME)
                left = resident()
            await self._stillness.sleep(_GIVE_BACK_S)

    async def _tick(self) -> None:
        """Capture what stays open; a file is captured at most a quarter of the interval late."""
        assert self._fs is not None
        assert self._budget is not None
        interval_s = self._settings.capture_interval_s
        while True:
            # While nothing is dirty, nothing will be due before a whole interval has gone by.
            await self._stillness.sleep(interval_s / 4 if len(self._fs.captures) else interval_s)
            try:
                with self._engine.in_steps() as may:
                    self._fs.tick(interval_s * (_FEWER if self._budget.is_pressed else 1), may)
            except Exception:  # the edge: an error here would end the mount for everybody
                log.exception("what stays open is not recorded, by an internal error")
