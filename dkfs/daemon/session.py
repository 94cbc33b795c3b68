"""A mount from the first check to the last commit: opens everything, serves, closes everything."""

import errno
import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import trio

from dkfs import __version__
from dkfs.config.checks import check_mount
from dkfs.config.mounts import mounted_at, read_mounts
from dkfs.config.settings import MountSettings
from dkfs.daemon import interpreter
from dkfs.daemon.service import Service
from dkfs.daemon.txn import release_abandoned
from dkfs.errors import MountError
from dkfs.fuse.engine import choose
from dkfs.history.recorder import Recorder
from dkfs.history.recovery import recover
from dkfs.history.replay import ReplayResult, check_reserved, reconcile
from dkfs.overlay import backing
from dkfs.overlay.mounted import FileSystem
from dkfs.store import Store, is_absent
from dkfs.store.compact import compact_small
from dkfs.store.intent import LIMIT, RECORD_LIMIT
from dkfs.store.pages import Verification
from dkfs.store.segments import SEGMENT_LIMIT

log = logging.getLogger(__name__)

RESERVED = b".dkfs"

_SEGMENT_LEAST = 1 << 20  # bytes
_SEGMENTS = 16  # that a budget is to have room for

# Hears how far a replay is: files done, files in all, bytes.
Progress = Callable[[int, int, int], None]


def serve(
    settings: MountSettings,
    *,
    on_progress: Progress,
    on_mounted: Callable[[], None],
    lifeline: int | None = None,
    verification: Verification | None = None,
) -> bool:
    """Mount, serve until unmounted or told to stop, record everything; return whether that is so.

    Calls *on_mounted* once requests are answered.  *lifeline* is an fd: when the other end closes, the
    mount ends.  *verification* has begun with the index of the store.  Raises DkfsError if the mount cannot be made.
    """
    complete = _serve(settings, on_progress, on_mounted, lifeline, verification)
    if complete:
        compact_small(settings.store)
    return complete


def _serve(
    settings: MountSettings,
    on_progress: Progress,
    on_mounted: Callable[[], None],
    lifeline: int | None,
    verification: Verification | None,
) -> bool:
    prepare(settings)
    keep_imports_off(settings.mountpoint)
    with ExitStack() as stack:
        root_fd = open_backing(settings, stack)
        if settings.noatime:
            root_fd = backing.not_noticing(root_fd)
            stack.callback(os.close, root_fd)
        store = open_store(settings, stack, verification)
        os.umask(0)  # from here on modes are the application's business
        replayed, seconds = replay(settings, store, root_fd, on_progress=on_progress)
        store.reopen_index()
        engine = choose(settings.engine)
        service = Service(settings, store, engine, version=__version__)
        service.metrics.observe_recovery(seconds=seconds, reason="startup", succeeded=True)
        service.ending.take_signals()
        recorder = Recorder(
            store,
            clock_ns=time.time_ns,
            on_commit=service.committed,
            on_drop=service.dropped,
            chunking=settings.chunking,
            refuses=settings.on_store_error == "fail",
            intent_bytes=_intent_limit(settings.budget),
        )
        fs = _file_system(settings, root_fd, store, recorder)
        service.start(fs)
        release_abandoned(settings.store, lambda name: fs.tags.untag(name, is_hold=True))
        for problem in replayed.problems:
            log.warning("replay: %s", problem)
        try:
            with engine.mounted(
                fs,
                service.metrics,
                settings.mountpoint,
                source=settings.fsname,
                options=options_of(settings),
            ):
                interpreter.set_up()
                trio.run(service.run, on_mounted, lifeline)
        finally:
            complete = fs.close()
        service.finished(complete)
        return complete


def _file_system(
    settings: MountSettings, root_fd: int, store: Store, recorder: Recorder
) -> FileSystem:
    return FileSystem(
        root_fd,
        store,
        recorder,
        reserved=reserved(settings),
        is_listed=settings.snapdir == "visible",
        clock_ns=time.time_ns,
        large_above=settings.chunking.threshold,
        io=settings.io_modes,
    )


