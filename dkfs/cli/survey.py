"""Look through a store for the daemon that serves it; started by the daemon, not by people.

    dkfs __survey STORE FD LIMIT

exit status:
  0 the daemon has gone, 1 anything else
"""

import argparse
from pathlib import Path

from dkfs.cli.parser import Parser, new_parser
from dkfs.daemon.surveying import serve


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("__survey", __doc__)
    parser.add_argument("place", metavar="STORE", help="the store")
    parser.add_argument("fd", type=int, metavar="FD", help="the socket to the daemon")
    parser.add_argument("limit", type=int, metavar="LIMIT", help="bytes of a full segment")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    return serve(Path(args.place), args.fd, limit=args.limit)
