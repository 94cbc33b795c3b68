"""Write a version, or a part of it, as an archive; or one file as it was.

    dkfs dump VERSION[:PATH] --archive tar|zip [-o FILE]
    dkfs dump VERSION:PATH [-o FILE]

Without -o the archive goes to stdout, but not to a terminal.  A tar holds all that the history has but sockets: owners,
modes, times to the nanosecond, extended attributes and ACLs, hard links, holes, devices.  As root,

    dkfs dump latest --archive tar | tar xpf - --xattrs --xattrs-include='*' --numeric-owner -C DIR

brings it back.  A zip holds contents, modes, owners, symlinks and times to the second; what it cannot hold is named on
stderr.  Without --archive PATH is a file, and its bytes are written.

Every byte is checked against its hash first: what is damaged is left out and named, the rest is there.  FILE gets its
name when it is complete.

exit status:
  0 ok, 1 something could not be written, 2 usage, 3 no such version or path, 4 store trouble, 5 damage found
"""

import argparse
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from dkfs.cli.appearing import replacing, standard_output
from dkfs.cli.output import emit, note, printable, size_text, status_of_problems
from dkfs.cli.parser import Parser, new_parser
from dkfs.cli.progress import Progress
from dkfs.cli.reading import Reading, reading
from dkfs.errors import UsageError
from dkfs.history import fileout
from dkfs.history.archive import Data, Dumped, Format, Write, dump
from dkfs.history.tarball import TarFormat
from dkfs.history.tree import Tree
from dkfs.history.ziparchive import ZipFormat
from dkfs.model.ids import Seq
from dkfs.model.node import Kind

_FORMATS: Final[dict[str, Callable[[Write], Format]]] = {"tar": TarFormat, "zip": ZipFormat}


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("dump", __doc__)
    parser.add_argument("place", metavar="VERSION[:PATH]", help="what to write")
    parser.add_argument("-a", "--archive", choices=sorted(_FORMATS), metavar="FORMAT", help="as")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to; stdout if not given")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    if "output" not in args:
        if "json" in args:
            raise UsageError("dump to stdout prints contents, not JSON: expected -o FILE")
        if sys.stdout.isatty():
            raise UsageError("dump does not write to a terminal: expected -o FILE, or a pipe")
    with reading(args) as view:
        seq, path = view.place(args.place)
        if "archive" not in args:
            return _file(view, seq, path, args)
        with _output(args) as out, Progress("dumping") as progress:
            result = dump(
                view.reader,
                seq,
                path,
                _FORMATS[args.archive](out.write),
                on_progress=progress.replay,
            )
            size = out.tell() if "output" in args else 0
    for line in result.left_out:
        note(f"dkfs: a {args.archive} cannot hold {line}: left out")
    for line in result.problems:
        note(f"dkfs: {line}")
    _sum_up(args, seq, result, size)
    return status_of_problems(len(result.problems), result.damaged)


def _file(view: Reading, seq: Seq, path: bytes, args: argparse.Namespace) -> int:
    tree = Tree(view.reader, seq)
    state = tree.state(tree.resolve(path))
    if state.attr.kind is not Kind.FILE:
        kind = state.attr.kind.name.lower()
        raise UsageError(
            f"{printable(path) or '/'} is a {kind} at version {seq}: expected a file, or --archive"
        )
    data = Data(view.reader, state)
    with _output(args) as out:
        if "output" in args and _is_new(args.output):
            out.flush()
            fileout.write_new(out.fileno(), view.reader, state)
        else:
            for chunk in data.chunks(holes=True):
                out.write(chunk)
    _sum_up(args, seq, Dumped(1, (), 0, ()), state.attr.size)
    return 0


def _sum_up(args: argparse.Namespace, seq: Seq, result: Dumped, size: int) -> None:
    if "output" not in args:
        return
    if "json" in args:
        emit(
            "summary",
            version=seq,
            output=args.output,
            entries=result.entries,
            bytes=size,
            left_out=len(result.left_out),
            problems=len(result.problems),
        )
        return
    entries = "1 entry" if result.entries == 1 else f"{result.entries} entries"
    print(f"wrote {entries}, {size_text(size)}, of version {seq} to {printable(args.output)}")


def _is_new(path: str) -> bool:
    """Return whether *path* is, or will be, a regular file."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return True


@contextmanager
def _output(args: argparse.Namespace) -> Iterator[BinaryIO]:
    """Open where it goes; a regular file appears under its name at the end, or not at all."""
    if "output" not in args:
        with standard_output() as out:
            yield out
        return
    if not _is_new(args.output):
        with open(args.output, "wb") as file:
            yield file
        return
    with replacing(Path(args.output)) as file:
        yield file
