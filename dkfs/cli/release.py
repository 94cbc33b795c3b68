"""End a hold: its version may be forgotten again.

    dkfs release NAME [-n]

The name goes; the version stays until a policy forgets it.

exit status:
  0 ok, 1 NAME is a tag that holds nothing, or the daemon could not, 2 usage, 3 no such hold, 4 store trouble
"""

import argparse

from dkfs.cli.changing import remove_tag, say
from dkfs.cli.location import find
from dkfs.cli.parser import Parser, add_dry_run, new_parser


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("release", __doc__)
    parser.add_argument("name", metavar="NAME", help="the hold")
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    version = remove_tag(args, find(args).store, is_hold=True)
    say(
        args,
        "release",
        "released {name}, version {version}",
        "would release {name}, version {version}",
        version,
    )
    return 0
