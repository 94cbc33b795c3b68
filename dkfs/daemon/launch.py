"""Starting the daemon of a mount, and telling its starter when it answers."""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Final, NoReturn

from dkfs import errors
from dkfs.config.settings import MountSettings
from dkfs.daemon import interpreter
from dkfs.daemon.control import error_message
from dkfs.daemon.logfile import FORMAT, log_in
from dkfs.errors import DkfsError, MountError, SameProcessError

_ATTEMPTS: Final = 8

log = logging.getLogger(__name__)

Progress = Callable[[int, int, int], None]


def mount(settings: MountSettings, *, foreground: bool, on_progress: Progress | None = None) -> int:
    """Mount; return 0 when the mount answers, or, in the foreground, when it has ended well.

    Raises DkfsError, one clear line, if it cannot be made.
    """
    if foreground:
        _log_to(settings)
        return 0 if _serve(settings, on_progress or _silent, lambda: None, None) else 4
    start(settings, on_progress=on_progress)
    return 0


def start(
    settings: MountSettings,
    *,
    on_progress: Progress | None = None,
    lifeline: tuple[int, int] | None = None,
) -> int:
    """Start the daemon in a process of its own; return its pid when the mount answers.

    The daemon ends when nobody else holds the writing end of the pipe *lifeline*.  Raises DkfsError.
    """
    signal.signal(
        signal.SIGCHLD, signal.SIG_DFL
    )  # inherited as ignored, no child could be waited for
    for _ in range(_ATTEMPTS):
        with suppress(SameProcessError):  # the next process has another number
            return _start(settings, on_progress or _silent, lifeline)
    return _start(settings, on_progress or _silent, lifeline)


def _start(settings: MountSettings, on_progress: Progress, lifeline: tuple[int, int] | None) -> int:
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        if lifeline is not None:
            os.close(lifeline[1])
        _daemon(settings, writing, lifeline[0] if lifeline is not None else None)
    os.close(writing)
    try:
        _await_mounted(reading, on_progress)
        os.statvfs(settings.mountpoint)  # it answers
    except OSError as exc:
        raise MountError(f"{settings.mountpoint} does not answer: {exc.strerror}") from None
    except DkfsError:
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(reading)
    return pid


def replay(settings: MountSettings, *, on_progress: Progress | None = None) -> object:
    """Make the state directory and the store agree, without a mount; return the ReplayResult."""
    # Imported here, as in _serve(): this module is loaded for `dkfs --help` too.
    from dkfs.config.checks import check_apart, check_state_dir  # noqa: PLC0415
    from dkfs.daemon.session import detach_dead, open_backing, open_store  # noqa: PLC0415
    from dkfs.daemon.session import replay as replay_into  # noqa: PLC0415

    check_state_dir(settings)
    check_apart(settings, mounting=False)
    _log_to(settings)
    detach_dead(os.fsencode(settings.state_dir))
    with ExitStack() as stack:
        root_fd = open_backing(settings, stack)
        store = open_store(settings, stack)
        result, _ = replay_into(settings, store, root_fd, on_progress=on_progress or _silent)
        return result


def foresee(settings: MountSettings) -> Iterator[tuple[str, bytes]]:
    """Yield what replay() would do, see history.replay.foresee(); changes nothing."""
    from dkfs.config.checks import check_apart  # noqa: PLC0415 - see replay()
    from dkfs.daemon.session import identity_of  # noqa: PLC0415
    from dkfs.history.recovery import open_store  # noqa: PLC0415
    from dkfs.history.replay import foresee as found  # noqa: PLC0415

    check_apart(settings, mounting=False)
    with ExitStack() as stack:
        fd: int | None = None
        with suppress(FileNotFoundError):
            fd = os.open(settings.state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
        store = stack.enter_context(open_store(settings.store, writable=False))
        identity = identity_of(fd) if fd is not None else b""
        yield from found(store, fd, prefer=settings.prefer, identity=identity)


def _silent(done: int, total: int, size: int) -> None:
    """Show no progress."""


def _serve(
    settings: MountSettings,
    on_progress: Progress,
    on_mounted: Callable[[], None],
    lifeline: int | None,
) -> bool:
    # Imported here: trio, pyfuse3 and lmdb are for the process that serves, and not for a fork.
    if settings.read_only:
        from dkfs.daemon.viewing import view  # noqa: PLC0415

        return view(settings, on_mounted=on_mounted, lifeline=lifeline)
    from dkfs.store.index import INDEX_NAME  # noqa: PLC0415
    from dkfs.store.pages import Verification  # noqa: PLC0415

    interpreter.begin()
    with closing(Verification(settings.store / INDEX_NAME)) as verification:
        from dkfs.daemon.session import serve  # noqa: PLC0415 - takes as long as the verification

        return serve(
            settings,
            on_progress=on_progress,
            on_mounted=on_mounted,
            lifeline=lifeline,
            verification=verification,
        )


def _daemon(settings: MountSettings, report: int, lifeline: int | None) -> NoReturn:
    """Be the daemon: never returns."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _log_to(settings, quietly=lifeline is not None)
        os.chdir("/")
        status = _reported(settings, report, lifeline)
    except BaseException:  # the last edge of a process: nothing above could say it
        log.exception("the daemon ended by an internal error")
    finally:
        logging.shutdown()
        os._exit(status)


def _reported(settings: MountSettings, report: int, lifeline: int | None) -> int:
    said = time.monotonic()

    def say(message: dict[str, object]) -> None:
        os.write(report, json.dumps(message).encode() + b"\n")

    def progress(done: int, total: int, size: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said > 0.1:
            said = now
            say({"message_type": "progress", "done": done, "total": total, "bytes": size})

    def mounted() -> None:
        say({"message_type": "result"})
        os.close(report)
        if lifeline is None and settings.log_file is None and not settings.read_only:
            log_in(settings.store, logging.DEBUG if settings.debug else logging.WARNING)
        _let_go_of_terminal(settings, keeps_stderr=lifeline is not None)

    try:
        return 0 if _serve(settings, progress, mounted, lifeline) else 4
    except DkfsError as exc:
        try:
            say(error_message(exc))
        except OSError:  # mounted already: nobody listens, but the log does
            log.error("%s", exc)  # noqa: TRY400 - the trace of the OSError says nothing
        return exc.exit_status


def _let_go_of_terminal(settings: MountSettings, *, keeps_stderr: bool) -> None:
    """Keep no end of the starter's pipes open: who reads them would wait for the daemon.

    The daemon of `dkfs run` ends before its starter does, and its warnings belong on that stderr.
    """
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    if settings.log_file is not None or not (keeps_stderr or os.isatty(2)):
        os.dup2(null, 2)
    os.close(null)


def _await_mounted(reading: int, on_progress: Progress) -> None:
    with os.fdopen(os.dup(reading), "rb") as lines:
        for line in lines:
            message = json.loads(line)
            kind = message["message_type"]
            if kind == "result":
                return
            if kind == "error":
                raise getattr(errors, message["class"], DkfsError)(message["message"])
            on_progress(message["done"], message["total"], message["bytes"])
    raise MountError("the daemon ended before the mount answered; its log says why")


def _log_to(settings: MountSettings, *, quietly: bool = False) -> None:
    """Log to where *settings* say; *quietly*: beside an application on one stderr, warnings only."""
    level = logging.WARNING if quietly and settings.log_file is None else logging.INFO
    logging.basicConfig(
        level=logging.DEBUG if settings.debug else level,
        format=FORMAT,
        filename=settings.log_file,
        force=True,
    )
