"""Run a program on a directory that never forgets: replay, mount, run, record, unmount.

    dkfs run [FLAGS] [--] COMMAND [ARGUMENT ...]
    dkfs run --txn [FLAGS] [--] COMMAND [ARGUMENT ...]

Brings --state-dir back from --store if it was lost, mounts dkfs over it (or at --mountpoint), runs COMMAND, forwards
signals to it, and when it ends waits until everything is recorded.  Made to wrap the entry point of a container; as
process 1 it also reaps what COMMAND leaves behind.  Root's mount is open to other users, as the directory was.

With --txn the version before COMMAND is held, and if COMMAND fails (an exit status other than 0, or a signal) the
mount goes back to it; the rollback is a version like any other, `dkfs undo` takes it back.  Where a mount uses the
store already (that of --store, DKFS_STORE, or the one that the current directory lies in), COMMAND runs on that one.
There is no isolation: others see at once what COMMAND does, and what they do meanwhile goes back with it.  If dkfs
itself is killed, nothing is taken back; the hold, txn-TIME-PID, stays until the next mount of the store or run --txn.

exit status:
  that of COMMAND, 128 + N if signal N ended it, 127 if it is not there, 126 if it cannot be executed;
  before COMMAND starts: 1 failed, 2 usage, 4 store trouble, 5 damage found
"""

import argparse
import os
from contextlib import suppress
from pathlib import Path

from dkfs.cli.location import find
from dkfs.cli.mounting import add_flags, add_mount_flags, make_state_dir, settings_of
from dkfs.cli.parser import Parser, new_parser
from dkfs.cli.progress import Progress
from dkfs.config.checks import check_mount
from dkfs.config.mounts import read_mounts
from dkfs.config.sources import Layer
from dkfs.config.values import Given
from dkfs.daemon.supervise import run as supervise
from dkfs.daemon.txn import is_served, run_there
from dkfs.errors import UsageError


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("run", __doc__)
    parser.add_argument(
        "--mountpoint", metavar="DIR", help="mount there (default: over --state-dir)"
    )
    parser.add_argument("--txn", action="store_true", help="take everything back if COMMAND fails")
    add_flags(parser)
    add_mount_flags(parser)
    parser.add_argument(
        "program",
        nargs=argparse.REMAINDER,
        metavar="COMMAND",
        help="what to run, with its arguments",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    program: list[str] = args.program[1:] if args.program[:1] == ["--"] else args.program
    if not program:
        raise UsageError("run: no command, expected dkfs run [FLAGS] -- COMMAND ...")
    if "txn" in args and (store := _used_store(args)) is not None:
        return run_there(store, program)
    paths: Layer = {}
    if "mountpoint" in args:
        paths["mountpoint"] = Given(args.mountpoint, "--mountpoint")
    others = {"allow_other": Given("true", "default for root")} if os.geteuid() == 0 else {}
    settings = settings_of(args, paths, defaults=others)
    make_state_dir(settings)
    check_mount(settings, read_mounts(), uid=os.geteuid())
    with Progress("replaying") as progress:
        return supervise(settings, program, on_progress=progress.replay, is_txn="txn" in args)


def _used_store(args: argparse.Namespace) -> Path | None:
    """Return the store that is meant if a mount uses it."""
    if "state_dir" in args and "store" not in args:
        return None
    with suppress(UsageError):  # no store is named
        store = find(args).store
        return store if is_served(store) else None
    return None