def prepare(settings: MountSettings) -> None:
    """Make every check that needs nothing to be open; detach a dead mount in the way; have room for fds."""
    raise_limits()
    check_mount(settings, read_mounts(), uid=os.getuid())
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as exc:
        raise MountError(
            f"/dev/fuse cannot be opened: {exc.strerror}; expected the FUSE device"
        ) from None
    for path in (settings.mountpoint, settings.state_dir):
        detach_dead(os.fsencode(path))


def detach_dead(point: bytes) -> None:
    """Take away every dkfs mount at *point* whose daemon is gone."""
    while (mount := mounted_at(point, read_mounts())) is not None and mount.is_dkfs:
        try:
            os.statvfs(point)
        except OSError as exc:
            if exc.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
                return
        else:
            return
        log.info("detaching the dead mount at %s", os.fsdecode(point))
        backing.unmount(point, lazily=True)


def open_backing(settings: MountSettings, stack: ExitStack) -> int:
    """Open the state directory, once and for all; raises MountError."""
    try:
        fd = backing.open_directory(settings.state_dir)
    except OSError as exc:
        raise MountError(f"state directory {settings.state_dir}: {exc.strerror}") from None
    stack.callback(os.close, fd)
    if reserved(settings) is not None and not settings.read_only:
        check_reserved(fd)  # before a store is made
    return fd


def open_store(
    settings: MountSettings, stack: ExitStack, verification: Verification | None = None
) -> Store:
    """Open the store for writing, made first if there is nothing; raises StoreError."""
    path = settings.store
    if is_absent(path):
        Store.create(path, hash_algo=settings.hash_algo)
    return stack.enter_context(
        Store.open(
            path,
            writable=True,
            encoding=settings.encoding,
            segment_limit=_segment_limit(settings.budget),
            recover=recover,
            verification=verification,
        )
    )


def _segment_limit(budget: int | None) -> int:
    """Return the size of a full segment: a collection has one of them twice for a while."""
    if budget is None:
        return SEGMENT_LIMIT
    return min(SEGMENT_LIMIT, max(_SEGMENT_LEAST, budget // _SEGMENTS))


def _intent_limit(budget: int | None) -> int:
    """Return the size that the intent log may have."""
    if budget is None:
        return LIMIT
    return min(LIMIT, max(RECORD_LIMIT, budget // _SEGMENTS))


def identity_of(fd: int) -> bytes:
    """Return what tells the directory *fd* from others that had its name."""
    return backing.identity(fd)


def replay(
    settings: MountSettings, store: Store, root_fd: int, *, on_progress: Progress
) -> tuple[ReplayResult, float]:
    """Make directory and store agree, see reconcile(); return its result and the seconds it took."""
    started = time.monotonic()
    result = reconcile(
        store,
        root_fd,
        prefer=settings.prefer,
        clock_ns=time.time_ns,
        identity=backing.identity(root_fd),
        on_progress=on_progress,
        allow_reserved=settings.snapdir == "disabled",
        chunking=settings.chunking,
    )
    return result, time.monotonic() - started


def reserved(settings: MountSettings) -> bytes | None:
    """Return the name of the history in the root; None if it is disabled."""
    return None if settings.snapdir == "disabled" else RESERVED


def keep_imports_off(mountpoint: Path) -> None:
    """Have no import after this look into the mount: this process could not answer itself."""
    sys.path[:] = [p for p in sys.path if not is_below(p, mountpoint)]


def is_below(path: str, directory: Path) -> bool:
    """Return whether *path*, relative to the current directory, is *directory* or inside it."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))


def raise_limits() -> None:
    """Let this process have as many fds as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def options_of(settings: MountSettings) -> set[str]:
    """Return the mount options that the kernel is to hear."""
    options = (
        ("allow_other", settings.allow_other),
        ("ro", settings.read_only),
        ("suid", settings.suid),
        ("dev", settings.dev),
        ("noexec", not settings.exec),
        ("noatime", settings.noatime),
        ("sync", settings.sync),
        ("dirsync", settings.dirsync),
    )
    return {option for option, on in options if on}
