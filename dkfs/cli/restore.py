"""Copy a version, or a part of it, out into a new directory.

    dkfs restore VERSION[:PATH] --target DIR [-n]

DIR must be empty or absent.  Contents are checked against their hashes; modes, owners, times, extended attributes,
links and holes come back too.  What is damaged or not permitted is named on stderr, and everything else is restored.

exit status:
  0 ok, 1 something could not be restored, or DIR is not empty, 2 usage, 3 no such version or path, 4 store trouble,
  5 damage found
"""

import argparse
import os
from pathlib import Path

from dkfs.cli.output import emit, note, printable, size_text, status_of_problems
from dkfs.cli.parser import Parser, add_dry_run, new_parser
from dkfs.cli.progress import Progress
from dkfs.cli.reading import Reading, reading
from dkfs.errors import ExistsError, UsageError
from dkfs.history.restore import restore
from dkfs.history.tree import Tree
from dkfs.model.ids import Seq
from dkfs.model.node import Kind


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("restore", __doc__)
    parser.add_argument("place", metavar="VERSION[:PATH]", help="what to restore")
    parser.add_argument("-t", "--target", metavar="DIR", required=True, help="where to")
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    target = Path(args.target)
    with reading(args) as view:
        seq, path = view.place(args.place)
        _check_target(target, view)
        if "dry_run" in args:
            return _dry_run(view, seq, path, args)
        with Progress("restoring") as progress:
            result = restore(
                view.reader,
                seq,
                path,
                target,
                on_progress=progress.replay,
            )
    for problem in result.problems:
        note(f"dkfs: {problem}")
    _sum_up(args, seq, result.created, result.bytes_written, len(result.problems))
    return status_of_problems(len(result.problems), result.damaged)


def _check_target(target: Path, view: Reading) -> None:
    real = Path(os.path.realpath(target))
    if real.is_relative_to(view.location.store):
        raise UsageError(
            f"target {printable(str(target))} lies in the store, expected it elsewhere"
        )


def _dry_run(view: Reading, seq: Seq, path: bytes, args: argparse.Namespace) -> int:
    target = Path(args.target)
    if os.path.lexists(target) and not target.is_dir():
        raise UsageError(f"{target} is not a directory: expected an empty one, or nothing")
    if target.is_dir() and any(target.iterdir()):
        raise ExistsError(f"{target} is not empty: expected an empty directory, or nothing")
    nodes: set[int] = set()
    size = 0
    for below, node, state in Tree(view.reader, seq).walk(path):
        if node not in nodes and (below != path or state.attr.kind is not Kind.DIR):
            nodes.add(node)
            size += state.attr.size if state.attr.kind is Kind.FILE else 0
    _sum_up(args, seq, len(nodes), size, 0)
    return 0


def _sum_up(args: argparse.Namespace, seq: Seq, nodes: int, size: int, problems: int) -> None:
    dry_run = "dry_run" in args
    if "json" in args:
        emit(
            "summary",
            version=seq,
            target=args.target,
            nodes=nodes,
            bytes=size,
            problems=problems,
            dry_run=dry_run,
        )
        return
    verb = "would restore" if dry_run else "restored"
    entries = "1 entry" if nodes == 1 else f"{nodes} entries"
    print(f"{verb} {entries}, {size_text(size)}, of version {seq} to {printable(args.target)}")
