"""Forget the versions that a policy does not keep, and give what they held back to the disk.

    dkfs prune [--keep-...] [-n] [--explain]

This is `dkfs forget` and then `dkfs gc`.  Without flags the policy is the one of the configuration file, [retention].
See `dkfs forget --help` for the rules.

exit status:
  0 ok, 1 the daemon could not, 2 usage, or a policy that keeps nothing, 4 store trouble, 5 damage found
"""

import argparse

from dkfs.cli import forget
from dkfs.cli.parser import Parser, add_dry_run, new_parser
from dkfs.cli.policy import add_policy, config_of
from dkfs.config.retention import KEYS
from dkfs.errors import UsageError


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("prune", __doc__)
    add_policy(parser)
    parser.add_argument(
        "--explain", action="store_true", help="say why each version is kept, or that it is not"
    )
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    if not any(key in args for key in KEYS):
        if "policy" not in args and not config_of(args):
            raise UsageError(
                "no policy, nothing is forgotten: expected --keep-last, --keep-daily, --keep-within, ..."
                " or --config FILE (or DKFS_CONFIG) with [retention]"
            )
        args.policy = True
    args.prune = True
    return forget.run(args)
