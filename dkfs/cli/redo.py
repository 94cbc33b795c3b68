"""Take back the last undo.

    dkfs redo [-n]

The tree becomes again what the rollback had made it.  The directory must be mounted.

exit status:
  0 done, 1 the daemon could not, 2 usage, 3 nothing to redo, 4 store trouble, 5 damage found
"""

import argparse

from dkfs.cli.asking import ask, print_changes
from dkfs.cli.location import find
from dkfs.cli.parser import Parser, add_dry_run, new_parser


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("redo", __doc__)
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    answer = ask(find(args).store, "redo", dry_run=getattr(args, "dry_run", False))
    return print_changes(answer, args, "went forward to")
