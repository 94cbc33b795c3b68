"""Mount the history of a store, read-only, without the directory that it is the history of.

    dkfs browse STORE MOUNTPOINT [-o allow_other] [-f]

Shows what a mount shows in .dkfs: versions/N, latest, tags/NAME, at/TIME and files/PATH/N, with the permissions
that were recorded.  Nothing is changed, no lock is taken: it works beside the mount that records, and for a copy of
a store on another machine.  Returns when the mount answers; `dkfs umount MOUNTPOINT` ends it.

exit status:
  0 mounted, 1 not mounted, 2 usage, 4 store trouble, 5 damage found
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from dkfs.cli.parser import Parser, new_parser
from dkfs.config.checks import check_mount
from dkfs.config.mounts import read_mounts
from dkfs.config.options import parse_options
from dkfs.config.resolve import resolve
from dkfs.config.settings import MountSettings
from dkfs.config.sources import Layer
from dkfs.config.values import Given
from dkfs.daemon.launch import mount
from dkfs.errors import UsageError

_TAKEN: Final = frozenset(("allow_other", "read_only", "exec", "fsname", "debug"))


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("browse", __doc__)
    parser.add_argument("origin", metavar="STORE", help="the store")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="where its history is shown")
    parser.add_argument(
        "-f", "--foreground", action="store_true", help="stay in the foreground until unmounted"
    )
    parser.add_argument(
        "-o",
        dest="options",
        action="append",
        metavar="OPTIONS",
        help="allow_other: other users may look, too; noexec, fsname=NAME, ro",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    settings = _settings(args)
    check_mount(settings, read_mounts(), uid=os.geteuid())
    return mount(settings, foreground="foreground" in args)


def _settings(args: argparse.Namespace) -> MountSettings:
    options = parse_options(",".join(getattr(args, "options", ())))
    for name, given in options.items():
        if name not in _TAKEN or (name == "read_only" and given.text == "false"):
            raise UsageError(f"{given.where}: expected allow_other, noexec, fsname=NAME or ro")
    store = Given(args.origin, "STORE")
    layer: Layer = {
        **options,
        "state_dir": store,
        "store": store,
        "mountpoint": Given(args.mountpoint, "MOUNTPOINT"),
    }
    if "debug" in args:
        layer["debug"] = Given(args.debug, "--debug")
    settings = resolve(layer, base=Path.cwd())
    # A link to a store is one, too.
    real = Path(os.path.realpath(settings.store))
    return replace(settings, store=real, state_dir=real, history_only=True, read_only=True)
