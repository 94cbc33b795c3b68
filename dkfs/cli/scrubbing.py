"""What is known of scrubs, in words; for `dkfs scrub` and `dkfs status`."""

from collections.abc import Mapping

from dkfs.cli.asking import number
from dkfs.cli.output import local_time, size_text


def scrub_lines(answer: Mapping[str, object]) -> list[str]:
    """Return what is known of scrubs, for people."""
    lines = []
    if answer.get("started") is False:
        lines.append("a scrub is under way already")
    elif answer.get("scrub_running") is True:
        lines.append("stopping" if answer.get("stopped") is True else f"scrubbing, {_done(answer)}")
    elif answer.get("stopped") is False:
        lines.append("no scrub is under way")
    return [*lines, f"last scrub: {last_text(answer)}"]


def last_text(answer: Mapping[str, object]) -> str:
    """Return when the last scrub ended, and what it found."""
    finished = answer.get("scrub_finished")
    if not isinstance(finished, int | float):
        return "never"
    damage = number(answer, "scrub_damage")
    found = "no damage" if not damage else "1 damage" if damage == 1 else f"{damage} damages"
    return f"{local_time(int(finished * 10**9))}, {found}"


def _done(answer: Mapping[str, object]) -> str:
    done, total = number(answer, "scrub_done_bytes"), number(answer, "scrub_total_bytes")
    found = number(answer, "scrub_found")
    return f"{size_text(done)} of {size_text(total)} read" + (f", {found} damaged" if found else "")
