"""Bring a directory back from its store, and exit: for an init container, or before a program that dkfs does not run.

    dkfs replay [--state-dir DIR] [--store DIR] [--prefer newer|store|dir] [-n]

An empty or lost directory gets everything back.  Where a directory has survived, its newer files are kept and recorded
as a version of their own (--prefer newer), or the store's (store) or the directory's (dir) state wins throughout.

-n names everything that would be restored to the directory, or recorded from it, and changes nothing.

exit status:
  0 done, 1 something could not be brought back, 2 usage, 4 store trouble, 5 damage found
"""

import argparse

from dkfs.cli.mounting import add_flags, make_state_dir, settings_of
from dkfs.cli.output import emit, json_path, note, printable, size_text, status_of_problems
from dkfs.cli.parser import Parser, add_dry_run, new_parser
from dkfs.cli.progress import Progress
from dkfs.config.settings import MountSettings
from dkfs.daemon.launch import foresee, replay
from dkfs.history.replay import ReplayResult


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("replay", __doc__)
    add_flags(parser)
    parser.add_argument(
        "--metrics-addr", metavar="ADDR", help="accepted; there is nothing to serve"
    )
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    settings = settings_of(args, {})
    if "dry_run" in args:
        return _dry_run(args, settings)
    make_state_dir(settings)
    with Progress("replaying") as progress:
        result = replay(settings, on_progress=progress.replay)
    assert isinstance(result, ReplayResult)
    for problem in result.problems:
        note(f"dkfs: {printable(problem)}")
    if "json" in args:
        emit(
            "summary",
            version=result.seq,
            restored=result.restored,
            recorded=result.recorded,
            bytes=result.bytes,
            found=result.found,
            rolled_back=result.rolled_back,
            problems=len(result.problems),
        )
    else:
        found = f", {result.recorded} recorded as version {result.found}" if result.found else ""
        print(
            f"{printable(str(settings.state_dir))} is at version {result.seq}:"
            f" {result.restored} restored{found}, {size_text(result.bytes)}"
        )
    return status_of_problems(len(result.problems), result.damaged)


def _dry_run(args: argparse.Namespace, settings: MountSettings) -> int:
    counts = {"restore": 0, "record": 0}
    for fate, path in foresee(settings):
        counts[fate] += 1
        if "json" in args:
            emit("replay", json_path(path), action=fate)
        else:
            print(f"would {fate} {printable(path) or '/'}")
    if "json" in args:
        emit("summary", restored=counts["restore"], recorded=counts["record"], dry_run=True)
    else:
        where = printable(str(settings.state_dir))
        print(f"{where}: {counts['restore']} to restore, {counts['record']} to record")
    return 0
