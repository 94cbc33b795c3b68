"""Mount a directory and record its history.

    dkfs mount STATE_DIR [MOUNTPOINT] [--store DIR] [-o OPTIONS] [-f]

STATE_DIR keeps the files as they are now, the store (by default /deltas/db) every version they ever had.  Without
MOUNTPOINT the mount covers STATE_DIR itself.  Returns when the mount answers.  A setting is taken from its flag, else
from -o, else from the environment (DKFS_STORE, ...; DIFFKEEPER_... for those that DiffKeeper had), else from the
configuration file.

exit status:
  0 mounted, 1 not mounted, 2 usage, 4 store trouble, 5 damage found
"""

import argparse
import os

from dkfs.cli.mounting import add_flags, add_mount_flags, settings_of
from dkfs.cli.parser import Parser, new_parser
from dkfs.cli.progress import Progress
from dkfs.config.checks import check_mount
from dkfs.config.mounts import read_mounts
from dkfs.config.sources import Layer
from dkfs.config.values import Given
from dkfs.daemon.launch import mount
from dkfs.errors import UsageError


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("mount", __doc__)
    parser.add_argument(
        "directories",
        nargs="*",
        default=[],
        metavar="STATE_DIR [MOUNTPOINT]",
        help="what and where",
    )
    parser.add_argument(
        "-f", "--foreground", action="store_true", help="stay in the foreground until unmounted"
    )
    add_flags(parser)
    add_mount_flags(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    settings = settings_of(args, _paths(args))
    check_mount(settings, read_mounts(), uid=os.geteuid())
    with Progress("replaying") as progress:
        return mount(settings, foreground="foreground" in args, on_progress=progress.replay)


def _paths(args: argparse.Namespace) -> Layer:
    words = list(args.directories)
    paths: Layer = {}
    if "state_dir" not in args and words:
        paths["state_dir"] = Given(words.pop(0), "STATE_DIR")
    if words:
        paths["mountpoint"] = Given(words.pop(0), "MOUNTPOINT")
    if words:
        raise UsageError(f"mount: {words[0]!r} is one directory too many (see dkfs mount --help)")
    return paths
