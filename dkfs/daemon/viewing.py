"""A read-only mount: the state directory as it is, and its history, or that alone, with nothing changed on any disk.

It takes no lock, replays nothing and records nothing, so any number of them may share a store with each other and with
the mount that records.  What that one does is seen here: names and attributes are asked for each time, pages are
compared with the file's time, and every request about the history begins a view of its own.
"""

import logging
import os
import time
from collections.abc import Callable
from contextlib import ExitStack

import trio

from dkfs.config.settings import MountSettings
from dkfs.daemon import interpreter
from dkfs.daemon.ending import Ending
from dkfs.daemon.session import (
    keep_imports_off,
    open_backing,
    options_of,
    prepare,
    reserved,
)
from dkfs.errors import StoreError
from dkfs.fuse.engine import Engine, choose
from dkfs.history.onlooker import Onlooker
from dkfs.overlay import backing
from dkfs.overlay.mounted import FileSystem
from dkfs.store import Store
from dkfs.store.intent import has_intents
from dkfs.store.lock import is_held

# A segment that was pruned keeps its room on the disk as long as somebody has it open.
_LET_GO_S = 5.0

log = logging.getLogger(__name__)


def view(
    settings: MountSettings, *, on_mounted: Callable[[], None], lifeline: int | None = None
) -> bool:
    """Mount read-only and serve until unmounted or told to stop; return True.

    See session.serve().
    """
    prepare(settings)
    keep_imports_off(settings.mountpoint)
    with ExitStack() as stack:
        store = stack.enter_context(_open_store(settings))
        root_fd = open_backing(settings, stack)
        frozen = backing.read_only(root_fd)
        stack.callback(os.close, frozen)
        fs = FileSystem(
            frozen,
            store,
            Onlooker(time.time_ns),
            reserved=reserved(settings),
            is_listed=settings.snapdir == "visible",
            clock_ns=time.time_ns,
            is_read_only=True,
            is_history=settings.history_only,
        )
        engine = choose("kernel" if settings.history_only else settings.engine)
        ending = Ending(settings.mountpoint, cut=engine.end)
        ending.take_signals()
        with engine.mounted(
            fs,
            _NoMeter(),
            settings.mountpoint,
            source=settings.fsname,
            options=options_of(settings),
        ):
            interpreter.set_up()
            trio.run(_run, store, engine, ending, on_mounted, lifeline)
        return fs.close()


def _open_store(settings: MountSettings) -> Store:
    path = settings.store
    if not path.exists():
        raise StoreError(f"store {path} does not exist: a read-only mount makes none")
    if has_intents(path) and not is_held(path):
        log.warning(
            "what was synced last is not seen before the store %s is opened for writing", path
        )
    return Store.open(path, writable=False)


async def _run(
    store: Store,
    engine: Engine,
    ending: Ending,
    on_mounted: Callable[[], None],
    lifeline: int | None,
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ending.by_signal)
        if lifeline is not None:
            nursery.start_soon(ending.by_lifeline, lifeline)
        nursery.start_soon(_let_go, store)
        nursery.start_soon(_announce, on_mounted)
        await engine.serve()
        nursery.cancel_scope.cancel()


async def _announce(on_mounted: Callable[[], None]) -> None:
    on_mounted()


async def _let_go(store: Store) -> None:
    while True:
        await trio.sleep(_LET_GO_S)
        store.let_go()


class _NoMeter:
    """See Meter; a read-only mount has no metrics."""

    def observe_request(self, operation: str, seconds: float) -> None:
        """Count nothing."""

    def count_internal_error(self) -> None:
        """Count nothing: the log has it."""
