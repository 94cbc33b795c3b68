"""Make an earlier version current again, under the running application.

    dkfs rollback VERSION [PATH ...] [-n]

The whole tree, or only what PATHs name, becomes what it was at VERSION: only what differs is touched, what did
not exist then is removed, and everything of now stays in the history: the rollback is a version of its own, and
`dkfs undo` takes it back.  The directory must be mounted.

exit status:
  0 done, 1 the daemon could not, 2 usage, 3 no such version or path, 4 store trouble, 5 damage found
"""

import argparse

from dkfs.cli.asking import ask, encoded, print_changes, settled_version
from dkfs.cli.location import find
from dkfs.cli.parser import Parser, add_dry_run, new_parser


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("rollback", __doc__)
    parser.add_argument("version", metavar="VERSION", help="a number, latest~N, a tag, or a time")
    parser.add_argument("paths", nargs="*", default=[], metavar="PATH", help="only these")
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    location = find(args)
    paths = [location.tree_path(path) for path in args.paths]
    answer = ask(
        location.store,
        "rollback",
        version=str(settled_version(location, args.version)),
        paths=encoded(paths),
        dry_run=getattr(args, "dry_run", False),
    )
    return print_changes(answer, args, "rolled back to")
