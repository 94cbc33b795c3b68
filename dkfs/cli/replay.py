"""Bring a directory back from its store, and exit: for an init container, or before a program that dkfs does not run.

    dkfs replay [--state-dir DIR] [--store DIR] [--prefer newer|store|dir]

An empty or lost directory gets everything back.  Where a directory has survived, its newer files are kept and recorded
as a version of their own (--prefer newer), or the store's (store) or the directory's (dir) state wins throughout.

exit status:
  0 done, 1 something could not be brought back, 2 usage, 4 store trouble, 5 damage found
"""

import argparse

from dkfs.cli.mounting import add_flags, make_state_dir, settings_of
from dkfs.cli.output import emit, note, printable, size_text, status_of_problems
from dkfs.cli.parser import Parser, new_parser
from dkfs.cli.progress import Progress
from dkfs.daemon.launch import replay
from dkfs.history.replay import ReplayResult


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("replay", __doc__)
    add_flags(parser)
    parser.add_argument(
        "--metrics-addr", metavar="ADDR", help="accepted; there is nothing to serve"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    settings = settings_of(args, {})
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
