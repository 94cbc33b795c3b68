"""Keep a version from being forgotten, by giving it a name that holds it.

    dkfs hold NAME [VERSION] [--expires DUR] [-n]     hold VERSION, by default the present state
    dkfs hold [--list]                                show all holds

A hold is a tag that `dkfs forget` and the daemon's own pruning respect, whatever the policy. It ends with
`dkfs release`, or by itself after DUR (such as 90d, 1y6m; m is months), and then keeps nothing any more.

exit status:
  0 ok, 1 the name is taken or the daemon could not, 2 usage, 3 no such version, 4 store trouble
"""

import argparse
import time
from typing import Final

from dkfs.cli.changing import make_tag, say
from dkfs.cli.location import find
from dkfs.cli.parser import Parser, add_dry_run, new_parser
from dkfs.cli.policy import local_zone
from dkfs.cli.tag import show
from dkfs.core.durations import parse
from dkfs.errors import UsageError

_LATEST_NS: Final = (1 << 63) - 1  # that a record can hold; the year 2262


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("hold", __doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="the hold")
    parser.add_argument("version", nargs="?", metavar="VERSION", help="what to hold")
    parser.add_argument("-l", "--list", action="store_true", help="show all holds")
    parser.add_argument("--expires", metavar="DUR", help="it ends by itself after DUR")
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    if "name" not in args or "list" in args:
        if "name" in args or "expires" in args:
            raise UsageError("hold: expected NAME, or --list and nothing else")
        show(args, only_holds=True)
        return 0
    version = make_tag(args, find(args).store, is_hold=True, expires_ns=_expiry_ns(args))
    say(
        args,
        "hold",
        "holding version {version} as {name}",
        "would hold version {version} as {name}",
        version,
    )
    return 0


def _expiry_ns(args: argparse.Namespace) -> int | None:
    if "expires" not in args:
        return None
    expiry_ns = parse(args.expires).after(time.time_ns(), local_zone)
    if expiry_ns > _LATEST_NS:
        raise UsageError(f"--expires {args.expires}: expected less, or no --expires")
    return expiry_ns
