"""`dkfs run -- CMD`: a mount, an application on it, and who looks after both.

Two processes: this one supervises and may be PID 1 of a container; the daemon serves.  They are apart
because starting CMD may read from the mount, which a process that waits for it could not serve.
"""

import contextlib
import ctypes
import errno
import logging
import os
import shutil
import signal
import sys
import time
from typing import NoReturn

from dkfs.config.settings import MountSettings
from dkfs.daemon.launch import Progress, start
from dkfs.daemon.remains import MARK, kill_remains
from dkfs.daemon.session import detach_dead
from dkfs.daemon.txn import Txn, tell
from dkfs.errors import CommandError, DkfsError

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
_NOT_FORWARDED = {
    signal.SIGCHLD,
    signal.SIGKILL,
    signal.SIGSTOP,
    # These would be ours, not the application's.
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGABRT,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGTSTP,
}
_GRACE_S = 10.0  # between SIGTERM and SIGKILL for an application that lost its mount


def run(
    settings: MountSettings,
    argv: list[str],
    *,
    on_progress: Progress | None = None,
    is_txn: bool = False,
) -> int:
    """Replay, mount, run *argv* there, record everything, unmount; return the exit status of *argv*.

    128 + n if signal n ended it; 127 or 126 if it cannot be run, before anything is touched.  *is_txn*: if it fails, what
    was done since it was started is taken back.
    Raises DkfsError if the mount cannot be made.
    """
    program = _find(argv[0], settings)
    reading, writing = os.pipe()
    handled = set(signal.valid_signals()) - _NOT_FORWARDED
    daemon = start(settings, on_progress=on_progress, lifeline=(reading, writing))
    os.close(reading)
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    os.environ[MARK] = mark
    os.write(writing, mark.encode())  # whom the daemon ends if this process is killed
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    txn = _begin(settings, daemon) if is_txn else None
    # With SIGTTOU blocked a process in the background may say who has the terminal.
    signal.pthread_sigmask(signal.SIG_BLOCK, handled | {signal.SIGCHLD, signal.SIGTTOU})
    has_terminal = _foreground() == os.getpgrp()
    child = _start_command(program, argv, has_terminal=has_terminal)
    status = _watch(child, daemon, handled, has_terminal=has_terminal)
    if has_terminal and _foreground() == child:
        _give_terminal(os.getpgrp())  # to the script, say, that goes on after dkfs
    if txn is not None and status is not None:
        tell(txn.end(failed=status != 0))
    return _finish(status, child, daemon, settings)


def _begin(settings: MountSettings, daemon: int) -> Txn:
    """Begin what is taken back if the application fails; raises DkfsError, and then the mount has ended."""
    try:
        return Txn(settings.store)
    except DkfsError:
        _kill(daemon, signal.SIGTERM)
        os.waitpid(daemon, 0)
        raise


def _find(program: str, settings: MountSettings) -> str:
    """Return the path of *program*; it may lie in the state directory that is not restored yet."""
    found = shutil.which(program)
    if found is not None:
        return found
    if "/" not in program:
        raise CommandError(f"{program}: command not found", 127)
    path = os.path.abspath(program)
    for directory in (settings.mountpoint, settings.state_dir):
        if path.startswith(os.fspath(directory) + "/"):
            return program
    if os.path.exists(path):
        raise CommandError(f"{program}: not executable", 126)
    raise CommandError(f"{program}: no such file", 127)


def _start_command(program: str, argv: list[str], *, has_terminal: bool) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(program, argv, supervisor, has_terminal=has_terminal)
    with contextlib.suppress(OSError):  # the child has done it already, or has ended
        os.setpgid(pid, pid)
    return pid


def _become(program: str, argv: list[str], supervisor: int, *, has_terminal: bool) -> NoReturn:
    status = 126
    try:
        os.setpgid(0, 0)
        if has_terminal:
            _give_terminal(os.getpgrp())  # so that Ctrl-C is its own business
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != supervisor:
            os._exit(128 + signal.SIGKILL)
        # The directory this process is in may be the one that is now mounted over.
        with contextlib.suppress(OSError):
            os.chdir(os.getcwd())
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python
            signal.signal(ignored, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        os.execv(program, argv)  # noqa: S606 - that is what this command is for
    except OSError as exc:
        print(f"dkfs: {argv[0]}: {exc.strerror}", file=sys.stderr, flush=True)
        status = 127 if exc.errno == errno.ENOENT else 126
    finally:
        os._exit(status)


def _foreground() -> int:
    """Return the process group that has the terminal of standard input; 0 if that is none of ours."""
    try:
        return os.tcgetpgrp(0)
    except OSError:
        return 0


def _give_terminal(group: int) -> None:
    try:
        os.tcsetpgrp(0, group)
    except OSError as exc:
        log.debug("the terminal stays where it is: %s", exc.strerror)


def _watch(
    child: int, daemon: int, handled: set[signal.Signals], *, has_terminal: bool
) -> int | None:
    """Forward signals and reap until *child* ends; return its wait status, None if *daemon* ended."""
    while True:
        number = signal.sigwait(handled | {signal.SIGCHLD})
        if number != signal.SIGCHLD:
            _kill(child, number)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return None
            if pid == 0:
                break
            if os.WIFSTOPPED(status):
                if pid == child and has_terminal:
                    _stop_with(child)
                continue
            if pid == child:
                return status
            if pid == daemon:
                return None


def _stop_with(child: int) -> None:
    """Stop as *child* was by Ctrl-Z, so that the shell has the terminal; go on with it."""
    if _foreground() == child:
        _give_terminal(os.getpgrp())
    os.kill(os.getpid(), signal.SIGSTOP)
    if _foreground() == os.getpgrp():
        _give_terminal(child)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGCONT)


def _finish(status: int | None, child: int, daemon: int, settings: MountSettings) -> int:
    if status is None:
        print("dkfs: the daemon ended, the application cannot go on", file=sys.stderr)
        _end(child)
        kill_remains(f"{MARK}={os.environ[MARK]}".encode())
        with contextlib.suppress(OSError):
            detach_dead(os.fsencode(settings.mountpoint))
        return 1
    _kill(daemon, signal.SIGTERM)
    _, ended = os.waitpid(daemon, 0)
    code = os.waitstatus_to_exitcode(status)
    code = 128 - code if code < 0 else code
    if os.waitstatus_to_exitcode(ended) != 0:
        print("dkfs: not everything was recorded; the log says why", file=sys.stderr)
        return code or 4
    return code


def _end(child: int) -> None:
    """End the application: first kindly."""
    _kill(child, signal.SIGTERM)
    deadline_s = time.monotonic() + _GRACE_S
    while time.monotonic() < deadline_s:
        pid, _ = os.waitpid(child, os.WNOHANG)
        if pid == child:
            return
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
