"""Mount as mount(8) asks for it: mount -t fuse.dkfs STATE_DIR MOUNTPOINT -o OPTIONS.

    mount.fuse.dkfs STATE_DIR MOUNTPOINT [-sfnv] [-o OPTIONS] [-t TYPE]

exit status, as mount(8) has it:
  0 mounted, 1 usage, 2 store or system trouble, 8 interrupted, 32 not mounted
"""

import argparse
import os

from dkfs.cli.mounting import settings_of
from dkfs.cli.parser import Parser, new_parser
from dkfs.config.checks import check_mount
from dkfs.config.mounts import read_mounts
from dkfs.config.values import Given
from dkfs.daemon.launch import mount
from dkfs.errors import UsageError


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("mount.fuse.dkfs", __doc__)
    parser.add_argument("source", metavar="STATE_DIR", help="the directory whose history is kept")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="where it is to appear")
    parser.add_argument("-o", dest="options", action="append", metavar="OPTIONS", help="options")
    parser.add_argument("-s", dest="sloppy", action="store_true", help="ignore unknown options")
    parser.add_argument("-f", dest="fake", action="store_true", help="check, do not mount")
    parser.add_argument(
        "-n", dest="no_mtab", action="store_true", help="nothing, as there is no mtab"
    )
    parser.add_argument("-v", dest="verbose", action="store_true", help="nothing")
    parser.add_argument("-t", dest="type", metavar="TYPE", help="nothing")
    parser.add_argument("-N", dest="namespace", metavar="FILE", help="refused")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    if "namespace" in args:
        raise UsageError("-N: mounting in another mount namespace is not supported; use nsenter(1)")
    paths = {
        "state_dir": Given(args.source, "STATE_DIR"),
        "mountpoint": Given(args.mountpoint, "MOUNTPOINT"),
    }
    settings = settings_of(args, paths, sloppy="sloppy" in args)
    check_mount(settings, read_mounts(), uid=os.geteuid())
    return 0 if "fake" in args else mount(settings, foreground=False)
