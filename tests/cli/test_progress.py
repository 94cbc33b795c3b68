"""dkfs.cli.progress."""

import io

from dkfs.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_bar_is_drawn_and_cleared() -> None:
    terminal = Terminal()

    with Progress("restoring", stream=terminal) as progress:
        progress.update(1, 2)
        progress.update(2, 2)  # too soon after the last

    bar = "#" * 15 + " " * 15
    assert terminal.getvalue() == f"\rrestoring [{bar}] 1/2\x1b[K\r\x1b[K"


def test_a_total_that_is_not_known_is_not_guessed() -> None:
    terminal = Terminal()

    with Progress("replaying", stream=terminal) as progress:
        progress.replay(7, 0, 4096)

    assert terminal.getvalue().startswith("\rreplaying 7\x1b[K")


def test_elsewhere_nothing_is_drawn() -> None:
    stream = io.StringIO()

    with Progress("restoring", stream=stream) as progress:
        progress.update(1, 2)

    assert stream.getvalue() == ""
