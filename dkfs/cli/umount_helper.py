"""Unmount as umount(8) asks for it.

    umount.fuse.dkfs MOUNTPOINT [-nlfvr] [-t TYPE]

exit status, as umount(8) has it:
  0 the mount is gone, 1 usage, 32 it is not
"""

import argparse

from dkfs.cli import umount
from dkfs.cli.parser import Parser, new_parser
from dkfs.errors import UsageError


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("umount.fuse.dkfs", __doc__)
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="where dkfs is mounted")
    parser.add_argument("-f", "-l", dest="force", action="store_true", help="detach at once")
    for letter in "nvrc":
        parser.add_argument(f"-{letter}", dest="ignored", action="store_true", help="nothing")
    parser.add_argument("-t", dest="type", metavar="TYPE", help="nothing")
    parser.add_argument("-N", dest="namespace", metavar="FILE", help="refused")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    if "namespace" in args:
        raise UsageError(
            "-N: unmounting in another mount namespace is not supported; use nsenter(1)"
        )
    return umount.run(args)
