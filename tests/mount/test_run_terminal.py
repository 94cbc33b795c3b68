"""`dkfs run` on a terminal and in a pipeline: the program meets what it would meet without it."""

import os
import pty
import select
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.mount.test_run import environment, run, words
from tests.mounting import PATIENCE_S, Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._seen = ""

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, text: str) -> None:
        """Wait until *text* is on the terminal, after what was waited for before."""
        deadline_s = time.monotonic() + PATIENCE_S
        while text not in self._seen:
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"{text!r} is not in {self._seen!r}"
            if select.select([self._fd], [], [], left_s)[0]:
                self._seen += os.read(self._fd, 4096).decode()
        self._seen = self._seen.partition(text)[2]

    def wait_for_end(self) -> None:
        """Wait until the shell, and all that it started, let go of the terminal."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, "the shell does not end"
            if select.select([self._fd], [], [], left_s)[0]:
                try:
                    os.read(self._fd, 4096)
                except OSError:  # EIO
                    return


@contextmanager
def terminal(*shell: str) -> Iterator[Terminal]:
    """Start *shell* on a new terminal; hung up at the end."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execvpe(shell[0], shell, environment())
    try:
        yield Terminal(fd)
    finally:
        os.close(fd)
        os.waitpid(pid, 0)


def line(place: Mounted, script: str) -> str:
    return shlex.join(words(place, "sh", "-c", script))


def test_a_pipe_that_is_closed_ends_who_writes_to_it_as_ever(unmounted: Mounted) -> None:
    done = run(unmounted, "sh", "-c", "yes | head -1")

    assert (done.stdout, done.stderr, done.returncode) == ("y\n", "", 0)


def test_a_program_is_waited_for_although_dkfs_was_told_to_ignore_its_children(
    unmounted: Mounted,
) -> None:
    ignoring = "import os, signal, sys; signal.signal(17, signal.SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])"
    done = run(unmounted, "sh", "-c", "exit 7", before=(sys.executable, "-c", ignoring))

    assert done.returncode == 7


def test_a_script_goes_on_with_the_terminal_afterwards(unmounted: Mounted) -> None:
    script = f"{line(unmounted, 'read x; echo got-$x')}; read y; echo then-$y"
    with terminal("sh", "-c", script) as shell:
        shell.type("one\n")
        shell.wait_for("got-one")
        shell.type("two\n")
        shell.wait_for("then-two")
        shell.wait_for_end()


def test_in_the_background_it_leaves_the_terminal_to_the_shell(unmounted: Mounted) -> None:
    with terminal("bash", "--norc", "-i") as shell:
        started = line(unmounted, "echo run''ning; sleep 1; echo do''ne")
        shell.type(f"{started} &\n")
        shell.wait_for("running")
        shell.type("echo shell-$((6 * 7))\n")
        shell.wait_for("shell-42")
        shell.wait_for("done")
        shell.type("wait; exit\n")
        shell.wait_for_end()


def test_stopped_at_the_terminal_the_shell_is_back_and_can_go_on(unmounted: Mounted) -> None:
    with terminal("bash", "--norc", "-i") as shell:
        started = line(unmounted, "echo run''ning; read x; echo got-$x")
        shell.type(f"{started}\n")
        shell.wait_for("running")
        shell.type("\x1a")
        shell.wait_for("Stopped")
        shell.type("echo shell-$((6 * 7))\n")
        shell.wait_for("shell-42")
        shell.type("fg\n")
        shell.type("one\n")
        shell.wait_for("got-one")
        shell.type("exit\n")
        shell.wait_for_end()
