"""Take back the last rollback, undo or redo that was not taken back yet.

    dkfs undo [-n]

The tree becomes what it was before, byte for byte and attribute for attribute; what was done since the
rollback is not lost, it stays in the history.  `dkfs redo` takes the undo back.  The directory must be mounted.

exit status:
  0 done, 1 the daemon could not, 2 usage, 3 nothing to undo, 4 store trouble, 5 damage found
"""

import argparse

from dkfs.cli.asking import ask, print_changes
from dkfs.cli.location import find
from dkfs.cli.parser import Parser, add_dry_run, new_parser


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("undo", __doc__)
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    answer = ask(find(args).store, "undo", dry_run=getattr(args, "dry_run", False))
    return print_changes(answer, args, "went back to")
