"""Commands that ask the daemon of a mount: what they send, and how its answers are printed."""

import argparse
import base64
from collections.abc import Iterable, Mapping
from pathlib import Path

from dkfs.cli.location import Location
from dkfs.cli.output import emit, json_path, note, printable, status_of_problems
from dkfs.cli.progress import Progress
from dkfs.cli.reading import reading_at
from dkfs.daemon.control import request

Answer = Mapping[str, object]


def ask(store: Path, command: str, **members: object) -> Answer:
    """Return the daemon's answer to *command*, showing its progress; raises what the daemon raised."""
    with Progress(command) as progress:

        def show(message: Mapping[str, object]) -> None:
            progress.update(number(message, "done"), number(message, "total"))

        return request(store, {"command": command, **members}, show)


def settled_version(location: Location, text: str) -> int:
    """Return the version that *text* means once all that was done until now is committed."""
    ask(location.store, "flush")
    with reading_at(location) as view:
        return view.version(text)


def number(answer: Answer, key: str) -> int:
    """Return the whole number at *key*, 0 if there is none."""
    value = answer.get(key, 0)
    return value if isinstance(value, int) else 0


def encoded(paths: Iterable[bytes]) -> list[str]:
    """Return *paths* as the control protocol has them."""
    return [base64.b64encode(path).decode("ascii") for path in paths]


def print_changes(answer: Answer, args: argparse.Namespace, done: str) -> int:
    """Print what a rollback, undo or redo changed, or would change, and a line that sums it up.

    Return the exit status: 1 if something could not be changed.
    """
    changes = answer.get("changes")
    as_json = getattr(args, "json", False)
    for change in changes if isinstance(changes, list) else ():
        path = _path(change)
        if as_json:
            emit("change", json_path(path), change=change["change"])
        else:
            print(f"{change['change']}  {printable(path) or '/'}")
    known = ("changes", "message_type", "seq")
    rest = {key: value for key, value in answer.items() if key not in known}
    dry_run = getattr(args, "dry_run", False)
    if as_json:
        emit("summary", {"version": answer.get("seq")}, rest, dry_run=dry_run)
    elif dry_run:
        print(f"would go to version {answer.get('target')}, {_count(answer)}")
    else:
        print(
            f"{done} version {answer.get('target')}, {_count(answer)};"
            f" this is version {answer.get('seq')}"
        )
    problems = answer.get("problems")
    for problem in problems if isinstance(problems, list) else ():
        note(f"dkfs: {printable(str(problem))}")
    count = len(problems) if isinstance(problems, list) else 0
    return status_of_problems(count, number(answer, "damaged"))


def _path(change: Mapping[str, str]) -> bytes:
    if "path_b64" in change:
        return base64.b64decode(change["path_b64"])
    return change["path"].encode("utf-8", "surrogateescape")


def _count(answer: Answer) -> str:
    changed = number(answer, "changed")
    return f"{changed} {'change' if changed == 1 else 'changes'}"
